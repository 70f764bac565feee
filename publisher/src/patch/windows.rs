//! Windows: runs of new chunks, and the old bytes they are made of. Small files share one, so that what their changes have in common (a
//! version string in a thousand modules) is coded once; large ones are cut, and see the old bytes around the same place. What is large or
//! changes always, as the metadata of the file system, shares no window, so that other releases can borrow what is made of the rest.

use release_format::{ChunkRun, ContentMap, Extent, ExtentKind, Part, SourceRun};

use super::matching::kin;

/// How large windows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// New bytes of a window, at least a chunk; the format allows 8 MiB.
    pub output: u64,
    /// Old bytes of a window; the format allows 16 MiB.
    pub source: u64,
    /// Old bytes that a piece sees before and behind its own place, at least.
    pub margin: u64,
    /// Whether several files may share a window.
    pub together: bool,
}

impl Default for Caps {
    fn default() -> Self {
        Self { output: 4 << 20, source: 16 << 20, margin: 1 << 20, together: true }
    }
}

/// What becomes one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// New chunks in order.
    pub chunks: Vec<ChunkRun>,
    /// Old bytes.
    pub sources: Vec<SourceRun>,
    /// Bytes of these chunks.
    pub output: u64,
}

impl Window {
    /// A window of old bytes, for bytes that are no chunks.
    #[must_use]
    pub fn of_bytes(source: SourceRun) -> Self {
        Self { sources: vec![source], ..Self::default() }
    }

    /// Numbers of its chunks.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().flat_map(ChunkRun::numbers)
    }

    fn source(&self) -> u64 {
        self.sources.iter().map(|run| run.len).sum()
    }

    fn add(&mut self, first: u32, count: u32, len: u64, sources: Option<SourceRun>) {
        ChunkRun { first, count }.join(&mut self.chunks);
        self.output += len;
        let Some(run) = sources else { return };
        let overlaps = |last: &&mut SourceRun| last.part == run.part && last.offset <= run.offset && run.offset <= last.offset + last.len;
        match self.sources.last_mut().filter(overlaps) {
            Some(last) => last.len = last.len.max(run.offset + run.len - last.offset),
            None => self.sources.push(run),
        }
    }
}

/// The windows of all chunks of `new` whose numbers are `wanted`.
#[must_use]
pub fn cut(old: &ContentMap, new: &ContentMap, wanted: impl Fn(u32) -> bool, caps: &Caps) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut window = Window::default();
    let mut alone = false;
    let news = [Part::Root, Part::Uki].into_iter().flat_map(|part| new.extents(part));
    for (extent, kin) in news.zip(kin(old, new)) {
        let kin = kin.map(|(kin, _)| kin);
        // What makes the kernel makes nothing else, so that a host that has a kernel patch can pass over it.
        let is_alone = extent.kind != ExtentKind::File || extent.chunk_count() > 1;
        if alone || is_alone {
            windows.extend(Some(std::mem::take(&mut window)).filter(|window| window.output > 0));
        }
        alone = is_alone;
        for (first, count) in runs(extent, &wanted, caps) {
            let len: u64 = (first..first + count).filter_map(|number| new.chunk(number)).map(|chunk| u64::from(chunk.len)).sum();
            let at = u64::from(first - extent.first_chunk) * release_format::limits::CHUNK;
            let source = kin.map(|kin| around(old, kin, extent, at, len, caps));
            let more = source.map_or(0, |source| source.len);
            let full = window.output + len > caps.output || window.source() + more > caps.source || !caps.together;
            if window.output > 0 && full {
                windows.push(std::mem::take(&mut window));
            }
            window.add(first, count, len, source);
        }
    }
    if window.output > 0 {
        windows.push(window);
    }
    windows
}

/// Runs of an extent's chunks that are wanted, each of at most a window.
fn runs(extent: &Extent, wanted: impl Fn(u32) -> bool, caps: &Caps) -> Vec<(u32, u32)> {
    let most = u32::try_from(caps.output / release_format::limits::CHUNK).unwrap_or(1);
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in extent.numbers().filter(|number| wanted(*number)) {
        match runs.last_mut().filter(|(first, count)| first + *count == number && *count < most) {
            Some((_, count)) => *count += 1,
            None => runs.push((number, 1)),
        }
    }
    runs
}

