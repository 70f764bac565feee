//! Patches made of operations that other patches have. What an operation needs are old bytes and a payload; most files stay as they are over
//! several releases, so a host that runs a release without a patch of its own has the old bytes of many operations too, elsewhere on its
//! slot. Such a patch costs the publisher a table and no time, and the host fetches chunks only of what nobody made from what it has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;
use release_format::limits::MAX_PACKS;
use release_format::{
    ChunkRun, ContentMap, Digest, FetchPlan, LocalChunks, MAX_REQUESTS, MapPatch, ObjectKind, ObjectRef, PackIndex, PatchInfo,
    PatchOperation, PatchTable, PlanOptions, PlannedChunk, Release, SourceRun,
};

use crate::earlier::Earlier;
use crate::error::PublishError;
use crate::pack::{Packed, SMALL_LEVEL, read_content_map};
use crate::repository::Repository;

/// So many earlier releases lend the operations of their patches. It bounds what pruning has to leave of releases that are gone.
const LENDERS: usize = 15;
/// Bytes that an operation costs in a table, at least.
const OVERHEAD: u64 = 48;

/// A patch that lends its operations.
pub struct Lender {
    /// The map of the release that it starts from.
    pub from: Arc<ContentMap>,
    /// The map of the release that it makes.
    pub to: Arc<ContentMap>,
    /// The operations.
    pub table: PatchTable,
    /// The packs that the table counts.
    pub packs: Vec<ObjectRef>,
    /// The kernel patch beside it.
    pub kernel: Option<ObjectRef>,
}

/// Reads the patches for which operations were made when earlier releases, the newest first, were published; and says of which nothing can
/// be borrowed, since they are damaged or gone.
#[must_use]
pub fn lenders(earlier: &[Earlier], repository: &Repository) -> (Vec<Lender>, Vec<String>) {
    let (mut found, mut lost, mut maps) = (Vec::new(), Vec::new(), Maps { repository, known: HashMap::new() });
    for release in earlier.iter().filter(|earlier| earlier.is_whole).map(|earlier| &earlier.release).take(LENDERS) {
        let older = repository.older_patches(release).unwrap_or_else(|error| {
            lost.push(format!("from the oldest versions to {}: {error}", release.version));
            Vec::new()
        });
        let lends = |info: &&PatchInfo| info.format == PatchInfo::FORMAT && (!info.borrowed || info.lends.is_some());
        for info in release.patches.iter().chain(&older).filter(lends) {
            let Some(from) = earlier.iter().map(|from| &from.release).find(|from| from.root_hash == info.from) else { continue };
            match lender(release, from, info, &mut maps) {
                Ok(lender) => found.push(lender),
                Err(error) => lost.push(format!("from {} to {}: {error}", from.version, release.version)),
            }
        }
    }
    (found, lost)
}

/// Content maps, each of which several patches start from or lead to.
struct Maps<'a> {
    repository: &'a Repository,
    known: HashMap<Digest, Arc<ContentMap>>,
}

impl Maps<'_> {
    fn of(&mut self, release: &Release) -> Result<Arc<ContentMap>, PublishError> {
        if let Some(map) = self.known.get(&release.root_hash) {
            return Ok(Arc::clone(map));
        }
        let map = Arc::new(read_content_map(self.repository, release)?);
        self.known.insert(release.root_hash, Arc::clone(&map));
        Ok(map)
    }
}

fn lender(release: &Release, from: &Release, info: &PatchInfo, maps: &mut Maps<'_>) -> Result<Lender, PublishError> {
    let bytes = maps.repository.read_object(&info.table, ObjectKind::Table)?;
    let packs = release.patch_packs.clone();
    let mut table = PatchTable::decode(&bytes, &packs).map_err(PublishError::format(&info.table.path(ObjectKind::Table)))?;
    // What it has borrowed itself, those lend that it is of, as long as they lend.
    table.operations.retain(|operation| info.lends.is_none_or(|own| operation.pack == own && operation.len > 0));
    let used: HashSet<u16> = table.operations.iter().filter(|operation| operation.len > 0).map(|operation| operation.pack).collect();
    for pack in used.iter().filter_map(|pack| packs.get(usize::from(*pack))) {
        maps.repository.expect_object(pack, ObjectKind::Patch)?;
    }
    if let Some(kernel) = &info.kernel {
        maps.repository.expect_object(kernel, ObjectKind::Kernel)?;
    }
    Ok(Lender { from: maps.of(from)?, to: maps.of(release)?, table, packs, kernel: info.kernel })
}

