//! What user-data is: its first bytes decide. Compressed and MIME user-data are unpacked into parts.
//!
//! Takes bytes, returns parts; what is of no use here (Ignition, `#include`, Python handlers) is refused by name.

mod mime;

use crate::diagnostics::{Diagnostics, Place};
use flate2::read::MultiGzDecoder;
use std::io::Read as _;

/// User-data larger than this, after decompression, is refused: services give 16 KiB to 64 KiB, disks somewhat more.
const MAX_SIZE: u64 = 16 * 1024 * 1024;
/// More parts than this are an accident.
const MAX_PARTS: usize = 256;

/// How often a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Frequency {
    /// At every boot.
    Boot,
    /// Once for an instance id.
    Instance,
    /// Once for this state partition.
    Once,
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `#cloud-config`.
    CloudConfig,
    /// `#!...`: run in the final stage.
    Script(Frequency),
    /// `#cloud-boothook`: run first, at every boot.
    Boothook,
}

/// One piece of user-data, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u16,
    /// Its file name, where MIME gave one.
    pub name: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// Takes user-data apart. What cannot be used is reported and left out; numbering goes on from `first`.
pub fn split(bytes: &[u8], first: u16, diagnostics: &mut Diagnostics) -> Vec<Part> {
    let here = Place { part: first, line: 0 };
    let Some(bytes) = gunzip(bytes, here, diagnostics) else { return Vec::new() };
    if !mime::is_multipart(&bytes) {
        return sniff(&bytes, first, None, None, diagnostics).into_iter().collect();
    }
    let pieces = match mime::parse(&bytes, MAX_PARTS) {
        Ok(pieces) => pieces,
        Err(reason) => {
            diagnostics.error(here, format!("this MIME user-data cannot be used: {reason}"));
            return Vec::new();
        }
    };
    let mut parts = Vec::new();
    for (number, piece) in (first..).zip(pieces) {
        let place = Place { part: number, line: 0 };
        let named = piece.name.as_deref().unwrap_or("without a name").to_owned();
        let Some(body) = piece.body else {
            diagnostics.error(place, format!("part {number} ({named}): its transfer encoding `{}` cannot be decoded", piece.encoding));
            continue;
        };
        if let Some(body) = gunzip(&body, place, diagnostics) {
            parts.extend(sniff(&body, number, piece.name, Some(&piece.content_type), diagnostics));
        }
    }
    parts
}

/// The bytes, decompressed if they are gzip; `None`, reported, if they are broken or too many.
fn gunzip(bytes: &[u8], place: Place, diagnostics: &mut Diagnostics) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        if let Err(error) = MultiGzDecoder::new(bytes).take(MAX_SIZE + 1).read_to_end(&mut out) {
            diagnostics.error(place, format!("the gzip data is broken ({error}); nothing of it is used"));
            return None;
        }
    } else {
        out = bytes.to_vec();
    }
    if out.len() as u64 > MAX_SIZE {
        diagnostics.error(place, format!("more than {} MiB of user-data; nothing of it is used", MAX_SIZE >> 20));
        return None;
    }
    Some(out)
}

/// Decides what one piece is: by its MIME type where that says it, else by its first line.
fn sniff(bytes: &[u8], number: u16, name: Option<String>, content_type: Option<&str>, diagnostics: &mut Diagnostics) -> Option<Part> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let place = Place { part: number, line: 1 };
    let trimmed = bytes.trim_ascii_start();
    let line = trimmed.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii_end();
    let first = String::from_utf8_lossy(line.get(..line.len().min(200)).unwrap_or_default()).to_ascii_lowercase();
    let part = |kind, body: &[u8]| Some(Part { number, name: name.clone(), kind, body: body.to_vec() });

    match content_type.unwrap_or_default() {
        "text/cloud-config" => return part(Kind::CloudConfig, bytes),
        "text/x-shellscript-per-boot" => return part(Kind::Script(Frequency::Boot), trimmed),
        "text/x-shellscript-per-instance" => return part(Kind::Script(Frequency::Instance), trimmed),
        "text/x-shellscript-per-once" => return part(Kind::Script(Frequency::Once), trimmed),
        "text/cloud-boothook" => return part(Kind::Boothook, trimmed),
        "text/x-include-url" | "text/x-include-once-url" => {
            diagnostics.error(place, INCLUDE);
            return None;
        }
        _ => {}
    }
    if trimmed.is_empty() {
        return None;
    }
    let refuse = |diagnostics: &mut Diagnostics, why: &str| {
        diagnostics.error(place, why);
        None
    };
    if first == "#cloud-config" {
        return part(Kind::CloudConfig, bytes);
    }
    if first.starts_with("#!") {
        return part(Kind::Script(Frequency::Instance), trimmed);
    }
    if first.starts_with("#cloud-boothook") {
        return part(Kind::Boothook, trimmed);
    }
    if first.starts_with("#include") {
        return refuse(diagnostics, INCLUDE);
    }
    if first.starts_with("#cloud-config-archive") || first.starts_with("#cloud-config-jsonp") {
        return refuse(
            diagnostics,
            "this kind of cloud-config is not read by this release; use `#cloud-config`, or MIME for several parts",
        );
    }
    if first.starts_with("#part-handler") {
        return refuse(diagnostics, "`#part-handler` is Python to be run inside cloud-init; there is no Python here");
    }
    if first.starts_with("#cloud-config") {
        diagnostics.warning(place, "the first line should be `#cloud-config` and nothing else");
        return part(Kind::CloudConfig, bytes);
    }
    if first.starts_with("## template:") {
        return match jinja(bytes, trimmed) {
            Err(why) => refuse(diagnostics, why),
            Ok(()) => {
                diagnostics.info(place, "templates are not rendered by this release; this one has nothing to render");
                part(Kind::CloudConfig, bytes)
            }
        };
    }
    if trimmed.starts_with(b"{") && is_ignition(trimmed) {
        return refuse(
            diagnostics,
            "this is an Ignition configuration, which is not cloud-config; write it as `#cloud-config` (docs/cloud-config.md has the table)",
        );
    }
    if content_type.is_some_and(|t| t == "text/x-shellscript") {
        return part(Kind::Script(Frequency::Instance), trimmed);
    }
    refuse(diagnostics, "not a known kind of user-data; the first line must be `#cloud-config` or begin with `#!`")
}

