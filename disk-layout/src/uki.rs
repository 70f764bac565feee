//! Names of UKIs on the ESP. systemd-boot counts a trial's tries in the file name
//! (<https://systemd.io/AUTOMATIC_BOOT_ASSESSMENT/>), so the names are the whole boot configuration.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::{IMAGE_ID, Version};

/// Tries left, and tries already taken, of an entry on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootCounter {
    /// Tries that remain; 0 is a spent entry.
    pub left: u32,
    /// Tries that were used.
    pub done: u32,
}

/// `garboard_<version>.efi`, `garboard_<version>+<left>.efi` or `garboard_<version>+<left>-<done>.efi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UkiName {
    /// The image's version.
    pub version: Version,
    /// Present while the entry is a trial or spent.
    pub counter: Option<BootCounter>,
}

/// Why a file name is not one of our UKIs.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not the name of a Garboard UKI")]
pub struct UkiNameError(pub String);

impl UkiName {
    /// The name of a UKI that is not on trial.
    #[must_use]
    pub fn settled(version: Version) -> Self {
        Self { version, counter: None }
    }
}

impl fmt::Display for UkiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{IMAGE_ID}_{}", self.version)?;
        match self.counter {
            None => {}
            Some(BootCounter { left, done: 0 }) => write!(f, "+{left}")?,
            Some(BootCounter { left, done }) => write!(f, "+{left}-{done}")?,
        }
        f.write_str(".efi")
    }
}

impl FromStr for UkiName {
    type Err = UkiNameError;

    fn from_str(text: &str) -> Result<Self, UkiNameError> {
        parse(text).ok_or_else(|| UkiNameError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<UkiName> {
    let stem = text.strip_suffix(".efi")?.strip_prefix(IMAGE_ID)?.strip_prefix('_')?;
    let Some((version, tries)) = stem.split_once('+') else {
        return Some(UkiName { version: stem.parse().ok()?, counter: None });
    };
    let (left, done) = match tries.split_once('-') {
        Some((left, done)) => (number(left)?, number(done)?),
        None => (number(tries)?, 0),
    };
    Some(UkiName { version: version.parse().ok()?, counter: Some(BootCounter { left, done }) })
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for text in ["garboard_1.0.efi", "garboard_1.0+3.efi", "garboard_1.0+2-1.efi", "garboard_1.0-rc1+0-3.efi"] {
            assert_eq!(text.parse::<UkiName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_files_are_not_ours() {
        for text in ["garboard_.efi", "garboard_1.0", "linux_1.0.efi", "garboard_1.0+.efi", "garboard_1.0+x.efi", "garboard_1+2+3.efi"] {
            assert!(text.parse::<UkiName>().is_err(), "{text}");
        }
    }
}
