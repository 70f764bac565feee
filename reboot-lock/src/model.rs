//! A model of the whole protocol, checked exhaustively: some hosts update through one semaphore, over a network that delays, repeats and loses, and may crash
//! at every step. What the hosts decide are the real functions ([`Semaphore`], [`release::decide`]); their steps between reading and writing are those of
//! `lock` and `queue`. Faults are bounded by a budget, all else by nothing: every order of every step is looked at.
//!
//! Checked in every state: never more holders than slots; never more hosts down on purpose than slots; a host that is down on purpose or about to go has its
//! record, unless its time ran out, and then it notices. Checked about all paths: without further faults each ends (no cycles), with every host done and
//! every slot free again, or, with a version that fails, with the version quarantined and the one failed host holding.

use std::collections::{HashMap, HashSet};

use crate::keys::Group;
use crate::release::{self, Decision, Host, Outcome};
use crate::semaphore::{Claim, Purpose, Semaphore, Standing};

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";

#[derive(Clone, Copy)]
struct Setup {
    hosts: usize,
    max: u32,
    faults: u8,
    /// The new version fails on every host.
    bad_version: bool,
    /// Holders may be removed when their time runs out; how often that happens.
    timeouts: u8,
}

/// Where a host is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum At {
    /// Has read the store's revision, to make a place of it.
    Joining(u64),
    /// In the queue, looks around.
    Queued,
    /// Sleeps until this place is gone.
    Behind((u64, usize)),
    /// First; sleeps until the semaphore is newer than this.
    First(u64),
    /// Has sent a message, and waits for the answer.
    Locking(u8),
    /// Heard nothing of its lock.
    Doubting,
    /// Has sent a message that makes a late lock fail.
    MakingSure(u8),
    /// Has the lock; drains.
    Held(u64),
    /// Down: on purpose with a lock of that fence, or by a crash.
    Down(Option<u64>),
    /// Runs again, and looks what became of its lock.
    Booted(Option<u64>),
    /// Has sent a message that gives the lock back, or makes late messages fail.
    Settling(u8),
    /// Has sent the quarantine.
    Reporting(u8),
    /// Fell back, and holds on.
    FellBack,
    /// The version is quarantined: it stays with the old one.
    Refused,
    /// Runs the new version without a lock.
    Done,
}

/// A transaction under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Message {
    number: u8,
    from: usize,
    /// The generation that it was decided on.
    on: u64,
    next: Semaphore,
    /// It is a lock: refused when the version is quarantined, and takes the place in the queue away.
    lock: bool,
    quarantines: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    at: Vec<At>,
    semaphore: Semaphore,
    places: Vec<(u64, usize)>,
    quarantined: bool,
    /// Fences whose timers ran out.
    ran_out: Vec<u64>,
    network: Vec<Message>,
    numbers: u8,
    faults: u8,
    timeouts: u8,
    /// Boots of each host: its boot id.
    boots: Vec<u8>,
}

fn claim(host: usize, boot: u8) -> Claim {
    Claim {
        id: host.to_string(),
        hostname: String::new(),
        boot_id: boot.to_string(),
        purpose: Purpose::Update,
        reason: String::new(),
        version: Some(NEW.to_owned()),
    }
}

impl State {
    fn first(setup: Setup) -> Self {
        let semaphore = Semaphore { max: setup.max, ..Semaphore::default() };
        Self {
            at: vec![At::Joining(0); setup.hosts],
            semaphore,
            places: Vec::new(),
            quarantined: false,
            ran_out: Vec::new(),
            network: Vec::new(),
            numbers: 0,
            faults: setup.faults,
            timeouts: setup.timeouts,
            boots: vec![0; setup.hosts],
        }
    }

    fn expires(&self, setup: Setup) -> bool {
        setup.timeouts > 0
    }

    fn send(&mut self, host: usize, next: Semaphore, lock: bool, quarantines: bool) -> u8 {
        self.numbers += 1;
        let number = self.numbers;
        self.network.push(Message { number, from: host, on: self.semaphore.generation, next, lock, quarantines });
        number
    }

    /// Etcd does what a message says, or not; the sender hears of it if it still waits.
    fn arrive(&mut self, message: &Message) {
        let done = message.on == self.semaphore.generation && !((message.lock || message.quarantines) && self.quarantined);
        if done {
            self.semaphore = message.next.clone();
            self.quarantined |= message.quarantines;
            if message.lock {
                self.places.retain(|(_, host)| *host != message.from);
            }
        }
        let host = message.from;
        let id = host.to_string();
        self.at[host] = match self.at[host].clone() {
            At::Locking(number) if number == message.number => match self.semaphore.holder(&id) {
                Some(holder) if done => At::Held(holder.fence),
                _ => At::Queued,
            },
            At::MakingSure(number) if number == message.number => {
                if done {
                    At::Queued
                } else {
                    At::Doubting
                }
            }
            At::Settling(number) if number == message.number => {
                if done {
                    At::Done
                } else {
                    At::Booted(None)
                }
            }
            At::Reporting(number) if number == message.number => {
                if done || self.quarantined {
                    At::FellBack
                } else {
                    At::Booted(None)
                }
            }
            other => other,
        };
    }

