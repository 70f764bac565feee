//! From a payload to verified bytes of the image, and back for the publisher.

use zstd::bulk::Compressor;
use zstd::zstd_safe::DCtx;

use crate::digest::{Digest, PayloadDigest};
use crate::error::FormatError;
use crate::frames::unzstd_with;
use crate::index::PackIndex;
use crate::limits::{BLOCK, CHUNK};
use crate::map::{Chunk, ContentMap, Part};
use crate::operation::Operation;
use crate::plan::{Fetch, PlannedChunk};

/// Verified bytes and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Number of the chunk.
    pub chunk: u32,
    /// Into which file.
    pub part: Part,
    /// Where; a multiple of a block in the root image.
    pub offset: u64,
    /// The bytes. In the root image padded with zeros to whole blocks, so that all writes together cover the image.
    pub data: &'a [u8],
}

/// Turns payloads into writes, two at a time where there are two: decompressing and hashing is most of the work of an update. Holds two
/// chunks and their decompressors, under 1 MiB in all.
pub struct ChunkDecoder {
    lanes: [Lane; 2],
}

impl ChunkDecoder {
    /// Allocates all that it will ever need.
    ///
    /// # Errors
    /// When the decompressors cannot be made.
    pub fn new() -> Result<Self, FormatError> {
        Ok(Self { lanes: [Lane::new()?, Lane::new()?] })
    }

    /// Checks a payload, decompresses it and checks the chunk.
    ///
    /// # Errors
    /// When the payload or the chunk is not the one that index or map name.
    pub fn decode(&mut self, map: &ContentMap, index: &PackIndex, chunk: u32, payload: &[u8]) -> Result<Write<'_>, FormatError> {
        let [lane, _] = &mut self.lanes;
        lane.decode(map, index, chunk, payload)
    }

    /// The same for two, the second in a thread of its own.
    fn decode_both<'a>(
        &'a mut self,
        map: &ContentMap,
        index: &PackIndex,
        (first, first_payload): (u32, &[u8]),
        (second, second_payload): (u32, &[u8]),
    ) -> [Result<Write<'a>, FormatError>; 2] {
        let [lane, other] = &mut self.lanes;
        let (this, side) = std::thread::scope(|scope| {
            let side = std::thread::Builder::new().stack_size(SIDE_STACK);
            let side = side.spawn_scoped(scope, || other.check(map, index, second, second_payload));
            let this = lane.check(map, index, first, first_payload);
            (this, side.map(std::thread::ScopedJoinHandle::join))
        });
        let side = match side {
            Ok(joined) => joined.unwrap_or(Err(FormatError::Compression("chunk"))),
            // No thread is to be had: one after the other.
            Err(_) => other.check(map, index, second, second_payload),
        };
        [this.map(|place| lane.write(first, &place)), side.map(|place| other.write(second, &place))]
    }

    /// A chunk of zeros, which has no payload.
    ///
    /// # Errors
    /// When the index has a payload for it, or the map other bytes.
    pub fn zero(&mut self, map: &ContentMap, index: &PackIndex, chunk: u32) -> Result<Write<'_>, FormatError> {
        self.decode(map, index, chunk, &[])
    }

    /// A chunk that is here already: `read` fills a buffer of its size, and what it read is compared with the chunk's digest.
    ///
    /// # Errors
    /// When it cannot be read, or is not the chunk.
    pub fn local<E: From<FormatError>>(
        &mut self,
        map: &ContentMap,
        chunk: u32,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Write<'_>, E> {
        let [lane, _] = &mut self.lanes;
        lane.local(map, chunk, read)
    }

    /// Bytes that were already compared with the chunk's digest, as a write.
    ///
    /// # Errors
    /// When there is no such chunk, or it is of another length.
    pub fn put(&mut self, map: &ContentMap, chunk: u32, bytes: &[u8]) -> Result<Write<'_>, FormatError> {
        let place = map.chunk(chunk).ok_or(FormatError::NoChunk(chunk))?;
        let [lane, _] = &mut self.lanes;
        let to = lane.buffer.get_mut(..place.len as usize).filter(|to| to.len() == bytes.len());
        to.ok_or(FormatError::ChunkDigest { chunk })?.copy_from_slice(bytes);
        Ok(lane.write(chunk, &place))
    }
}

