//! Every state of [`crate::model`] that can be reached is looked at, for some numbers of hosts, slots and faults.

use std::collections::{HashMap, HashSet};

use crate::model::{Setup, State};

/// Looks at every state; their number, and how many of them are ends that come of a quarantine which was cleared.
fn explore(setup: Setup) -> (usize, usize) {
    let mut cleared = 0;
    let first = State::first(setup);
    let mut known: HashMap<State, u32> = HashMap::from([(first.clone(), 0)]);
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
            cleared += usize::from(state.was_cleared(setup));
        }
    }
    drop(todo);
    let count = known.len();
    drop(known);
    no_cycle(&calm);
    (count, cleared)
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

fn explored(setup: Setup) {
    let (count, cleared) = explore(setup);
    println!(
        "{} hosts, {} slots, {} faults, {} timeouts, fails on {}, cleared {}: {count} states",
        setup.hosts, setup.max, setup.faults, setup.timeouts, setup.bad, setup.clears
    );
    // A model in which nothing happens would pass everything.
    assert!(count > 100, "only {count} states");
    assert!(cleared > 0 || setup.clears == 0, "nothing came of clearing the quarantine");
}

const TWO: Setup = Setup { hosts: 2, max: 1, faults: 2, bad: 0, clears: 0, timeouts: 0 };

#[test]
fn two_hosts_one_slot() {
    explored(TWO);
}

#[test]
fn three_hosts_one_slot() {
    explored(Setup { hosts: 3, faults: 1, ..TWO });
}

#[test]
fn a_version_that_fails_is_tried_by_no_more_hosts_than_there_are_slots() {
    explored(Setup { bad: 2, ..TWO });
    explored(Setup { hosts: 3, max: 2, faults: 0, bad: 3, ..TWO });
}

#[test]
fn a_quarantine_that_is_cleared_lets_the_others_go_on() {
    explored(Setup { faults: 1, bad: 1, clears: 1, ..TWO });
    explored(Setup { faults: 1, bad: 2, clears: 2, ..TWO });
    explored(Setup { hosts: 3, max: 2, faults: 0, bad: 1, clears: 1, ..TWO });
}

#[test]
fn holders_whose_time_runs_out() {
    explored(Setup { faults: 1, timeouts: 1, ..TWO });
}

#[test]
#[ignore = "minutes, and gigabytes"]
fn larger_models() {
    explored(Setup { timeouts: 1, ..TWO });
    explored(Setup { faults: 3, ..TWO });
    explored(Setup { hosts: 3, max: 2, faults: 1, ..TWO });
    explored(Setup { hosts: 3, max: 2, faults: 1, bad: 3, ..TWO });
}
