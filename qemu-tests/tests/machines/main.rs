//! Tests of whole machines in QEMU, a file for each subject. One program, so that two machines run at a time until the last test.
//! Ignored ones are for `scripts/test-long`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod cloud_config;
mod cluster;
mod docker;
mod reboots;
mod tiny;
mod units;
mod update;
mod update_faults;
mod update_log;
