//! The update agent: brings signed releases into the slot that is not running, on trial, and back when they fail.
//!
//! `commit` and `recovery` are the core: they change the disk through [`target::Target`] and [`esp::EspFiles`] only, in an order that
//! leaves something to boot at any moment; `crash` (tests) replays that. Everything else decides or carries bytes.
//! Relies on `disk-layout` for what the disk looks like, and on `init` for the verdict about a trial.

#![deny(unsafe_code, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout))]

pub mod agent;
pub mod cli;
pub mod commit;
pub mod daemon;
pub mod download;
pub mod esp;
pub mod etcd;
pub mod fetch;
pub mod floor;
pub mod host;
pub mod kernel;
pub mod policy;
mod process;
pub mod recovery;
mod roots;
pub mod settings;
pub mod slots;
pub mod state;
pub mod status;
pub mod target;
pub mod trust;
pub mod verity;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod service;