/// Nothing deep is called there.
const SIDE_STACK: usize = 256 << 10;

/// One decompressor and the chunk that it fills.
struct Lane {
    zstd: DCtx<'static>,
    buffer: Box<[u8]>,
}

impl Lane {
    fn new() -> Result<Self, FormatError> {
        let zstd = DCtx::try_create().ok_or(FormatError::Compression("decompressor"))?;
        Ok(Self { zstd, buffer: vec![0; CHUNK as usize].into_boxed_slice() })
    }

    fn decode(&mut self, map: &ContentMap, index: &PackIndex, chunk: u32, payload: &[u8]) -> Result<Write<'_>, FormatError> {
        let place = self.check(map, index, chunk, payload)?;
        Ok(self.write(chunk, &place))
    }

    /// Fills the buffer with the verified chunk.
    fn check(&mut self, map: &ContentMap, index: &PackIndex, chunk: u32, payload: &[u8]) -> Result<Chunk, FormatError> {
        let (Some(place), Some(entry)) = (map.chunk(chunk), index.entry(chunk)) else { return Err(FormatError::NoChunk(chunk)) };
        if payload.len() != entry.len as usize {
            return Err(FormatError::PayloadLength { chunk, len: payload.len() as u64 });
        }
        // Before anything else looks at the bytes.
        if entry.operation.has_payload() && PayloadDigest::of(payload) != entry.digest {
            return Err(FormatError::PayloadDigest { chunk });
        }
        let wrong = FormatError::PayloadCompression { chunk, len: place.len };
        let to = self.buffer.get_mut(..place.len as usize).ok_or(wrong.clone())?;
        match entry.operation {
            Operation::Data => unzstd_with(&mut self.zstd, to, payload)
                .map_err(|misfit| misfit.error(|| format!("the payload of chunk {chunk}"), wrong))?,
            Operation::Raw if payload.len() == to.len() => to.copy_from_slice(payload),
            Operation::Zero => to.fill(0),
            Operation::Raw | Operation::Copy | Operation::Zpatch | Operation::Bsdiff => return Err(wrong),
        }
        if Digest::of(to) != place.digest {
            return Err(FormatError::ChunkDigest { chunk });
        }
        Ok(place)
    }

    fn local<E: From<FormatError>>(
        &mut self,
        map: &ContentMap,
        chunk: u32,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Write<'_>, E> {
        let place = map.chunk(chunk).ok_or(FormatError::NoChunk(chunk))?;
        let to = self.buffer.get_mut(..place.len as usize).ok_or(FormatError::NoChunk(chunk))?;
        read(to)?;
        if Digest::of(to) != place.digest {
            return Err(FormatError::ChunkDigest { chunk }.into());
        }
        Ok(self.write(chunk, &place))
    }

    fn write(&mut self, chunk: u32, place: &Chunk) -> Write<'_> {
        let len = place.len as usize;
        let padded = match place.part {
            Part::Root => len.next_multiple_of(BLOCK as usize),
            Part::Uki => len,
        };
        if let Some(padding) = self.buffer.get_mut(len..padded) {
            padding.fill(0);
        }
        let data = self.buffer.get(..padded).unwrap_or_default();
        Write { chunk, part: place.part, offset: place.offset, data }
    }
}

/// Takes the bytes of one [`Fetch`] as they come from the network and gives writes as soon as a payload is complete.
pub struct RangeDecoder<'a> {
    map: &'a ContentMap,
    index: &'a PackIndex,
    chunks: std::iter::Peekable<std::slice::Iter<'a, PlannedChunk>>,
    decoder: &'a mut ChunkDecoder,
    /// Where in the pack the next byte of input is, and where the fetch ends.
    at: u64,
    end: u64,
    /// The beginning of the next payload.
    payload: Vec<u8>,
    /// A chunk whose payload is here, and which waits for another one to be decoded beside.
    waiting: Option<(u32, Vec<u8>)>,
}

impl<'a> RangeDecoder<'a> {
    /// For the bytes of a fetch, from its first.
    #[must_use]
    pub fn new(map: &'a ContentMap, index: &'a PackIndex, fetch: &'a Fetch, decoder: &'a mut ChunkDecoder) -> Self {
        let chunks = fetch.chunks.iter().peekable();
        Self { map, index, chunks, decoder, at: fetch.offset, end: fetch.offset + fetch.len, payload: Vec::new(), waiting: None }
    }