    /// What a host does next by itself; `None` while it sleeps or waits.
    fn step(&self, setup: Setup, host: usize) -> Option<Self> {
        let mut next = self.clone();
        let id = host.to_string();
        let mine = self.places.iter().find(|(_, of)| *of == host).copied();
        next.at[host] = match &self.at[host] {
            // A place from an earlier life is taken over.
            At::Joining(revision) => {
                if mine.is_none() {
                    next.places.push((*revision, host));
                    next.places.sort_unstable();
                }
                At::Queued
            }
            At::Queued if self.quarantined => {
                next.places.retain(|(_, of)| *of != host);
                match self.semaphore.holder(&id) {
                    // Got without hearing of it.
                    Some(holder) => {
                        let free = self.semaphore.unlock(&Group::default(), &id, Some(holder.fence)).unwrap().unwrap();
                        At::Settling(next.send(host, free, false, false))
                    }
                    None => At::Refused,
                }
            }
            At::Queued => match mine {
                // Its lease ran out.
                None if self.semaphore.holder(&id).is_none() => At::Joining(self.semaphore.generation),
                _ => {
                    let before = mine.and_then(|mine| self.places.iter().rfind(|place| **place < mine)).copied();
                    let held = self.semaphore.holder(&id).is_some();
                    match before {
                        Some(before) if !held => At::Behind(before),
                        _ => {
                            if let Some((left, _)) = self.semaphore.expire(|fence| !self.ran_out.contains(&fence)) {
                                next.semaphore = left;
                                At::Queued
                            } else {
                                match self.semaphore.lock(&Group::default(), &claim(host, self.boots[host]), 0, self.expires(setup)) {
                                    Ok(locked) => At::Locking(next.send(host, locked, true, false)),
                                    Err(_) => At::First(self.semaphore.generation),
                                }
                            }
                        }
                    }
                }
            },
            At::Behind(before) if !self.places.contains(before) => At::Queued,
            At::First(seen) => {
                let news =
                    self.semaphore.generation > *seen || self.semaphore.holders.iter().any(|holder| self.ran_out.contains(&holder.fence));
                if !news {
                    return None;
                }
                At::Queued
            }
            At::Doubting => match self.semaphore.holder(&id) {
                // What `Queued` does with a lock that is there.
                Some(_) => match self.semaphore.lock(&Group::default(), &claim(host, self.boots[host]), 0, self.expires(setup)) {
                    Ok(locked) => At::Locking(next.send(host, locked, true, false)),
                    Err(error) => panic!("{error}"),
                },
                None => At::MakingSure(next.send(host, self.semaphore.touched(), false, false)),
            },
            // Right before the reboot it looks once more. Without its lock it begins again.
            At::Held(fence) => match self.semaphore.standing(&id, *fence) {
                Standing::Held(_) if !self.quarantined => At::Down(Some(*fence)),
                Standing::Held(_) => {
                    let free = self.semaphore.unlock(&Group::default(), &id, Some(*fence)).unwrap().unwrap();
                    At::Settling(next.send(host, free, false, false))
                }
                _ => At::Joining(self.semaphore.generation),
            },
            At::Down(fence) => {
                next.boots[host] += 1;
                At::Booted(*fence)
            }
            At::Booted(fence) => {
                // `settle`: out of the queue, then what is in the semaphore.
                next.places.retain(|(_, of)| *of != host);
                let running = if setup.bad_version { OLD } else { NEW };
                let outcome = if setup.bad_version { Outcome::Failed("test".to_owned()) } else { Outcome::Pending };
                let boot_id = self.boots[host].to_string();
                match self.semaphore.holder(&id) {
                    None => At::Settling(next.send(host, self.semaphore.touched(), false, false)),
                    Some(record) => match release::decide(record, &Host { boot_id: &boot_id, running, healthy: true, outcome }) {
                        Decision::Release { .. } => {
                            let free = self.semaphore.unlock(&Group::default(), &id, *fence);
                            let free = free.or_else(|_| self.semaphore.unlock(&Group::default(), &id, None)).unwrap().unwrap();
                            At::Settling(next.send(host, free, false, false))
                        }
                        Decision::FellBack { .. } if self.quarantined => At::FellBack,
                        Decision::FellBack { .. } => At::Reporting(next.send(host, self.semaphore.touched(), false, true)),
                        Decision::Keep { why } => panic!("a host that is healthy again keeps its lock: {why}"),
                    },
                }
            }
            // A message that was lost altogether.
            At::Locking(number) | At::MakingSure(number) if !self.network.iter().any(|message| message.number == *number) => At::Doubting,
            At::Settling(number) | At::Reporting(number) if !self.network.iter().any(|message| message.number == *number) => {
                At::Booted(None)
            }
            _ => return None,
        };
        Some(next)
    }

