//! What senders may write, parsed: stream headers, `<N>` prefixes, native datagrams, syslog lines, kernel records.
//!
//! Pure functions over untrusted bytes. Promises: none panics, and text that does not parse is still logged as text.
#![deny(clippy::indexing_slicing)]

use serde::{Deserialize, Serialize};

/// The level of a line that names none.
pub const INFO: u8 = 6;

/// First line of a connection to the stdout socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHeader {
    /// Whose output it is.
    pub unit: String,
    /// `SyslogIdentifier=`.
    #[serde(default)]
    pub identifier: String,
    /// Level of lines without a prefix.
    #[serde(default = "default_priority")]
    pub priority: u8,
    /// Whether `<N>` at a line's start is a level.
    #[serde(default)]
    pub level_prefix: bool,
    /// The unit's invocation id.
    #[serde(default)]
    pub invocation: String,
    /// `LogRateLimitIntervalSec=`, where the unit has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_interval_usec: Option<u64>,
    /// `LogRateLimitBurst=`; 0 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u64>,
    /// `LogLevelMax=`: lines that matter less are not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_level: Option<u8>,
}

/// A native datagram.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct NativeMessage {
    /// The unit it is about.
    #[serde(default)]
    pub unit: String,
    /// The sender's name for itself.
    #[serde(default)]
    pub identifier: String,
    /// Level.
    #[serde(default = "default_priority")]
    pub priority: u8,
    /// Which process it is about, if not the sender.
    #[serde(default)]
    pub pid: Option<u32>,
    /// The text.
    pub message: String,
    /// The unit's invocation id.
    #[serde(default)]
    pub invocation: String,
}

fn default_priority() -> u8 {
    INFO
}

/// A syslog datagram or a line from the kernel's buffer that a program wrote, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Syslog<'a> {
    /// Level, 0 to 7.
    pub priority: u8,
    /// Facility.
    pub facility: u8,
    /// The tag, without its pid.
    pub identifier: &'a str,
    /// The pid in the tag.
    pub pid: Option<u32>,
    /// The rest.
    pub message: &'a [u8],
}

/// A record of `/dev/kmsg`.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelRecord<'a> {
    /// Level, 0 to 7.
    pub priority: u8,
    /// Facility; 0 is the kernel itself.
    pub facility: u8,
    /// Its number.
    pub sequence: u64,
    /// Microseconds since the kernel started.
    pub monotonic: u64,
    /// The text, escapes undone.
    pub message: std::borrow::Cow<'a, [u8]>,
}

/// Splits off a `<N>` level.
pub fn level_prefix(line: &[u8]) -> Option<(u8, &[u8])> {
    match line {
        [b'<', digit @ b'0'..=b'7', b'>', rest @ ..] => Some((digit - b'0', rest)),
        _ => None,
    }
}

/// A datagram of `/dev/log`: RFC 3164 as programs really write it, `<PRI>Mmm dd hh:mm:ss [host] tag[pid]: text`.
pub fn syslog(datagram: &[u8]) -> Syslog<'_> {
    let datagram = trim_end(datagram);
    let (value, rest) = priority_value(datagram).unwrap_or((8 + u16::from(INFO), datagram));
    let mut rest = skip_timestamp(rest);
    if let Some((identifier, pid, message)) = tag(rest) {
        return Syslog { identifier, pid, message, ..unnamed(value, rest) };
    }
    // Some put the host name between time and tag.
    if let Some(space) = rest.iter().position(|b| *b == b' ')
        && let Some(after) = rest.get(space + 1..)
        && let Some((identifier, pid, message)) = tag(after)
    {
        return Syslog { identifier, pid, message, ..unnamed(value, after) };
    }
    if let [b' ', after @ ..] = rest {
        rest = after;
    }
    unnamed(value, rest)
}

/// One read of `/dev/kmsg`: `prio,seq,usec,flags[,...];text\n KEY=value...`.
pub fn kernel(record: &[u8]) -> Option<KernelRecord<'_>> {
    let semicolon = record.iter().position(|b| *b == b';')?;
    let mut fields = std::str::from_utf8(record.get(..semicolon)?).ok()?.split(',');
    let value: u64 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let monotonic = fields.next()?.parse().ok()?;
    let text = record.get(semicolon + 1..)?;
    let text = text.split(|b| *b == b'\n').next().unwrap_or_default();
    Some(KernelRecord { priority: (value & 7) as u8, facility: (value >> 3) as u8, sequence, monotonic, message: unescape(text) })
}

/// Takes `tag[pid]: ` off the text of a kernel record that a program wrote.
pub fn kernel_tag(message: &[u8]) -> Option<(&str, Option<u32>, &[u8])> {
    tag(message)
}

fn unnamed(value: u16, message: &[u8]) -> Syslog<'_> {
    Syslog { priority: (value & 7) as u8, facility: (value >> 3) as u8, identifier: "", pid: None, message }
}

