//! Which host may reboot now: a semaphore for each group of hosts in etcd v3, a fair queue for those who wait, quarantine of versions that
//! failed, the quorum of etcd itself, and the FleetLock protocol. `docs/reboot-lock.md` specifies what is stored and said.
//!
//! The rules are pure functions over values ([`semaphore`], [`release`], [`quarantine`]); [`store`] is the key-value store they live in, behind a
//! trait, so that tests can break it; [`lock::RebootLock`] ties both together by compare-and-swap. Nothing here reboots, drains or decides about windows:
//! that is the daemon's. Promises: never more holders than `max` by our doing, no value overwritten that we did not understand, a request
//! that is repeated, late or unanswered changes nothing it should not.

#![deny(unsafe_code, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, clippy::expect_used))]

pub mod audit;
pub mod backoff;
mod ends;
pub mod error;
pub mod etcd;
#[cfg(test)]
mod faults;
pub mod fleetlock;
pub mod keys;
pub mod lock;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_search;
pub mod quarantine;
pub mod queue;
pub mod quorum;
pub mod release;
pub mod semaphore;
pub mod store;

pub use error::LockError;
pub use keys::Group;
pub use lock::{Options, RebootLock};
pub use semaphore::{Claim, Holder, Purpose, Semaphore};
