//! Unit files as people bring them, run by the real engine: what their directives do to real processes.
//!
//! Needs root and a cgroup v2 hierarchy to make groups in, and python3.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test helpers are not test functions to clippy")]

#[path = "../support/engine.rs"]
mod engine;

mod actions;
mod activation;
mod dependencies;
mod messages;
mod misbehaviour;
mod others_units;
mod power;
mod processes;
mod questions;
