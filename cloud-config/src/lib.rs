//! cloud-config: what a person wrote about one host, read, checked, planned and carried out.
//!
//! The core is pure and goes one way: bytes ([`userdata`]) -> YAML nodes with lines ([`yaml`]) -> a typed
//! [`config::Config`] with [`diagnostics`] -> a [`plan::Plan`], an ordered list of actions. Only [`apply`] and
//! [`source`] touch the machine, below a root directory that is passed in.
//!
//! The crate promises that no user-data, whatever its bytes, panics or stops anything: what is wrong is reported with its
//! line and left out, everything else is applied.

#![deny(clippy::indexing_slicing, clippy::print_stdout)]

pub mod accounts;
pub mod apply;
pub mod boot;
pub mod cli;
pub mod config;
pub mod diagnostics;
pub mod merge;
pub mod pipeline;
pub mod plan;
pub mod source;
pub mod status;
pub mod substitute;
mod sys;
pub mod userdata;
pub mod yaml;
