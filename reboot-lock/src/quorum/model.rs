//! A model of the reservation to take an etcd member down, checked exhaustively as [`crate::model`] is: hosts that reserve, look once more, go down, come back
//! and give it back; that call it off at any time and begin again; that crash; a person who gives a reservation back by hand; requests that are lost, late
//! and done twice.
//!
//! Checked in every state: a host that is down on purpose has the reservation, so that no other is, unless a person took it away. About all paths: each ends,
//! with every host done and no reservation left.

use std::collections::BTreeSet;

use crate::model_search::Model;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) hosts: usize,
    pub(crate) faults: u8,
    /// How often a host calls it off.
    pub(crate) call_offs: u8,
    /// How often a person gives back a reservation.
    pub(crate) by_hand: u8,
}

/// Where a host is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum At {
    /// Wants it.
    Wanting,
    /// Has asked for it.
    Reserving(u8),
    /// Has it, and is about to look once more.
    Reserved,
    /// Down: on purpose with the reservation of that revision, or by a crash.
    Down(Option<u8>),
    /// Gives back what it has; then it is done, or begins again.
    Leaving { done: bool },
    /// Has sent that.
    Releasing(u8, bool),
    /// Runs, and has no reason to go down again.
    Done,
}

/// A transaction under way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Wish {
    /// If it was written last at this revision, or is not there (0), and the host's note that it asks was.
    Reserve { on: u8, note: u8 },
    /// If it was written last at this revision, or is not there (0): the host's note goes, and the reservation, if it is the host's.
    Release { on: u8 },
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    at: Vec<At>,
    /// Whose it is, and the revision that wrote it.
    reservation: Option<(usize, u8)>,
    revision: u8,
    /// How often each host has noted that it asks: while the note is there, its revision.
    noted: Vec<u8>,
    notes: Vec<bool>,
    /// Revisions of reservations that a person gave back.
    by_hand: Vec<u8>,
    /// Sorted: that one was sent before the other says nothing about when they arrive.
    network: BTreeSet<(usize, u8, Wish)>,
    /// Messages of each host.
    numbers: Vec<u8>,
    faults: u8,
    call_offs: u8,
    left_by_hand: u8,
}

impl State {
    fn send(&mut self, from: usize, wish: Wish) -> u8 {
        self.numbers[from] += 1;
        self.network.insert((from, self.numbers[from], wish));
        self.numbers[from]
    }

    /// The revision at which this host could write it: of its own, or 0.
    fn own(&self, host: usize) -> Option<u8> {
        self.reservation.filter(|(by, _)| *by == host).map(|(_, revision)| revision)
    }

    fn arrive(&mut self, number: u8, host: usize, wish: &Wish) {
        let there = self.reservation.map_or(0, |(_, revision)| revision);
        let done = match wish {
            Wish::Reserve { on, note } => *on == there && self.notes[host] && *note == self.noted[host],
            Wish::Release { on } => *on == there,
        };
        match wish {
            Wish::Reserve { .. } if done => {
                self.revision += 1;
                self.reservation = Some((host, self.revision));
            }
            Wish::Release { .. } if done => {
                self.notes[host] = false;
                self.reservation = self.reservation.filter(|(by, _)| *by != host);
            }
            _ => {}
        }
        self.at[host] = match self.at[host].clone() {
            At::Reserving(waits) if waits == number => {
                if done {
                    At::Reserved
                } else {
                    At::Wanting
                }
            }
            At::Releasing(waits, over) if waits == number => match (done, over) {
                (false, done) => At::Leaving { done },
                (true, true) => At::Done,
                (true, false) => At::Wanting,
            },
            other => other,
        };
    }

