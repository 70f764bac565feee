//! Crash tests: every operation of the core runs on a recorded disk; every prefix of its write log, subsets of what was not flushed
//! yet, and writes torn inside a sector are then given to a model of the firmware and systemd-boot ("what boots, does it
//! verify?") and to the next run of the agent ("does it finish?").

mod boot;
mod disk;
mod fat_esp;
mod fixture;
mod replay;
mod tests;