/// Some bytes of a chunk.
struct Piece {
    chunk: Digest,
    offset: u64,
    len: u64,
}

/// An operation that makes chunks of the new release, by what it is made of instead of where that is.
pub(super) struct Loan<'a> {
    operation: &'a PatchOperation,
    numbers: Vec<u32>,
    sources: Vec<Piece>,
    pack: Option<ObjectRef>,
}

/// All operations that make nothing but chunks of `map`, those of the first lender first.
pub(super) fn loans<'a>(lenders: &'a [Lender], map: &ContentMap) -> Vec<Loan<'a>> {
    let places: HashMap<Digest, u32> = map.chunks().map(|(number, chunk)| (chunk.digest, number)).collect();
    let mut loans = Vec::new();
    for lender in lenders {
        let number_of = |number: u32| {
            let digest = lender.to.chunk(number)?.digest;
            let stayed = map.chunk(number).is_some_and(|chunk| chunk.digest == digest);
            if stayed { Some(number) } else { places.get(&digest).copied() }
        };
        for operation in &lender.table.operations {
            let numbers = operation.numbers().map(number_of).collect::<Option<Vec<u32>>>();
            let sources = operation.sources.iter().map(|run| pieces(&lender.from, run)).collect::<Option<Vec<_>>>();
            let Some((numbers, sources)) = numbers.zip(sources) else { continue };
            let pack = lender.packs.get(usize::from(operation.pack)).filter(|_| operation.operation.has_payload()).copied();
            loans.push(Loan { operation, numbers, sources: sources.into_iter().flatten().collect(), pack });
        }
    }
    loans
}

/// These packs and those of all loans, as far as tables may count.
pub(super) fn counted(packs: &[ObjectRef], loans: &[Loan<'_>]) -> Vec<ObjectRef> {
    let mut counted = packs.to_vec();
    for pack in loans.iter().filter_map(|loan| loan.pack) {
        if counted.len() < MAX_PACKS && !counted.contains(&pack) {
            counted.push(pack);
        }
    }
    counted
}

/// The chunks that a run of old bytes is of; none when there are bytes between extents in it.
fn pieces(map: &ContentMap, run: &SourceRun) -> Option<Vec<Piece>> {
    let (mut at, end) = (run.offset, run.offset.checked_add(run.len)?);
    let mut pieces = Vec::new();
    while at < end {
        let chunk = map.chunk(map.chunk_at(run.part, at)?)?;
        let offset = at - chunk.offset;
        let len = (u64::from(chunk.len) - offset).min(end - at);
        pieces.push(Piece { chunk: chunk.digest, offset, len });
        at += len;
    }
    Some(pieces)
}

impl Loan<'_> {
    /// Where its old bytes are for a host with these chunks.
    fn sources(&self, local: &LocalChunks) -> Option<Vec<SourceRun>> {
        let mut runs: Vec<SourceRun> = Vec::new();
        for piece in &self.sources {
            let place = local.find(&piece.chunk)?;
            let run = SourceRun { part: place.part, offset: place.offset + piece.offset, len: piece.len };
            match runs.last_mut().filter(|last| last.part == run.part && last.offset + last.len == run.offset) {
                Some(last) => last.len += run.len,
                None => runs.push(run),
            }
        }
        Some(runs)
    }

    fn at(&self, sources: Vec<SourceRun>, pack: u16) -> PatchOperation {
        let mut chunks = Vec::new();
        self.numbers.iter().for_each(|&first| ChunkRun { first, count: 1 }.join(&mut chunks));
        PatchOperation { chunks, sources, pack, ..self.operation.clone() }
    }
}

