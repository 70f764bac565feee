//! Lasting inhibitors: files on the state partition, made by `locksmithctl inhibit` or dropped there by whatever manages the host. They
//! outlive their makers and reboots, and so always have a reason; without an end they stay until somebody removes them.
//!
//! A file is one JSON object with `why` and, if it is to end, `until`: seconds since 1970 or a time such as `2026-12-01T06:00:00Z`.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::Seconds;
use crate::file::write_whole;
use crate::inhibitors::{Inhibitor, Mode, files, read_file};

/// Reads those that have not ended. A file that cannot be understood forbids: somebody meant it.
pub(crate) fn read(directory: &Path, now: Seconds) -> Vec<Inhibitor> {
    let read = |(id, path): (String, std::path::PathBuf)| {
        let parsed = read_file(&path).map_err(|error| error.to_string()).and_then(|bytes| parse(&bytes));
        let inhibitor = parsed.unwrap_or_else(|why| Inhibitor {
            what: "shutdown".to_owned(),
            who: path.display().to_string(),
            why: format!("cannot be understood: {why}"),
            ..Inhibitor::default()
        });
        Inhibitor { id, lasting: true, ..inhibitor }
    };
    files(directory).into_iter().map(read).filter(|inhibitor| inhibitor.until.is_none_or(|until| until > now)).collect()
}

/// A time: seconds since 1970, or RFC 3339 with an offset.
///
/// # Errors
/// One line that says what is wrong.
pub fn parse_time(value: &Value) -> Result<Seconds, String> {
    let wrong = || format!("{value} is no time such as \"2026-12-01T06:00:00Z\"");
    if let Some(seconds) = value.as_u64() {
        return Ok(seconds);
    }
    let timestamp: jiff::Timestamp = value.as_str().ok_or_else(wrong)?.trim().parse().map_err(|_| wrong())?;
    u64::try_from(timestamp.as_second()).map_err(|_| wrong())
}

fn parse(bytes: &[u8]) -> Result<Inhibitor, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let map = value.as_object().ok_or("it is no JSON object")?;
    let text = |key: &str, other: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(other.to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{key}` is no text")),
    };
    let why = text("why", "")?;
    if why.trim().is_empty() {
        return Err("it has no `why`".to_owned());
    }
    let mode = match text("mode", "block")?.as_str() {
        "block" => Mode::Block,
        "delay" => Mode::Delay,
        other => return Err(format!("the mode '{other}' is neither block nor delay")),
    };
    let time = |key: &str| map.get(key).filter(|value| !value.is_null()).map(parse_time).transpose();
    Ok(Inhibitor {
        what: text("what", "shutdown")?,
        who: text("who", "somebody")?,
        why,
        mode,
        since: time("since")?.unwrap_or(0),
        until: time("until")?,
        ..Inhibitor::default()
    })
}

/// The same as people write it, where seconds come as text, too.
///
/// # Errors
/// One line that says what is wrong.
pub fn parse_time_text(text: &str) -> Result<Seconds, String> {
    parse_time(&text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from))
}

/// Whether a text may name a lasting inhibitor.
#[must_use]
pub fn valid_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && !id.starts_with('.') && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// Makes or replaces a lasting inhibitor.
///
/// # Errors
/// When the directory cannot be written.
pub fn add(directory: &Path, inhibitor: &Inhibitor) -> io::Result<()> {
    let value = json!({
        "what": inhibitor.what, "who": inhibitor.who, "why": inhibitor.why, "mode": inhibitor.mode,
        "since": inhibitor.since, "until": inhibitor.until,
    });
    let text = serde_json::to_vec_pretty(&value).map_err(io::Error::from)?;
    write_whole(&directory.join(format!("{}.json", inhibitor.id)), &text, true)
}

/// Checks what somebody asks to be kept, and keeps it; what was made of it.
///
/// # Errors
/// One line: without a reason, with an end that is past, with a name that is none, or when the directory cannot be written.
pub fn make(directory: &Path, asked: Inhibitor, now: Seconds) -> Result<Inhibitor, String> {
    if asked.why.trim().is_empty() {
        return Err("the reason (`why`) is empty: the others must know what they wait for".to_owned());
    }
    if let Some(until) = asked.until.filter(|until| *until <= now) {
        return Err(format!("its end, {}, is past", crate::show_time(until)));
    }
    if !valid_id(&asked.id) {
        let rule = "letters, digits, `.`, `-`, `_`, at most 64, not beginning with `.`";
        return Err(format!("'{}' is no name of an inhibitor: {rule}", crate::inhibitors::clean(&asked.id)));
    }
    let inhibitor = Inhibitor { since: now, lasting: true, ..asked };
    add(directory, &inhibitor).map_err(|error| format!("cannot write {}: {error}", directory.display()))?;
    Ok(inhibitor)
}

/// Removes a lasting inhibitor, whatever its file's ending; whether there was one.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(directory: &Path, id: &str) -> io::Result<bool> {
    let mut removed = false;
    for (_, path) in files(directory).into_iter().filter(|(found, _)| found == id) {
        fs::remove_file(path)?;
        removed = true;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_last_until_their_end_or_until_they_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let wanted =
            Inhibitor { id: "migration".into(), what: "shutdown".into(), who: "ann".into(), why: "moving".into(), ..Inhibitor::default() };
        add(directory.path(), &Inhibitor { until: Some(100), ..wanted.clone() }).unwrap();
        assert_eq!(read(directory.path(), 99)[0].until, Some(100));
        assert_eq!(read(directory.path(), 100), []);
        add(directory.path(), &wanted).unwrap();
        let found = read(directory.path(), u64::MAX);
        assert_eq!((found.len(), found[0].who.as_str(), found[0].lasting), (1, "ann", true));
        assert!(remove(directory.path(), "migration").unwrap() && !remove(directory.path(), "migration").unwrap());
    }

    #[test]
    fn what_is_asked_for_is_checked_before_it_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let asked = |id: &str, why: &str, until| Inhibitor { id: id.into(), why: why.into(), until, ..Inhibitor::default() };
        for (id, why, until) in [("../x", "x", None), ("a", " ", None), ("a", "x", Some(5))] {
            assert!(!make(directory.path(), asked(id, why, until), 5).unwrap_err().contains('\n'));
        }
        assert_eq!(read(directory.path(), 0), []);
        let made = make(directory.path(), asked("a", "x", Some(6)), 5).unwrap();
        assert_eq!((made.since, made.lasting, read(directory.path(), 5).len(), read(directory.path(), 6).len()), (5, true, 1, 0));
        assert_eq!((parse_time_text("60"), parse_time_text("1970-01-01T00:01:00Z")), (Ok(60), Ok(60)));
        assert!(parse_time_text("soon").is_err());
    }

    #[test]
    fn a_dropped_file_needs_a_reason_and_one_that_is_not_understood_forbids() {
        assert_eq!(parse(br#"{"why": "backup", "until": "1970-01-01T00:01:00Z"}"#).unwrap().until, Some(60));
        assert_eq!(parse(br#"{"why": "backup", "mode": "delay"}"#).unwrap().mode, Mode::Delay);
        for bad in
            ["", "[]", "{}", r#"{"why": ""}"#, r#"{"why": "x", "until": "soon"}"#, r#"{"why": "x", "mode": "maybe"}"#, r#"{"why": 1}"#]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("backup"), "").unwrap();
        let found = read(directory.path(), 5);
        assert!(found[0].concerns_shutdown() && found[0].why.starts_with("cannot be understood"));
        assert!(valid_id("a-b_c.1") && !valid_id("../x") && !valid_id(".x") && !valid_id(""));
    }
}
