//! The lock on real etcd, the version that images ship: one member and three, with TLS and users, with members that are killed, cut off, frozen
//! and slow.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "all of this is test code")]

mod basics;
mod faults;
mod hosts;
mod lab;
mod many;
mod members;
mod replay;
mod secured;

use std::sync::Arc;

use reboot_lock::audit::Actor;
use reboot_lock::store::Store;
use reboot_lock::{Claim, Group, Options, Purpose, RebootLock};
use replay::{LOCK, Replay, history};

fn claim(id: &str) -> Claim {
    Claim {
        id: id.to_owned(),
        hostname: format!("host-{id}.example"),
        boot_id: "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0".to_owned(),
        purpose: Purpose::Update,
        reason: "update to 1.1.0".to_owned(),
        version: Some("1.1.0".to_owned()),
    }
}

fn actor() -> Actor {
    Actor { host: "test".to_owned(), by: "test".to_owned(), why: "to see".to_owned() }
}

fn lock(store: &Arc<dyn Store>, options: Options) -> RebootLock {
    RebootLock::new(Arc::clone(store), Group::default(), options)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}