/// A patch that was put together.
pub struct Borrowed {
    /// What the release's metadata say of it.
    pub info: PatchInfo,
    /// Bytes that a host fetches in all, with the difference and what chunks are left.
    pub bytes: u64,
    /// The same for a host that rebuilds the kernel, where it can.
    pub with_kernel: Option<u64>,
}

/// From where a patch is wanted.
pub struct Start<'a> {
    /// The release.
    pub from: &'a Earlier,
    /// How the new map is made of its map.
    pub map_patch: MapPatch,
    /// Bytes of what says where chunks are: of the difference, or of map and index.
    pub told: u64,
}

/// Puts together what can be, and writes the tables. `packs` are the release's patch packs, and become more.
///
/// # Errors
/// When an earlier release cannot be read, or files cannot be written.
pub fn write(
    packed: &Packed,
    starts: Vec<Start<'_>>,
    lenders: &[Lender],
    packs: &mut Vec<ObjectRef>,
    repository: &Repository,
) -> Result<Vec<Borrowed>, PublishError> {
    let loans = loans(lenders, &packed.map);
    let mut lent = counted(packs, &loans);
    let put = |Start { from, map_patch, told }: Start<'_>| -> Result<Option<(Borrowed, Vec<u8>, PatchTable)>, PublishError> {
        let from = &from.release;
        let old = read_content_map(repository, from)?;
        let mut needs = Needs::new(packed, &old);
        let mut table = PatchTable { map: map_patch, operations: needs.take(&loans, &lent) };
        table.operations.sort_by_key(|operation| (operation.pack, operation.offset));
        let kernel = lenders.iter().filter(|lender| needs.is_kernel_of(lender, &old)).find_map(|lender| lender.kernel);
        // What exceeds the format's limits is no patch: the host does without.
        let file = table.encode(SMALL_LEVEL).ok();
        let is_right = |file: &Vec<u8>| PatchTable::decode(file, &lent).and_then(|table| table.check(&old, &packed.map)).is_ok();
        // The other half is for chunks that nobody makes, as hosts have it.
        let Some(file) = file.filter(is_right).filter(|_| payloads(&table, |_| true).requests() <= MAX_REQUESTS / 2) else {
            return Ok(None);
        };
        let head = file.len() as u64;
        let bytes = head + needs.cost(&table, told, false);
        let with_kernel = kernel.map(|kernel| head + kernel.size + needs.cost(&table, told, true));
        // Where only the kernel patch saves anything, a host that cannot rebuild its kernel has the table too many.
        if with_kernel.map_or(bytes, |with| with.min(bytes)) >= needs.by_chunks(told) {
            return Ok(None);
        }
        let info =
            PatchInfo { format: PatchInfo::FORMAT, from: from.root_hash, table: ObjectRef::of(&file), kernel, borrowed: true, lends: None };
        Ok(Some((Borrowed { info, bytes, with_kernel }, file, table)))
    };
    let made = starts.into_par_iter().map(put).collect::<Result<Vec<_>, PublishError>>()?;
    let mut written = Vec::new();
    let mut used = packs.len();
    for (borrowed, file, table) in made.into_iter().flatten() {
        repository.write_object(&file, ObjectKind::Table)?;
        used = table.operations.iter().map(|operation| usize::from(operation.pack) + 1).fold(used, usize::max);
        written.push(borrowed);
    }
    // Tables count them, so those before the last that is used stay too.
    lent.truncate(used);
    *packs = lent;
    Ok(written)
}

/// What a host needs that has the chunks of `old`, and what of that operations make.
pub(super) struct Needs<'a> {
    map: &'a ContentMap,
    index: &'a PackIndex,
    local: LocalChunks,
    made: Vec<bool>,
}

impl<'a> Needs<'a> {
    pub(super) fn new(packed: &'a Packed, old: &ContentMap) -> Self {
        let made = vec![false; packed.map.chunk_count() as usize];
        Self { map: &packed.map, index: &packed.index, local: LocalChunks::of(old), made }
    }

    fn lacks(&self, number: u32) -> bool {
        super::lacks(&self.local, self.map, number)
    }

