//! Everything behind `garboard`: a recipe becomes packages, packages a tree of files, the tree an image.
//!
//! It relies on nothing of the host but its file system and network: no root, no loop device, no external tool. It
//! promises that the same recipe, lock, version and programs give the same bytes; nothing here may read the clock,
//! the user, the locale or directory order into an output.

pub mod build;
pub mod cli;
pub mod debian;
pub mod digest;
pub mod image;
pub mod progress;
pub mod qemu;
pub mod recipe;
pub mod steps;
pub mod tree;
pub mod whole_file;