    fn step(&self, host: usize) -> Option<Self> {
        let mut next = self.clone();
        let lost = |number: u8| !self.network.iter().any(|(from, sent, _)| (*from, *sent) == (host, number));
        next.at[host] = match &self.at[host] {
            At::Wanting => {
                if self.reservation.is_some() && self.own(host).is_none() {
                    return None;
                }
                (next.noted[host], next.notes[host]) = (self.noted[host] + 1, true);
                At::Reserving(next.send(host, Wish::Reserve { on: self.own(host).unwrap_or(0), note: self.noted[host] + 1 }))
            }
            At::Reserved => match self.own(host) {
                Some(revision) => At::Down(Some(revision)),
                None => At::Wanting,
            },
            At::Down(_) => At::Leaving { done: true },
            // Whatever is there: once this is done, what the host asked for is gone or never comes.
            At::Leaving { done } => {
                let on = self.reservation.map_or(0, |(_, revision)| revision);
                At::Releasing(next.send(host, Wish::Release { on }), *done)
            }
            At::Reserving(number) if lost(*number) => At::Wanting,
            At::Releasing(number, over) if lost(*number) => At::Leaving { done: *over },
            _ => return None,
        };
        Some(next)
    }
}

impl Model for State {
    type Setup = Setup;

    fn first(setup: Setup) -> Self {
        Self {
            at: vec![At::Wanting; setup.hosts],
            reservation: None,
            revision: 0,
            noted: vec![0; setup.hosts],
            notes: vec![false; setup.hosts],
            by_hand: Vec::new(),
            network: BTreeSet::new(),
            numbers: vec![0; setup.hosts],
            faults: setup.faults,
            call_offs: setup.call_offs,
            left_by_hand: setup.by_hand,
        }
    }

    fn all(&self, setup: Setup) -> Vec<(bool, Self)> {
        let mut next: Vec<(bool, Self)> = (0..setup.hosts).filter_map(|host| self.step(host)).map(|state| (true, state)).collect();
        for message in &self.network {
            let (host, number, wish) = message;
            let mut arrived = self.clone();
            arrived.network.remove(message);
            let mut lost = arrived.clone();
            arrived.arrive(*number, *host, wish);
            next.push((true, arrived));
            if self.faults > 0 {
                lost.faults -= 1;
                next.push((false, lost));
                let mut twice = self.clone();
                twice.faults -= 1;
                twice.arrive(*number, *host, wish);
                next.push((false, twice));
            }
        }
        for (host, at) in self.at.iter().enumerate() {
            let mut goes = |faults: u8, call_offs: u8, at: At| {
                if let (Some(faults), Some(call_offs)) = (self.faults.checked_sub(faults), self.call_offs.checked_sub(call_offs)) {
                    let mut state = self.clone();
                    (state.faults, state.call_offs, state.at[host]) = (faults, call_offs, at);
                    next.push((false, state));
                }
            };
            match at {
                At::Wanting | At::Reserving(_) | At::Reserved => {
                    goes(0, 1, At::Leaving { done: false });
                    goes(1, 0, At::Down(None));
                }
                At::Leaving { .. } | At::Releasing(..) => goes(1, 0, At::Down(None)),
                At::Down(_) | At::Done => {}
            }
            match at {
                // It no longer waits for the answer.
                At::Reserving(_) => goes(1, 0, At::Wanting),
                At::Releasing(_, over) => goes(1, 0, At::Leaving { done: *over }),
                _ => {}
            }
        }
        if let (Some((_, revision)), Some(left)) = (self.reservation, self.left_by_hand.checked_sub(1)) {
            let mut state = self.clone();
            state.left_by_hand = left;
            state.reservation = None;
            state.by_hand.push(revision);
            next.push((false, state));
        }
        next
    }

    fn check(&self, _: Setup) {
        for (host, at) in self.at.iter().enumerate() {
            if let At::Down(Some(revision)) = at {
                assert!(
                    self.own(host) == Some(*revision) || self.by_hand.contains(revision),
                    "host {host} is down with {revision}, and the reservation is {:?}",
                    self.reservation
                );
            }
        }
    }

    fn ended_well(&self, _: Setup) {
        assert!(self.at.iter().all(|at| *at == At::Done), "it ends with {:?}", self.at);
        assert_eq!(self.reservation, None, "it is reserved for ever");
    }
}
