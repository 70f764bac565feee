//! Image versions and their order, by the UAPI version format specification
//! (<https://uapi-group.org/specifications/specs/version_format_specification/>).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest version that fits a GPT label as `garboard_<version>_verity`.
pub const MAX_VERSION_LEN: usize = 20;

/// An image version: `[0-9a-z.~^-]`, 1 to 20 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(String);

/// Why a text is not a version.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VersionError {
    /// Nothing there.
    #[error("a version cannot be empty")]
    Empty,
    /// More than [`MAX_VERSION_LEN`] characters.
    #[error("version '{0}' is longer than {MAX_VERSION_LEN} characters")]
    TooLong(String),
    /// A character outside the alphabet.
    #[error("version '{0}' may not contain '{1}': only 0-9, a-z and . ~ ^ - are allowed")]
    BadCharacter(String, char),
}

impl Version {
    /// The version as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        if text.is_empty() {
            return Err(VersionError::Empty);
        }
        if text.chars().count() > MAX_VERSION_LEN {
            return Err(VersionError::TooLong(text.to_owned()));
        }
        match text.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='z' | '.' | '~' | '^' | '-')) {
            Some(bad) => Err(VersionError::BadCharacter(text.to_owned(), bad)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    /// The specification's order; texts that it calls equal (`1.0` and `1.00`) are told apart by
    /// their bytes, so that the order stays consistent with `Eq`.
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.0.as_bytes(), other.0.as_bytes()).then_with(|| self.0.cmp(&other.0))
    }
}

fn is_separator(byte: u8) -> bool {
    !(byte.is_ascii_alphanumeric() || matches!(byte, b'~' | b'-' | b'^' | b'.'))
}

fn split_while(text: &[u8], test: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|&b| !test(b)).unwrap_or(text.len());
    text.split_at(end)
}

/// The comparison of the UAPI specification, step by step and in its order: it is systemd-boot's, which sorts the same
/// versions by itself.
fn compare(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        a = split_while(a, is_separator).1;
        b = split_while(b, is_separator).1;
        // `~` sorts before the end of the string, everything else after it.
        if let Some(ordering) = compare_mark(b'~', &mut a, &mut b) {
            return ordering;
        }
        if a.is_empty() || b.is_empty() {
            return b.is_empty().cmp(&a.is_empty());
        }
        for mark in [b'-', b'^', b'.'] {
            if let Some(ordering) = compare_mark(mark, &mut a, &mut b) {
                return ordering;
            }
        }
        let numeric = a.first().is_some_and(u8::is_ascii_digit) || b.first().is_some_and(u8::is_ascii_digit);
        let kind = |byte: u8| if numeric { byte.is_ascii_digit() } else { byte.is_ascii_alphabetic() };
        let (run_a, rest_a) = split_while(a, kind);
        let (run_b, rest_b) = split_while(b, kind);
        let ordering = if numeric { compare_numbers(run_a, run_b) } else { run_a.cmp(run_b) };
        if ordering != Ordering::Equal {
            return ordering;
        }
        a = rest_a;
        b = rest_b;
    }
}

/// Text that begins with a mark is older than text that does not; where both do, it is taken off.
fn compare_mark(mark: u8, a: &mut &[u8], b: &mut &[u8]) -> Option<Ordering> {
    match (a.strip_prefix(&[mark]), b.strip_prefix(&[mark])) {
        (None, None) => return None,
        (Some(_), None) => return Some(Ordering::Less),
        (None, Some(_)) => return Some(Ordering::Greater),
        (Some(rest_a), Some(rest_b)) => (*a, *b) = (rest_a, rest_b),
    }
    None
}

/// Any number is newer than none, 0 too.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let there = b.is_empty().cmp(&a.is_empty());
    let a = split_while(a, |byte| byte == b'0').1;
    let b = split_while(b, |byte| byte == b'0').1;
    there.then_with(|| a.len().cmp(&b.len())).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn orders_as_the_specification_says() {
        // The specification's own example list, from oldest to newest, in our alphabet.
        let sorted = [
            "122.1",
            "123~rc1-1",
            "123",
            "123-a",
            "123-a.1",
            "123-a1",
            "123-1",
            "123-1.1",
            "123^post1",
            "123.a-1",
            "123.1-1",
            "123a-1",
            "124-1",
        ];
        for pair in sorted.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{} < {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn compares_numbers_as_numbers() {
        assert!(version("1.9") < version("1.10"));
        assert!(version("1.0~1") < version("1.0"));
        assert!(version("9") < version("10"));
    }

    #[test]
    fn refuses_what_the_boot_loader_would_misread() {
        assert_eq!("1+3".parse::<Version>(), Err(VersionError::BadCharacter("1+3".into(), '+')));
        assert_eq!("a_b".parse::<Version>(), Err(VersionError::BadCharacter("a_b".into(), '_')));
        assert_eq!("".parse::<Version>(), Err(VersionError::Empty));
        assert!(matches!("123456789012345678901".parse::<Version>(), Err(VersionError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn is_a_total_order(a in "[0-9a-z.~^-]{1,8}", b in "[0-9a-z.~^-]{1,8}", c in "[0-9a-z.~^-]{1,8}") {
            let (a, b, c) = (version(&a), version(&b), version(&c));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }
}
