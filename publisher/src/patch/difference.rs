//! What BSDIFF needs: which old bytes are nearly the new ones. Exact matches are looked up in a suffix array and then extended in both
//! directions as long as more bytes agree than not (Colin Percival's method), since code that has moved agrees but for addresses.

use libsais::SuffixArrayConstruction;
use release_format::{Difference, Step};

/// A match must agree in so many bytes more than what goes on where the last one was.
const BETTER: usize = 8;

/// The difference from `old` to `new`; none when the suffix array cannot be made.
pub fn difference(old: &[u8], new: &[u8]) -> Option<Difference> {
    let suffixes = SuffixArrayConstruction::for_text(old).in_owned_buffer32().single_threaded().run().ok()?.into_vec();
    let mut found = Difference::default();
    let same = |at: usize, shift: i64| usize::try_from(at as i64 + shift).ok().and_then(|place| old.get(place)) == new.get(at);
    let (mut scan, mut len, mut place) = (0_usize, 0_usize, 0_usize);
    let (mut last_scan, mut last_place, mut shift) = (0_usize, 0_usize, 0_i64);
    let mut end_of_old = 0_usize;
    while scan < new.len() {
        let mut agreed = 0;
        scan += len;
        let mut counted = scan;
        while scan < new.len() {
            (place, len) = longest(&suffixes, old, new.get(scan..).unwrap_or_default());
            while counted < scan + len {
                agreed += usize::from(same(counted, shift));
                counted += 1;
            }
            if (len == agreed && len != 0) || len > agreed + BETTER {
                break;
            }
            agreed -= usize::from(agreed > 0 && same(scan, shift));
            scan += 1;
        }
        if len == agreed && scan != new.len() {
            continue;
        }
        // The old match goes on forwards, the new one backwards; where they meet the better one wins.
        let forward = reach((last_scan..scan).map(|at| same(at, shift)).take(old.len().saturating_sub(last_place)));
        let ahead = place as i64 - scan as i64;
        let room = if scan < new.len() { (scan - last_scan).min(place) } else { 0 };
        let mut backward = reach((1..=room).map(|back| same(scan - back, ahead)));
        let mut forward = forward;
        if forward + backward > scan - last_scan {
            let overlap = forward + backward - (scan - last_scan);
            let start = scan - backward;
            let gain = |at: usize| i64::from(same(at, shift)) - i64::from(same(at, ahead));
            let mut best = (0, 0);
            let mut sum = 0;
            for count in 1..=overlap {
                sum += gain(start + count - 1);
                if sum > best.0 {
                    best = (sum, count);
                }
            }
            forward = forward - overlap + best.1;
            backward -= best.1;
        }
        let olds = old.get(last_place..last_place + forward)?;
        let news = new.get(last_scan..last_scan + forward)?;
        found.differences.extend(news.iter().zip(olds).map(|(new, old)| new.wrapping_sub(*old)));
        let insert = new.get(last_scan + forward..scan - backward)?;
        found.new.extend(insert);
        if let Some(step) = found.steps.last_mut() {
            step.seek = last_place as i64 - end_of_old as i64;
        }
        end_of_old = last_place + forward;
        found.steps.push(Step { add: forward as u64, insert: insert.len() as u64, seek: 0 });
        (last_scan, last_place, shift) = (scan - backward, place - backward, ahead);
    }
    Some(found)
}

/// How far to go so that as many more bytes agree than not as can be.
fn reach(agrees: impl Iterator<Item = bool>) -> usize {
    let (mut sum, mut best, mut best_at) = (0_i64, 0_i64, 0);
    for (count, agrees) in (1..).zip(agrees) {
        sum += if agrees { 1 } else { -1 };
        if sum > best {
            (best, best_at) = (sum, count);
        }
    }
    best_at
}

/// Where in `old` the longest beginning of `new` is, and how long that is.
fn longest(suffixes: &[i32], old: &[u8], new: &[u8]) -> (usize, usize) {
    let suffix = |at: usize| suffixes.get(at).and_then(|&start| usize::try_from(start).ok()).unwrap_or(0);
    let (mut low, mut high) = (0, suffixes.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if old.get(suffix(middle)..).unwrap_or_default() < new { low = middle + 1 } else { high = middle }
    }
    let common = |at: usize| {
        let start = suffix(at);
        let len = old.get(start..).unwrap_or_default().iter().zip(new).take_while(|(old, new)| old == new).count();
        (start, len)
    };
    let neighbours = [low.checked_sub(1), (low < suffixes.len()).then_some(low)];
    neighbours.into_iter().flatten().map(common).max_by_key(|(_, len)| *len).unwrap_or((0, 0))
}

/// Bytes that do not compress, for tests.
#[cfg(test)]
pub(super) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `release-format` applies it, on the streams before they are compressed.
    fn apply(old: &[u8], difference: &Difference) -> Vec<u8> {
        let (mut at, mut new, mut differences, mut inserts) =
            (0_i64, Vec::new(), difference.differences.as_slice(), difference.new.as_slice());
        for step in &difference.steps {
            let (add, insert) = (step.add as usize, step.insert as usize);
            let olds = &old[at as usize..][..add];
            new.extend(olds.iter().zip(&differences[..add]).map(|(old, difference)| old.wrapping_add(*difference)));
            new.extend(&inserts[..insert]);
            (differences, inserts) = (&differences[add..], &inserts[insert..]);
            at += step.add as i64 + step.seek;
        }
        new
    }

    #[test]
    fn differences_lead_from_any_bytes_to_any_others() {
        let base = noise(1, 5000);
        let mut moved = base[2000..].to_vec();
        moved.extend(noise(2, 300));
        moved.extend(&base[..2500]);
        let shifted: Vec<u8> = base.iter().enumerate().map(|(at, byte)| if at % 37 == 0 { byte.wrapping_add(4) } else { *byte }).collect();
        let cases: [(&[u8], &[u8]); 8] = [
            (&base, &base),
            (&base, &moved),
            (&base, &shifted),
            (&shifted, &moved),
            (&base, &noise(3, 777)),
            (&base[..1], &base),
            (&base, &base[4999..]),
            (&[0; 900], &[0; 1300]),
        ];
        for (number, (old, new)) in cases.into_iter().enumerate() {
            let difference = difference(old, new).unwrap();
            assert!(apply(old, &difference) == new, "case {number}");
        }
        let shifted = difference(&base, &shifted).unwrap();
        assert!(shifted.new.len() < 40 && shifted.steps.len() < 4, "{} {}", shifted.new.len(), shifted.steps.len());
    }
}
