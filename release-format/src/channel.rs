//! A channel: the list of releases of one image for one architecture, the only thing that TUF vouches for directly.

use disk_layout::Version;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::FormatError;
use crate::limits::{MAX_CHANNEL, MAX_RELEASES};
use crate::names::Name;
use crate::object::ObjectRef;
use crate::rollout::Rollout;
use crate::text;

const WHAT: &str = "channel";

/// The releases of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Version of this format: [`Channel::FORMAT`].
    pub format: u32,
    /// Its name, for example `stable`.
    pub channel: Name,
    /// The image's name, `VARIANT_ID` in its os-release.
    pub image: Name,
    /// For example `x86_64`.
    pub architecture: Name,
    /// By version, oldest first.
    pub releases: Vec<ChannelRelease>,
}

/// What a channel says of a release. The release itself never changes; this may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRelease {
    /// Its version.
    #[serde(with = "text")]
    pub version: Version,
    /// Its verity root hash, so that a host sees at once whether it runs it.
    pub root_hash: Digest,
    /// Its metadata.
    pub release: ObjectRef,
    /// The version of the release format that it needs; an agent that does not read it does not take it.
    pub format: u32,
    /// A host that runs an older version than this one takes this one first.
    #[serde(default, with = "text::option", skip_serializing_if = "Option::is_none")]
    pub stepping_stone: Option<Version>,
    /// When it is offered to whom; to all at once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// No host takes it any more: it turned out bad.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
    /// No host can take it any more: its objects may be gone. It is listed so that its version is never used again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
}

impl ChannelRelease {
    /// Whether hosts may take it at all.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        !self.withdrawn && !self.retired
    }
}

impl Channel {
    /// The version of this format.
    pub const FORMAT: u32 = 1;

    /// Reads a channel.
    ///
    /// # Errors
    /// When it is not one that the specification allows, or of a later format.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let channel: Self = parse(WHAT, bytes, MAX_CHANNEL, Self::FORMAT)?;
        channel.check()?;
        Ok(channel)
    }

    /// The file.
    ///
    /// # Errors
    /// When it is not one that [`Channel::decode`] takes.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        print(WHAT, self, MAX_CHANNEL)
    }

    fn check(&self) -> Result<(), FormatError> {
        let (found, limit) = (self.releases.len() as u64, MAX_RELEASES as u64);
        if found > limit {
            return Err(FormatError::TooMany { what: WHAT, things: "releases", found, limit });
        }
        let bad = |reason: String| Err(FormatError::Syntax { what: WHAT, reason });
        for (before, after) in self.releases.iter().zip(self.releases.iter().skip(1)) {
            if before.version >= after.version {
                return bad(format!("release {} does not come after {}", after.version, before.version));
            }
        }
        for release in &self.releases {
            if let Some(stone) = release.stepping_stone.as_ref().filter(|stone| **stone >= release.version) {
                return bad(format!("the stepping stone {stone} of release {} is not older than it", release.version));
            }
            release.rollout.as_ref().map_or(Ok(()), Rollout::check)?;
        }
        Ok(())
    }

    /// Whether it is the channel that was asked for.
    ///
    /// # Errors
    /// When it is of another name, image or architecture.
    pub fn expect(&self, channel: &Name, image: &Name, architecture: &Name) -> Result<(), FormatError> {
        expect("channel", &self.channel, channel)?;
        expect("image", &self.image, image)?;
        expect("architecture", &self.architecture, architecture)
    }

    /// What the channel says of a version.
    #[must_use]
    pub fn release(&self, version: &Version) -> Option<&ChannelRelease> {
        self.releases.iter().find(|release| release.version == *version)
    }

    /// The release that a host on `running` should take next: the newest one that is offered, newer, of a format up to
    /// `format`, and `acceptable` (not pinned away, not failed before, its wave has come); or the stepping stone on the
    /// way to it. A release whose stepping stone is not to be had is passed over.
    pub fn next(&self, running: &Version, format: u32, acceptable: impl Fn(&ChannelRelease) -> bool) -> Option<&ChannelRelease> {
        let usable = |release: &&ChannelRelease| {
            release.is_offered() && release.version > *running && release.format <= format && acceptable(release)
        };
        for newest in self.releases.iter().rev().filter(usable) {
            let mut step = Some(newest);
            // Stepping stones are ever older, so this ends.
            while let Some(stone) = step.and_then(|step| step.stepping_stone.as_ref()).filter(|stone| *stone > running) {
                step = self.release(stone).filter(usable);
            }
            if step.is_some() {
                return step;
            }
        }
        None
    }
}

pub(crate) fn expect(what: &'static str, found: &impl ToString, expected: &impl ToString) -> Result<(), FormatError> {
    let (found, expected) = (found.to_string(), expected.to_string());
    if found == expected { Ok(()) } else { Err(FormatError::Other { what, found, expected }) }
}

/// Reads JSON that says its format, of which only one version is read.
pub(crate) fn parse<'de, T: Deserialize<'de>>(what: &'static str, bytes: &'de [u8], limit: u64, format: u32) -> Result<T, FormatError> {
    #[derive(Deserialize)]
    struct Formatted {
        format: u32,
    }
    let len = bytes.len() as u64;
    if len > limit {
        return Err(FormatError::TooLarge { what, len, limit });
    }
    let syntax = |error: serde_json::Error| FormatError::Syntax { what, reason: error.to_string() };
    // Alone and first: the rest of a later format need not look like this one.
    let found = serde_json::from_slice::<Formatted>(bytes).map_err(syntax)?.format;
    if found != format {
        return Err(FormatError::Version { what, found, supported: format });
    }
    serde_json::from_slice(bytes).map_err(syntax)
}

