//! Objects: the immutable files of a repository, named by what is in them.

use serde::{Deserialize, Serialize};

use crate::{Digest, FormatError};

/// What a file of a repository's `objects/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A release's metadata, JSON.
    Release,
    /// A content map.
    Map,
    /// A pack index.
    Index,
    /// A pack of chunks.
    Pack,
    /// A pack of what patches need beside old bytes.
    Patch,
    /// The table of a patch.
    Table,
    /// A kernel patch.
    Kernel,
    /// What map and index have beyond an earlier release's map.
    Difference,
    /// Patches from older releases than a release's metadata list, JSON.
    Older,
}

/// An object as another one names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Bytes of the file.
    pub size: u64,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [Self; 9] =
        [Self::Release, Self::Map, Self::Index, Self::Pack, Self::Patch, Self::Table, Self::Kernel, Self::Difference, Self::Older];

    /// The ending of its file name.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Release => "release.json",
            Self::Map => "map",
            Self::Index => "index",
            Self::Pack => "pack",
            Self::Patch => "patch",
            Self::Table => "table",
            Self::Kernel => "kernel",
            Self::Difference => "difference",
            Self::Older => "older.json",
        }
    }
}

impl ObjectRef {
    /// The reference to these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: Digest::of(bytes), size: bytes.len() as u64 }
    }

    /// Path of the file below the repository: `objects/<sha256>.<kind>`.
    #[must_use]
    pub fn path(&self, kind: ObjectKind) -> String {
        format!("objects/{}.{}", self.sha256, kind.extension())
    }

    /// Whether these bytes are the object. To be called before they are parsed.
    ///
    /// # Errors
    /// When length or digest differ.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), FormatError> {
        let found = bytes.len() as u64;
        if found != self.size {
            return Err(FormatError::ObjectLength { object: self.sha256, expected: self.size, found });
        }
        if Digest::of(bytes) != self.sha256 {
            return Err(FormatError::ObjectDigest { object: self.sha256 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_its_bytes() {
        let object = ObjectRef::of(b"abc");
        assert_eq!(object.verify(b"abc"), Ok(()));
        assert!(matches!(object.verify(b"ab"), Err(FormatError::ObjectLength { expected: 3, found: 2, .. })));
        assert!(matches!(object.verify(b"abd"), Err(FormatError::ObjectDigest { .. })));
        assert!(object.path(ObjectKind::Pack).starts_with("objects/ba7816bf"));
    }
}
