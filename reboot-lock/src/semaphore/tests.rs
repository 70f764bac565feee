use proptest::prelude::*;

use super::*;
use crate::faults::claim;

fn group() -> Group {
    Group::default()
}

#[test]
fn a_slot_is_given_once_and_asking_again_keeps_the_fence() {
    let first = Semaphore::default().lock(&group(), &claim("a"), 5, false).unwrap();
    assert_eq!((first.generation, first.holders[0].fence, first.holders[0].since), (1, 1, 5));
    let newer = Claim { version: Some("1.2.0".to_owned()), boot_id: "b2".to_owned(), ..claim("a") };
    let again = first.lock(&group(), &newer, 9, true).unwrap();
    assert_eq!((again.generation, again.holders.len()), (2, 1));
    let holder = &again.holders[0];
    assert_eq!((holder.fence, holder.since, holder.expires), (1, 5, true));
    assert_eq!((holder.version.as_deref(), holder.boot_id.as_str()), (Some("1.2.0"), "b2"));
    let full = first.lock(&group(), &claim("b"), 5, false).unwrap_err();
    assert_eq!(full.kind(), "failed_lock_semaphore_full");
    assert_eq!(full.to_string(), "all 1 slots of group default are taken by host-a");
}

#[test]
fn a_lock_taken_by_hand_stays_one() {
    let by_hand = Claim { purpose: Purpose::Manual, reason: "disk swap".to_owned(), ..claim("a") };
    let held = Semaphore::default().lock(&group(), &by_hand, 1, false).unwrap();
    let again = held.lock(&group(), &claim("a"), 2, false).unwrap();
    assert_eq!((again.holders[0].purpose, again.holders[0].reason.as_str()), (Purpose::Manual, "disk swap"));
}

#[test]
fn a_lock_after_another_has_another_fence() {
    let held = Semaphore::default().lock(&group(), &claim("a"), 1, false).unwrap();
    let other = held.without("a").lock(&group(), &claim("a"), 2, false).unwrap();
    assert_eq!(other.holders[0].fence, 2);
    assert_eq!(other.standing("a", 1), Standing::Other(&other.holders[0]));
    assert_eq!(other.standing("a", 2), Standing::Held(&other.holders[0]));
    assert_eq!(other.without("b"), other);
    assert_eq!(other.without("a").standing("a", 2), Standing::NotHeld);
}

#[test]
fn fewer_slots_take_nobodys_away() {
    let mut semaphore = Semaphore::default().set_max(2).unwrap();
    semaphore = semaphore.lock(&group(), &claim("a"), 1, false).unwrap().lock(&group(), &claim("b"), 1, false).unwrap();
    let fewer = semaphore.set_max(1).unwrap();
    assert_eq!((fewer.holders.len(), fewer.free()), (2, 0));
    let one_left = fewer.without("a");
    assert_eq!(one_left.lock(&group(), &claim("c"), 1, false).unwrap_err().kind(), "failed_lock_semaphore_full");
    assert_eq!(semaphore.set_max(0), Err(LockError::BadMax { max: 0 }));
    assert_eq!(semaphore.set_max(1001), Err(LockError::BadMax { max: 1001 }));
}

#[test]
fn what_something_else_wrote_is_refused() {
    for (value, why) in [
        ("", "no JSON object"),
        ("{\"semaphore\":1,\"max\":1,\"holders\":null}", "no format number"),
        ("{\"format\":1,\"max\":1,\"generation\":0,\"holders\":[]}", "format is 1"),
        ("{\"format\":2,\"max\":1,\"generation\":0,\"new\":1}", "unknown field"),
        ("{\"format\":2,\"max\":0,\"generation\":0}", "0 slots"),
        ("{\"format\":2,\"max\":-1,\"generation\":0}", "cannot be read"),
    ] {
        let error = Semaphore::decode(value.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{value}: {error}");
    }
    let mut held = Semaphore::default().lock(&group(), &claim("a"), 1, false).unwrap();
    let holder = held.holders[0].clone();
    assert!(held.add(holder.clone()).unwrap_err().contains("twice"));
    assert!(Semaphore::default().add(holder.clone()).unwrap_err().contains("beyond generation 0"));
    assert_eq!(Holder::decode(&holder.encode()), Ok(holder.clone()));
    assert!(Holder::decode(&Holder { fence: 0, ..holder.clone() }.encode()).unwrap_err().contains("no fence"));
    assert!(Holder::decode(&Holder { id: String::new(), ..holder }.encode()).is_err());
    assert!(Holder::decode(b"{}").unwrap_err().contains("no holder of ours"));
}

/// Stored and read again.
fn read_back(semaphore: &Semaphore) -> Semaphore {
    let mut read = Semaphore::decode(&semaphore.encode()).unwrap();
    // Keys come in the order of ids.
    for holder in semaphore.holders.iter().rev() {
        read.add(Holder::decode(&holder.encode()).unwrap()).unwrap();
    }
    read
}

proptest! {
    #[test]
    fn any_sequence_of_transitions_reads_back_and_keeps_to_max(steps in proptest::collection::vec((0_u8..4, 0_u8..6, 0_u32..4), 0..60)) {
        let mut semaphore = Semaphore::default();
        for (act, host, number) in steps {
            let id = host.to_string();
            let before = semaphore.clone();
            let lowered = act == 2;
            match act {
                0 | 1 => if let Ok(next) = semaphore.lock(&group(), &claim(&id), 1, host % 2 == 0) { semaphore = next },
                2 => if let Ok(next) = semaphore.set_max(number) { semaphore = next },
                _ => semaphore = semaphore.without(&id),
            }
            prop_assert_eq!(read_back(&semaphore), semaphore.clone());
            prop_assert!(lowered || semaphore.holders.len() <= before.holders.len().max(before.max as usize));
            prop_assert_eq!(act != 3 && semaphore != before, semaphore.generation == before.generation + 1);
        }
    }
}
