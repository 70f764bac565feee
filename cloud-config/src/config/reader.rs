//! Typed reading of nodes with a report: unknown keys with the nearest known one, wrong types, missing values.
//!
//! The rule for items (a user, a file, a unit): an item with an error is left out whole, never half applied.

use super::keys::{Fate, Key};
use crate::diagnostics::{Diagnostics, Place};
use crate::merge::same_key;
use crate::substitute::unresolved;
use crate::yaml::{Entry, Node, Value};

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    /// Where.
    pub place: Place,
    /// What.
    pub value: T,
}

/// The entries of a map whose keys were checked.
pub struct Fields<'n> {
    /// Where the map begins.
    pub place: Place,
    path: String,
    entries: Vec<(&'static str, &'n Entry)>,
}

impl<'n> Fields<'n> {
    /// The node under a key, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(k, _)| *k == key).map(|(_, e)| &e.node).filter(|n| n.value != Value::Null)
    }

    /// The node under a key even if it is null.
    pub fn entry(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(k, _)| *k == key).map(|(_, e)| &e.node)
    }

    /// The line of a key; 0 if it is absent.
    pub fn line_of(&self, key: &str) -> u32 {
        self.entries.iter().find(|(k, _)| *k == key).map_or(0, |(_, e)| e.place.line)
    }

    /// `users[0].name`.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// Reads nodes and reports.
pub struct Reader<'d> {
    /// The report.
    pub diagnostics: &'d mut Diagnostics,
    errors: usize,
}

impl<'d> Reader<'d> {
    /// A reader that adds to this report.
    pub fn new(diagnostics: &'d mut Diagnostics) -> Reader<'d> {
        Reader { diagnostics, errors: 0 }
    }

    /// Reports an error.
    pub fn error(&mut self, place: Place, message: impl Into<String>) {
        self.errors += 1;
        self.diagnostics.error(place, message);
    }

    /// Runs `read` and drops its result if it reported an error.
    pub fn item<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = self.errors;
        read(self).filter(|_| self.errors == before)
    }

    /// A map with its keys checked against a table.
    pub fn fields<'n>(&mut self, node: &'n Node, path: &str, keys: &'static [Key]) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, path, "a map");
            return None;
        };
        let mut fields = Fields { place: node.place, path: path.to_owned(), entries: Vec::new() };
        for entry in entries {
            let full = fields.path(&entry.key);
            match keys.iter().find(|(k, _)| same_key(k, &entry.key)) {
                Some((name, fate)) => {
                    match fate {
                        Fate::Read => {}
                        Fate::Later(what) => self.diagnostics.warning(entry.place, format!("`{full}`: {what}")),
                        Fate::Kept(who) => self.diagnostics.info(entry.place, format!("`{full}`: kept, and read by {who}")),
                        Fate::Never(why) => self.diagnostics.warning(entry.place, format!("`{full}` has no effect: {why}")),
                    }
                    fields.entries.push((name, entry));
                }
                None => self.unknown(entry.place, &full, &entry.key, keys.iter().map(|(k, _)| *k)),
            }
        }
        Some(fields)
    }

    /// Reports an unknown key with the nearest known one.
    pub fn unknown(&mut self, place: Place, full: &str, key: &str, known: impl Iterator<Item = &'static str>) {
        let key = key.replace('-', "_").to_ascii_lowercase();
        let nearest = known.map(|k| (strsim::damerau_levenshtein(k, &key), k)).min();
        match nearest {
            Some((distance, k)) if distance <= 1 + k.len() / 4 => {
                self.diagnostics.warning(place, format!("`{full}` is not a known key; did you mean `{k}`?"));
            }
            _ => self.diagnostics.warning(place, format!("`{full}` is not a known key; it has no effect")),
        }
    }

    /// Reports a wrong type.
    pub fn wrong_type(&mut self, node: &Node, path: &str, wanted: &str) {
        let name = if path.is_empty() { "this".to_owned() } else { format!("`{path}`") };
        self.error(node.place, format!("{name} must be {wanted}, not {}", node.value.type_name()));
    }

    /// Text; a number or boolean counts as what was written.
    pub fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = match &node.value {
            Value::Str(text) => text.clone(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => node.text.clone(),
            _ => {
                self.wrong_type(node, path, "a string");
                return None;
            }
        };
        if let Some((name, lines)) = unresolved(&text) {
            let line = node.place.line.saturating_add(u32::try_from(lines).unwrap_or(0));
            let message = format!(
                "`{path}` uses `${name}`, which has no value on this host (yet): not in the source's metadata nor in /run/garboard/environment; write `\\${name}` if you mean the text itself"
            );
            self.error(Place { line, ..node.place }, message);
            return None;
        }
        Some(text)
    }

    /// Text in one line without control characters, as names and database fields need it.
    pub fn line(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path)?.trim().to_owned();
        if text.chars().any(char::is_control) {
            self.error(node.place, format!("`{path}` must be one line without control characters"));
            return None;
        }
        Some(text)
    }

    /// The optional one-line text under a key.
    pub fn opt_line(&mut self, fields: &Fields<'_>, key: &str) -> Option<String> {
        fields.get(key).and_then(|n| self.line(n, &fields.path(key)))
    }

    /// The optional text under a key.
    pub fn opt_text(&mut self, fields: &Fields<'_>, key: &str) -> Option<String> {
        fields.get(key).and_then(|n| self.text(n, &fields.path(key)))
    }

    /// A boolean; `"true"` and `"no"` in quotes count.
    pub fn boolean(&mut self, node: &Node, path: &str) -> Option<bool> {
        match &node.value {
            Value::Bool(b) => Some(*b),
            Value::Str(s) if matches!(s.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1") => Some(true),
            Value::Str(s) if matches!(s.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "0") => Some(false),
            Value::Int(0) => Some(false),
            Value::Int(1) => Some(true),
            _ => {
                self.wrong_type(node, path, "true or false");
                None
            }
        }
    }

    /// The optional boolean under a key.
    pub fn opt_bool(&mut self, fields: &Fields<'_>, key: &str) -> Option<bool> {
        fields.get(key).and_then(|n| self.boolean(n, &fields.path(key)))
    }

    /// The items of a list.
    pub fn list<'n>(&mut self, node: &'n Node, path: &str) -> Vec<(String, &'n Node)> {
        match &node.value {
            Value::Seq(items) => items.iter().enumerate().map(|(i, n)| (format!("{path}[{i}]"), n)).collect(),
            _ => {
                self.wrong_type(node, path, "a list");
                Vec::new()
            }
        }
    }

    /// A list of one-line texts; a single text counts as a list of one. Empty items are dropped.
    pub fn lines(&mut self, node: &Node, path: &str) -> Vec<Placed<String>> {
        let items = match &node.value {
            Value::Str(_) => vec![(path.to_owned(), node)],
            _ => self.list(node, path),
        };
        let mut lines = Vec::new();
        for (path, item) in items {
            if item.value == Value::Null {
                continue;
            }
            if let Some(value) = self.line(item, &path).filter(|v| !v.is_empty()) {
                lines.push(Placed { place: item.place, value });
            }
        }
        lines
    }

    /// A list of names, or one text with commas.
    pub fn names(&mut self, node: &Node, path: &str) -> Vec<Placed<String>> {
        let lines = self.lines(node, path);
        let split = |l: Placed<String>| {
            let place = l.place;
            l.value
                .split(',')
                .map(|v| v.trim().to_owned())
                .filter(|v| !v.is_empty())
                .map(move |value| Placed { place, value })
                .collect::<Vec<_>>()
        };
        lines.into_iter().flat_map(split).collect()
    }
}
