//! MIME multipart, as much as cloud-init's own tools and Flatcar's users write: one level or nested, 7bit, 8bit,
//! binary, base64 and quoted-printable bodies (RFC 2045, 2046).

use crate::yaml::decode_base64;

/// Nested deeper, a multipart is refused.
const MAX_NESTING: usize = 8;

/// One leaf of the tree.
pub struct Piece {
    /// `text/plain` and so on, in lower case, without parameters.
    pub content_type: String,
    /// The file name, if there is one.
    pub name: Option<String>,
    /// The transfer encoding as written.
    pub encoding: String,
    /// The decoded body; `None` if the encoding is unknown or broken.
    pub body: Option<Vec<u8>>,
}

/// Whether these bytes are a MIME message: its header is within the first 4096 bytes, and it does not begin with `#`.
pub fn is_multipart(bytes: &[u8]) -> bool {
    let head = bytes.get(..bytes.len().min(4096)).unwrap_or_default().trim_ascii_start();
    if head.starts_with(b"#") || head.starts_with(b"{") {
        return false;
    }
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.starts_with("mime-version:") || head.contains("\nmime-version:") || head.starts_with("content-type: multipart/")
}

/// The leaves of a MIME message, in order.
pub fn parse(bytes: &[u8], max_parts: usize) -> Result<Vec<Piece>, &'static str> {
    let mut leaves = Vec::new();
    let mut pending = vec![(bytes.trim_ascii_start(), 0_usize)];
    while let Some((entity, depth)) = pending.pop() {
        let (headers, body) = headers(entity);
        let value = |name: &str| headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
        let full_type = if value("content-type").is_empty() { "text/plain" } else { value("content-type") };
        let content_type = full_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if content_type.starts_with("multipart/") {
            if depth >= MAX_NESTING {
                return Err("multiparts inside each other too deep");
            }
            let boundary = parameter(full_type, "boundary").ok_or("a multipart without a boundary")?;
            let inner = entities(body, &boundary)?;
            pending.extend(inner.into_iter().rev().map(|e| (e, depth + 1)));
        } else {
            let encoding = value("content-transfer-encoding").trim().to_ascii_lowercase();
            let name = parameter(value("content-disposition"), "filename").or_else(|| parameter(full_type, "name"));
            leaves.push(Piece { content_type, name, body: decode(body, &encoding), encoding });
        }
        if leaves.len() + pending.len() > max_parts {
            return Err("too many parts");
        }
    }
    Ok(leaves)
}

/// Headers with lower-case names and unfolded values, and what follows the empty line.
fn headers(entity: &[u8]) -> (Vec<(String, String)>, &[u8]) {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut rest = entity;
    while !rest.is_empty() {
        let (line, after) = match rest.iter().position(|b| *b == b'\n') {
            Some(end) => rest.split_at(end + 1),
            None => (rest, &[][..]),
        };
        rest = after;
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            break;
        }
        if text.starts_with([' ', '\t']) {
            if let Some((_, value)) = headers.last_mut() {
                value.push(' ');
                value.push_str(text.trim());
            }
        } else if let Some((name, value)) = text.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    (headers, rest)
}

/// `boundary` of `multipart/mixed; boundary="==x=="`.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (found, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(';').map_or((after, ""), |(v, n)| (v, n)),
        };
        if key.trim_matches([' ', ';', '\t']).eq_ignore_ascii_case(name) {
            return Some(found.trim().to_owned()).filter(|f| !f.is_empty());
        }
        rest = next;
    }
}

/// The entities between the boundary lines.
fn entities<'b>(body: &'b [u8], boundary: &str) -> Result<Vec<&'b [u8]>, &'static str> {
    let delimiter = format!("--{boundary}").into_bytes();
    let mut found = Vec::new();
    let mut begin: Option<usize> = None;
    let mut offset = 0;
    for line in body.split_inclusive(|b| *b == b'\n') {
        if let Some(tail) = line.strip_prefix(delimiter.as_slice()) {
            let tail = tail.trim_ascii();
            if tail.is_empty() || tail == b"--" {
                if let Some(begin) = begin {
                    found.push(trim_line_end(body.get(begin..offset).unwrap_or_default()));
                }
                begin = Some(offset + line.len());
                if tail == b"--" {
                    return Ok(found);
                }
            }
        }
        offset += line.len();
    }
    // The closing boundary is missing: what came is used, as every mail reader does.
    match begin {
        Some(begin) => found.push(body.get(begin..).unwrap_or_default()),
        None => return Err("its boundary never occurs"),
    }
    Ok(found)
}

/// The line end before a boundary belongs to the boundary.
fn trim_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

fn decode(body: &[u8], encoding: &str) -> Option<Vec<u8>> {
    match encoding {
        "" | "7bit" | "8bit" | "binary" => Some(body.to_vec()),
        "base64" => decode_base64(body),
        "quoted-printable" => Some(quoted_printable(body)),
        _ => None,
    }
}

/// What is not a valid escape stays as it is.
fn quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'=' {
            out.push(*first);
            continue;
        }
        let hex = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match after {
            [b'\r', b'\n', tail @ ..] | [b'\n', tail @ ..] => rest = tail,
            [high, low, tail @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = tail;
                }
                _ => out.push(b'='),
            },
            _ => out.push(b'='),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MESSAGE: &str = "From nobody Fri Jan 01 00:00:00 2016\nContent-Type: multipart/mixed;\n boundary=\"==b==\"\nMIME-Version: 1.0\n\npreamble\n--==b==\nContent-Type: text/cloud-config; charset=\"us-ascii\"\nContent-Disposition: attachment; filename=\"a.yml\"\n\nhostname: a\n--==b==\r\nContent-Type: text/x-shellscript\r\nContent-Transfer-Encoding: base64\r\n\r\nIyEvYmlu\r\nL3NoCg==\r\n--==b==\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\na=3Db=\nc\n--==b==--\nepilogue\n";

    #[test]
    fn parts_are_found_and_decoded() {
        assert!(is_multipart(MESSAGE.as_bytes()));
        let pieces = parse(MESSAGE.as_bytes(), 10).unwrap();
        let seen: Vec<_> = pieces
            .iter()
            .map(|p| (p.content_type.as_str(), p.name.as_deref(), String::from_utf8_lossy(p.body.as_deref().unwrap()).into_owned()))
            .collect();
        assert_eq!(
            seen,
            vec![
                ("text/cloud-config", Some("a.yml"), "hostname: a".to_owned()),
                ("text/x-shellscript", None, "#!/bin/sh\n".to_owned()),
                ("text/plain", None, "a=bc".to_owned()),
            ]
        );
    }

    #[test]
    fn a_cloud_config_that_mentions_mime_is_not_mime() {
        assert!(!is_multipart(b"#cloud-config\nwrite_files:\n- content: |\n    MIME-Version: 1.0\n"));
    }

    #[test]
    fn nesting_is_bounded() {
        let text = "Content-Type: multipart/mixed; boundary=b\n\n--b\n".repeat(100);
        assert!(parse(text.as_bytes(), 1000).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in "[-=b\n\r\\x00A-C:;/\"]{0,200}") {
            let whole = format!("Content-Type: multipart/mixed; boundary=b\n\n{bytes}");
            let _ = parse(whole.as_bytes(), 10);
            parameter(&bytes, "b");
            quoted_printable(bytes.as_bytes());
        }
    }
}
