//! Disks as both the initramfs stage and the device daemon see them: partition tables, file system superblocks,
//! and which block devices the kernel knows.

pub mod block;
pub mod superblock;

pub use disk_layout::gpt;
