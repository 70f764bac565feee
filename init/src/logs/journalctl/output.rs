//! How entries are printed.

use super::cursor::Cursor;
use crate::logs::query::Line;
use crate::sys::localtime::{self, CivilTime};
use std::fmt::Write;

/// The output formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `Nov 22 03:00:00 host name[pid]: text`.
    #[default]
    Short,
    /// With an ISO 8601 time.
    ShortIso,
    /// With microseconds.
    ShortPrecise,
    /// With weekday, year and zone.
    ShortFull,
    /// With the time since the kernel started.
    ShortMonotonic,
    /// With seconds since 1970.
    ShortUnix,
    /// Only the text.
    Cat,
    /// With the time and its microseconds after ISO 8601.
    ShortIsoPrecise,
    /// With the unit's name.
    WithUnit,
    /// One JSON object a line.
    Json,
    /// One JSON object on several lines.
    JsonPretty,
    /// JSON for browsers' server-sent events.
    JsonSse,
    /// journald's format for other programs.
    Export,
    /// Every field on a line of its own.
    Verbose,
}

impl Format {
    /// The names that `-o` takes.
    pub const NAMES: [&str; 14] = [
        "short",
        "short-iso",
        "short-precise",
        "short-full",
        "short-monotonic",
        "short-unix",
        "cat",
        "json",
        "verbose",
        "short-iso-precise",
        "with-unit",
        "json-pretty",
        "json-sse",
        "export",
    ];

    /// By name.
    pub fn from_name(name: &str) -> Option<Format> {
        use Format::*;
        let all = [
            Short,
            ShortIso,
            ShortPrecise,
            ShortFull,
            ShortMonotonic,
            ShortUnix,
            Cat,
            Json,
            Verbose,
            ShortIsoPrecise,
            WithUnit,
            JsonPretty,
            JsonSse,
            Export,
        ];
        Format::NAMES.iter().zip(all).find_map(|(known, format)| (*known == name).then_some(format))
    }
}

/// Format and details.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// The format.
    pub format: Format,
    /// Times in UTC.
    pub utc: bool,
    /// Control characters as they are.
    pub raw: bool,
    /// Without the host's name.
    pub no_hostname: bool,
    /// The host's name.
    pub hostname: String,
    /// Colours by level.
    pub colour: bool,
    /// `--output-fields=`: only these, and those that begin with `__`.
    pub fields: Vec<String>,
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// Adds one entry to `out`, with its newline.
pub fn print(out: &mut Vec<u8>, line: &Line, style: &Style) {
    match style.format {
        Format::Cat => {
            push_message(out, line, style, 0);
            out.push(b'\n');
        }
        Format::Json => {
            out.extend_from_slice(json(line, style).to_string().as_bytes());
            out.push(b'\n');
        }
        Format::JsonPretty => {
            out.extend_from_slice(serde_json::to_string_pretty(&json(line, style)).unwrap_or_default().as_bytes());
            out.push(b'\n');
        }
        Format::JsonSse => {
            out.extend_from_slice(format!("data: {}\n\n", json(line, style)).as_bytes());
        }
        Format::Export => export(out, line, style),
        Format::Verbose => verbose(out, line, style),
        _ => short(out, line, style),
    }
}

fn short(out: &mut Vec<u8>, line: &Line, style: &Style) {
    let mut head = timestamp(line, style);
    if !style.no_hostname && !style.hostname.is_empty() {
        head.push(' ');
        head.push_str(&style.hostname);
    }
    head.push(' ');
    if style.format == Format::WithUnit && !line.unit.is_empty() {
        let _ = write!(head, "{}/", printable(line.unit.as_bytes(), false));
    }
    head.push_str(&printable(who(line).as_bytes(), false));
    if line.pid != 0 {
        let _ = write!(head, "[{}]", line.pid);
    }
    head.push_str(": ");
    out.extend_from_slice(head.as_bytes());
    let colour = match line.priority {
        0..=3 => "\x1b[1;31m",
        4 => "\x1b[1;33m",
        5 => "\x1b[1m",
        7 => "\x1b[2m",
        _ => "",
    };
    let colour = if style.colour { colour } else { "" };
    out.extend_from_slice(colour.as_bytes());
    push_message(out, line, style, head.chars().count());
    if !colour.is_empty() {
        out.extend_from_slice(b"\x1b[0m");
    }
    out.push(b'\n');
}

