//! The reboot daemon: when may this host reboot, and the reboot itself.
//!
//! [`policy`] and [`machine`] are the core: data in, decision and actions out. Everything else brings facts or carries actions out. Relies
//! on `reboot-rules` for settings, windows and inhibitors, on `daemon-socket` for what it says and is asked over sockets, on the update agent
//! to say that an update is in place, and on PID 1 to reboot. [`permission`] is what others have to say about it, by way of
//! `reboot-lock`: [`etcd_lock`], [`fleet_lock`], [`quorum_guard`]; [`connect`] makes what the settings name of these.
//! Promises: no reboot that the policy, asked at that very moment, does not allow; what was taken for a reboot that does not come is given
//! back; killed anywhere, it goes on where its journal says.

#![deny(unsafe_code, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, clippy::expect_used))]

pub mod cli;
pub mod config;
pub mod connect;
pub mod control;
pub mod daemon;
pub mod drain;
pub mod drain_task;
pub mod etcd_lock;
pub mod fleet_lock;
pub mod fleet_lock_server;
pub mod host;
pub mod inhibit_request;
pub mod inhibit_socket;
pub mod journal;
pub mod machine;
pub mod paths;
pub mod permission;
pub mod policy;
pub mod power;
pub mod quorum_guard;
pub mod status;
#[allow(unsafe_code)]
mod sys;
pub mod watch;