    /// All that can happen next; `true` for what is no fault.
    fn all(&self, setup: Setup) -> Vec<(bool, Self)> {
        let mut next: Vec<(bool, Self)> = (0..setup.hosts).filter_map(|host| self.step(setup, host)).map(|state| (true, state)).collect();
        for (index, message) in self.network.iter().enumerate() {
            let mut arrived = self.clone();
            arrived.network.remove(index);
            let mut twice = self.clone();
            arrived.arrive(message);
            next.push((true, arrived));
            if self.faults > 0 {
                let mut lost = self.clone();
                lost.faults -= 1;
                lost.network.remove(index);
                next.push((false, lost));
                twice.faults -= 1;
                twice.arrive(message);
                next.push((false, twice));
            }
        }
        // The lease of a host that is down, or has begun again elsewhere in the queue's life.
        for place in &self.places {
            if matches!(self.at[place.1], At::Down(_)) {
                let mut ended = self.clone();
                ended.places.retain(|other| other != place);
                next.push((true, ended));
            }
        }
        for host in 0..setup.hosts {
            if self.faults == 0 {
                break;
            }
            let mut fault = |at: At| {
                let mut state = self.clone();
                state.faults -= 1;
                state.at[host] = at;
                next.push((false, state));
            };
            match &self.at[host] {
                // It no longer waits for the answer; the message is still under way.
                At::Locking(_) | At::MakingSure(_) => {
                    fault(At::Doubting);
                    fault(At::Down(None));
                }
                At::Settling(_) | At::Reporting(_) => {
                    fault(At::Booted(None));
                    fault(At::Down(None));
                }
                At::Down(_) | At::Done | At::Refused => {}
                _ => fault(At::Down(None)),
            }
            // Cut off for so long that its place in the queue is gone.
            if self.places.iter().any(|(_, of)| *of == host) && !matches!(self.at[host], At::Down(_)) {
                let mut cut = self.clone();
                cut.faults -= 1;
                cut.places.retain(|(_, of)| *of != host);
                if matches!(cut.at[host], At::Behind(_) | At::First(_)) {
                    cut.at[host] = At::Queued;
                }
                next.push((false, cut));
            }
        }
        if self.timeouts > 0 {
            for holder in &self.semaphore.holders {
                if !self.ran_out.contains(&holder.fence) {
                    let mut state = self.clone();
                    state.timeouts -= 1;
                    state.ran_out.push(holder.fence);
                    next.push((false, state));
                }
            }
        }
        next
    }

    fn check(&self, setup: Setup) {
        assert!(self.semaphore.holders.len() <= setup.max as usize, "{} holders", self.semaphore.holders.len());
        let mut down = 0;
        for (host, at) in self.at.iter().enumerate() {
            if let At::Down(Some(fence)) | At::Booted(Some(fence)) = at {
                if self.ran_out.contains(fence) {
                    continue;
                }
                down += 1;
                let standing = self.semaphore.standing(&host.to_string(), *fence);
                assert!(matches!(standing, Standing::Held(_)), "host {host} is {at:?}, and its lock is {standing:?}");
            }
            if let At::Held(fence) = at {
                let held = matches!(self.semaphore.standing(&host.to_string(), *fence), Standing::Held(_));
                assert!(held || self.ran_out.contains(fence), "host {host} has lost its lock while draining");
            }
        }
        assert!(down <= setup.max, "{down} hosts are down on purpose");
    }

    fn ended_well(&self, setup: Setup) {
        let holders: Vec<&str> = self.semaphore.holders.iter().map(|holder| holder.id.as_str()).collect();
        assert!(self.places.is_empty(), "the queue is left with {:?}, hosts {:?}, {:?}", self.places, self.at, self.semaphore);
        if setup.bad_version && self.quarantined {
            for (host, at) in self.at.iter().enumerate() {
                let holds = holders.contains(&host.to_string().as_str());
                assert!(
                    matches!((at, holds), (At::FellBack, _) | (At::Refused | At::Done, false)),
                    "host {host} ends as {at:?}, holds {holds}"
                );
            }
        } else {
            assert!(self.at.iter().all(|at| *at == At::Done), "it ends with {:?}", self.at);
            assert!(holders.is_empty(), "{holders:?} hold for ever");
        }
    }
}

/// Looks at every state; their number.
fn explore(setup: Setup) -> usize {
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
        }
    }
    drop(todo);
    let count = known.len();
    drop(known);
    no_cycle(&calm);
    count
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
    let count = explore(setup);
    println!(
        "{} hosts, {} slots, {} faults, {} timeouts, bad version {}: {count} states",
        setup.hosts, setup.max, setup.faults, setup.timeouts, setup.bad_version
    );
    // A model in which nothing happens would pass everything.
    assert!(count > 100, "only {count} states");
}

const TWO: Setup = Setup { hosts: 2, max: 1, faults: 2, bad_version: false, timeouts: 0 };

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
    explored(Setup { bad_version: true, ..TWO });
    explored(Setup { hosts: 3, max: 2, faults: 0, bad_version: true, ..TWO });
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
    explored(Setup { hosts: 3, max: 2, faults: 1, bad_version: true, ..TWO });
}
