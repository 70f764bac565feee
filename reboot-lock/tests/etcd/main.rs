//! The lock on real etcd, the version that images ship: one member and three, with TLS and users, with members that are killed, cut off and frozen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "all of this is test code")]

mod basics;
mod faults;
mod lab;
mod many;
mod members;
mod secured;

use std::sync::Arc;

use reboot_lock::audit::Actor;
use reboot_lock::store::{Event, Keys, Store};
use reboot_lock::{Claim, Group, Options, Purpose, RebootLock, Semaphore};

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

const SEMAPHORE: &str = "/garboard/reboot-lock/v1/groups/default/lock/semaphore";

/// All values that the semaphore ever had, by etcd's own history.
async fn history(store: &Arc<dyn Store>, last: &Semaphore) -> Vec<Semaphore> {
    let mut watch = store.watch(&Keys::One(SEMAPHORE.to_owned()), 1).await.unwrap();
    let mut values: Vec<Semaphore> = Vec::new();
    while values.last().is_none_or(|value| value.generation < last.generation) {
        for event in watch.next().await.unwrap() {
            match event {
                Event::Put(entry) => values.push(Semaphore::decode(&entry.value).unwrap()),
                Event::Delete { .. } => panic!("the semaphore was deleted"),
            }
        }
    }
    assert!(values.windows(2).all(|two| two[0].generation + 1 == two[1].generation), "a change without its generation");
    values
}
