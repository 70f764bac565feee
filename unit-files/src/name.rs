//! Unit names: kinds, templates and instances, and the escaping that turns paths into names.
//!
//! Promises that a [`UnitName`] always has a known suffix, legal characters and at most 255 bytes, and that
//! `unescape(escape(x)) == x` for any bytes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest unit name, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// What a unit is, from its suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UnitKind {
    /// A process or a chain of them.
    Service,
    /// Sockets and FIFOs that start a service.
    Socket,
    /// A named point in the order of things.
    Target,
    /// Something that starts a unit at a time.
    Timer,
    /// Something that starts a unit when a path changes.
    Path,
    /// A mount point.
    Mount,
    /// A mount point that is mounted on access.
    Automount,
    /// Swap space.
    Swap,
    /// A device, as the kernel announces it.
    Device,
    /// A branch of the cgroup tree.
    Slice,
    /// Processes that something else started.
    Scope,
}

impl UnitKind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Service,
        Self::Socket,
        Self::Target,
        Self::Timer,
        Self::Path,
        Self::Mount,
        Self::Automount,
        Self::Swap,
        Self::Device,
        Self::Slice,
        Self::Scope,
    ];

    /// The suffix without its dot, `service` for instance.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Socket => "socket",
            Self::Target => "target",
            Self::Timer => "timer",
            Self::Path => "path",
            Self::Mount => "mount",
            Self::Automount => "automount",
            Self::Swap => "swap",
            Self::Device => "device",
            Self::Slice => "slice",
            Self::Scope => "scope",
        }
    }

    /// The kind with this suffix (no dot).
    #[must_use]
    pub fn from_suffix(suffix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.suffix() == suffix)
    }

    /// The section that holds what only this kind has: `Service` for a service. Targets and devices have none.
    #[must_use]
    pub const fn section(self) -> Option<&'static str> {
        match self {
            Self::Service => Some("Service"),
            Self::Socket => Some("Socket"),
            Self::Timer => Some("Timer"),
            Self::Path => Some("Path"),
            Self::Mount => Some("Mount"),
            Self::Automount => Some("Automount"),
            Self::Swap => Some("Swap"),
            Self::Slice => Some("Slice"),
            Self::Scope => Some("Scope"),
            Self::Target | Self::Device => None,
        }
    }
}

impl fmt::Display for UnitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.suffix())
    }
}

/// Why a text is no unit name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Longer than [`MAX_NAME_LEN`].
    #[error("unit name is longer than {MAX_NAME_LEN} bytes")]
    TooLong,
    /// The suffix is missing or no kind that exists.
    #[error("{0:?} is not a unit name: it needs a suffix such as .service")]
    NoSuffix(String),
    /// Nothing before the suffix or before `@`.
    #[error("{0:?} is not a unit name: nothing before the suffix")]
    Empty(String),
    /// A character that no unit name may have.
    #[error("{name:?} is not a unit name: {character:?} is not allowed (escape it as systemd-escape does)")]
    Character {
        /// The whole text.
        name: String,
        /// The offending character.
        character: char,
    },
    /// An instance was asked of something that is no template.
    #[error("{0} is not a template")]
    NotTemplate(String),
}

/// The name of a unit, checked.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(Arc<str>);

