//! Starting an image in QEMU: finding a QEMU and firmware that are sound, deciding whether KVM really works, the
//! command line, and the disk that carries a first boot's configuration. Used by `garboard run` and by the tests
//! of whole machines, so that both start machines the same way.

mod accel;
mod find;
mod machine;
mod seed;

pub use accel::{Accelerator, probe};
pub use find::{Host, HostError, MIN_QEMU};
pub use machine::{Disk, DiskFormat, Machine, Nic};
pub use seed::{Seed, SeedError};
