//! Kernel patches: the kernel of a release made of an earlier one. What is in a kernel image is compressed as a whole, so two kernels that are
//! nearly the same have no bytes in common. A kernel patch goes under the compression: it takes the old one apart, makes the new
//! contents of the old, and compresses those again, bit for bit as whoever built the kernel did. That takes a compressor's memory
//! ([`MEMORY`]) and its time, so it is a way beside the patch, for hosts that have both. `docs/release-format.md` has the bytes.
//!
//! Where the compressed contents are is what Linux's boot protocol says (`Documentation/arch/x86/boot.rst`: `setup_sects`, `payload_offset`,
//! `payload_length`).

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer};

use crate::container;
use crate::digest::Digest;
use crate::error::FormatError;
use crate::limits::{MAX_KERNEL, MAX_KERNEL_CONTENTS, MAX_KERNEL_PATCH, MAX_OUTPUT, MAX_SOURCE};
use crate::operation::Operation;
use crate::patch_apply::make;
use crate::reader::{Reader, put_varint};

const WHAT: &str = "kernel patch";
const MAGIC: [u8; 8] = *b"GBKERNEL";

/// Bytes of memory that it takes to rebuild a kernel: the compressor at its highest level with a window of 128 MiB, both kernels, and
/// the contents of the old one.
pub const MEMORY: u64 = 1 << 30;

/// How contents were compressed. The codes are part of the format for ever, and so is the version of zstd that gives these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Recipe {
    /// As `zstd -22 --ultra -T1` of version 1.5.7 does from a pipe, which is how Debian's kernels since trixie are made.
    Zstd157 = 1,
}

impl Recipe {
    fn of(code: u8) -> Result<Self, FormatError> {
        if code == Self::Zstd157 as u8 { Ok(Self::Zstd157) } else { Err(FormatError::KernelRecipe(code)) }
    }

    /// Compresses as the recipe says. Takes [`MEMORY`] and time.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn compress(self, contents: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut compressor = Compressor::new(self, contents.len() as u64, contents.len().saturating_add(1 << 16))?;
        // With the end in the same call zstd would know how much it is, as it does not from a pipe, and choose another window.
        compressor.push(contents, false)?;
        compressor.push(&[], true)?;
        Ok(compressor.out)
    }

    fn begin(self, len: u64) -> Result<CCtx<'static>, FormatError> {
        let Self::Zstd157 = self;
        let failed = || FormatError::Compression(WHAT);
        let mut context = CCtx::try_create().ok_or_else(failed)?;
        // One worker gives other bytes than none. It has all as one job, as it has it from a pipe, but with a buffer of that size and not of
        // 2 GiB, which a host with less memory would be refused.
        let job = u32::try_from(len.saturating_add(1 << 20)).map_err(|_| failed())?;
        let parameters = [
            CParameter::CompressionLevel(22),
            CParameter::WindowLog(27),
            CParameter::ChecksumFlag(true),
            CParameter::NbWorkers(1),
            CParameter::JobSize(job),
        ];
        for parameter in parameters {
            context.set_parameter(parameter).map_err(|_| failed())?;
        }
        Ok(context)
    }
}

/// Compresses again what comes in pieces.
struct Compressor {
    context: CCtx<'static>,
    out: Vec<u8>,
    limit: usize,
}

impl Compressor {
    /// For so many bytes, which become at most `limit`.
    fn new(recipe: Recipe, len: u64, limit: usize) -> Result<Self, FormatError> {
        Ok(Self { context: recipe.begin(len)?, out: Vec::with_capacity(limit), limit })
    }

    fn push(&mut self, piece: &[u8], end: bool) -> Result<(), FormatError> {
        let failed = || FormatError::Compression(WHAT);
        let directive = if end { ZSTD_EndDirective::ZSTD_e_end } else { ZSTD_EndDirective::ZSTD_e_continue };
        let mut input = InBuffer::around(piece);
        let mut buffer = [0; 1 << 16];
        loop {
            let mut output = OutBuffer::around(&mut buffer[..]);
            let left = self.context.compress_stream2(&mut output, &mut input, directive).map_err(|_| failed())?;
            self.out.extend_from_slice(output.as_slice());
            // Contents that a host was not told of would fill its memory.
            if self.out.len() > self.limit {
                return Err(FormatError::KernelResult);
            }
            if if end { left == 0 } else { input.pos() == piece.len() } {
                return Ok(());
            }
        }
    }
}

/// A kernel image, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Where the frame begins.
    pub frame: usize,
    /// Bytes of the frame.
    pub frame_len: usize,
    /// What is compressed in it.
    pub contents: Vec<u8>,
}

