//! Kernel modules: finding them by name or alias, and loading them with what they depend on.
//!
//! Reads what depmod wrote into `/usr/lib/modules/RELEASE` and what administrators wrote into `modprobe.d`. The lookups
//! and the plan are pure; [`insert`] and [`Loader`] act.

pub mod command;
pub mod config;
pub mod index;
pub mod info;
pub mod insert;
pub mod load;
pub mod loader;
pub mod present;

pub use loader::Loader;
