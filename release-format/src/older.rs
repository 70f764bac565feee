//! Patches from older releases than a release's metadata list. Those are for every host; this is for the few that are far behind.

use serde::{Deserialize, Serialize};

use crate::channel::{parse, print};
use crate::error::FormatError;
use crate::limits::{MAX_OLDER, MAX_OLDER_BYTES};
use crate::release::PatchInfo;

const WHAT: &str = "list of patches from older releases";

/// Patches of one release from releases long before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OlderPatches {
    /// Version of this format: [`OlderPatches::FORMAT`].
    pub format: u32,
    /// The patches; an agent passes over those whose format it does not know.
    pub patches: Vec<PatchInfo>,
}

impl OlderPatches {
    /// The version of this format.
    pub const FORMAT: u32 = 1;

    /// Reads the list. Check it with [`crate::ObjectRef::verify`] first.
    ///
    /// # Errors
    /// When it is none that the specification allows, or of a later format.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let list: Self = parse(WHAT, bytes, MAX_OLDER_BYTES, Self::FORMAT)?;
        list.check()?;
        Ok(list)
    }

    /// The file.
    ///
    /// # Errors
    /// When it is not one that [`OlderPatches::decode`] takes.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        print(WHAT, self, MAX_OLDER_BYTES)
    }

    fn check(&self) -> Result<(), FormatError> {
        let found = self.patches.len();
        if found > MAX_OLDER {
            return Err(FormatError::TooMany { what: WHAT, things: "patches", found: found as u64, limit: MAX_OLDER as u64 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, ObjectRef};
    use proptest::prelude::*;

    fn info() -> PatchInfo {
        let object = ObjectRef { sha256: Digest::of(b"table"), size: 12 << 20 };
        PatchInfo { format: 2, from: Digest::of(b"old"), table: object, kernel: Some(object), borrowed: true, lends: Some(255) }
    }

    #[test]
    fn a_full_list_is_within_its_bytes_and_one_more_is_too_many() {
        let list = |count| OlderPatches { format: OlderPatches::FORMAT, patches: vec![info(); count] };
        let full = list(MAX_OLDER);
        assert_eq!(OlderPatches::decode(&full.encode().unwrap()), Ok(full));
        assert_eq!(list(MAX_OLDER + 1).encode().unwrap_err().kind(), "format-too-many");
        let over = serde_json::to_vec(&list(MAX_OLDER + 1)).unwrap();
        assert!(matches!(OlderPatches::decode(&over).unwrap_err().kind(), "format-too-many" | "metadata-too-large"));
        assert_eq!(OlderPatches::decode(br#"{"format": 2, "patches": 7}"#).unwrap_err().kind(), "format-version");
        assert_eq!(OlderPatches::decode(br#"{"format": 1, "patches": 7}"#).unwrap_err().kind(), "metadata-syntax");
        assert_eq!(OlderPatches::decode(&[b' '; (MAX_OLDER_BYTES + 1) as usize]).unwrap_err().kind(), "metadata-too-large");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_an_error(
            count in 0_usize..5,
            at: prop::sample::Index,
            byte: u8,
            random in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let file = OlderPatches { format: OlderPatches::FORMAT, patches: vec![info(); count] }.encode().unwrap();
            let at = at.index(file.len());
            let mut changed = file.clone();
            changed[at] = byte;
            for bytes in [random, changed, file[..at].to_vec(), [&file[..], &[byte]].concat()] {
                // What is read is what can be written and read again.
                if let Ok(list) = OlderPatches::decode(&bytes) {
                    prop_assert_eq!(OlderPatches::decode(&list.encode().unwrap()), Ok(list));
                }
            }
        }
    }
}