    /// Bytes of a chunk that the host has to fetch, or 0.
    pub(super) fn by_chunk(&self, number: u32) -> u64 {
        let left = self.made.get(number as usize).is_some_and(|made| !made) && self.lacks(number);
        self.index.entry(number).filter(|_| left).map_or(0, |entry| u64::from(entry.len))
    }

    /// The loans that cost less than the chunks that they make.
    pub(super) fn take(&mut self, loans: &[Loan<'_>], packs: &[ObjectRef]) -> Vec<PatchOperation> {
        let mut taken = Vec::new();
        for loan in loans {
            let chunk = |number: &u32| self.index.entry(*number).filter(|_| self.lacks(*number)).map_or(0, |entry| u64::from(entry.len));
            let spares: u64 = loan.numbers.iter().map(chunk).sum();
            if spares <= u64::from(loan.operation.len) + OVERHEAD {
                continue;
            }
            let Some(sources) = loan.sources(&self.local) else { continue };
            let place = loan.pack.map_or(Some(0), |pack| packs.iter().position(|other| *other == pack));
            let Some(pack) = place.and_then(|place| u16::try_from(place).ok()) else { continue };
            let free = |number: &u32| self.made.get(*number as usize).is_some_and(|made| !made);
            let mut seen = loan.numbers.clone();
            seen.sort_unstable();
            seen.dedup();
            if seen.len() != loan.numbers.len() || !seen.iter().all(free) {
                continue;
            }
            for &number in &seen {
                if let Some(made) = self.made.get_mut(number as usize) {
                    *made = true;
                }
            }
            taken.push(loan.at(sources, pack));
        }
        taken
    }

    /// Whether the kernel patch of a lender makes the new kernel of the old one.
    fn is_kernel_of(&self, lender: &Lender, old: &ContentMap) -> bool {
        let chunks = |map: &ContentMap| -> Option<Vec<Digest>> {
            map.kernel()?.numbers().map(|number| map.chunk(number).map(|chunk| chunk.digest)).collect()
        };
        let kernels = [old, &lender.from, self.map, &lender.to].map(chunks);
        let [old, from, new, to] = kernels;
        old == from && new == to && old.is_some() && new.is_some() && old != new
    }

    /// Bytes of payloads, gaps, chunks that nobody makes, and of what says where those are.
    fn cost(&self, table: &PatchTable, told: u64, kernel: bool) -> u64 {
        let rebuilt = self.map.kernel().filter(|_| kernel).map_or(0..0, release_format::Extent::numbers);
        let fetched = |operation: &PatchOperation| !operation.numbers().all(|number| rebuilt.contains(&number));
        let payloads = payloads(table, fetched).bytes();
        let left = |number: u32| !rebuilt.contains(&number) && self.made.get(number as usize).is_some_and(|made| !made);
        let is_left = (0..self.map.chunk_count()).any(|number| left(number) && self.lacks(number));
        payloads + self.chunks(MAX_REQUESTS / 2, left) + if is_left { told } else { 0 }
    }

    fn by_chunks(&self, told: u64) -> u64 {
        told + self.chunks(MAX_REQUESTS, |_| true)
    }

    /// Bytes of the chunks that are lacking and that `wanted` says yes to, in so many requests.
    fn chunks(&self, most: usize, wanted: impl Fn(u32) -> bool) -> u64 {
        let want = |number: u32, _: &release_format::Chunk| wanted(number) && self.lacks(number);
        FetchPlan::within(self.map, self.index, &PlanOptions::default(), most, want).bytes()
    }
}

/// How a host fetches the payloads of those operations that `fetched` says yes to.
fn payloads(table: &PatchTable, fetched: impl Fn(&PatchOperation) -> bool) -> FetchPlan {
    let planned = |operation: &PatchOperation| {
        let chunk = operation.numbers().next().unwrap_or(0);
        (operation.pack, PlannedChunk { chunk, offset: operation.offset, len: operation.len })
    };
    let with_payload = table.operations.iter().filter(|operation| operation.len > 0 && fetched(operation));
    FetchPlan::of(with_payload.map(planned).collect(), &PlanOptions::default())
}