const INCLUDE: &str = "`#include` needs the network, which this release does not wait for; put the included text here instead";

/// A template without anything to render is plain cloud-config with one more comment line.
fn jinja(bytes: &[u8], trimmed: &[u8]) -> Result<(), &'static str> {
    if bytes.windows(2).any(|w| matches!(w, b"{{" | b"{%")) {
        return Err("jinja templates are not rendered by this release; write the values out");
    }
    let second = trimmed.split(|b| *b == b'\n').nth(1).unwrap_or_default().trim_ascii();
    if second == b"#cloud-config" { Ok(()) } else { Err("only `#cloud-config` may follow a `## template:` line") }
}

fn is_ignition(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(bytes)
        .is_ok_and(|v| v.get("ignitionVersion").is_some() || v.get("ignition").is_some_and(|i| i.get("version").is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn split_one(bytes: &[u8]) -> (Vec<Part>, Vec<String>) {
        let mut diagnostics = Diagnostics::default();
        let parts = split(bytes, 1, &mut diagnostics);
        (parts, diagnostics.sorted().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_first_line_decides() {
        for (text, kind) in [
            ("#cloud-config\nhostname: a\n", Kind::CloudConfig),
            ("\n#cloud-config  \r\nhostname: a\n", Kind::CloudConfig),
            ("\u{feff}#cloud-config\n", Kind::CloudConfig),
            ("## template: jinja\n#cloud-config\nhostname: a\n", Kind::CloudConfig),
            ("#!/bin/sh\nexit\n", Kind::Script(Frequency::Instance)),
            ("#cloud-boothook\n#!/bin/sh\n", Kind::Boothook),
        ] {
            let (parts, _) = split_one(text.as_bytes());
            assert_eq!(parts.first().map(|p| p.kind), Some(kind), "{text}");
        }
        assert_eq!(split_one(b""), (vec![], vec![]));
        assert_eq!(split_one(b" \n"), (vec![], vec![]));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, words) in [
            ("{\"ignition\": {\"version\": \"3.4.0\"}}", "Ignition"),
            ("#include\nhttp://x/\n", "#include"),
            ("## template: jinja\n#cloud-config\nhostname: {{ v1.x }}\n", "jinja"),
            ("#part-handler\n", "Python"),
            ("hostname: a\n", "first line must be"),
            ("\x1f\u{8b}", "first line must be"),
        ] {
            let (parts, lines) = split_one(text.as_bytes());
            assert_eq!(parts, vec![], "{text}");
            assert!(lines.iter().any(|l| l.starts_with("line 1: error: ") && l.contains(words)), "{lines:?}");
        }
    }

    #[test]
    fn gzip_is_unpacked_and_broken_gzip_is_said() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(b"#cloud-config\nhostname: a\n").unwrap();
        let bytes = gz.finish().unwrap();
        assert_eq!(split_one(&bytes).0[0].body, b"#cloud-config\nhostname: a\n");
        let (parts, lines) = split_one(&bytes[..20]);
        assert!(parts.is_empty() && lines[0].contains("gzip data is broken"), "{lines:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            split_one(&bytes);
        }
    }
}