impl Kernel {
    /// A kernel image for tests: these contents, compressed as the recipe says, and something around them.
    #[doc(hidden)]
    #[must_use]
    pub fn sample(contents: &[u8], around: u8) -> Option<Vec<u8>> {
        let frame = Recipe::Zstd157.compress(contents).ok()?;
        let mut image = vec![around; 1024 + 100];
        let len = u32::try_from(frame.len() + 4).ok()?;
        let fields = [(0x1f1, &[1][..]), (0x202, b"HdrS"), (0x248, &100_u32.to_le_bytes()), (0x24c, &len.to_le_bytes())];
        for (at, bytes) in fields {
            image.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        }
        image.extend(frame);
        image.extend(u32::try_from(contents.len()).ok()?.to_le_bytes());
        image.extend([around; 700]);
        Some(image)
    }

    /// Takes apart the `.linux` section of a UKI; none when it is no kernel image, or its contents are not one zstd frame.
    #[must_use]
    pub fn open(section: &[u8]) -> Option<Self> {
        let number = |at: usize| -> Option<usize> {
            let bytes = section.get(at..at.checked_add(4)?)?;
            usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
        if section.get(0x202..0x206)? != b"HdrS" {
            return None;
        }
        let setup = usize::from(*section.get(0x1f1)?) + 1;
        let frame = number(0x248)?.checked_add(setup * 512)?;
        let payload = section.get(frame..frame.checked_add(number(0x24c)?)?)?;
        let frame_len = zstd::zstd_safe::find_frame_compressed_size(payload).ok()?;
        let contents = contents(payload.get(..frame_len)?)?;
        Some(Self { frame, frame_len, contents })
    }

    /// The section but for the frame.
    #[must_use]
    pub fn outside(&self, section: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = section.get(..self.frame)?.to_vec();
        bytes.extend(section.get(self.frame.checked_add(self.frame_len)?..)?);
        Some(bytes)
    }

    /// The recipe that leads from the contents to the frame, if there is one. Takes [`MEMORY`] and the time of compressing.
    #[must_use]
    pub fn recipe(&self, section: &[u8]) -> Option<Recipe> {
        let frame = section.get(self.frame..self.frame.checked_add(self.frame_len)?)?;
        (Recipe::Zstd157.compress(&self.contents).ok()? == frame).then_some(Recipe::Zstd157)
    }
}

/// Decompresses one frame whose size is nowhere said, up to the limit.
fn contents(frame: &[u8]) -> Option<Vec<u8>> {
    let mut context = DCtx::try_create()?;
    context.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(27)).ok()?;
    let mut input = InBuffer::around(frame);
    let (mut out, mut buffer) = (Vec::new(), vec![0; 1 << 17]);
    loop {
        let mut output = OutBuffer::around(buffer.as_mut_slice());
        let left = context.decompress_stream(&mut output, &mut input).ok()?;
        out.extend_from_slice(output.as_slice());
        if out.len() as u64 > MAX_KERNEL_CONTENTS {
            return None;
        }
        match left {
            0 => return (input.pos() == frame.len()).then_some(out),
            // It wants more than there is.
            _ if input.pos() == frame.len() && output.as_slice().is_empty() => return None,
            _ => {}
        }
    }
}

/// How a run of bytes is made of a run of old ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What to do.
    pub operation: Operation,
    /// Bytes that it makes.
    pub len: u64,
    /// First old byte.
    pub from: u64,
    /// Old bytes.
    pub from_len: u64,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A kernel patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPatch {
    /// Of the earlier `.linux` section.
    pub source: Digest,
    /// Of the section that comes out.
    pub result: Digest,
    /// Where the frame of the new one begins.
    pub frame: u64,
    /// Bytes of the new section.
    pub len: u64,
    /// How its contents were compressed.
    pub recipe: Recipe,
    /// What is around the frame, made of the same of the earlier one.
    pub outside: Piece,
    /// The contents, made of those of the earlier one.
    pub pieces: Vec<Piece>,
}