impl UnitName {
    /// Checks a complete name, suffix included.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong);
        }
        let (stem, suffix) = name.rsplit_once('.').ok_or_else(|| NameError::NoSuffix(name.to_owned()))?;
        if UnitKind::from_suffix(suffix).is_none() {
            return Err(NameError::NoSuffix(name.to_owned()));
        }
        if stem.is_empty() || stem.starts_with('@') {
            return Err(NameError::Empty(name.to_owned()));
        }
        match stem.chars().find(|&character| !is_name_char(character) && character != '@') {
            Some(character) => Err(NameError::Character { name: name.to_owned(), character }),
            None => Ok(Self(Arc::from(name))),
        }
    }

    /// What a person may type: `docker` means `docker.service`, a path means its mount or device unit, and
    /// characters that need escaping are escaped.
    ///
    /// # Errors
    /// When no unit name can be made of it.
    pub fn mangle(text: &str, default: UnitKind) -> Result<Self, NameError> {
        if text.starts_with("/dev/") {
            return Self::from_path(text, UnitKind::Device);
        }
        if text.starts_with('/') {
            return Self::from_path(text, UnitKind::Mount);
        }
        if let Ok(name) = Self::parse(text) {
            return Ok(name);
        }
        let mut escaped = String::with_capacity(text.len() + 8);
        for byte in text.bytes() {
            match byte {
                b'/' => escaped.push('-'),
                byte if is_name_char(char::from(byte)) || byte == b'@' => escaped.push(char::from(byte)),
                byte => push_hex(&mut escaped, byte),
            }
        }
        if let Ok(name) = Self::parse(&escaped) {
            return Ok(name);
        }
        Self::parse(&format!("{escaped}.{default}"))
    }

    /// The unit that stands for a path: `/var/lib` is `var-lib.mount`.
    ///
    /// # Errors
    /// When the path is relative, has `..`, or is too long.
    pub fn from_path(path: &str, kind: UnitKind) -> Result<Self, NameError> {
        let stem = escape_path(path.as_bytes()).ok_or_else(|| NameError::Empty(path.to_owned()))?;
        Self::parse(&format!("{stem}.{kind}"))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What kind of unit it names.
    #[must_use]
    pub fn kind(&self) -> UnitKind {
        // The constructor checked the suffix; the fallback is never reached.
        self.0.rsplit_once('.').and_then(|(_, suffix)| UnitKind::from_suffix(suffix)).unwrap_or(UnitKind::Target)
    }

    /// Everything before the suffix: `foo@bar` of `foo@bar.service` (`%N`, still escaped).
    #[must_use]
    pub fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(&*self.0, |(stem, _)| stem)
    }

    /// What is before `@`, or the whole stem (`%p`).
    #[must_use]
    pub fn prefix(&self) -> &str {
        let stem = self.stem();
        stem.split_once('@').map_or(stem, |(prefix, _)| prefix)
    }

    /// What is between `@` and the suffix (`%i`): `None` without `@`, empty for a template.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.stem().split_once('@').map(|(_, instance)| instance)
    }

    /// Whether it is `foo@.service`.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.instance() == Some("")
    }

    /// Whether it is `foo@bar.service`.
    #[must_use]
    pub fn is_instance(&self) -> bool {
        self.instance().is_some_and(|instance| !instance.is_empty())
    }

    /// The template of an instance: `foo@.service` of `foo@bar.service`.
    #[must_use]
    pub fn template(&self) -> Option<Self> {
        self.is_instance().then(|| Self(Arc::from(format!("{}@.{}", self.prefix(), self.kind()))))
    }

    /// An instance of this template (the instance must be escaped already).
    ///
    /// # Errors
    /// When this is no template or the instance has characters that must be escaped.
    pub fn with_instance(&self, instance: &str) -> Result<Self, NameError> {
        if self.instance().is_none() {
            return Err(NameError::NotTemplate(self.to_string()));
        }
        Self::parse(&format!("{}@{instance}.{}", self.prefix(), self.kind()))
    }

    /// The unit of the same stem and another kind: `foo.socket` of `foo.service`.
    #[must_use]
    pub fn with_kind(&self, kind: UnitKind) -> Option<Self> {
        Self::parse(&format!("{}.{kind}", self.stem())).ok()
    }

    /// The path that a mount, swap, automount or device unit stands for.
    #[must_use]
    pub fn to_path(&self) -> Option<Vec<u8>> {
        unescape_path(self.stem())
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for UnitName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

impl TryFrom<String> for UnitName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::parse(&name)
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl std::borrow::Borrow<str> for UnitName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn is_name_char(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, ':' | '_' | '.' | '-' | '\\')
}

fn push_hex(out: &mut String, byte: u8) {
    use fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

/// Escapes a text for use inside a unit name, as `systemd-escape` does: `/` becomes `-`, and whatever a name may not
/// have, `-` and `\` become `\xHH`.
#[must_use]
pub fn escape(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for (position, &byte) in text.iter().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if position == 0 => push_hex(&mut out, byte),
            b':' | b'_' | b'.' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => push_hex(&mut out, byte),
        }
    }
    out
}

/// Undoes [`escape`]. An incomplete `\x` stays as it is.
#[must_use]
pub fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'-' => out.push(b'/'),
            b'\\' => match tail {
                [b'x', high, low, after @ ..] => {
                    if let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16)) {
                        out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                        rest = after;
                    } else {
                        out.push(b'\\');
                    }
                }
                _ => out.push(b'\\'),
            },
            byte => out.push(byte),
        }
    }
    out
}

/// Escapes an absolute path (`systemd-escape --path`): slashes at the ends and doubled ones go, `/` alone is `-`.
/// `None` for a relative path or one with `..`.
#[must_use]
pub fn escape_path(path: &[u8]) -> Option<String> {
    if path.first() != Some(&b'/') {
        return None;
    }
    let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        return None;
    }
    if parts.is_empty() {
        return Some("-".to_owned());
    }
    Some(escape(&parts.join(&b'/')))
}

/// Undoes [`escape_path`]. `None` when the text is no escaped path.
#[must_use]
pub fn unescape_path(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(b"/".to_vec());
    }
    if text.is_empty() {
        return None;
    }
    let mut path = vec![b'/'];
    path.extend(unescape(text));
    Some(path)
}
