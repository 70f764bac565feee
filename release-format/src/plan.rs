//! Which ranges of which packs to fetch for the chunks that are wanted: sorted by place, joined across small gaps, and
//! cut so that little is fetched twice after an interruption. Equal inputs give the same plan, so a journal needs
//! only a number of a fetch. Where chunks lie so scattered that there would be too many requests, larger gaps are read past.

use crate::index::PackIndex;
use crate::map::{Chunk, ContentMap};

/// How ranges are joined and cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Bytes that nobody wants, and that are fetched all the same rather than to ask again.
    pub max_gap: u64,
    /// A fetch ends with the payload that reaches so many bytes; so it is at most a chunk longer.
    pub max_len: u64,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { max_gap: 32 * 1024, max_len: 7 * 1024 * 1024 }
    }
}

/// A range of a pack and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Number of the pack in the release's list.
    pub pack: u16,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// The chunks, by the place of their payload; equal chunks have one payload and stand side by side.
    pub chunks: Vec<PlannedChunk>,
}

/// A chunk of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedChunk {
    /// Its number in the map.
    pub chunk: u32,
    /// Where in the pack its payload starts.
    pub offset: u64,
    /// Bytes of the payload.
    pub len: u32,
}

/// What to fetch and what to write without fetching.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FetchPlan {
    /// Ranges, by pack and offset.
    pub fetches: Vec<Fetch>,
    /// Wanted chunks that are zeros.
    pub zeros: Vec<u32>,
    /// Fetches of one pack that are no further apart are asked for together.
    pub max_gap: u64,
}

/// No update asks for more ranges than this, as long as reading past what is not wanted can prevent it.
pub const MAX_REQUESTS: usize = 400;
/// One request asks for no more as a rule, so that little lies in a connection's buffers when an update is interrupted.
pub const ANSWER: u64 = 4 << 20;
/// Larger gaps are never read past.
const LARGEST_GAP: u64 = 64 << 20;

impl FetchPlan {
    /// The plan for the chunks that `wanted` says yes to. For those of them that have no entry there is no plan: look before.
    pub fn new(map: &ContentMap, index: &PackIndex, options: &PlanOptions, mut wanted: impl FnMut(u32, &Chunk) -> bool) -> Self {
        let (mut planned, mut zeros) = (Vec::new(), Vec::new());
        for (number, entry) in index.entries() {
            if !map.chunk(number).is_some_and(|chunk| wanted(number, &chunk)) {
                continue;
            }
            if entry.operation.has_payload() {
                planned.push((entry.pack, PlannedChunk { chunk: number, offset: entry.offset, len: entry.len }));
            } else {
                zeros.push(number);
            }
        }
        Self { zeros, ..Self::of(planned, options) }
    }

    /// The plan for payloads, each with the number of its pack.
    #[must_use]
    pub fn of(mut planned: Vec<(u16, PlannedChunk)>, options: &PlanOptions) -> Self {
        let mut plan = Self { max_gap: options.max_gap, ..Self::default() };
        planned.sort_unstable_by_key(|(pack, chunk)| (*pack, chunk.offset, chunk.chunk));
        for (pack, chunk) in planned {
            let end = chunk.offset + u64::from(chunk.len);
            let joined = plan.fetches.last_mut().filter(|last| {
                let last_end = last.offset + last.len;
                let same_payload = end <= last_end;
                let near = chunk.offset <= last_end.saturating_add(options.max_gap);
                last.pack == pack && (same_payload || (near && last.len < options.max_len))
            });
            match joined {
                Some(last) => {
                    last.len = last.len.max(end - last.offset);
                    last.chunks.push(chunk);
                }
                None => plan.fetches.push(Fetch { pack, offset: chunk.offset, len: u64::from(chunk.len), chunks: vec![chunk] }),
            }
        }
        plan
    }

    /// The plan with the smallest gaps, from those of `options` on, that needs at most `limit` requests.
    pub fn within(
        map: &ContentMap,
        index: &PackIndex,
        options: &PlanOptions,
        limit: usize,
        mut wanted: impl FnMut(u32, &Chunk) -> bool,
    ) -> Self {
        let mut options = *options;
        loop {
            let plan = Self::new(map, index, &options, &mut wanted);
            if plan.requests() <= limit || options.max_gap >= LARGEST_GAP {
                return plan;
            }
            options.max_gap = options.max_gap.max(1024).saturating_mul(2);
        }
    }

    /// Bytes that one request asks for at most, unless a fetch is longer: more than usual for an update so large that there would be too many.
    #[must_use]
    pub fn answer(&self) -> u64 {
        ANSWER.max(self.bytes().div_ceil(MAX_REQUESTS as u64 / 2))
    }

