//! A model of the whole protocol, checked exhaustively: some hosts update through one semaphore, over a network that delays, repeats and loses, and may crash
//! at every step. What the hosts decide are the real functions ([`Semaphore`], [`release::decide`]); their steps between reading and writing are those of
//! `lock`, `ends` and `queue`. Faults are bounded by a budget, all else by nothing: every order of every step is looked at.
//!
//! A message carries the revisions that its transaction compares: of the semaphore (its generation will do), of the host's record, of its place in the queue. The
//! last two are counted for each host. A place is made and left in one step: what comes late there fails by the same comparison, or is a place that ends with
//! its lease.
//!
//! Checked in every state: never more holders than slots; never more hosts down on purpose than slots; a host that is down on purpose or about to go has its
//! record, unless its time ran out, and then it notices. Checked about all paths: without further faults each ends (no cycles), with every host done and
//! every slot free again, or, with a version that fails, with the version quarantined and the one failed host holding. When a person has cleared the
//! quarantine, and no other host failed after it, every host is done and every slot free.

use crate::keys::Group;
use crate::model_search::Model;
use crate::release::{self, Decision, Host, Outcome};
use crate::semaphore::{Claim, Holder, Purpose, Semaphore, Standing};

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) hosts: usize,
    pub(crate) max: u32,
    pub(crate) faults: u8,
    /// The new version fails on so many of them, the first ones.
    pub(crate) bad: usize,
    /// How often a person clears the quarantine.
    pub(crate) clears: u8,
    /// How often a host that waits or holds no longer wants to reboot, for a while.
    pub(crate) call_offs: u8,
    /// Holders may be removed when their time runs out; how often that happens.
    pub(crate) timeouts: u8,
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
    /// First; sleeps until the semaphore has another generation, or fewer holders.
    First(u64, usize),
    /// Has sent a message, and waits for the answer.
    Locking(u8),
    /// Heard nothing of its lock.
    Doubting,
    /// Has the lock; drains.
    Held(u64),
    /// Down: on purpose with a lock of that fence, or by a crash.
    Down(Option<u64>),
    /// Runs again, and looks what became of its lock.
    Booted(Option<u64>),
    /// Has sent a message that gives the lock back.
    Settling(u8),
    /// Has sent the quarantine.
    Reporting(u8),
    /// Its window has closed, or its daemon begins again: gives back what it has, before it wants it again.
    Leaving,
    /// Has sent that.
    Returning(u8),
    /// Fell back, and holds on until the quarantine is cleared.
    FellBack,
    /// The version is quarantined: it stays with the old one until that is cleared.
    Refused,
    /// Runs the new version without a lock.
    Done,
}

/// What a transaction wants, and what it compares.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Wish {
    /// This record, if the semaphore has this generation, the host's record and place were written last then, and the version is not quarantined. The place
    /// goes.
    Lock { on: u64, record: u8, place: u8, holder: Holder },
    /// The record gone, if it was written last then.
    Unlock { record: u8 },
    /// The version quarantined, if the semaphore has this generation and it is not yet.
    Quarantine { on: u64 },
}