/// Who an entry is from: the identifier, else the unit's name.
fn who(line: &Line) -> &str {
    if !line.identifier.is_empty() {
        return &line.identifier;
    }
    match line.unit.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => "unknown",
    }
}

fn timestamp(line: &Line, style: &Style) -> String {
    let seconds = i64::try_from(line.realtime / 1_000_000).unwrap_or(0);
    let micros = line.realtime % 1_000_000;
    let CivilTime { year, month, day, hour, minute, second, offset } = localtime::civil(seconds, style.utc);
    let month_name = usize::try_from(month - 1).ok().and_then(|at| MONTHS.get(at)).unwrap_or(&"???");
    let sign = if offset < 0 { '-' } else { '+' };
    let (zone_hours, zone_minutes) = (offset.abs() / 3600, offset.abs() / 60 % 60);
    match style.format {
        Format::ShortIso => {
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{sign}{zone_hours:02}:{zone_minutes:02}")
        }
        Format::ShortIsoPrecise => {
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}{sign}{zone_hours:02}:{zone_minutes:02}")
        }
        Format::ShortPrecise => format!("{month_name} {day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}"),
        Format::ShortFull | Format::WithUnit | Format::Verbose => {
            let days = (seconds + offset).div_euclid(86_400);
            let weekday = usize::try_from(days.rem_euclid(7)).ok().and_then(|at| WEEKDAYS.get(at)).unwrap_or(&"???");
            let fraction = if style.format == Format::Verbose { format!(".{micros:06}") } else { String::new() };
            let zone = if offset == 0 { "UTC".into() } else { format!("{sign}{zone_hours:02}:{zone_minutes:02}") };
            format!("{weekday} {year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction} {zone}")
        }
        Format::ShortMonotonic => format!("[{:>5}.{:06}]", line.monotonic / 1_000_000, line.monotonic % 1_000_000),
        Format::ShortUnix => format!("{seconds}.{micros:06}"),
        _ => format!("{month_name} {day:02} {hour:02}:{minute:02}:{second:02}"),
    }
}

/// The time of an entry for lists: `Sun 2026-11-22 03:00:00 UTC`.
pub fn full_time(realtime: u64, utc: bool) -> String {
    let line = Line {
        realtime,
        monotonic: 0,
        pid: 0,
        uid: None,
        priority: 6,
        source: crate::logs::format::Source::Daemon,
        unit: String::new(),
        identifier: String::new(),
        message: Vec::new(),
        invocation: String::new(),
        boot: [0; 16],
        place: (0, 0),
    };
    timestamp(&line, &Style { format: Format::ShortFull, utc, ..Style::default() })
}

fn push_message(out: &mut Vec<u8>, line: &Line, style: &Style, indent: usize) {
    if style.raw {
        out.extend_from_slice(&line.message);
        return;
    }
    for (at, part) in line.message.split(|b| *b == b'\n').enumerate() {
        if at > 0 {
            out.push(b'\n');
            out.extend(std::iter::repeat_n(b' ', indent));
        }
        out.extend_from_slice(printable(part, true).as_bytes());
    }
}