    /// How many ranges are asked for: fetches that follow each other closely are one, up to [`FetchPlan::answer`].
    #[must_use]
    pub fn requests(&self) -> usize {
        let (mut requests, answer) = (0, self.answer());
        let mut open: Option<Fetch> = None;
        for fetch in &self.fetches {
            let end = fetch.offset + fetch.len;
            let follows = |open: &&mut Fetch| {
                let near = fetch.offset <= (open.offset + open.len).saturating_add(self.max_gap);
                open.pack == fetch.pack && near && end <= open.offset + answer
            };
            match open.as_mut().filter(follows) {
                Some(open) => open.len = end - open.offset,
                None => {
                    requests += 1;
                    open = Some(Fetch { chunks: Vec::new(), ..*fetch });
                }
            }
        }
        requests
    }

    /// Bytes of all ranges.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.fetches.iter().map(|fetch| fetch.len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn ranges_are_joined_across_gaps_and_cut_by_length() {
        let sample = testing::sample();
        let ranges = |options: PlanOptions, skip: u32| {
            let plan = FetchPlan::new(&sample.map, &sample.index, &options, |number, _| number != skip);
            plan.fetches.iter().map(|fetch| (fetch.pack, fetch.chunks.len())).collect::<Vec<_>>()
        };
        let all = FetchPlan::new(&sample.map, &sample.index, &PlanOptions::default(), |_, _| true);
        assert_eq!(all.bytes(), sample.pack_bytes.iter().map(|pack| pack.len() as u64 - 16).sum::<u64>());
        let joined = ranges(PlanOptions { max_gap: 1 << 20, max_len: 1 << 30 }, 2);
        let apart = ranges(PlanOptions { max_gap: 0, max_len: 1 << 30 }, 2);
        let single = ranges(PlanOptions { max_gap: 1 << 20, max_len: 1 }, u32::MAX);
        assert!(joined.len() < apart.len() && single.len() >= apart.len(), "{joined:?} {apart:?} {single:?}");
    }

    #[test]
    fn equal_chunks_are_fetched_once() {
        let noise: Vec<u8> = (0..5000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let sample = testing::release_of(&[("a", &noise), ("b", &noise)], b"uki");
        let plan = FetchPlan::new(&sample.map, &sample.index, &PlanOptions { max_gap: 0, max_len: 1 }, |_, _| true);
        let twins = plan.fetches.iter().find(|fetch| fetch.chunks.len() == 2).expect("one fetch for both");
        assert_eq!(twins.len, u64::from(twins.chunks[0].len));
    }

    #[test]
    fn what_is_not_wanted_costs_nothing() {
        let sample = testing::sample();
        let plan = FetchPlan::new(&sample.map, &sample.index, &PlanOptions::default(), |_, _| false);
        assert_eq!((plan.bytes(), plan.requests(), plan.fetches, plan.zeros), (0, 0, Vec::new(), Vec::new()));
    }

    #[test]
    fn scattered_chunks_are_fetched_with_what_lies_between_rather_than_with_many_requests() {
        let body = |seed: u32| (0..5000_u32).map(|at| (at.wrapping_mul(seed * 2 + 77_777) >> 13) as u8).collect::<Vec<u8>>();
        let bodies: Vec<(String, Vec<u8>)> = (0..60).map(|number| (format!("f{number:02}"), body(number))).collect();
        let files: Vec<(&str, &[u8])> = bodies.iter().map(|(path, body)| (path.as_str(), body.as_slice())).collect();
        let sample = testing::release_of(&files, b"uki");
        let options = PlanOptions { max_gap: 0, max_len: 1 };
        let third = |number: u32, _: &Chunk| number.is_multiple_of(3);
        let many = FetchPlan::new(&sample.map, &sample.index, &options, third);
        assert!(many.requests() > 10, "{}", many.requests());
        for limit in [10, 5, 2] {
            let few = FetchPlan::within(&sample.map, &sample.index, &options, limit, third);
            assert!(few.requests() <= limit, "{} {limit}", few.requests());
            let chunks = |plan: &FetchPlan| plan.fetches.iter().flat_map(|fetch| fetch.chunks.clone()).collect::<Vec<_>>();
            assert_eq!(chunks(&few), chunks(&many));
        }
    }

    #[test]
    fn answers_are_short_but_for_updates_so_large_that_there_would_be_too_many() {
        let len = 512 << 10;
        let plan = |count: u64| {
            let fetches = (0..count).map(|number| Fetch { pack: 0, offset: 16 + number * len, len, chunks: Vec::new() });
            FetchPlan { fetches: fetches.collect(), ..FetchPlan::default() }
        };
        assert_eq!([1, 8, 9, 20].map(|count| plan(count).requests()), [1, 1, 2, 3]);
        let large = plan(16 << 10);
        assert!(large.answer() > 40 << 20 && large.requests() <= MAX_REQUESTS, "{} {}", large.answer(), large.requests());
    }
}