/// A transaction under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Message {
    number: u8,
    from: usize,
    wish: Wish,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    at: Vec<At>,
    semaphore: Semaphore,
    /// How often each host's record was written: while it is there, its revision.
    records: Vec<u8>,
    places: Vec<(u64, usize)>,
    /// The same of each host's place.
    notes: Vec<u8>,
    quarantined: bool,
    /// What each host's journal knows to be reported: the boot that took the lock.
    reported: Vec<Option<u8>>,
    clears: u8,
    call_offs: u8,
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
    fn expires(&self, setup: Setup) -> bool {
        setup.timeouts > 0
    }

    fn send(&mut self, from: usize, wish: Wish) -> u8 {
        self.numbers += 1;
        self.network.push(Message { number: self.numbers, from, wish });
        self.numbers
    }

    /// The revision of a host's record; 0 when there is none.
    fn record(&self, host: usize) -> u8 {
        self.semaphore.holder(&host.to_string()).map_or(0, |_| self.records[host])
    }

    fn place(&self, host: usize) -> Option<(u64, usize)> {
        self.places.iter().find(|(_, of)| *of == host).copied()
    }

    /// The revision of a host's place; 0 when there is none.
    fn note(&self, host: usize) -> u8 {
        self.place(host).map_or(0, |_| self.notes[host])
    }

    /// A place, or the one that is there made again.
    fn join(&mut self, host: usize, revision: u64) {
        if self.place(host).is_none() {
            self.places.push((revision, host));
            self.places.sort_unstable();
        }
        self.notes[host] += 1;
    }

    /// The journal hears that the version is quarantined.
    fn report(&mut self, host: usize) {
        self.reported[host] =
            self.semaphore.holder(&host.to_string()).and_then(|record| record.boot_id.parse().ok()).or(self.reported[host]);
    }

    fn leave(&mut self, host: usize) {
        self.places.retain(|(_, of)| *of != host);
    }

    fn lock(&mut self, setup: Setup, host: usize) -> At {
        match self.semaphore.lock(&Group::default(), &claim(host, self.boots[host]), 0, self.expires(setup)) {
            Ok(locked) => {
                let holder = locked.holder(&host.to_string()).unwrap().clone();
                let wish = Wish::Lock { on: self.semaphore.generation, record: self.record(host), place: self.note(host), holder };
                At::Locking(self.send(host, wish))
            }
            Err(_) => At::First(self.semaphore.generation, self.semaphore.holders.len()),
        }
    }

    fn unlock(&mut self, host: usize) -> At {
        At::Settling(self.send(host, Wish::Unlock { record: self.record(host) }))
    }

    /// Etcd does what a message says, or not.
    fn transact(&mut self, host: usize, wish: &Wish) -> bool {
        let done = match wish {
            Wish::Lock { on, record, place, .. } => {
                *on == self.semaphore.generation && *record == self.record(host) && *place == self.note(host) && !self.quarantined
            }
            Wish::Unlock { record } => *record == self.record(host),
            Wish::Quarantine { on } => *on == self.semaphore.generation && !self.quarantined,
        };
        if !done {
            return false;
        }
        match wish {
            Wish::Lock { holder, .. } => {
                self.semaphore = self.semaphore.without(&holder.id).touched();
                self.semaphore.add(holder.clone()).unwrap();
                self.records[host] += 1;
                self.leave(host);
            }
            Wish::Unlock { .. } => self.semaphore = self.semaphore.without(&host.to_string()),
            Wish::Quarantine { .. } => {
                self.semaphore = self.semaphore.touched();
                self.quarantined = true;
            }
        }
        true
    }

    /// A message arrives; the sender hears of it if it still waits.
    fn arrive(&mut self, message: &Message) {
        let host = message.from;
        let done = self.transact(host, &message.wish);
        self.at[host] = match self.at[host].clone() {
            At::Locking(number) if number == message.number => match &message.wish {
                Wish::Lock { holder, .. } if done => At::Held(holder.fence),
                _ => At::Queued,
            },
            At::Settling(number) if number == message.number => {
                if done {
                    At::Done
                } else {
                    At::Booted(None)
                }
            }
            At::Returning(number) if number == message.number => At::Leaving,
            At::Reporting(number) if number == message.number => {
                if done || self.quarantined {
                    self.report(host);
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
        let lost = |number: u8| !self.network.iter().any(|message| message.number == number);
        next.at[host] = match &self.at[host] {
            At::Joining(revision) => {
                next.join(host, *revision);
                At::Queued
            }
            At::Queued if self.quarantined => {
                next.leave(host);
                // Got without hearing of it.
                if self.semaphore.holder(&id).is_some() { next.unlock(host) } else { At::Refused }
            }
            At::Queued => match self.place(host) {
                // Its lease ran out, or its own lock, of which it did not hear, took it away.
                None => At::Joining(self.semaphore.generation),
                Some(mine) => match self.places.iter().rfind(|place| **place < mine) {
                    Some(before) if self.semaphore.holder(&id).is_none() => At::Behind(*before),
                    _ => next.lock(setup, host),
                },
            },
            At::Behind(before) if !self.places.contains(before) => At::Queued,
            At::First(generation, holders) => {
                if self.semaphore.generation == *generation && self.semaphore.holders.len() == *holders {
                    return None;
                }
                At::Queued
            }
            // With its place made again, the lock that it sent is there or never comes.
            At::Doubting => At::Joining(self.semaphore.generation),
            // Right before the reboot it looks once more. Without its lock it begins again.
            At::Held(fence) => match self.semaphore.standing(&id, *fence) {
                Standing::Held(_) if !self.quarantined => At::Down(Some(*fence)),
                Standing::Held(_) => next.unlock(host),
                _ => At::Joining(self.semaphore.generation),
            },
            At::Down(fence) => {
                next.boots[host] += 1;
                At::Booted(*fence)
            }
            At::Booted(_) => {
                // `settle`: out of the queue, then what is in its record.
                next.leave(host);
                let bad = host < setup.bad;
                let boot_id = self.boots[host].to_string();
                let decide = |record, cleared| {
                    let outcome = match (bad, cleared) {
                        (true, true) => Outcome::Cleared,
                        (true, false) => Outcome::Failed("test".to_owned()),
                        _ => Outcome::Pending,
                    };
                    release::decide(record, &Host { boot_id: &boot_id, running: if bad { OLD } else { NEW }, healthy: true, outcome })
                };
                match self.semaphore.holder(&id) {
                    None => At::Done,
                    Some(record) => match decide(record, !self.quarantined && self.reported[host] == record.boot_id.parse().ok()) {
                        Decision::Release { .. } => next.unlock(host),
                        Decision::FellBack { .. } if self.quarantined => {
                            next.report(host);
                            At::FellBack
                        }
                        Decision::FellBack { .. } => At::Reporting(next.send(host, Wish::Quarantine { on: self.semaphore.generation })),
                        Decision::Keep { why } => panic!("a host that is healthy again keeps its lock: {why}"),
                    },
                }
            }
            At::Leaving => {
                next.leave(host);
                match self.record(host) {
                    0 => At::Joining(self.semaphore.generation),
                    record => At::Returning(next.send(host, Wish::Unlock { record })),
                }
            }
            // Both watch for it.
            At::FellBack if !self.quarantined => At::Booted(None),
            At::Refused if !self.quarantined => At::Joining(self.semaphore.generation),
            // A message that was lost altogether.
            At::Locking(number) if lost(*number) => At::Doubting,
            At::Settling(number) | At::Reporting(number) if lost(*number) => At::Booted(None),
            At::Returning(number) if lost(*number) => At::Leaving,
            _ => return None,
        };
        Some(next)
    }
}

impl Model for State {
    type Setup = Setup;

    fn first(setup: Setup) -> Self {
        let semaphore = Semaphore { max: setup.max, ..Semaphore::default() };
        Self {
            at: vec![At::Joining(0); setup.hosts],
            semaphore,
            records: vec![0; setup.hosts],
            places: Vec::new(),
            notes: vec![0; setup.hosts],
            quarantined: false,
            reported: vec![None; setup.hosts],
            clears: setup.clears,
            call_offs: setup.call_offs,
            ran_out: Vec::new(),
            network: Vec::new(),
            numbers: 0,
            faults: setup.faults,
            timeouts: setup.timeouts,
            boots: vec![0; setup.hosts],
        }
    }

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
            let waits = matches!(self.at[host], At::Queued | At::Behind(_) | At::First(..) | At::Locking(_) | At::Doubting | At::Held(_));
            if waits && self.call_offs > 0 {
                let mut state = self.clone();
                state.call_offs -= 1;
                state.at[host] = At::Leaving;
                next.push((false, state));
            }
            if self.faults == 0 {
                continue;
            }
            let mut fault = |at: At| {
                let mut state = self.clone();
                state.faults -= 1;
                state.at[host] = at;
                next.push((false, state));
            };
            match &self.at[host] {
                // It no longer waits for the answer; the message is still under way.
                At::Locking(_) => {
                    fault(At::Doubting);
                    fault(At::Down(None));
                }
                At::Returning(_) => {
                    fault(At::Leaving);
                    fault(At::Down(None));
                    fault(At::Joining(self.semaphore.generation));
                }
                At::Settling(_) => {
                    fault(At::Booted(None));
                    fault(At::Down(None));
                    // It wants the lock again, with the unlock still under way.
                    fault(At::Joining(self.semaphore.generation));
                }
                At::Reporting(_) => {
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
                if matches!(cut.at[host], At::Behind(_) | At::First(..)) {
                    cut.at[host] = At::Queued;
                }
                next.push((false, cut));
            }
        }
        if self.clears > 0 && self.quarantined {
            let mut cleared = self.clone();
            cleared.clears -= 1;
            cleared.quarantined = false;
            cleared.semaphore = self.semaphore.touched();
            next.push((false, cleared));
        }
        if self.timeouts > 0 {
            // A record goes with its lease.
            for holder in &self.semaphore.holders {
                let mut state = self.clone();
                state.timeouts -= 1;
                state.ran_out.push(holder.fence);
                state.semaphore = self.semaphore.without(&holder.id);
                next.push((false, state));
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

    /// A quarantine was cleared, and none came after it.
    fn is_witness(&self, setup: Setup) -> bool {
        setup.clears == 0 || self.clears < setup.clears && !self.quarantined
    }

    fn ended_well(&self, setup: Setup) {
        let holders: Vec<&str> = self.semaphore.holders.iter().map(|holder| holder.id.as_str()).collect();
        assert!(self.places.is_empty(), "the queue is left with {:?}, hosts {:?}, {:?}", self.places, self.at, self.semaphore);
        if self.quarantined {
            assert!(setup.bad > 0);
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
