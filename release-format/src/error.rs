//! Every way in which the bytes of a release can be wrong.

use thiserror::Error;

use crate::{Digest, Part};

/// Why bytes are refused. Each variant is one kind, whose stable name is [`FormatError::kind`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// An object has another length than the file that names it says.
    #[error("object {object} has {found} bytes, and not {expected}")]
    ObjectLength {
        /// Its name.
        object: Digest,
        /// Bytes it should have.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// An object's content is not what its name says.
    #[error("the content of object {object} is not what its name says")]
    ObjectDigest {
        /// Its name.
        object: Digest,
    },
    /// Something of another image, architecture, channel, version or root hash than the one asked for.
    #[error("the {what} is '{found}', and not '{expected}'")]
    Other {
        /// What differs.
        what: &'static str,
        /// As found.
        found: String,
        /// As asked for.
        expected: String,
    },
    /// JSON that does not parse, or has values that cannot be.
    #[error("the {what} is not valid: {reason}")]
    Syntax {
        /// Which file.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// A file larger than the format allows.
    #[error("the {what} has {len} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Which file.
        what: &'static str,
        /// Its bytes.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// A version of a format that this program does not read.
    #[error("the {what} has format version {found}, and this program reads {supported}: update it through a release that it can read")]
    Version {
        /// Which file.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The version that is read.
        supported: u32,
    },
    /// The file is of another kind.
    #[error("the file is no {0}: its first bytes are wrong")]
    Magic(&'static str),
    /// Flags that this program does not know.
    #[error("the {what} has flags {flags:#x} that this program does not know")]
    Flags {
        /// Which file.
        what: &'static str,
        /// The flags.
        flags: u16,
    },
    /// Bytes are missing.
    #[error("the {0} is cut short")]
    Truncated(&'static str),
    /// Bytes are left over.
    #[error("the {what} has {len} bytes after its end")]
    Trailing {
        /// Which file.
        what: &'static str,
        /// How many.
        len: u64,
    },
    /// The stated size of a compressed body is over the limit.
    #[error("the {what} states {len} bytes uncompressed; at most {limit} are allowed")]
    BodyTooLarge {
        /// Which file.
        what: &'static str,
        /// Bytes stated.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// A body that does not decompress to exactly the stated size.
    #[error("the {0} does not decompress to the size that it states")]
    Compression(&'static str),
    /// A frame with more in it than it says or than there is room for.
    #[error("{0} decompresses to more bytes than it should")]
    Bomb(String),
    /// A number with a spelling that is not the shortest, or over 64 bits.
    #[error("the {0} has a number that is not spelled as it must be")]
    Number(&'static str),
    /// More of something than the format allows.
    #[error("the {what} has {found} {things}; at most {limit} are allowed")]
    TooMany {
        /// Which file.
        what: &'static str,
        /// Of what.
        things: &'static str,
        /// How many.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Block or chunk size other than the format's.
    #[error("the content map has {what} of {found} bytes, and this program reads {supported}")]
    Unit {
        /// Blocks or chunks.
        what: &'static str,
        /// Bytes found.
        found: u32,
        /// Bytes that are read.
        supported: u64,
    },
    /// An extent without bytes, or whose end is beyond what can be counted.
    #[error("extent {extent} of the content map has an impossible length {len}")]
    ExtentLength {
        /// Its number.
        extent: u64,
        /// Its length.
        len: u64,
    },
    /// An unknown kind of extent, or one in the wrong part.
    #[error("extent {extent} of the content map has an unknown kind {kind}")]
    ExtentKind {
        /// Its number.
        extent: u64,
        /// Its kind.
        kind: u8,
    },
    /// A path that is absolute, climbs, is empty, not UTF-8 or too long.
    #[error("extent {extent} of the content map has a path that is not allowed")]
    ExtentPath {
        /// Its number.
        extent: u64,
    },
    /// The extents do not cover exactly the image.
    #[error("the extents of the {part} cover {covered} bytes, and it has {size}")]
    Coverage {
        /// Root or UKI.
        part: Part,
        /// Bytes that the extents cover.
        covered: u64,
        /// Bytes of the part.
        size: u64,
    },
    /// The map is of another image than the release.
    #[error("the content map's {part} has {map} bytes, and the release's has {release}")]
    MapOfOtherRelease {
        /// Root or UKI.
        part: Part,
        /// Bytes by the map.
        map: u64,
        /// Bytes by the release.
        release: u64,
    },
    /// The index does not have an entry for each chunk of the map.
    #[error("the pack index has {index} entries, and the content map {map} chunks")]
    ChunkCount {
        /// Entries.
        index: u64,
        /// Chunks.
        map: u64,
    },
    /// The index is made for another list of packs.
    #[error("the pack index is made for {index} packs, and the release lists {release}")]
    PackCount {
        /// By the index.
        index: u64,
        /// By the release.
        release: u64,
    },
    /// The difference does not have an entry for each chunk that the earlier release lacks.
    #[error("the difference has {found} entries, and the release that runs lacks {lacking} chunks")]
    DifferenceChunks {
        /// Entries.
        found: u64,
        /// Chunks.
        lacking: u64,
    },
    /// A code that is not in the specification.
    #[error("operation {0} is not known to this program")]
    OperationUnknown(u8),
    /// A code that the specification has, but not here.
    #[error("operation {0} cannot stand in a pack index")]
    OperationReserved(&'static str),
    /// An entry that points outside of its pack.
    #[error("chunk {chunk} lies outside of its pack")]
    LocationRange {
        /// Its number.
        chunk: u32,
    },
    /// Two entries whose payloads overlap without being the same.
    #[error("the payloads of chunks {first} and {second} overlap")]
    LocationOverlap {
        /// The one that starts first.
        first: u32,
        /// The other.
        second: u32,
    },
    /// A payload with an impossible length: empty, longer than its chunk, or raw with another length.
    #[error("the payload of chunk {chunk} has an impossible length {len}")]
    PayloadLength {
        /// Its number.
        chunk: u32,
        /// Its length.
        len: u64,
    },
    /// A payload that is not the one that the index names. Nothing of it was decompressed.
    #[error("the payload of chunk {chunk} is not what the index says")]
    PayloadDigest {
        /// Its number.
        chunk: u32,
    },
    /// A payload that does not decompress to the chunk's length.
    #[error("the payload of chunk {chunk} does not decompress to {len} bytes")]
    PayloadCompression {
        /// Its number.
        chunk: u32,
        /// Bytes that it should be.
        len: u32,
    },
    /// A chunk that is not the one that the map names.
    #[error("chunk {chunk} is not what the content map says")]
    ChunkDigest {
        /// Its number.
        chunk: u32,
    },
    /// There is no such chunk.
    #[error("there is no chunk {0}")]
    NoChunk(u32),
    /// A patch or difference for another earlier release than the one that is here.
    #[error("what should be made of the release that runs was made for another one")]
    PatchSource,
    /// The content map that a patch or a difference makes is not the release's.
    #[error("what comes out is not the content map of the release")]
    PatchMap,
    /// An operation that makes no chunks, or a run of none.
    #[error("operation {operation} of the patch makes no chunks")]
    ChunksNone {
        /// Its number.
        operation: u32,
    },
    /// An operation that makes chunks that are not there.
    #[error("operation {operation} of the patch makes chunks that the release has not")]
    ChunksRange {
        /// Its number.
        operation: u32,
    },
    /// An operation that makes a chunk that is made already.
    #[error("operation {operation} of the patch makes chunk {chunk}, which is made already")]
    ChunksOverlap {
        /// Its number.
        operation: u32,
        /// The chunk's number.
        chunk: u32,
    },
    /// An operation that takes bytes that the earlier release does not have.
    #[error("operation {operation} of the patch takes bytes that are not there")]
    SourceRange {
        /// Its number.
        operation: u32,
    },
    /// More old bytes than an operation may see.
    #[error("operation {operation} of the patch takes {len} old bytes, more than is allowed")]
    SourceWindow {
        /// Its number.
        operation: u32,
        /// Bytes.
        len: u64,
    },
    /// More new bytes than an operation may make.
    #[error("operation {operation} of the patch makes {len} bytes, more than is allowed")]
    OutputWindow {
        /// Its number.
        operation: u32,
        /// Bytes.
        len: u64,
    },
    /// A payload with an impossible length, or that does not decompress to what the operation makes.
    #[error("the payload of operation {operation} of the patch, of {len} bytes, cannot be right")]
    PatchPayload {
        /// Its number.
        operation: u32,
        /// Its bytes.
        len: u64,
    },
    /// A payload that is not the one that the table names.
    #[error("the payload of operation {operation} of the patch is not what its table says")]
    PatchPayloadDigest {
        /// Its number.
        operation: u32,
    },
    /// Control, difference and new bytes that do not fit each other.
    #[error("the streams of operation {operation} of the patch do not fit")]
    PatchStreams {
        /// Its number.
        operation: u32,
    },
    /// Old bytes that are not those that the patch was made of.
    #[error("the old bytes for operation {operation} of the patch are not what they should be")]
    SourceDigest {
        /// Its number.
        operation: u32,
    },
    /// A kernel that was compressed in a way that is not known here.
    #[error("the kernel patch compresses in a way that is not known here: {0}")]
    KernelRecipe(u8),
    /// A kernel patch for another kernel than the one that is here.
    #[error("the kernel patch was made for another kernel than the one that runs")]
    KernelSource,
    /// A piece of a kernel patch that takes bytes that are not there, or does not make what it says.
    #[error("piece {piece} of the kernel patch does not fit")]
    KernelPiece {
        /// Its number; 0 is what is around the contents.
        piece: u64,
    },
    /// What a kernel patch makes is not what it says.
    #[error("what the kernel patch makes is not the release's kernel")]
    KernelResult,
    /// A server gave fewer bytes than asked for.
    #[error("the range ends {missing} bytes early")]
    RangeShort {
        /// Bytes that did not come.
        missing: u64,
    },
    /// A server gave more bytes than asked for.
    #[error("the range has {extra} bytes too many")]
    RangeLong {
        /// Bytes too many.
        extra: u64,
    },
}

impl FormatError {
    /// A name of the kind that stays the same, for programs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ObjectLength { .. } => "object-length",
            Self::ObjectDigest { .. } => "object-digest",
            Self::Other { what: "channel", .. } => "other-channel",
            Self::Other { what: "image", .. } => "other-image",
            Self::Other { what: "architecture", .. } => "other-architecture",
            Self::Other { what: "root-hash", .. } => "other-root-hash",
            Self::Other { .. } => "other-version",
            Self::Syntax { .. } => "metadata-syntax",
            Self::TooLarge { .. } => "metadata-too-large",
            Self::Version { .. } => "format-version",
            Self::Magic(_) => "format-magic",
            Self::Flags { .. } => "format-flags",
            Self::Truncated(_) => "format-truncated",
            Self::Trailing { .. } => "format-trailing",
            Self::BodyTooLarge { .. } => "body-too-large",
            Self::Compression(_) => "body-compression",
            Self::Bomb(_) => "decompression-bomb",
            Self::Number(_) => "format-number",
            Self::TooMany { .. } => "format-too-many",
            Self::Unit { .. } => "map-unit",
            Self::ExtentLength { .. } => "extent-length",
            Self::ExtentKind { .. } => "extent-kind",
            Self::ExtentPath { .. } => "extent-path",
            Self::Coverage { .. } => "extent-coverage",
            Self::MapOfOtherRelease { .. } => "map-of-other-release",
            Self::ChunkCount { .. } => "index-chunk-count",
            Self::PackCount { .. } => "index-pack-count",
            Self::DifferenceChunks { .. } => "difference-chunks",
            Self::OperationUnknown(_) => "operation-unknown",
            Self::OperationReserved(_) => "operation-reserved",
            Self::LocationRange { .. } => "location-range",
            Self::LocationOverlap { .. } => "location-overlap",
            Self::PayloadLength { .. } => "payload-length",
            Self::PayloadDigest { .. } => "payload-digest",
            Self::PayloadCompression { .. } => "payload-compression",
            Self::ChunkDigest { .. } => "chunk-digest",
            Self::NoChunk(_) => "chunk-unknown",
            Self::PatchSource => "patch-source",
            Self::PatchMap => "patch-map",
            Self::ChunksNone { .. } => "chunks-none",
            Self::ChunksRange { .. } => "chunks-range",
            Self::ChunksOverlap { .. } => "chunks-overlap",
            Self::SourceRange { .. } => "source-range",
            Self::SourceWindow { .. } => "source-window",
            Self::OutputWindow { .. } => "output-window",
            Self::PatchPayload { .. } => "patch-payload",
            Self::PatchPayloadDigest { .. } => "patch-payload-digest",
            Self::PatchStreams { .. } => "patch-streams",
            Self::SourceDigest { .. } => "source-digest",
            Self::KernelRecipe(_) => "kernel-recipe",
            Self::KernelSource => "kernel-source",
            Self::KernelPiece { .. } => "kernel-piece",
            Self::KernelResult => "kernel-result",
            Self::RangeShort { .. } => "range-short",
            Self::RangeLong { .. } => "range-long",
        }
    }
}
