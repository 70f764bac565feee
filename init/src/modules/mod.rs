//! Kernel modules: finding them by name or alias, and loading them with what they depend on.

pub mod command;
pub mod load;
