//! Crash tests: every operation of the core runs on a recorded disk; every prefix of its write log, subsets of what was not flushed
//! yet, and writes torn inside a sector are then given to a model of the firmware and systemd-boot ("what boots, does it
//! verify?") and to the next run of the agent ("does it finish?").

pub mod boot;
pub mod disk;
pub mod fat_esp;
pub mod fixture;
pub mod replay;
mod tests;

/// Whether everything is looked at and not a sample: set by `scripts/test-long`.
pub fn long() -> bool {
    std::env::var_os("GARBOARD_LONG_TESTS").is_some()
}
