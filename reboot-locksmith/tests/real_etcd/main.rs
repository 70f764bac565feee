//! The daemon as it is shipped, on real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "all of this is test code")]

mod cleared;
mod commands;
mod fleet;
mod host;
mod killed;
#[path = "../../../reboot-lock/tests/etcd/lab.rs"]
#[allow(dead_code, reason = "the lab can more than is needed here")]
mod lab;
mod process;
#[path = "../../../reboot-lock/tests/etcd/replay.rs"]
#[allow(dead_code, reason = "it tells more than is asked here")]
mod replay;
mod rest;
mod rolling;

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}
