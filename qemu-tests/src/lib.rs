//! Whole machines for tests: an image as `garboard build` made it, booted in QEMU as `garboard run` does, spoken to
//! over SSH, the serial console and QMP. It relies on the images that `scripts/test` has built; a machine that logged
//! a kernel oops, a panic, a verity error or a failed unit fails its test, whatever else passed.
//!
//! Everything here panics on failure, with the end of the console: it is for tests only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod console;
mod fleet;
mod guest;
mod names;
mod patience;
mod qmp;
mod shop;
mod ssh;
mod terminal;
mod web;
pub mod write_log;

pub use console::{Console, Trouble};
pub use fleet::{Fleet, Member, Node, Writer, Written};
pub use guest::{Guest, Setup};
pub use names::Names;
pub use shop::{Shop, Way, program};
pub use ssh::Reply;
pub use terminal::Terminal;
pub use web::Web;