/// Text that cannot steer a terminal: colour sequences go, other control characters are shown as `\xHH`.
fn printable(bytes: &[u8], tabs: bool) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' && chars.peek() == Some(&'[') {
            // ESC [ parameters, then one letter.
            chars.next();
            while chars.next_if(|c| matches!(c, '0'..='?' | ' '..='/')).is_some() {}
            chars.next_if(|c| matches!(c, '@'..='~'));
        } else if c == '\t' && tabs {
            out.push(c);
        } else if c.is_control() {
            let _ = write!(out, "\\x{:02x}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

/// The fields under the names that journald's users know.
fn json(line: &Line, style: &Style) -> serde_json::Value {
    let mut fields = serde_json::Map::new();
    let mut set = |name: &str, value: serde_json::Value| {
        fields.insert(name.into(), value);
    };
    set("__CURSOR", Cursor::of(line).to_string().into());
    set("__REALTIME_TIMESTAMP", line.realtime.to_string().into());
    set("__MONOTONIC_TIMESTAMP", line.monotonic.to_string().into());
    set("_BOOT_ID", boot_text(&line.boot).into());
    set("_TRANSPORT", line.source.transport().into());
    set("PRIORITY", line.priority.to_string().into());
    if !style.hostname.is_empty() {
        set("_HOSTNAME", style.hostname.clone().into());
    }
    for (name, value) in
        [("_SYSTEMD_UNIT", &line.unit), ("SYSLOG_IDENTIFIER", &line.identifier), ("_SYSTEMD_INVOCATION_ID", &line.invocation)]
    {
        if !value.is_empty() {
            set(name, value.clone().into());
        }
    }
    if line.pid != 0 {
        set("_PID", line.pid.to_string().into());
    }
    if let Some(uid) = line.uid {
        set("_UID", uid.to_string().into());
    }
    // As journald does it: text where it is text, else its bytes.
    match std::str::from_utf8(&line.message) {
        Ok(text) => set("MESSAGE", text.into()),
        Err(_) => set("MESSAGE", line.message.clone().into()),
    }
    if !style.fields.is_empty() {
        fields.retain(|name, _| name.starts_with("__") || style.fields.contains(name));
    }
    serde_json::Value::Object(fields)
}

/// The names and values of an entry's fields, as `-F` and `-N` show them.
pub fn fields(line: &Line) -> Vec<(String, String)> {
    let serde_json::Value::Object(fields) = json(line, &Style { hostname: String::new(), ..Style::default() }) else { return Vec::new() };
    let shown = fields.into_iter().filter(|(name, _)| !name.starts_with("__"));
    shown
        .map(|(name, value)| (name, value.as_str().map_or_else(|| String::from_utf8_lossy(&line.message).into_owned(), str::to_owned)))
        .collect()
}

/// `NAME=value` lines and an empty one; a value with line ends or zero bytes comes with its length before it.
fn export(out: &mut Vec<u8>, line: &Line, style: &Style) {
    let serde_json::Value::Object(fields) = json(line, style) else { return };
    // What an entry is known by comes first.
    let (known_by, others): (Vec<_>, Vec<_>) = fields.iter().partition(|(name, _)| name.starts_with("__"));
    for (name, value) in known_by.into_iter().chain(others) {
        match value.as_str().filter(|text| !text.contains(['\n', '\0'])) {
            Some(text) => out.extend_from_slice(format!("{name}={text}\n").as_bytes()),
            None => {
                out.extend_from_slice(format!("{name}\n").as_bytes());
                out.extend_from_slice(&(line.message.len() as u64).to_le_bytes());
                out.extend_from_slice(&line.message);
                out.push(b'\n');
            }
        }
    }
    out.push(b'\n');
}

fn verbose(out: &mut Vec<u8>, line: &Line, style: &Style) {
    let mut text = format!("{} [{}]\n", timestamp(line, style), Cursor::of(line));
    if let serde_json::Value::Object(fields) = json(line, style) {
        for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with("__") && *name != "MESSAGE") {
            let _ = writeln!(text, "    {name}={}", printable(value.as_str().unwrap_or_default().as_bytes(), true));
        }
    }
    text.push_str("    MESSAGE=");
    out.extend_from_slice(text.as_bytes());
    push_message(out, line, style, 12);
    out.push(b'\n');
}

/// A boot id as people see it.
pub fn boot_text(boot: &crate::logs::format::BootId) -> String {
    uuid::Uuid::from_bytes(*boot).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::format::Source;

    fn line(message: &[u8]) -> Line {
        Line {
            realtime: 1_795_316_405_123_456,
            monotonic: 5_000_007,
            pid: 123,
            uid: Some(0),
            priority: 6,
            source: Source::Stdout,
            unit: "docker.service".into(),
            identifier: "dockerd".into(),
            message: message.into(),
            invocation: String::new(),
            boot: [0xab; 16],
            place: (1, 32),
        }
    }

    fn printed(line: &Line, format: Format) -> String {
        let style = Style { format, utc: true, hostname: "node1".into(), ..Style::default() };
        let mut out = Vec::new();
        print(&mut out, line, &style);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_short_form_is_journalctls() {
        assert_eq!(printed(&line(b"API listen"), Format::Short), "Nov 22 03:00:05 node1 dockerd[123]: API listen\n");
        assert_eq!(printed(&line(b"x"), Format::ShortIso), "2026-11-22T03:00:05+00:00 node1 dockerd[123]: x\n");
        assert_eq!(printed(&line(b"x"), Format::ShortPrecise), "Nov 22 03:00:05.123456 node1 dockerd[123]: x\n");
        assert_eq!(printed(&line(b"x"), Format::ShortFull), "Sun 2026-11-22 03:00:05 UTC node1 dockerd[123]: x\n");
        assert_eq!(printed(&line(b"x"), Format::ShortMonotonic), "[    5.000007] node1 dockerd[123]: x\n");
        assert_eq!(printed(&line(b"x"), Format::Cat), "x\n");
        assert_eq!(printed(&line(b"x"), Format::ShortIsoPrecise), "2026-11-22T03:00:05.123456+00:00 node1 dockerd[123]: x\n");
        assert_eq!(printed(&line(b"x"), Format::WithUnit), "Sun 2026-11-22 03:00:05 UTC node1 docker.service/dockerd[123]: x\n");
    }

    #[test]
    fn other_programs_get_values_with_line_ends_by_their_length() {
        let style = Style { format: Format::Export, fields: vec!["MESSAGE".into(), "PRIORITY".into()], ..Style::default() };
        let mut out = Vec::new();
        print(&mut out, &line(b"a\nb"), &style);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("MESSAGE\n\u{3}\0\0\0\0\0\0\0a\nb\nPRIORITY=6\n"), "{text:?}");
        assert!(text.starts_with("__CURSOR=s=1;o=32;t=") && text.ends_with("\n\n"), "{text:?}");
        let value: serde_json::Value = serde_json::from_str(&printed(&line(b"hi"), Format::JsonPretty)).unwrap();
        assert_eq!(value["MESSAGE"], "hi");
    }

    #[test]
    fn further_lines_of_a_message_are_indented() {
        assert_eq!(
            printed(&line(b"a\nb"), Format::Short),
            "Nov 22 03:00:05 node1 dockerd[123]: a\n                                    b\n"
        );
    }

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        assert_eq!(printed(&line(b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \xff"), Format::Cat), "red \\x1b]0;title\\x07 \u{fffd}\n");
    }

    #[test]
    fn json_has_journalds_names() {
        let value: serde_json::Value = serde_json::from_str(&printed(&line(b"hi"), Format::Json)).unwrap();
        assert_eq!(value["MESSAGE"], "hi");
        assert_eq!(value["_SYSTEMD_UNIT"], "docker.service");
        assert_eq!(value["_PID"], "123");
        assert_eq!(value["__REALTIME_TIMESTAMP"], "1795316405123456");
        assert_eq!(value["_BOOT_ID"], "abababababababababababababababab");
        let value: serde_json::Value = serde_json::from_str(&printed(&line(&[0xff, 1]), Format::Json)).unwrap();
        assert_eq!(value["MESSAGE"], serde_json::json!([255, 1]));
    }
}