pub(crate) fn print<T: Serialize>(what: &'static str, value: &T, limit: u64) -> Result<Vec<u8>, FormatError> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| FormatError::Syntax { what, reason: error.to_string() })?;
    bytes.push(b'\n');
    let len = bytes.len() as u64;
    if len > limit { Err(FormatError::TooLarge { what, len, limit }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: &str) -> ChannelRelease {
        ChannelRelease {
            version: version.parse().unwrap(),
            root_hash: Digest::of(version.as_bytes()),
            release: ObjectRef::of(version.as_bytes()),
            format: 1,
            stepping_stone: None,
            rollout: None,
            withdrawn: false,
            retired: false,
        }
    }

    fn channel(releases: Vec<ChannelRelease>) -> Channel {
        let name = |text: &str| text.parse().unwrap();
        Channel { format: 1, channel: name("stable"), image: name("tiny"), architecture: name("x86_64"), releases }
    }

    fn next(channel: &Channel, running: &str) -> Option<String> {
        channel.next(&running.parse().unwrap(), 1, |_| true).map(|release| release.version.to_string())
    }

    #[test]
    fn the_newest_release_is_next() {
        let mut list = channel(vec![entry("1.0"), entry("1.9"), entry("1.10")]);
        assert_eq!(next(&list, "1.0").as_deref(), Some("1.10"));
        assert_eq!(next(&list, "1.10"), None);
        assert_eq!(next(&list, "2"), None, "never down");
        list.releases[2].withdrawn = true;
        assert_eq!(next(&list, "1.0").as_deref(), Some("1.9"));
        list.releases[1].format = 2;
        assert_eq!(next(&list, "1.0"), None);
        let failed = |release: &ChannelRelease| release.version.as_str() != "1.10";
        let list = channel(vec![entry("1.0"), entry("1.9"), entry("1.10")]);
        assert_eq!(list.next(&"1.0".parse().unwrap(), 1, failed).unwrap().version.as_str(), "1.9");
    }

    #[test]
    fn stepping_stones_come_first() {
        let stone = |version: &str, stone: &str| ChannelRelease { stepping_stone: Some(stone.parse().unwrap()), ..entry(version) };
        let mut list = channel(vec![entry("1.0"), entry("1.5"), stone("2.0", "1.5"), stone("3.0", "2.0")]);
        assert_eq!(next(&list, "1.0").as_deref(), Some("1.5"));
        assert_eq!(next(&list, "1.5").as_deref(), Some("2.0"));
        assert_eq!(next(&list, "1.7").as_deref(), Some("2.0"));
        assert_eq!(next(&list, "2.1").as_deref(), Some("3.0"));
        // A later format does not hide the way to it.
        list.releases[3].format = 2;
        assert_eq!(next(&list, "1.0").as_deref(), Some("1.5"));
        // Without its stone 2.0 cannot be reached; what is before can.
        list.releases[1].retired = true;
        assert_eq!(next(&list, "1.0"), None);
        assert_eq!(next(&list, "0.9").as_deref(), Some("1.0"));
    }

    #[test]
    fn lists_that_cannot_be_are_refused() {
        let good = channel(vec![entry("1.0"), entry("1.1")]);
        assert_eq!(Channel::decode(&good.encode().unwrap()), Ok(good.clone()));
        for releases in [vec![entry("1.1"), entry("1.0")], vec![entry("1.1"), entry("1.1")]] {
            assert!(matches!(channel(releases).encode(), Err(FormatError::Syntax { .. })));
        }
        let circle = ChannelRelease { stepping_stone: Some("1.0".parse().unwrap()), ..entry("1.0") };
        assert!(matches!(channel(vec![circle]).encode(), Err(FormatError::Syntax { .. })));
        let many = (0..=MAX_RELEASES).map(|number| entry(&number.to_string())).collect();
        assert!(matches!(channel(many).encode(), Err(FormatError::TooMany { .. })));
        let name = |text: &str| text.parse::<Name>().unwrap();
        assert_eq!(good.expect(&name("stable"), &name("tiny"), &name("x86_64")), Ok(()));
        for (args, kind) in [
            (["beta", "tiny", "x86_64"], "other-channel"),
            (["stable", "docker", "x86_64"], "other-image"),
            (["stable", "tiny", "aarch64"], "other-architecture"),
        ] {
            assert_eq!(good.expect(&name(args[0]), &name(args[1]), &name(args[2])).unwrap_err().kind(), kind);
        }
    }

    #[test]
    fn a_later_format_is_named_whatever_it_looks_like() {
        let error = Channel::decode(br#"{"format": 2, "feeds": []}"#).unwrap_err();
        assert_eq!(error, FormatError::Version { what: "channel", found: 2, supported: 1 });
        assert!(error.to_string().contains("update it through a release that it can read"), "{error}");
        assert!(matches!(Channel::decode(b"<html>"), Err(FormatError::Syntax { .. })));
        assert!(matches!(Channel::decode(&vec![b' '; 2 << 20]), Err(FormatError::TooLarge { .. })));
    }
}
