//! zstd frames, decompressed in one call into memory of exactly the size that is expected: whatever a frame claims, no more is allocated, and
//! one that holds more is told from one that is damaged.

use zstd::zstd_safe::DCtx;
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;

use crate::error::FormatError;

/// What zstd returns when the memory is full before the frame ends: its codes are negative numbers.
const FULL: usize = 0_usize.wrapping_sub(ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize);

/// Why bytes cannot be made of a frame, or of old bytes and frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// A frame decompresses to more than it should.
    Bomb,
    /// Anything else that does not fit.
    Wrong,
}

impl Misfit {
    /// As an error: `what` has the frame, and `wrong` is what anything but a bomb is there.
    pub fn error(self, what: impl FnOnce() -> String, wrong: FormatError) -> FormatError {
        match self {
            Self::Bomb => FormatError::Bomb(what()),
            Self::Wrong => wrong,
        }
    }
}

/// Fills `to` with what a frame holds.
pub fn unzstd(to: &mut [u8], frame: &[u8]) -> Result<(), Misfit> {
    unzstd_with(&mut DCtx::try_create().ok_or(Misfit::Wrong)?, to, frame)
}

/// The same for a frame that was made with `prefix` before it.
pub fn unzstd_after(prefix: &[u8], to: &mut [u8], frame: &[u8]) -> Result<(), Misfit> {
    let mut context = DCtx::try_create().ok_or(Misfit::Wrong)?;
    context.ref_prefix(prefix).map_err(|_| Misfit::Wrong)?;
    unzstd_with(&mut context, to, frame)
}

/// The same as [`unzstd`] with a decompressor that is kept.
pub fn unzstd_with(context: &mut DCtx<'_>, to: &mut [u8], frame: &[u8]) -> Result<(), Misfit> {
    match context.decompress(to, frame) {
        Ok(written) if written == to.len() => Ok(()),
        Err(FULL) => Err(Misfit::Bomb),
        _ => Err(Misfit::Wrong),
    }
}
