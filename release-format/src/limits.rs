//! The bounds of the format. A decoder refuses what exceeds them before it allocates anything for it, so they are what
//! bounds an updater's memory; a publisher refuses to write it.

/// Bytes of a block of the root image; extents of the root start at a multiple.
pub const BLOCK: u64 = 4096;
/// Bytes of a chunk; only the last one of an extent is shorter.
pub const CHUNK: u64 = 256 * 1024;
/// Bytes of a channel's JSON.
pub const MAX_CHANNEL: u64 = 1024 * 1024;
/// Bytes of a release's JSON.
pub const MAX_RELEASE: u64 = 256 * 1024;
/// Bytes of an uncompressed content map.
pub const MAX_MAP_BODY: u64 = 24 * 1024 * 1024;
/// Bytes of an uncompressed pack index.
pub const MAX_INDEX_BODY: u64 = 12 * 1024 * 1024;
/// Bytes of an uncompressed difference.
pub const MAX_DIFFERENCE_BODY: u64 = MAX_MAP_BODY + MAX_INDEX_BODY;
/// Extents of a map, root and UKI together.
pub const MAX_EXTENTS: u64 = 1 << 18;
/// Chunks of a map, root and UKI together.
pub const MAX_CHUNKS: u64 = 1 << 18;
/// Bytes of a path in a map.
pub const MAX_PATH: u64 = 4096;
/// Bytes of a root image.
pub const MAX_ROOT: u64 = 64 << 30;
/// Bytes of a UKI.
pub const MAX_UKI: u64 = 512 << 20;
/// Packs that one release refers to, and patch packs.
pub const MAX_PACKS: usize = 256;
/// Patches that one release lists.
pub const MAX_PATCHES: usize = 64;
/// Patches from older releases, which hosts of those read alone.
pub const MAX_OLDER: usize = 192;
/// Bytes of their JSON.
pub const MAX_OLDER_BYTES: u64 = 128 * 1024;
/// Differences that one release lists.
pub const MAX_DIFFERENCES: usize = 64;
/// Releases of a channel.
pub const MAX_RELEASES: usize = 2048;
/// Waves of a roll-out.
pub const MAX_WAVES: usize = 64;
/// Bytes of the header of maps, indexes and packs.
pub const HEADER: usize = 16;
/// Bytes of the uncompressed table of a patch.
pub const MAX_PATCH_BODY: u64 = 12 * 1024 * 1024;
/// Operations of a patch.
pub const MAX_OPERATIONS: u64 = 1 << 16;
/// Runs of chunks and of old bytes of all operations together.
pub const MAX_RUNS: u64 = 1 << 18;
/// Old bytes that an operation sees.
pub const MAX_SOURCE: u64 = 16 << 20;
/// Bytes that an operation makes.
pub const MAX_OUTPUT: u64 = 8 << 20;
/// Bytes of the uncompressed control stream of BSDIFF.
pub const MAX_CONTROL: u64 = 2 << 20;
/// Bytes of a kernel patch, uncompressed.
pub const MAX_KERNEL_PATCH: u64 = 32 << 20;
/// Bytes of a kernel that a kernel patch makes.
pub const MAX_KERNEL: u64 = 64 << 20;
/// Bytes that are compressed in a kernel.
pub const MAX_KERNEL_CONTENTS: u64 = 256 << 20;