impl KernelPatch {
    /// The file.
    ///
    /// # Errors
    /// When it would be larger than the format allows.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let mut body = self.source.as_bytes().to_vec();
        body.extend(self.result.as_bytes());
        put_varint(&mut body, self.frame);
        put_varint(&mut body, self.len);
        body.push(self.recipe as u8);
        put_varint(&mut body, self.pieces.len() as u64);
        for piece in std::iter::once(&self.outside).chain(&self.pieces) {
            body.push(piece.operation.code());
            for number in [piece.len, piece.from, piece.from_len, piece.payload.len() as u64] {
                put_varint(&mut body, number);
            }
            body.extend(&piece.payload);
        }
        container::wrap(WHAT, MAGIC, &body, MAX_KERNEL_PATCH, 1)
    }

    /// Reads a kernel patch. Check it with [`ObjectRef::verify`](crate::ObjectRef::verify) first.
    ///
    /// # Errors
    /// When it is not one that the specification allows.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let body = container::unwrap(WHAT, MAGIC, bytes, MAX_KERNEL_PATCH)?;
        let mut reader = Reader::new(WHAT, &body);
        let (source, result) = (Digest::new(reader.array32()?), Digest::new(reader.array32()?));
        let (frame, len) = (reader.varint()?, reader.varint()?);
        if len > MAX_KERNEL {
            return Err(FormatError::BodyTooLarge { what: WHAT, len, limit: MAX_KERNEL });
        }
        let recipe = Recipe::of(reader.u8()?)?;
        let count = reader.varint()?;
        let mut total = 0_u64;
        let mut piece = |number: u64| -> Result<Piece, FormatError> {
            let operation = Operation::in_patch(reader.u8()?)?;
            let (len, from, from_len) = (reader.varint()?, reader.varint()?, reader.varint()?);
            let payload_len = reader.varint()?;
            let payload = reader.bytes(payload_len)?.to_vec();
            if len == 0 || len > MAX_OUTPUT || from_len > MAX_SOURCE || payload_len > len {
                return Err(FormatError::KernelPiece { piece: number });
            }
            total = total.saturating_add(len);
            if total > MAX_KERNEL_CONTENTS {
                return Err(FormatError::BodyTooLarge { what: WHAT, len: total, limit: MAX_KERNEL_CONTENTS });
            }
            Ok(Piece { operation, len, from, from_len, payload })
        };
        let outside = piece(0)?;
        let pieces = (1..=count).map(&mut piece).collect::<Result<Vec<_>, _>>()?;
        reader.end()?;
        if frame > outside.len || outside.len > len {
            return Err(FormatError::KernelResult);
        }
        Ok(Self { source, result, frame, len, recipe, outside, pieces })
    }

    /// Makes the new `.linux` section of the earlier one. Takes [`MEMORY`], and the time that compressing takes.
    ///
    /// # Errors
    /// When `section` is not what the patch was made for, or what comes out is not the release's.
    pub fn rebuild(&self, section: &[u8]) -> Result<Vec<u8>, FormatError> {
        if Digest::of(section) != self.source {
            return Err(FormatError::KernelSource);
        }
        let old = Kernel::open(section).ok_or(FormatError::KernelSource)?;
        let around = old.outside(section).ok_or(FormatError::KernelSource)?;
        let outside = self.piece(0, &self.outside, &around)?;
        let (len, frame) = (usize::try_from(self.len), usize::try_from(self.frame));
        let (len, frame) = len.ok().zip(frame.ok()).ok_or(FormatError::KernelResult)?;
        let limit = len.checked_sub(outside.len()).ok_or(FormatError::KernelResult)?;
        let mut compressor = Compressor::new(self.recipe, self.pieces.iter().map(|piece| piece.len).sum(), limit)?;
        for (number, piece) in (1..).zip(&self.pieces) {
            compressor.push(&self.piece(number, piece, &old.contents)?, false)?;
        }
        compressor.push(&[], true)?;
        let (before, behind) = outside.split_at_checked(frame).ok_or(FormatError::KernelResult)?;
        let mut new = Vec::with_capacity(len);
        for part in [before, &compressor.out, behind] {
            new.extend_from_slice(part);
        }
        if new.len() == len && Digest::of(&new) == self.result { Ok(new) } else { Err(FormatError::KernelResult) }
    }

    /// Whether it makes `new` of `old`, but for the compressing. Whoever has seen that [`Kernel::recipe`] leads to the new frame knows the rest.
    ///
    /// # Errors
    /// When it does not.
    pub fn expect(&self, (old, source): (&Kernel, &[u8]), (new, target): (&Kernel, &[u8])) -> Result<(), FormatError> {
        let around = old.outside(source).ok_or(FormatError::KernelSource)?;
        let wanted = new.outside(target).ok_or(FormatError::KernelResult)?;
        let mut rest = new.contents.as_slice();
        for (number, piece) in (1..).zip(&self.pieces) {
            let made = self.piece(number, piece, &old.contents)?;
            rest = rest.strip_prefix(made.as_slice()).ok_or(FormatError::KernelPiece { piece: number })?;
        }
        let whole = rest.is_empty() && self.piece(0, &self.outside, &around)? == wanted;
        if whole { Ok(()) } else { Err(FormatError::KernelResult) }
    }

    fn piece(&self, number: u64, piece: &Piece, old: &[u8]) -> Result<Vec<u8>, FormatError> {
        let wrong = || FormatError::KernelPiece { piece: number };
        let range = usize::try_from(piece.from).ok().zip(usize::try_from(piece.from.saturating_add(piece.from_len)).ok());
        let source = range.and_then(|(from, end)| old.get(from..end)).ok_or_else(wrong)?;
        let mut output = vec![0; usize::try_from(piece.len).unwrap_or(0)];
        make(piece.operation, source, &piece.payload, &mut output)
            .map_err(|misfit| misfit.error(|| format!("piece {number} of the kernel patch"), wrong()))?;
        Ok(output)
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
