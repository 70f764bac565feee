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
fn unlock_with_an_old_fence_leaves_the_newer_lock() {
    let held = Semaphore::default().lock(&group(), &claim("a"), 1, false).unwrap();
    let free = held.unlock(&group(), "a", Some(1)).unwrap().unwrap();
    let other = free.lock(&group(), &claim("a"), 2, false).unwrap();
    assert_eq!(other.holders[0].fence, 3);
    assert_eq!(other.unlock(&group(), "a", Some(1)).unwrap_err().kind(), "lock_lost");
    assert_eq!(other.standing("a", 1), Standing::Other(&other.holders[0]));
    assert_eq!(other.unlock(&group(), "b", None), Ok(None));
    assert!(other.unlock(&group(), "a", None).unwrap().unwrap().holders.is_empty());
}

#[test]
fn fewer_slots_take_nobodys_away() {
    let mut semaphore = Semaphore::default().set_max(2).unwrap();
    semaphore = semaphore.lock(&group(), &claim("a"), 1, false).unwrap().lock(&group(), &claim("b"), 1, false).unwrap();
    let fewer = semaphore.set_max(1).unwrap();
    assert_eq!((fewer.holders.len(), fewer.free()), (2, 0));
    let one_left = fewer.unlock(&group(), "a", None).unwrap().unwrap();
    assert_eq!(one_left.lock(&group(), &claim("c"), 1, false).unwrap_err().kind(), "failed_lock_semaphore_full");
    assert_eq!(semaphore.set_max(0), Err(LockError::BadMax { max: 0 }));
    assert_eq!(semaphore.set_max(1001), Err(LockError::BadMax { max: 1001 }));
}

#[test]
fn only_those_whose_timer_ran_out_expire() {
    let semaphore = Semaphore::default().set_max(3).unwrap();
    let semaphore = semaphore.lock(&group(), &claim("keeps"), 1, false).unwrap();
    let semaphore = semaphore.lock(&group(), &claim("runs"), 1, true).unwrap();
    let semaphore = semaphore.lock(&group(), &claim("gone"), 1, true).unwrap();
    let (left, gone) = semaphore.expire(|fence| fence == 3).unwrap();
    assert_eq!(gone.iter().map(|holder| holder.id.as_str()).collect::<Vec<_>>(), ["gone"]);
    assert_eq!(left.holders.len(), 2);
    assert_eq!(left.standing("gone", 4), Standing::NotHeld);
    assert!(left.expire(|_| true).is_none());
}

#[test]
fn what_something_else_wrote_is_refused() {
    for (value, why) in [
        ("", "no JSON object"),
        ("{\"semaphore\":1,\"max\":1,\"holders\":null}", "no format number"),
        ("{\"format\":2,\"max\":1,\"generation\":0,\"holders\":[],\"new\":1}", "format is 2"),
        ("{\"format\":1,\"max\":1,\"generation\":0,\"holders\":[],\"new\":1}", "unknown field"),
        ("{\"format\":1,\"max\":0,\"generation\":0,\"holders\":[]}", "0 slots"),
        ("{\"format\":1,\"max\":-1,\"generation\":0,\"holders\":[]}", "cannot be read"),
    ] {
        let error = Semaphore::decode(value.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{value}: {error}");
    }
    let held = Semaphore::default().lock(&group(), &claim("a"), 1, false).unwrap();
    let mut twice = held.clone();
    twice.holders.push(held.holders[0].clone());
    assert!(Semaphore::decode(&twice.encode()).unwrap_err().contains("twice"));
    let beyond = Semaphore { generation: 0, ..held };
    assert!(Semaphore::decode(&beyond.encode()).unwrap_err().contains("fence"));
}

proptest! {
    #[test]
    fn any_sequence_of_transitions_reads_back_and_keeps_to_max(steps in proptest::collection::vec((0_u8..5, 0_u8..6, 0_u32..4), 0..60)) {
        let mut semaphore = Semaphore::default();
        for (act, host, number) in steps {
            let id = host.to_string();
            let before = semaphore.clone();
            let lowered = act == 2;
            match act {
                0 | 1 => if let Ok(next) = semaphore.lock(&group(), &claim(&id), 1, host % 2 == 0) { semaphore = next },
                2 => if let Ok(next) = semaphore.set_max(number) { semaphore = next },
                3 => if let Ok(Some(next)) = semaphore.unlock(&group(), &id, None) { semaphore = next },
                _ => if let Some((next, _)) = semaphore.expire(|fence| fence % 3 == 0) { semaphore = next },
            }
            prop_assert_eq!(Semaphore::decode(&semaphore.encode()), Ok(semaphore.clone()));
            prop_assert!(lowered || semaphore.holders.len() <= before.holders.len().max(before.max as usize));
            prop_assert_eq!(semaphore != before, semaphore.generation == before.generation + 1);
        }
    }
}
