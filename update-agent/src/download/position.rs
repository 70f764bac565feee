//! How far a download is, as the journal keeps it, and which way it came.

use release_format::Digest;
use serde::{Deserialize, Serialize};

/// How far a download is. What is not there in a journal of an older agent means that all is fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// Root hash of the running version, whose chunks are copied; without it all is fetched.
    pub from: Option<Digest>,
    /// All is fetched, since what was put together before was not the release.
    pub full: bool,
    /// Chunks with a smaller number were copied, if the running version has them.
    pub copied: u32,
    /// Chunks that the running version should have and has not; in order.
    pub missing: Vec<u32>,
    /// The difference from the running version could not be used.
    pub lost: bool,
    /// Digest of the table of the patch that is used.
    pub patch: Option<Digest>,
    /// Whether the kernel was rebuilt, once that was tried.
    pub kernel: Option<bool>,
    /// Operations of the patch that were tried.
    pub operations: u32,
    /// Operations that failed.
    pub failed: u32,
    /// Fetches of the plan that are on the disk.
    pub fetches: u64,
    /// Bytes received in all, those that came twice too, for the report.
    pub fetched: u64,
}

impl Position {
    /// The beginning, with all to be fetched.
    #[must_use]
    pub fn full() -> Self {
        Self { full: true, ..Self::default() }
    }
}

/// The ways to a release, from the one that costs least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// By a patch from the running version.
    Patch,
    /// By the chunks that the running version does not have.
    Chunks,
    /// In full.
    #[default]
    Full,
}

impl Way {
    /// All of them, for metrics.
    pub const ALL: [Self; 3] = [Self::Patch, Self::Chunks, Self::Full];

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Chunks => "chunks",
            Self::Full => "full",
        }
    }
}

/// What a download took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Taken {
    /// Which way it came.
    pub way: Way,
    /// Bytes received.
    pub received: u64,
    /// Bytes that the release costs in full.
    pub full: u64,
    /// Bytes copied from the running slot.
    pub copied: u64,
    /// Whether the kernel was rebuilt by its kernel patch.
    pub kernel: bool,
    /// Chunks that could not be copied or made of what is here, and were fetched instead; a difference that could not be used counts too.
    pub fallbacks: u64,
}

impl Taken {
    /// Bytes that did not have to be fetched.
    #[must_use]
    pub fn saved(&self) -> u64 {
        self.full.saturating_sub(self.received)
    }

    /// In a few words.
    #[must_use]
    pub fn render(&self) -> String {
        let way = match self.way {
            Way::Full => "in full".to_owned(),
            Way::Patch | Way::Chunks => format!("by {}", self.way.as_str()),
        };
        let mib = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20);
        let text = format!("{way}: {} received", mib(self.received));
        let text = if self.way == Way::Full { text } else { format!("{text} instead of {}", mib(self.full)) };
        let text = if self.kernel { format!("{text}, the kernel rebuilt") } else { text };
        match self.fallbacks {
            0 => text,
            1 => format!("{text}, one piece of it another way"),
            count => format!("{text}, {count} pieces of it another way"),
        }
    }
}