fn priority_value(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let rest = datagram.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|b| *b == b'>')?;
    let value: u16 = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
    (value <= 191).then_some((value, rest.get(end + 1..)?))
}

/// `Mmm dd hh:mm:ss ` or an ISO 8601 time, if there is one. Our own clock is what gets stored.
fn skip_timestamp(text: &[u8]) -> &[u8] {
    const MONTHS: [&[u8; 3]; 12] = [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    if let (Some(stamp), Some(b' ')) = (text.get(..15), text.get(15))
        && MONTHS.iter().any(|month| stamp.starts_with(*month))
        && stamp.get(9) == Some(&b':')
    {
        return text.get(16..).unwrap_or_default();
    }
    if text.get(4) == Some(&b'-')
        && text.get(10) == Some(&b'T')
        && text.iter().take(4).all(u8::is_ascii_digit)
        && let Some(space) = text.iter().take(40).position(|b| *b == b' ')
    {
        return text.get(space + 1..).unwrap_or_default();
    }
    text
}

fn tag(text: &[u8]) -> Option<(&str, Option<u32>, &[u8])> {
    let colon = text.iter().take(128).position(|b| *b == b':')?;
    let rest = text.get(colon + 1..)?;
    let head = std::str::from_utf8(text.get(..colon)?).ok()?;
    let (name, pid) = match head.strip_suffix(']').and_then(|head| head.rsplit_once('[')) {
        Some((name, digits)) => (name, Some(digits.parse().ok()?)),
        None => (head, None),
    };
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return None;
    }
    Some((name, pid, rest.strip_prefix(b" ").unwrap_or(rest)))
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r' | b'\0' | b' ')).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

/// The kernel writes control characters and backslashes as `\xHH`.
fn unescape(text: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return text.into();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match rest {
            [b'\\', b'x', high, low, after @ ..] => hex_digit(*high).zip(hex_digit(*low)).map(|(high, low)| (high * 16 + low, after)),
            _ => None,
        };
        let (byte, next) = escaped.unwrap_or((*first, after));
        out.push(byte);
        rest = next;
    }
    out.into()
}

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn syslog_as_programs_write_it() {
        let plain = syslog(b"<86>Nov 22 03:00:00 sshd[812]: Accepted publickey for core\n");
        assert_eq!(
            plain,
            Syslog { priority: 6, facility: 10, identifier: "sshd", pid: Some(812), message: b"Accepted publickey for core" }
        );
        let host = syslog(b"<13>Nov  2 03:00:00 node1 core: hello");
        assert_eq!((host.identifier, host.pid, host.message), ("core", None, &b"hello"[..]));
        let iso = syslog(b"<30>2026-11-22T03:00:00.123456+00:00 node1 chronyd[5]: tick: tock");
        assert_eq!((iso.identifier, iso.pid, iso.message), ("chronyd", Some(5), &b"tick: tock"[..]));
        let bare = syslog(b"no priority, no tag");
        assert_eq!((bare.priority, bare.facility, bare.message), (6, 1, &b"no priority, no tag"[..]));
        assert_eq!(syslog(b"<999>x").message, b"<999>x");
    }

    #[test]
    fn kernel_records() {
        let record = kernel(b"6,339,5140900,-;NET: Registered \\x41 family\n SUBSYSTEM=net\n").unwrap();
        assert_eq!((record.priority, record.facility, record.sequence, record.monotonic), (6, 0, 339, 5_140_900));
        assert_eq!(&*record.message, b"NET: Registered A family");
        let ours = kernel(b"30,340,5140901,c;init[1]: mounted\n").unwrap();
        assert_eq!(kernel_tag(&ours.message), Some(("init", Some(1), &b"mounted"[..])));
        assert_eq!(kernel(b"nonsense"), None);
    }

    #[test]
    fn only_single_digit_levels_are_prefixes() {
        assert_eq!(level_prefix(b"<3>bad"), Some((3, &b"bad"[..])));
        assert_eq!(level_prefix(b"<8>text"), None);
        assert_eq!(level_prefix(b"<12>text"), None);
        assert_eq!(level_prefix(b"<"), None);
    }

    #[test]
    fn a_stream_header_needs_only_its_unit() {
        let header: StreamHeader = serde_json::from_str(r#"{"unit":"a.service","later_key":1}"#).unwrap();
        assert_eq!((header.priority, header.level_prefix), (6, false));
        assert!(serde_json::from_str::<StreamHeader>("{}").is_err());
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            syslog(&bytes);
            kernel(&bytes);
            level_prefix(&bytes);
            unescape(&bytes);
        }

        #[test]
        fn no_syslog_like_input_panics(text in "<[0-9]{1,3}>([A-Z][a-z]{2} [ 0-9]{2} [0-9:]{8} )?[a-z\\[\\]:0-9 ]{0,40}") {
            let parsed = syslog(text.as_bytes());
            prop_assert!(parsed.priority < 8);
        }
    }
}
