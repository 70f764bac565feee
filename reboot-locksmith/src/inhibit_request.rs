//! What a container asks for at the inhibitors' socket: the rule, without I/O. What is not understood is refused, not passed over: who misspells an end
//! would hold the host for ever.

use reboot_rules::Seconds;
use reboot_rules::inhibitors::{Inhibitor, Mode};
use reboot_rules::persistent::{parse_time, parse_time_text, valid_id};
use serde::Deserialize;
use serde_json::Value;

/// What the names of lasting inhibitors made through the socket begin with: a container can replace what containers asked for, and nothing of the
/// operator's.
pub const NAMED: &str = "container-";

/// The line as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Line {
    why: String,
    who: String,
    what: String,
    mode: Mode,
    until: Option<Value>,
    #[serde(rename = "for")]
    span: Option<Value>,
    lasting: bool,
}

/// Reads a request: what is to be held or, with [`Inhibitor::lasting`], kept under its name. `who` stays empty where nobody is named.
///
/// # Errors
/// One line: what is malformed or missing.
pub fn parse(line: &str, now: Seconds) -> Result<Inhibitor, String> {
    let Line { why, who, what, mode, until, span, lasting } = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if why.trim().is_empty() {
        return Err("`why` is missing".to_owned());
    }
    let until = match (until, span) {
        (None, None) => None,
        (Some(_), Some(_)) => return Err("`until` and `for` exclude each other".to_owned()),
        (Some(Value::String(text)), None) => Some(parse_time_text(&text)?),
        (Some(time), None) => Some(parse_time(&time)?),
        (None, Some(span)) => Some(now.saturating_add(seconds(&span)?)),
    };
    if until.is_some_and(|until| until <= now) {
        return Err("its end (`until` or `for`) is past".to_owned());
    }
    let id = if lasting { format!("{NAMED}{who}") } else { String::new() };
    if lasting && (who.is_empty() || !valid_id(&id)) {
        let most = 64 - NAMED.len();
        return Err(format!("a lasting inhibitor needs the name of its owner (`who`): letters, digits, `.`, `-`, `_`, at most {most}"));
    }
    let what = if what.is_empty() { "shutdown".to_owned() } else { what };
    Ok(Inhibitor { id, what, who, why, mode, until, lasting, ..Inhibitor::default() })
}

/// A span as the command line takes it, or seconds.
fn seconds(span: &Value) -> Result<Seconds, String> {
    match span {
        Value::String(text) => {
            unit_files::value::parse_finite_span(text).map(|span| span.as_secs()).map_err(|error| format!("`for`: {error}"))
        }
        other => other.as_u64().ok_or_else(|| format!("`for`: {other} is no span such as \"2h\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_time_or_a_span_as_on_the_command_line() {
        let until = |end: &str| parse(&format!(r#"{{"why": "x"{end}}}"#), 1000).map(|inhibitor| inhibitor.until);
        assert_eq!(until(""), Ok(None));
        assert_eq!(until(r#", "until": null"#), Ok(None));
        assert_eq!(until(r#", "until": 1060"#), Ok(Some(1060)));
        assert_eq!(until(r#", "until": "1060""#), Ok(Some(1060)));
        assert_eq!(until(r#", "until": "1970-01-01T01:00:00Z""#), Ok(Some(3600)));
        assert_eq!(until(r#", "for": "1h30m""#), Ok(Some(6400)));
        assert_eq!(until(r#", "for": 60"#), Ok(Some(1060)));
        for bad in [
            r#", "until": "soon""#,
            r#", "until": []"#,
            r#", "until": 1000"#,
            r#", "for": "a while""#,
            r#", "for": "infinity""#,
            r#", "for": -1"#,
            r#", "for": "0""#,
            r#", "for": 1, "until": 1060"#,
            r#", "untill": 1060"#,
        ] {
            assert!(until(bad).is_err_and(|why| !why.contains('\n')), "{bad}");
        }
    }

    #[test]
    fn a_lasting_one_has_an_owner_and_a_name_that_is_none_of_the_operators() {
        let parsed = |line: &str| parse(line, 0);
        let asked = parsed(r#"{"why": "moving", "who": "db", "lasting": true, "mode": "delay"}"#).unwrap();
        assert_eq!((asked.id.as_str(), asked.who.as_str(), asked.lasting, asked.mode), ("container-db", "db", true, Mode::Delay));
        assert!(!parsed(r#"{"why": "moving", "who": "../db"}"#).unwrap().lasting, "a held one may call itself anything");
        for bad in ["", "{}", "[]", r#"{"why": " "}"#, r#"{"why": "x", "mode": "maybe"}"#, r#"{"why": "x", "lasting": "yes"}"#] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        for who in ["", "../db", "a b", &"x".repeat(60)] {
            assert!(parsed(&format!(r#"{{"why": "x", "lasting": true, "who": "{who}"}}"#)).unwrap_err().contains("owner"), "{who}");
        }
    }
}
