//! Every state of [`crate::model`] and [`crate::quorum`]'s model that can be reached is looked at, for some numbers of hosts, slots and faults.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

use crate::model::{Setup, State};
use crate::quorum::model as reservation;

/// A state of a model.
pub(crate) trait Model: Clone + Eq + Hash {
    /// How large it is.
    type Setup: Copy + Debug;
    /// Where it begins.
    fn first(setup: Self::Setup) -> Self;
    /// All that can happen next; `true` for what is no fault and needs nobody.
    fn all(&self, setup: Self::Setup) -> Vec<(bool, Self)>;
    /// Panics where what must hold always does not.
    fn check(&self, setup: Self::Setup);
    /// Panics where nothing goes on by itself and not all is well.
    fn ended_well(&self, setup: Self::Setup);
    /// Whether such an end comes of what this setup is about.
    fn is_witness(&self, _setup: Self::Setup) -> bool {
        true
    }
}

/// Looks at every state; their number, and how many of them are ends that come of what the setup is about.
fn explore<M: Model>(setup: M::Setup) -> (usize, usize) {
    let mut witnesses = 0;
    let first = M::first(setup);
    let mut known: HashMap<M, u32> = HashMap::from([(first.clone(), 0)]);
    let mut todo = vec![first];
    let mut calm: Vec<Vec<u32>> = vec![Vec::new()];
    while let Some(state) = todo.pop() {
        state.check(setup);
        let index = known[&state] as usize;
        let mut ends = true;
        for (no_fault, next) in state.all(setup) {
            ends &= !no_fault;
            let count = u32::try_from(known.len()).unwrap();
            let number = *known.entry(next.clone()).or_insert_with(|| {
                todo.push(next);
                calm.push(Vec::new());
                count
            });
            if no_fault {
                calm[index].push(number);
            }
        }
        if ends {
            state.ended_well(setup);
            witnesses += usize::from(state.is_witness(setup));
        }
    }
    drop(todo);
    let count = known.len();
    drop(known);
    no_cycle(&calm);
    (count, witnesses)
}

/// Without faults nothing goes round for ever.
fn no_cycle(calm: &[Vec<u32>]) {
    let mut left: Vec<u32> = vec![0; calm.len()];
    for next in calm.iter().flatten() {
        left[*next as usize] += 1;
    }
    let mut free: Vec<u32> = (0..u32::try_from(calm.len()).unwrap()).filter(|index| left[*index as usize] == 0).collect();
    let mut seen = HashSet::new();
    while let Some(index) = free.pop() {
        seen.insert(index);
        for next in &calm[index as usize] {
            left[*next as usize] -= 1;
            if left[*next as usize] == 0 {
                free.push(*next);
            }
        }
    }
    assert_eq!(seen.len(), calm.len(), "there is a cycle without faults");
}

fn explored<M: Model>(setup: M::Setup) {
    let (count, witnesses) = explore::<M>(setup);
    println!("{setup:?}: {count} states");
    // A model in which nothing happens would pass everything.
    assert!(count > 100, "only {count} states");
    assert!(witnesses > 0, "nothing came of it");
}

const TWO: Setup = Setup { hosts: 2, max: 1, faults: 2, bad: 0, clears: 0, call_offs: 0, timeouts: 0 };

#[test]
fn two_hosts_one_slot() {
    explored::<State>(TWO);
}

#[test]
fn three_hosts_one_slot() {
    explored::<State>(Setup { hosts: 3, faults: 1, ..TWO });
}

#[test]
fn a_version_that_fails_is_tried_by_no_more_hosts_than_there_are_slots() {
    explored::<State>(Setup { bad: 2, ..TWO });
    explored::<State>(Setup { hosts: 3, max: 2, faults: 0, bad: 3, ..TWO });
}

#[test]
fn a_quarantine_that_is_cleared_lets_the_others_go_on() {
    explored::<State>(Setup { faults: 1, bad: 1, clears: 1, ..TWO });
    explored::<State>(Setup { faults: 1, bad: 2, clears: 2, ..TWO });
    explored::<State>(Setup { hosts: 3, max: 2, faults: 0, bad: 1, clears: 1, ..TWO });
}

#[test]
fn hosts_that_no_longer_want_the_lock_give_it_back_and_ask_again() {
    explored::<State>(Setup { faults: 1, call_offs: 1, ..TWO });
    explored::<State>(Setup { faults: 1, bad: 1, call_offs: 1, clears: 1, ..TWO });
    explored::<State>(Setup { hosts: 3, faults: 0, call_offs: 1, ..TWO });
}

const MEMBERS: reservation::Setup = reservation::Setup { hosts: 2, faults: 1, call_offs: 1, by_hand: 0 };

#[test]
fn one_member_of_the_cluster_at_a_time() {
    explored::<reservation::State>(MEMBERS);
    explored::<reservation::State>(reservation::Setup { hosts: 3, faults: 0, ..MEMBERS });
    explored::<reservation::State>(reservation::Setup { by_hand: 1, ..MEMBERS });
}

#[test]
fn holders_whose_time_runs_out() {
    explored::<State>(Setup { faults: 1, timeouts: 1, ..TWO });
}

#[test]
#[ignore = "minutes, and gigabytes"]
fn larger_models() {
    explored::<State>(Setup { timeouts: 1, ..TWO });
    explored::<State>(Setup { faults: 3, ..TWO });
    explored::<State>(Setup { hosts: 3, max: 2, faults: 1, ..TWO });
    explored::<State>(Setup { hosts: 3, max: 2, faults: 1, bad: 3, ..TWO });
    explored::<State>(Setup { call_offs: 1, ..TWO });
    explored::<State>(Setup { bad: 1, clears: 1, call_offs: 1, ..TWO });
    explored::<State>(Setup { hosts: 3, faults: 1, call_offs: 1, ..TWO });
    explored::<reservation::State>(reservation::Setup { hosts: 3, ..MEMBERS });
    explored::<reservation::State>(reservation::Setup { faults: 2, ..MEMBERS });
    explored::<reservation::State>(reservation::Setup { call_offs: 2, by_hand: 1, ..MEMBERS });
}
