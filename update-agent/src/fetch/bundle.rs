//! A bundle: a tar archive of a repository with one release, for hosts without a network. It is read in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use release_format::Name;
use serde::Deserialize;

use super::FetchError;
use super::body::{Body, Pace};

const FORMAT: u32 = 1;
const MAX_FILES: usize = 4096;
const MAX_HEADER: u64 = 64 << 10;
const PIECE: u64 = 256 << 10;

/// A file may take its time.
pub(super) const PACE: Pace =
    Pace { stall: Duration::from_secs(600), least: 0, span: Duration::from_secs(600), most: None, pause: Duration::from_millis(10) };

/// `bundle.json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BundleHeader {
    format: u32,
    /// The channel that it was taken from.
    pub channel: Name,
    /// The image.
    pub image: Name,
    /// The architecture.
    pub architecture: Name,
    /// The version that it holds.
    pub version: String,
}

/// An open bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    file: Arc<File>,
    /// Offset and length of each file.
    files: Arc<BTreeMap<String, (u64, u64)>>,
    header: BundleHeader,
}

impl Bundle {
    /// Opens it and reads where its files are.
    ///
    /// # Errors
    /// When it is no bundle.
    pub fn open_file(path: &Path) -> Result<Self, FetchError> {
        let file = File::open(path)?;
        let bad = |error: io::Error| FetchError::BadBundle(error.to_string());
        let mut files = BTreeMap::new();
        let mut header = None;
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek().map_err(bad)? {
            let mut entry = entry.map_err(bad)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = entry.path().map_err(bad)?.to_string_lossy().trim_start_matches("./").to_owned();
            let len = entry.header().size().map_err(bad)?;
            if name == "bundle.json" {
                let mut text = Vec::new();
                entry.by_ref().take(MAX_HEADER).read_to_end(&mut text).map_err(bad)?;
                header = Some(serde_json::from_slice::<BundleHeader>(&text).map_err(|error| FetchError::BadBundle(error.to_string()))?);
            }
            files.insert(name, (entry.raw_file_position(), len));
            if files.len() > MAX_FILES {
                return Err(FetchError::BadBundle(format!("it has more than {MAX_FILES} files")));
            }
        }
        let header = header.ok_or_else(|| FetchError::BadBundle("it has no bundle.json".to_owned()))?;
        if header.format != FORMAT {
            return Err(FetchError::BadBundle(format!("it has format {}, and this program reads {FORMAT}", header.format)));
        }
        Ok(Self { file: Arc::new(file), files: Arc::new(files), header })
    }

    /// What it says it holds.
    #[must_use]
    pub fn header(&self) -> &BundleHeader {
        &self.header
    }

    /// A file's bytes from `offset` on.
    ///
    /// # Errors
    /// When it is not in the bundle.
    pub fn open(&self, path: &str, offset: u64) -> Result<Body, FetchError> {
        let &(start, len) = self.files.get(path).ok_or_else(|| FetchError::NotFound(format!("{path} in the bundle")))?;
        let file = Arc::clone(&self.file);
        let pieces = futures_util::stream::unfold(offset.min(len), move |at| {
            let file = Arc::clone(&file);
            async move {
                let count = PIECE.min(len - at);
                if count == 0 {
                    return None;
                }
                let mut piece = vec![0; count as usize];
                let read = file.read_exact_at(&mut piece, start + at).map_err(|error| error.to_string());
                Some((read.map(|()| Bytes::from(piece)), at + count))
            }
        });
        Ok(Body::new(path.to_owned(), Box::pin(pieces), offset.min(len), Some(len), PACE))
    }
}
