//! `write_files`.

use super::keys::FILE;
use super::reader::Reader;
use crate::diagnostics::Place;
use crate::yaml::{Node, Value, decode_base64};
use flate2::read::MultiGzDecoder;
use std::io::Read as _;

/// One file's content is at most this, decoded.
const MAX_CONTENT: u64 = 64 * 1024 * 1024;

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it was written.
    pub place: Place,
    /// Absolute, without `.` and `..`.
    pub path: String,
    /// Decoded.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, by name or number.
    pub owner: String,
    /// Group, by name or number; the owner's own if absent.
    pub group: Option<String>,
    /// Added to what is there, unless it is there already.
    pub append: bool,
    /// After the units' files.
    pub defer: bool,
}

impl Reader<'_> {
    /// The list.
    pub fn write_files(&mut self, node: &Node) -> Vec<File> {
        let items = self.list(node, "write_files");
        items.into_iter().filter(|(_, n)| n.value != Value::Null).filter_map(|(path, item)| self.item(|r| r.file(item, &path))).collect()
    }

    fn file(&mut self, node: &Node, at: &str) -> Option<File> {
        let fields = self.fields(node, at, FILE)?;
        let Some(path) = fields.get("path") else {
            self.error(node.place, format!("`{at}` has no `path`"));
            return None;
        };
        let path = self.line(path, &fields.path("path")).and_then(|p| self.path(&p, path.place, &fields.path("path")));
        let content = self.content(fields.get("content"), fields.get("encoding"), &fields.path("content"));
        let mode = match fields.get("permissions") {
            Some(node) => self.permissions(node, &fields.path("permissions")),
            None => Some(0o644),
        };
        let owner = self.opt_line(&fields, "owner").unwrap_or_else(|| "root".to_owned());
        let (owner, group) = match owner.split_once([':', '.']) {
            Some((owner, group)) => (owner.trim().to_owned(), Some(group.trim().to_owned()).filter(|g| !g.is_empty())),
            None => (owner, None),
        };
        let owner = if owner.is_empty() { "root".to_owned() } else { owner };
        let append = self.opt_bool(&fields, "append").unwrap_or(false);
        let defer = self.opt_bool(&fields, "defer").unwrap_or(false);
        Some(File { place: node.place, path: path?, content: content?, mode: mode?, owner, group, append, defer })
    }

    /// A path that this host can have: absolute, no `..`, not on the read-only root.
    fn path(&mut self, path: &str, place: Place, at: &str) -> Option<String> {
        if !path.starts_with('/') || path.split('/').any(|c| c == "..") || path.ends_with('/') || path.contains('\0') {
            self.error(place, format!("`{at}` must be the absolute path of a file, without `..`"));
            return None;
        }
        let clean: String = path.split('/').filter(|c| !c.is_empty() && *c != ".").flat_map(|c| ["/", c]).collect();
        let top = clean.split('/').nth(1).unwrap_or_default();
        let writable = ["etc", "var", "home", "root", "opt", "srv", "media", "mnt", "run", "tmp", "proc", "sys", "dev"];
        if !writable.contains(&top) || clean.matches('/').count() < 2 {
            self.error(
                place,
                format!("`{at}` is {clean}, on the read-only system; write below /etc, /var, /opt, /srv, /home or /media/state"),
            );
            return None;
        }
        Some(clean)
    }

    /// `content` in its `encoding`.
    fn content(&mut self, content: Option<&Node>, encoding: Option<&Node>, at: &str) -> Option<Vec<u8>> {
        let encoding = match encoding {
            Some(node) => self.line(node, at)?.to_ascii_lowercase(),
            None => String::new(),
        };
        let place = content.map(|n| n.place).unwrap_or_default();
        let bytes = match content {
            None => Vec::new(),
            Some(Node { value: Value::Binary(bytes), .. }) => bytes.clone(),
            Some(node) => self.text(node, at)?.into_bytes(),
        };
        let (base64, gzip) = match encoding.as_str() {
            "" | "text" | "text/plain" | "plain" => (false, false),
            "b64" | "base64" => (true, false),
            "gz" | "gzip" => (false, true),
            "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" => (true, true),
            _ => {
                self.error(
                    place,
                    format!("`{at}`: the encoding is none of b64, base64, gz, gzip, gz+b64, gz+base64, gzip+b64, gzip+base64, text/plain"),
                );
                return None;
            }
        };
        let bytes = if base64 {
            let Some(bytes) = decode_base64(&bytes) else {
                self.error(place, format!("`{at}` is not valid base64"));
                return None;
            };
            bytes
        } else {
            bytes
        };
        if !gzip {
            return Some(bytes);
        }
        let mut out = Vec::new();
        match MultiGzDecoder::new(bytes.as_slice()).take(MAX_CONTENT + 1).read_to_end(&mut out) {
            Ok(_) if out.len() as u64 <= MAX_CONTENT => Some(out),
            Ok(_) => {
                self.error(place, format!("`{at}` is larger than {} MiB", MAX_CONTENT >> 20));
                None
            }
            Err(error) => {
                let hint = if base64 { "" } else { "; plain gzip must be written as `!!binary`" };
                self.error(place, format!("`{at}` is not valid gzip ({error}){hint}"));
                None
            }
        }
    }

    /// Octal, however it is written: `0644`, `644`, `"0644"`, `0o644`.
    fn permissions(&mut self, node: &Node, at: &str) -> Option<u32> {
        let text = self.line(node, at)?;
        let digits = text.strip_prefix("0o").unwrap_or(&text);
        let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777 && !digits.starts_with('+'));
        if mode.is_none() {
            self.error(node.place, format!("`{at}` must be octal permissions such as '0644'"));
        } else if matches!(node.value, Value::Int(_)) && !text.starts_with('0') {
            self.diagnostics.warning(
                node.place,
                format!("`{at}` is read as octal, as CoreOS did (cloud-init would read decimal); write it as '0{text}'"),
            );
        }
        mode
    }
}
