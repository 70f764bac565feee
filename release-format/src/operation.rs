//! How a chunk or a part of a file comes about. The codes are part of the format for ever.

use crate::FormatError;

/// What to do for a piece of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// The payload is one zstd frame.
    Data = 1,
    /// The payload is the bytes.
    Raw = 2,
    /// Zeros, without payload.
    Zero = 3,
    /// Bytes of the running slot. Only in patches.
    Copy = 4,
    /// A zstd frame with bytes of the running slot as its prefix. Only in patches.
    Zpatch = 5,
    /// Control, difference and extra streams against bytes of the running slot. Only in patches.
    Bsdiff = 6,
}

impl Operation {
    /// The operation of a code, if it may stand in a pack index.
    ///
    /// # Errors
    /// When the code is not known, or belongs to patches.
    pub fn in_index(code: u8) -> Result<Self, FormatError> {
        match code {
            1 => Ok(Self::Data),
            2 => Ok(Self::Raw),
            3 => Ok(Self::Zero),
            4 => Err(FormatError::OperationReserved("COPY")),
            5 => Err(FormatError::OperationReserved("ZPATCH")),
            6 => Err(FormatError::OperationReserved("BSDIFF")),
            code => Err(FormatError::OperationUnknown(code)),
        }
    }

    /// The operation of a code in a patch.
    ///
    /// # Errors
    /// When the code is not known.
    pub fn in_patch(code: u8) -> Result<Self, FormatError> {
        match code {
            4 => Ok(Self::Copy),
            5 => Ok(Self::Zpatch),
            6 => Ok(Self::Bsdiff),
            code => Self::in_index(code),
        }
    }

    /// Its code.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether it has a payload in a pack.
    #[must_use]
    pub fn has_payload(self) -> bool {
        !matches!(self, Self::Zero | Self::Copy)
    }
}
