//! systemd unit files: their syntax, what they mean as typed data, and what enabling them does.
//!
//! PID 1 runs the units, the image builder enables them, cloud-config checks them; all three read them here. The crate
//! sees files only through [`source::UnitSource`]. It promises that no input, whatever its bytes, makes it panic, and that
//! a setting it knows ends as a field or as a [`Diagnostic`](diagnostic::Diagnostic), never in silence.

#![deny(clippy::indexing_slicing)]

pub mod calendar;
pub mod command;
pub mod condition;
pub mod defaults;
mod dependencies;
pub mod diagnostic;
pub mod directives;
pub mod environment;
pub mod exec;
pub mod glob;
pub mod index;
pub mod install;
pub mod lexer;
pub mod loader;
#[cfg(test)]
mod loader_tests;
pub mod memory;
pub mod mount;
pub mod name;
pub mod path;
pub mod resources;
pub mod service;
pub mod shared;
pub mod socket;
pub mod source;
pub mod specifier;
pub mod timer;
pub mod unit;
mod validate;
pub mod value;
pub mod verify;
pub mod words;

pub use loader::Loader;
pub use name::{UnitKind, UnitName};
pub use source::{FsSource, UnitSource};
pub use specifier::HostFacts;
pub use unit::{Config, DependencyKind, LoadState, Unit};
