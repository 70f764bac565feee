//! Where ids come from. An image has many ids that tools want to be unique and that we want to be the same in every
//! build of the same thing: GUIDs, the verity salt, the FAT volume id. All are derived from one seed and a name.

use ring::digest;
use uuid::{Builder, Uuid};

/// What all ids of an image are derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The seed of some content, usually the recipe and lock.
    #[must_use]
    pub fn from_content(content: &[u8]) -> Self {
        Self(sha256(&[b"garboard seed", content]))
    }

    /// A seed made from this one and more content.
    #[must_use]
    pub fn with(&self, content: &[u8]) -> Self {
        Self(sha256(&[&self.0, content]))
    }

    /// 32 bytes for the purpose `name`.
    #[must_use]
    pub fn bytes(&self, name: &str) -> [u8; 32] {
        sha256(&[&self.0, name.as_bytes()])
    }

    /// A UUID for the purpose `name`. It has the form of a random one (version 4), since some tools accept no other.
    #[must_use]
    pub fn uuid(&self, name: &str) -> Uuid {
        let mut half = [0; 16];
        half.copy_from_slice(self.bytes(name).split_at(16).0);
        Builder::from_random_bytes(half).into_uuid()
    }

    /// 32 bits for the purpose `name`.
    #[must_use]
    pub fn u32(&self, name: &str) -> u32 {
        let [a, b, c, d, ..] = self.bytes(name);
        u32::from_le_bytes([a, b, c, d])
    }
}

/// The hash of several parts. Each is preceded by its length, so that moving a boundary changes the hash.
fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_seed_and_name_alone() {
        let seed = Seed::from_content(b"recipe");
        assert_eq!(seed.uuid("disk"), Seed::from_content(b"recipe").uuid("disk"));
        assert_ne!(seed.uuid("disk"), seed.uuid("esp"));
        assert_ne!(seed.uuid("disk"), Seed::from_content(b"other").uuid("disk"));
        assert_eq!(seed.uuid("disk").get_version_num(), 4);
    }
}
