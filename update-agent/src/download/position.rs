//! How far a download is, as the journal keeps it, and which way it came.

use release_format::Digest;
use serde::{Deserialize, Serialize};

/// After so many attempts in a row that came no further, neither patch nor difference is asked for.
const MAX_STUCK: u32 = 3;

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
    /// The patch from the running version, or the list where it would be, could not be used.
    pub no_patch: bool,
    /// The kernel patch could not be used, though there was the memory for it.
    pub no_kernel: bool,
    /// Attempts in a row that came no further, since something did not come.
    pub stuck: u32,
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
    /// Whether so many attempts came no further that what spares bytes is left aside, for good.
    #[must_use]
    pub fn gives_up(&self) -> bool {
        self.stuck >= MAX_STUCK
    }

    /// [`Self::stuck`] after an attempt that began at `before`.
    #[must_use]
    pub fn stuck_after(&self, before: &Self) -> u32 {
        let how_far = |position: &Self| (position.copied, position.operations, position.fetches);
        match before.gives_up() {
            // Trying again what it gave up would begin anew.
            true => before.stuck,
            false if how_far(self) > how_far(before) => 0,
            false => before.stuck + 1,
        }
    }

    /// Ways that were offered and could not be used.
    #[must_use]
    pub fn unused(&self) -> u64 {
        [self.lost, self.no_patch, self.no_kernel].into_iter().map(u64::from).sum()
    }

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
    /// Bytes received of payloads and of the patch's table.
    pub received: u64,
    /// Bytes of payloads that the release costs in full.
    pub full: u64,
    /// Bytes copied from the running slot.
    pub copied: u64,
    /// Whether the kernel was rebuilt by its kernel patch.
    pub kernel: bool,
    /// Chunks that could not be copied or made of what is here, and were fetched instead; a patch, a kernel patch and a difference that could
    /// not be used count too.
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
        let size = |bytes: u64| match bytes >> 20 {
            0 => format!("{} KiB", bytes.div_ceil(1024)),
            mib => format!("{mib}.{} MiB", ((bytes & 0xf_ffff) * 10) >> 20),
        };
        let text = format!("{way}: {} received", size(self.received));
        let text = if self.way == Way::Full { text } else { format!("{text} instead of {}", size(self.full)) };
        let text = if self.kernel { format!("{text}, the kernel rebuilt") } else { text };
        match self.fallbacks {
            0 => text,
            1 => format!("{text}, one piece of it another way"),
            count => format!("{text}, {count} pieces of it another way"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_update_took_is_told_in_units_that_say_something() {
        let taken = Taken { way: Way::Patch, received: 761, full: (163 << 20) + (1 << 19), ..Taken::default() };
        assert_eq!(taken.render(), "by patch: 1 KiB received instead of 163.5 MiB");
        let taken = Taken { received: 3 << 20, kernel: true, fallbacks: 2, ..taken };
        assert_eq!(taken.render(), "by patch: 3.0 MiB received instead of 163.5 MiB, the kernel rebuilt, 2 pieces of it another way");
        assert_eq!(Taken { received: 163 << 20, full: 163 << 20, ..Taken::default() }.render(), "in full: 163.0 MiB received");
    }
}
