//! What a release is, as files on a web server: the channel that lists releases, a release's metadata, the content map
//! of its root image and UKI, the packs that hold their chunks, the index that says where in the packs each chunk is, and
//! patches, which make what is new of the bytes of an earlier release, and kernel patches, which do so under a kernel's compression.
//! `docs/release-format.md` is the specification; this crate is its one implementation, used by the publisher and by the
//! update agent.
//!
//! The crate does no I/O: decoders take bytes and give values or writes. They are meant for bytes that nobody vouches for:
//! memory is bounded by [`limits`], a version that is not known is refused by name, each kind of bad input has an error
//! of its own ([`FormatError::kind`]), and nothing that is decompressed has not been compared with a digest before,
//! as long as the caller checks objects with [`ObjectRef::verify`] first.
//!
//! From the top: TUF vouches for a [`Channel`]; a channel names releases by the digest of a [`Release`]; a release names
//! its [`ContentMap`], its [`PackIndex`] and its packs by digest. With map and index, [`FetchPlan`] says which ranges
//! of which packs to get, and [`RangeDecoder`] turns their bytes into verified [`Write`]s. With a [`PatchTable`] and the
//! earlier release's bytes, [`PatchDecoder`] does the same with the payloads of patch packs. A host that has an earlier map needs of map
//! and index what [`decode_difference`] makes of a difference, and no more.

#![deny(clippy::indexing_slicing)]

mod bsdiff;
mod channel;
mod chunk;
mod container;
mod difference;
mod digest;
mod entries;
mod error;
mod frames;
mod index;
pub mod kernel;
pub mod limits;
mod local;
mod map;
mod map_patch;
mod names;
mod object;
mod older;
mod operation;
mod patch;
mod patch_apply;
mod plan;
mod reader;
mod release;
mod rollout;
#[cfg(test)]
mod testing;
mod text;

pub use bsdiff::{Difference, Step};
pub use channel::{Channel, ChannelRelease};
pub use chunk::{ChunkDecoder, EncodedChunk, RangeDecoder, Write, encode_chunk};
pub use difference::{decode_difference, encode_difference};
pub use digest::{Digest, Hasher, PayloadDigest};
pub use error::FormatError;
pub use index::{Entry, PackIndex, pack_header};
pub use kernel::{Kernel, KernelPatch, Piece, Recipe};
pub use local::{LocalChunks, LocalPlace};
pub use map::{Chunk, ContentMap, Extent, ExtentKind, MapBuilder, Part};
pub use map_patch::MapPatch;
pub use names::{Name, NameError, channel_target};
pub use object::{ObjectKind, ObjectRef};
pub use older::OlderPatches;
pub use operation::Operation;
pub use patch::{ChunkRun, PatchOperation, PatchTable, SourceRun};
pub use patch_apply::{PatchDecoder, ReadOld, WriteNew};
pub use plan::{ANSWER, Fetch, FetchPlan, MAX_REQUESTS, PlanOptions, PlannedChunk};
pub use release::{DifferenceInfo, PatchInfo, Release, StateFloor, UkiInfo};
pub use rollout::{Rollout, Wave, host_position};
