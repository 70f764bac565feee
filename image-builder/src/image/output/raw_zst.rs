//! The disk byte for byte, compressed with zstd. The disk is cut into frames by what is on it alone, and each is
//! compressed by itself: so they can be made side by side, and the bytes do not depend on how many threads did it.
//! (The library's own threads do not promise that: with long distance matching they cut the work by their number.)
//!
//! The programs of a container host are alike over long distances, since they are linked from the same libraries. So
//! frames, and the window in which the like is found, are as large as `zstd -d` unpacks without being asked to: 128 MiB.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::thread;

use zstd::zstd_safe::CParameter;

use super::Writer;
use crate::image::plan::DiskPlan;
use crate::image::source::Source;

const WINDOW_LOG: u32 = 27;
/// The longest frame of data.
const FRAME: u64 = 1 << WINDOW_LOG;
/// The longest frame of a hole.
const HOLE: u64 = 1 << 30;
/// Frames begin and end at multiples of this, so that small gaps do not cut runs.
const UNIT: u64 = 4 << 20;
const LEVEL: i32 = 10;
/// The level's own table is made for a window of 4 MiB and forgets what is farther back. This one takes a fifth longer
/// and saves 3.5 % of a Docker host; level 11 would take half as long again for a third of a percent.
const HASH_LOG: u32 = 24;
/// Each thread needs about 350 MiB.
const MAX_THREADS: usize = 8;

pub struct RawZst;

impl Writer for RawZst {
    fn write(&self, plan: &DiskPlan, output: &mut File, done: &(dyn Fn(u64) + Sync)) -> io::Result<()> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        write(plan, output, LEVEL, threads, done)
    }
}

/// Cuts the disk into frames: each run of data into equal ones, so that threads get equal work, and each hole.
fn frames(plan: &DiskPlan) -> Vec<Range<u64>> {
    let mut frames = Vec::new();
    let mut cut = |range: Range<u64>, longest: u64| {
        let len = range.end - range.start;
        let count = len.div_ceil(longest).max(1);
        let step = len.div_ceil(count).next_multiple_of(UNIT);
        let mut start = range.start;
        while start < range.end {
            let end = (start + step).min(range.end);
            frames.push(start..end);
            start = end;
        }
    };
    let mut at = 0;
    for range in plan.data_ranges(UNIT) {
        cut(at..range.start, HOLE);
        at = range.end;
        cut(range, FRAME);
    }
    cut(at..plan.size(), HOLE);
    frames
}

fn write(plan: &DiskPlan, output: &mut impl Write, level: i32, threads: usize, done: &(dyn Fn(u64) + Sync)) -> io::Result<()> {
    let frames = frames(plan);
    let queue = Mutex::new(frames.iter().enumerate());
    let (sender, receiver) = sync_channel(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || {
                // The lock is given back before the work begins.
                let next = || queue.lock().ok().and_then(|mut queue| queue.next());
                while let Some((index, range)) = next() {
                    // The receiver is gone when another frame failed.
                    if sender.send((index, frame(plan, range, level, done))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (index, bytes) in receiver {
            early.insert(index, bytes?);
            while let Some(bytes) = early.remove(&next) {
                output.write_all(&bytes)?;
                next += 1;
            }
        }
        if next == frames.len() { Ok(()) } else { Err(io::Error::other("a compressing thread failed")) }
    })
}

fn frame(plan: &DiskPlan, range: &Range<u64>, level: i32, done: &(dyn Fn(u64) + Sync)) -> io::Result<Vec<u8>> {
    let len = range.end - range.start;
    let is_hole = plan.is_hole(range);
    let mut encoder = zstd::Encoder::new(Vec::new(), if is_hole { 1 } else { level })?;
    encoder.set_pledged_src_size(Some(len))?;
    encoder.include_checksum(true)?;
    if is_hole {
        io::copy(&mut io::repeat(0).take(len), &mut encoder)?;
        return encoder.finish();
    }
    encoder.window_log(WINDOW_LOG)?;
    encoder.set_parameter(CParameter::HashLog(HASH_LOG))?;
    encoder.long_distance_matching(true)?;
    let mut buffer = vec![0; UNIT as usize];
    let mut at = range.start;
    while at < range.end {
        let (part, _) = buffer.split_at_mut((range.end - at).min(UNIT) as usize);
        let end = at + part.len() as u64;
        plan.read_at(part, at)?;
        encoder.write_all(part)?;
        done(plan.data_in(&(at..end)));
        at = end;
    }
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn plan() -> DiskPlan {
        let mut plan = DiskPlan::new(300 << 20);
        plan.place(512, Arc::new(vec![1; 100])).unwrap();
        plan.place(70 << 20, Arc::new((0..150_u32 << 18).flat_map(|number| (number % 10_000).to_le_bytes()).collect::<Vec<u8>>())).unwrap();
        plan
    }

    #[test]
    fn frames_cover_the_disk_and_are_even() {
        let mib: Vec<_> = frames(&plan()).iter().map(|range| (range.start >> 20, range.end >> 20)).collect();
        // The data begin and end inside of a unit of 4 MiB.
        assert_eq!(mib, [(0, 4), (4, 68), (68, 144), (144, 220), (220, 300)]);
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_number_of_threads() {
        let plan = plan();
        let compressed = [1, 2, 5].map(|threads| {
            let mut bytes = Vec::new();
            write(&plan, &mut bytes, 1, threads, &|_| ()).unwrap();
            bytes
        });
        assert!(compressed[0] == compressed[1] && compressed[0] == compressed[2]);
        let mut expected = vec![0; 300 << 20];
        plan.read_at(&mut expected, 0).unwrap();
        assert!(zstd::decode_all(compressed[0].as_slice()).unwrap() == expected);
    }
}
