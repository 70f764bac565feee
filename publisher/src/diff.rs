//! Where the bytes of an update go: what each file of a release costs a host that has another one, by chunks and by patch.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use release_format::{ContentMap, Digest, LocalChunks, Part};
use serde::Serialize;

use crate::error::PublishError;
use crate::pack::{lay_out, read_chunk, read_part};
use crate::parts::OpenParts;
use crate::patch::{Caps, cut, smallest, zstd};

/// zstd level of the estimate.
const LEVEL: i32 = 12;

/// Where the bytes go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The image's name and version.
    pub from: String,
    /// Of the other one.
    pub to: String,
    /// Bytes of both parts of the new one.
    pub image: u64,
    /// Sums.
    pub total: Bytes,
    /// By the package that files come from, the largest patch first.
    pub packages: Vec<(String, Bytes)>,
    /// By file, the largest patch first.
    pub files: Vec<FileDifference>,
}

/// What something costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Bytes that the older one does not have, in whole chunks.
    pub new: u64,
    /// What these take by chunks.
    pub chunks: u64,
    /// What they take by patch, each file by itself; a patch is a little smaller, since files share windows.
    pub patch: u64,
}

/// What a file costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDifference {
    /// Its path; sections of the UKI are `UKI:SECTION`, the metadata of the file system `metadata`.
    pub path: String,
    /// The package or build step it is of.
    pub package: String,
    /// What it costs.
    pub bytes: Bytes,
}

/// Compares two releases by their parts.
///
/// # Errors
/// When one cannot be read, or zstd fails.
pub fn diff(from: &OpenParts, to: &OpenParts) -> Result<Difference, PublishError> {
    let (old, new) = (map_of(from)?, map_of(to)?);
    let missing = LocalChunks::of(&old).lacking(&new);
    let is_missing = |number| missing.binary_search(&number).is_ok();
    let owners = owners(to);
    let windows = cut(&old, &new, is_missing, &Caps { together: false, ..Caps::default() });
    let files = windows.par_iter().map(|window| {
        let (mut output, mut chunks, mut first) = (Vec::new(), 0, None);
        for number in window.numbers() {
            let bytes = read_chunk(to, &new, number)?;
            chunks += zstd(&bytes, &[], LEVEL).map_or(bytes.len(), |frame| frame.len()) as u64;
            output.extend(bytes);
            first = first.or(Some(number));
        }
        let mut source = Vec::new();
        for run in &window.sources {
            source.extend(read_part(from, run.part, run.offset, run.len)?);
        }
        let patch = smallest(window, &source, &output, LEVEL)?.payload.len() as u64;
        let (path, package) = name(&new, first.unwrap_or_default(), &owners);
        Ok(FileDifference { path, package, bytes: Bytes { new: output.len() as u64, chunks, patch } })
    });
    let parts: Vec<FileDifference> = files.collect::<Result<_, PublishError>>()?;
    let mut by_file: BTreeMap<(String, String), Bytes> = BTreeMap::new();
    let mut by_package: BTreeMap<String, Bytes> = BTreeMap::new();
    let mut total = Bytes::default();
    for part in parts {
        for sum in [&mut total, by_package.entry(part.package.clone()).or_default(), by_file.entry((part.path, part.package)).or_default()]
        {
            sum.new += part.bytes.new;
            sum.chunks += part.bytes.chunks;
            sum.patch += part.bytes.patch;
        }
    }
    let mut files: Vec<FileDifference> =
        by_file.into_iter().map(|((path, package), bytes)| FileDifference { path, package, bytes }).collect();
    files.sort_by(|a, b| b.bytes.patch.cmp(&a.bytes.patch).then_with(|| a.path.cmp(&b.path)));
    let mut packages: Vec<(String, Bytes)> = by_package.into_iter().collect();
    packages.sort_by(|a, b| b.1.patch.cmp(&a.1.patch).then_with(|| a.0.cmp(&b.0)));
    let title = |parts: &OpenParts| format!("{} {}", parts.parts.image, parts.version);
    Ok(Difference { from: title(from), to: title(to), image: new.root_size() + new.uki_size(), total, packages, files })
}

/// The parts in a directory, when they are of one release.
///
/// # Errors
/// When there are none, or of several releases.
pub fn one(directory: &Path) -> Result<OpenParts, PublishError> {
    let mut found = OpenParts::find(directory)?;
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(PublishError::Text {
            path: directory.to_owned(),
            reason: "has parts of several releases: name one of its directories".to_owned(),
        }),
    }
}

fn map_of(parts: &OpenParts) -> Result<ContentMap, PublishError> {
    let failed = || PublishError::format(&format!("version {}", parts.version));
    let (mut builder, pieces) = lay_out(parts).map_err(failed())?;
    let digests: Vec<Digest> =
        pieces.par_iter().map(|piece| Ok(Digest::of(&crate::pack::read_piece(parts, piece)?))).collect::<Result<_, PublishError>>()?;
    digests.into_iter().for_each(|digest| builder.chunk(digest));
    builder.finish(parts.parts.root.size, parts.uki.len() as u64).map_err(failed())
}

/// The owner of each path of the root image.
fn owners(parts: &OpenParts) -> BTreeMap<&str, &str> {
    parts.parts.extents.iter().zip(&parts.parts.owners).map(|((path, _), owner)| (path.as_str(), owner.as_str())).collect()
}

fn name(map: &ContentMap, chunk: u32, owners: &BTreeMap<&str, &str>) -> (String, String) {
    let part = map.chunk(chunk).map_or(Part::Root, |chunk| chunk.part);
    let extents = map.extents(part);
    let at = extents.partition_point(|extent| extent.first_chunk <= chunk).saturating_sub(1);
    let path = extents.get(at).map_or("", |extent| extent.path.as_str());
    match (part, path) {
        (Part::Uki, "") => ("UKI:headers".to_owned(), "UKI".to_owned()),
        (Part::Uki, section) => (format!("UKI:{section}"), "UKI".to_owned()),
        (Part::Root, "") => ("metadata".to_owned(), "metadata".to_owned()),
        (Part::Root, path) => (path.to_owned(), owners.get(path).map_or("unknown", |owner| owner).to_owned()),
    }
}