    /// Takes the next bytes, of any number.
    ///
    /// # Errors
    /// When they are not what the index and map say, more than the fetch has, or `write` fails.
    pub fn push<E: From<FormatError>>(&mut self, input: &[u8], write: &mut impl FnMut(Write<'_>) -> Result<(), E>) -> Result<(), E> {
        let extra = (input.len() as u64).saturating_sub(self.end - self.at);
        if extra > 0 {
            return Err(FormatError::RangeLong { extra }.into());
        }
        let mut rest = input;
        while let Some(&&next) = self.chunks.peek() {
            // What lies between the payloads of this fetch is of no use here.
            let gap = usize::try_from(next.offset.saturating_sub(self.at)).unwrap_or(usize::MAX).min(rest.len());
            rest = self.take(gap, rest).1;
            let missing = (next.len as usize).saturating_sub(self.payload.len());
            let (part, later) = self.take(missing.min(rest.len()), rest);
            self.payload.extend_from_slice(part);
            rest = later;
            if self.payload.len() < next.len as usize {
                return Ok(());
            }
            self.chunks.next();
            let payload = std::mem::take(&mut self.payload);
            // Equal chunks have one payload.
            while let Some(same) = self.chunks.next_if(|same| (same.offset, same.len) == (next.offset, next.len)) {
                self.decode(same.chunk, payload.clone(), write)?;
            }
            self.decode(next.chunk, payload, write)?;
        }
        if let Some((chunk, payload)) = self.waiting.take() {
            write(self.decoder.decode(self.map, self.index, chunk, &payload)?)?;
        }
        self.at += rest.len() as u64;
        Ok(())
    }

    fn decode<E: From<FormatError>>(
        &mut self,
        chunk: u32,
        payload: Vec<u8>,
        write: &mut impl FnMut(Write<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some((first, first_payload)) = self.waiting.take() else {
            self.waiting = Some((chunk, payload));
            return Ok(());
        };
        for decoded in self.decoder.decode_both(self.map, self.index, (first, &first_payload), (chunk, &payload)) {
            write(decoded?)?;
        }
        self.payload = payload;
        self.payload.clear();
        Ok(())
    }

    fn take<'b>(&mut self, len: usize, from: &'b [u8]) -> (&'b [u8], &'b [u8]) {
        self.at += len as u64;
        from.split_at_checked(len).unwrap_or((from, &[]))
    }

    /// Where in the pack the next byte is expected: after a broken connection, ask from the start of the first payload
    /// that is not complete, [`RangeDecoder::resume_at`].
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Forgets the bytes of an incomplete payload and says from where in the pack to go on.
    pub fn resume_at(&mut self) -> u64 {
        self.payload.clear();
        self.at = self.chunks.peek().map_or(self.end, |next| next.offset);
        self.at
    }

    /// To be called when the input has ended.
    ///
    /// # Errors
    /// When chunks are missing.
    pub fn finish(mut self) -> Result<(), FormatError> {
        match self.chunks.peek() {
            None => Ok(()),
            Some(_) => Err(FormatError::RangeShort { missing: self.end - self.at }),
        }
    }
}

/// A chunk as it goes into a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedChunk {
    /// How.
    pub operation: Operation,
    /// The bytes in the pack; empty for zeros.
    pub payload: Vec<u8>,
    /// Of the payload.
    pub digest: PayloadDigest,
}

