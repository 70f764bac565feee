//! All disks that a power cut during an operation can leave.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::disk::{Event, Image};

/// A small generator, so that failures can be repeated.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A state with where it comes from.
pub struct Crash {
    pub image: Image,
    pub what: String,
}

/// Every prefix of the log; at each, `subsets` random choices of what was not flushed, and the next write torn at `tears` places.
/// States that are equal are given once.
pub fn crashes(before: &Image, log: &[Event], subsets: usize, tears: usize) -> Vec<Crash> {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let mut seen = HashSet::new();
    let mut states = Vec::new();
    let mut add = |image: Image, what: String| {
        if seen.insert(image.identity()) {
            states.push(Crash { image, what });
        }
    };
    let mut durable = before.clone();
    let mut pending: Vec<&Event> = Vec::new();
    add(before.clone(), "nothing written".to_owned());
    for (index, event) in log.iter().enumerate() {
        match event {
            Event::Sync(area) => {
                pending.retain(|pending| match pending {
                    Event::Write(of, number, sector) if of == area => {
                        durable.written.insert(*number, sector.clone());
                        false
                    }
                    _ => true,
                });
            }
            Event::Write(area, number, sector) => {
                let with = |chosen: &mut dyn FnMut(usize) -> bool| {
                    let mut image = durable.clone();
                    let picked = pending.iter().enumerate().filter(|(at, _)| chosen(*at));
                    image.written.extend(picked.filter_map(|(_, event)| match event {
                        Event::Write(_, number, sector) => Some((*number, sector.clone())),
                        Event::Sync(_) => None,
                    }));
                    image
                };
                for _ in 0..tears {
                    let mut image = with(&mut |_| true);
                    let cut = 1 + random.next() as usize % 511;
                    let mut torn = image.sector(*number);
                    torn[..cut].copy_from_slice(&sector[..cut]);
                    image.written.insert(*number, Arc::new(torn));
                    add(image, format!("write {index} ({area}) torn at {cut}"));
                }
                for _ in 0..subsets {
                    // Few lost, few kept, and half of them.
                    let odds = [16, 128, 240][random.next() as usize % 3];
                    let mut image = with(&mut |_| random.next() % 256 < odds);
                    if random.next().is_multiple_of(2) {
                        image.written.insert(*number, sector.clone());
                    }
                    add(image, format!("a subset of what was not flushed before write {index} ({area})"));
                }
                pending.push(event);
                let mut image = durable.clone();
                let all: BTreeMap<_, _> = pending
                    .iter()
                    .filter_map(|event| match event {
                        Event::Write(_, number, sector) => Some((*number, sector.clone())),
                        Event::Sync(_) => None,
                    })
                    .collect();
                image.written.extend(all);
                add(image, format!("cut after write {index} ({area})"));
            }
        }
    }
    states
}
