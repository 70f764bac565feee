//! From a [`Tree`](crate::tree::Tree) to disk image files: EROFS, verity tree, UKI, ESP, GPT, and one writer for each
//! output format. [`build::assemble`] does all of it; [`inspect`] reads an image back.
//!
//! Everything is planned first and written once: a part of the disk is a [`source::Source`], which can be read
//! anywhere at any time, by any thread, and a [`plan::DiskPlan`] says where on the disk each lies. So no part is held
//! in memory for longer than it is small, and every output format sees the same disk.
//!
//! It promises equal bytes for equal inputs, whatever the number of cores.

pub mod build;
pub mod erofs;
mod error;
pub mod esp;
pub mod gpt;
pub mod initramfs;
pub mod inspect;
pub mod output;
pub mod plan;
pub mod seed;
pub mod source;
pub mod sparse;
pub mod uki;
pub mod verity;

pub use error::ImageError;

/// One mebibyte, to which partitions are aligned.
pub const MIB: u64 = 1 << 20;

/// The time of everything in an image: 1980-01-01 00:00:00 UTC, the earliest that FAT can express too.
pub const FIXED_TIME: u32 = 315_532_800;