/// Compresses a chunk, or stores it where that gains less than a 64th.
///
/// # Errors
/// When the compressor fails, which is a lack of memory.
pub fn encode_chunk(compressor: &mut Compressor<'_>, bytes: &[u8]) -> Result<EncodedChunk, FormatError> {
    if bytes.iter().all(|&byte| byte == 0) {
        return Ok(EncodedChunk { operation: Operation::Zero, payload: Vec::new(), digest: PayloadDigest::new([0; 16]) });
    }
    let frame = compressor.compress(bytes).map_err(|_| FormatError::Compression("chunk"))?;
    let worth_it = frame.len() < bytes.len() - bytes.len() / 64;
    let (operation, payload) = if worth_it { (Operation::Data, frame) } else { (Operation::Raw, bytes.to_vec()) };
    let digest = PayloadDigest::of(&payload);
    Ok(EncodedChunk { operation, payload, digest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Entry;
    use crate::object::ObjectRef;
    use crate::plan::{FetchPlan, PlanOptions};
    use crate::testing::{self, Sample};
    use proptest::prelude::*;

    /// Fetches all of a sample in pieces of `step` bytes and puts the writes together.
    fn rebuild(sample: &Sample, options: &PlanOptions, step: usize) -> Result<(Vec<u8>, Vec<u8>), FormatError> {
        let mut root = vec![0xee; sample.map.root_size() as usize];
        let mut uki = vec![0xee; sample.map.uki_size() as usize];
        let plan = FetchPlan::new(&sample.map, &sample.index, options, |_, _| true);
        let mut decoder = ChunkDecoder::new()?;
        let mut put = |write: Write<'_>| {
            let to = if write.part == Part::Root { &mut root } else { &mut uki };
            to[write.offset as usize..][..write.data.len()].copy_from_slice(write.data);
            Ok(())
        };
        for &chunk in &plan.zeros {
            put(decoder.zero(&sample.map, &sample.index, chunk)?)?;
        }
        for fetch in &plan.fetches {
            let pack = &sample.pack_bytes[usize::from(fetch.pack)];
            let mut range = RangeDecoder::new(&sample.map, &sample.index, fetch, &mut decoder);
            for piece in pack[fetch.offset as usize..][..fetch.len as usize].chunks(step) {
                range.push(piece, &mut put)?;
            }
            range.finish()?;
        }
        Ok((root, uki))
    }

    #[test]
    fn writes_cover_the_image_with_its_padding() {
        let sample = testing::sample();
        for (options, step) in [
            (PlanOptions::default(), 1),
            (PlanOptions::default(), 1 << 20),
            (PlanOptions { max_gap: 0, max_len: 1 }, 7),
            (PlanOptions { max_gap: 1 << 20, max_len: 1 << 30 }, 3),
        ] {
            let (root, uki) = rebuild(&sample, &options, step).unwrap();
            assert!(root == sample.root && uki == sample.uki, "{options:?}, {step}");
        }
    }

    fn first_fetch(sample: &Sample) -> Fetch {
        FetchPlan::new(&sample.map, &sample.index, &PlanOptions::default(), |_, _| true).fetches.remove(0)
    }

    #[test]
    fn a_payload_that_is_not_the_one_named_is_never_decompressed() {
        let sample = testing::sample();
        let entry = *sample.index.entry(0).unwrap();
        let start = entry.offset as usize;
        let good = &sample.pack_bytes[usize::from(entry.pack)][start..start + entry.len as usize];
        let mut decoder = ChunkDecoder::new().unwrap();
        assert!(decoder.decode(&sample.map, &sample.index, 0, good).is_ok());
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            let error = decoder.decode(&sample.map, &sample.index, 0, &bad).unwrap_err();
            assert_eq!(error, FormatError::PayloadDigest { chunk: 0 });
        }
        let short = decoder.decode(&sample.map, &sample.index, 0, &good[1..]).unwrap_err();
        assert!(matches!(short, FormatError::PayloadLength { .. }));
        assert_eq!(decoder.decode(&sample.map, &sample.index, 99, good), Err(FormatError::NoChunk(99)));
    }

    /// A sample whose first chunk has this payload, properly named by the index.
    fn with_payload(operation: Operation, payload: &[u8]) -> Result<(), FormatError> {
        let sample = testing::sample();
        let mut entries: Vec<Entry> = sample.index.entries().map(|(_, entry)| *entry).collect();
        entries[0] = Entry { operation, pack: 0, offset: 16, len: payload.len() as u32, digest: PayloadDigest::of(payload) };
        entries[1..].fill(Entry::zero());
        let pack = ObjectRef { size: 1 << 20, ..sample.packs[0] };
        let index = PackIndex::new(entries, &sample.map, &[pack])?;
        ChunkDecoder::new()?.decode(&sample.map, &index, 0, payload).map(|_| ())
    }

    #[test]
    fn a_publisher_cannot_make_a_chunk_unfold_or_differ() {
        let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 19).unwrap();
        let wrong = FormatError::PayloadCompression { chunk: 0, len: 8192 };
        assert_eq!(with_payload(Operation::Data, &zstd(&vec![0; 64 << 20])).unwrap_err().kind(), "decompression-bomb");
        assert_eq!(with_payload(Operation::Data, &zstd(&[1; 8191])), Err(wrong.clone()), "too short");
        assert_eq!(with_payload(Operation::Data, b"no zstd"), Err(wrong));
        assert_eq!(with_payload(Operation::Data, &zstd(&[1; 8192])), Err(FormatError::ChunkDigest { chunk: 0 }));
        assert_eq!(with_payload(Operation::Raw, &[1; 8192]), Err(FormatError::ChunkDigest { chunk: 0 }));
    }

    #[test]
    fn zeros_that_the_map_does_not_have_are_refused() {
        let sample = testing::sample();
        let index = PackIndex::new(vec![Entry::zero(); sample.map.chunk_count() as usize], &sample.map, &sample.packs).unwrap();
        let mut decoder = ChunkDecoder::new().unwrap();
        assert_eq!(decoder.zero(&sample.map, &index, 0), Err(FormatError::ChunkDigest { chunk: 0 }));
    }

    #[test]
    fn a_server_that_lies_about_lengths_is_seen() {
        let sample = testing::sample();
        let fetch = first_fetch(&sample);
        let bytes = &sample.pack_bytes[usize::from(fetch.pack)][fetch.offset as usize..][..fetch.len as usize];
        let mut decoder = ChunkDecoder::new().unwrap();
        let mut none = |_: Write<'_>| Ok::<(), FormatError>(());
        let mut range = RangeDecoder::new(&sample.map, &sample.index, &fetch, &mut decoder);
        range.push(&bytes[..bytes.len() - 1], &mut none).unwrap();
        assert_eq!(range.push(&[1, 2, 3], &mut none), Err(FormatError::RangeLong { extra: 2 }));
        assert_eq!(range.finish(), Err(FormatError::RangeShort { missing: 1 }));
    }

    #[test]
    fn a_broken_connection_goes_on_at_the_payload_that_it_cut() {
        let sample = testing::sample();
        let fetch = first_fetch(&sample);
        let pack = &sample.pack_bytes[usize::from(fetch.pack)];
        for cut in 0..fetch.len {
            let mut writes = Vec::new();
            let mut note = |write: Write<'_>| {
                writes.push(write.chunk);
                Ok::<(), FormatError>(())
            };
            let mut decoder = ChunkDecoder::new().unwrap();
            let mut range = RangeDecoder::new(&sample.map, &sample.index, &fetch, &mut decoder);
            range.push(&pack[fetch.offset as usize..][..cut as usize], &mut note).unwrap();
            let from = range.resume_at();
            assert!(from <= fetch.offset + cut || cut == 0, "{from} {cut}");
            range.push(&pack[from as usize..(fetch.offset + fetch.len) as usize], &mut note).unwrap();
            range.finish().unwrap();
            let expected: Vec<u32> = fetch.chunks.iter().map(|planned| planned.chunk).collect();
            assert_eq!(writes, expected, "cut at {cut}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_tree_is_rebuilt_byte_for_byte(
            files in proptest::collection::vec(proptest::collection::vec(0_u8..3, 1..9000), 0..12),
            noise in proptest::collection::vec(any::<u8>(), 1..300_000),
            max_gap in 0_u64..10_000, max_len in 1_u64..100_000, step in 1_usize..70_000,
        ) {
            let mut contents: Vec<(String, Vec<u8>)> = (0..).zip(files).map(|(n, body)| (format!("f{n}"), body)).collect();
            contents.push(("noise".to_owned(), noise.clone()));
            contents.push(("twin".to_owned(), noise.clone()));
            let files: Vec<(&str, &[u8])> = contents.iter().map(|(path, body)| (path.as_str(), body.as_slice())).collect();
            let sample = testing::release_of(&files, &noise);
            let (root, uki) = rebuild(&sample, &PlanOptions { max_gap, max_len }, step).unwrap();
            prop_assert!(root == sample.root && uki == sample.uki);
        }
    }
}
