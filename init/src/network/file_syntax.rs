//! What the files of `systemd.network` and their siblings have in common: lines, sections, values.
//!
//! Pure.

use std::net::IpAddr;

/// A network with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Address.
    pub address: IpAddr,
    /// Length.
    pub length: u8,
}

/// Adds the words of a value to a list; an empty value empties it.
pub fn words(list: &mut Vec<String>, value: &str) {
    if value.is_empty() {
        list.clear();
    }
    list.extend(value.split_whitespace().map(str::to_owned));
}

/// `10.0.0.1/24`; without a length it is the address alone.
pub fn prefix(text: &str) -> Option<Prefix> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.parse().ok()?, Some(length.parse().ok()?)),
        None => (text.parse().ok()?, None),
    };
    let longest = if matches!(address, IpAddr::V4(_)) { 32 } else { 128 };
    let length = length.unwrap_or(longest);
    (length <= longest).then_some(Prefix { address, length })
}

/// A hardware address.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next().filter(|part| part.len() == 2)?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Bytes, with an optional `K`.
pub fn size(text: &str) -> Option<u32> {
    match text.strip_suffix('K') {
        Some(number) => number.parse::<u32>().ok()?.checked_mul(1024),
        None => text.parse().ok(),
    }
}

/// A switch.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" | "y" | "t" => Some(true),
        "no" | "false" | "off" | "0" | "n" | "f" => Some(false),
        _ => None,
    }
}

/// Lines with their numbers: comments and empty ones dropped, those that end in `\` joined.
pub fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && !open) {
            continue;
        }
        let (part, continues) = match trimmed.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (trimmed, false),
        };
        match lines.last_mut().filter(|_| open) {
            Some((_, known)) => {
                known.push(' ');
                known.push_str(part);
            }
            None => lines.push((at + 1, part.to_owned())),
        }
        open = continues;
    }
    lines
}

/// A line's number, its section, and its key and value, or what is wrong with it.
pub type Assignment = (usize, String, Result<(String, String), String>);

/// Each assignment of a file with its line and section, in order; a section's own line comes with an empty key.
pub fn assignments(text: &str) -> Vec<Assignment> {
    let mut section = String::new();
    let mut out = Vec::new();
    for (number, line) in logical_lines(text) {
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = header.to_owned();
            out.push((number, section.clone(), Ok((String::new(), String::new()))));
            continue;
        }
        let pair = line.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
        out.push((number, section.clone(), pair.ok_or_else(|| "this is neither [Section] nor Key=Value".to_owned())));
    }
    out
}