/// The old bytes around where a piece of a file was.
fn around(old: &ContentMap, kin: &Extent, extent: &Extent, at: u64, len: u64, caps: &Caps) -> SourceRun {
    let part = old.chunk(kin.first_chunk).map_or(Part::Root, |chunk| chunk.part);
    let (low, len) = caps.around(kin.len, extent.len, at, len);
    SourceRun { part, offset: kin.offset + low, len }
}

impl Caps {
    /// Where among `old` bytes those are that `len` bytes at `at` of `new` ones are made of, if files grow evenly; and how many.
    #[must_use]
    pub fn around(&self, old: u64, new: u64, at: u64, len: u64) -> (u64, u64) {
        let place = u64::try_from(u128::from(at) * u128::from(old) / u128::from(new.max(1))).unwrap_or(0);
        let margin = len.max(self.margin).min(self.source.saturating_sub(self.output) / 2);
        // Places of an old file that is larger lie further apart; within a file that grew at one place they are where they were.
        let (low, high) = (place.min(at).saturating_sub(margin), place.max(at).saturating_add(len + margin).min(old));
        let low = low.min(old.saturating_sub(len.min(old)));
        let len = high.saturating_sub(low).clamp(1, self.source);
        (low, len.min(old - low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use release_format::{Digest, LocalChunks, MapBuilder};

    /// A map of files of so many bytes, whose chunks are told apart by file and by `age`.
    fn map(files: &[(u8, u64)], age: u8) -> ContentMap {
        let mut builder = MapBuilder::new();
        let mut size = 4096;
        builder.begin(ExtentKind::Metadata, "", 4096).unwrap();
        builder.chunk(Digest::of(&[age]));
        for (number, (keep, len)) in files.iter().enumerate() {
            builder.begin(ExtentKind::File, &format!("f{number}"), *len).unwrap();
            for chunk in 0..len.div_ceil(release_format::limits::CHUNK) {
                let changed = if chunk % 7 < u64::from(*keep) { 0 } else { age };
                builder.chunk(Digest::of(format!("{number} {chunk} {changed} {len}").as_bytes()));
            }
            size += len.next_multiple_of(4096);
        }
        builder.begin(ExtentKind::Section, ".linux", 100).unwrap();
        builder.chunk(Digest::of(&[age, 1]));
        builder.finish(size, 100).unwrap()
    }

    fn extent_of(map: &ContentMap, number: u32) -> &Extent {
        let all = [Part::Root, Part::Uki].into_iter().flat_map(|part| map.extents(part));
        all.into_iter().find(|extent| extent.numbers().contains(&number)).unwrap()
    }

    proptest! {
        #[test]
        fn windows_keep_to_every_cap_and_cover_what_is_new_once(
            old in proptest::collection::vec((0_u8..8, 1_u64..40_000_000), 0..6),
            grown in proptest::collection::vec(1_u64..9_000_000, 0..6),
            output in 1_u64..32, source in 1_u64..64, together: bool,
        ) {
            let caps = Caps { output: output << 18, source: (source << 18).max(output << 18), margin: 1 << 20, together };
            let new: Vec<(u8, u64)> = old.iter().enumerate().map(|(at, (keep, len))| (*keep, len + grown.get(at).unwrap_or(&0))).collect();
            let (old, new) = (map(&old, 1), map(&new, 2));
            let missing = LocalChunks::of(&old).lacking(&new);
            let windows = cut(&old, &new, |number| missing.binary_search(&number).is_ok(), &caps);
            let covered: Vec<u32> = windows.iter().flat_map(Window::numbers).collect();
            prop_assert_eq!(covered, missing);
            for window in &windows {
                let made: u64 = window.numbers().map(|number| u64::from(new.chunk(number).unwrap().len)).sum();
                prop_assert!(made <= caps.output, "{} {:?}", made, caps);
                prop_assert!(window.source() <= caps.source, "{} {:?}", window.source(), caps);
                // So that what is made of other files can be borrowed whatever becomes of this one.
                let of: std::collections::BTreeSet<&str> = window.numbers().map(|number| extent_of(&new, number).path.as_str()).collect();
                let alone = |number| extent_of(&new, number).kind != ExtentKind::File || extent_of(&new, number).chunk_count() > 1;
                prop_assert!(of.len() == 1 || !window.numbers().any(alone), "{:?}", of);
                for run in &window.sources {
                    let size = if run.part == Part::Root { old.root_size() } else { old.uki_size() };
                    prop_assert!(run.len > 0 && run.offset + run.len <= size, "{:?}", run);
                }
            }
        }
    }
}
