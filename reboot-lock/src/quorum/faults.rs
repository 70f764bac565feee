//! The reservation on a store that loses, repeats, delays and forgets.

use std::sync::Arc;
use std::time::Duration;

use super::{Guard, Reservation, Reserved};
use crate::keys::{DEFAULT_PREFIX, Group, Keys};
use crate::store::{Fault, Memory, Store, Write};

#[tokio::test]
async fn one_reservation_for_all_groups_of_a_cluster() {
    let store = Memory::default();
    let guard = Guard::new(Arc::new(store.clone()), DEFAULT_PREFIX);
    let (mine, other) = (Reservation::new("a", "host-a", "b1", 5), Reservation::new("b", "host-b", "b1", 6));
    store.inject([Fault::LostAnswer]);
    assert_eq!(guard.reserve(&mine, None).await.unwrap(), Reserved::Ours);
    assert_eq!(guard.reserve(&mine, None).await.unwrap(), Reserved::Ours);
    match guard.reserve(&other, None).await.unwrap() {
        Reserved::Taken { by, .. } => assert_eq!(by, mine),
        Reserved::Ours => panic!("two hosts have it"),
    }
    assert!(!guard.release("b").await.unwrap());
    // A release that arrives late does not end a reservation that was renewed.
    store.inject([Fault::Late, Fault::LostRequest, Fault::LostRequest, Fault::LostRequest]);
    assert!(guard.release("a").await.is_err());
    guard.reserve(&mine, None).await.unwrap();
    store.deliver_late();
    assert!(guard.reservation().await.unwrap().0.is_some());
    store.inject([Fault::LostAnswer]);
    assert!(guard.release("a").await.unwrap());
    assert_eq!(guard.reserve(&other, Some(Duration::from_secs(60))).await.unwrap(), Reserved::Ours);
    store.advance(Duration::from_secs(61));
    assert_eq!(guard.reservation().await.unwrap().0, None);
    store
        .txn(&[], &[Write::Put { key: Keys::new(DEFAULT_PREFIX, &Group::default()).reservation(), value: b"mine".to_vec(), lease: 0 }])
        .await
        .unwrap();
    assert_eq!(guard.reserve(&mine, None).await.unwrap_err().kind(), "foreign_value");
}

#[tokio::test]
async fn a_reservation_that_arrives_after_its_host_gave_up_is_refused() {
    let store = Memory::default();
    let guard = Guard::new(Arc::new(store.clone()), DEFAULT_PREFIX);
    let mine = Reservation::new("a", "host-a", "b1", 5);
    // Every try is noted (the second of two notes counts) and under way when the host gives up: nothing is there to give back yet.
    let late = || [Fault::Duplicate, Fault::Late].into_iter().cycle().take(8);
    store.inject(late());
    assert!(guard.reserve(&mine, None).await.is_err());
    assert!(!guard.release("a").await.unwrap());
    store.deliver_late();
    assert_eq!(guard.reservation().await.unwrap().0, None, "nobody knows of it, and no member may go down");
    // The same where it had one from before.
    guard.reserve(&mine, None).await.unwrap();
    store.inject(late());
    assert!(guard.reserve(&mine, None).await.is_err());
    assert!(guard.release("a").await.unwrap());
    store.deliver_late();
    assert_eq!(guard.reservation().await.unwrap().0, None);
    assert_eq!(guard.reserve(&Reservation::new("b", "host-b", "b1", 6), None).await.unwrap(), Reserved::Ours);
    // An earlier try that arrives takes nothing from a later one.
    guard.release("b").await.unwrap();
    store.inject(late().take(2));
    assert_eq!(guard.reserve(&mine, None).await.unwrap(), Reserved::Ours);
    let before = guard.reservation().await.unwrap().0;
    store.deliver_late();
    assert_eq!(guard.reservation().await.unwrap().0, before);
}
