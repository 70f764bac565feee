//! What is wrong, or worth knowing, about a cloud-config: `line N: error|warning|info: message`.
//!
//! A diagnostic never quotes a value, only names of keys, users, units and paths: values may be secrets, and
//! diagnostics reach the console and the log.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where something stands: a line, counted from 1, of a part, counted from 1 (user-data may have several).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Part of the user-data, from 1; 0 is "not from the user-data".
    pub part: u16,
    /// Line in that part, from 1; 0 is "no line".
    pub line: u32,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Info,
    /// Accepted, but part of it has no effect or not the effect that one would think.
    Warning,
    /// This item is left out; everything else is applied.
    Error,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// How bad.
    pub severity: Severity,
    /// What, and what to do.
    pub message: String,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.place.part, self.place.line) {
            (_, 0) => {}
            (0 | 1, line) => write!(f, "line {line}: ")?,
            (part, line) => write!(f, "part {part}, line {line}: ")?,
        }
        write!(f, "{}: {}", self.severity, self.message)
    }
}

/// The report that grows while user-data is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Notes something worth knowing.
    pub fn info(&mut self, place: Place, message: impl Into<String>) {
        self.push(place, Severity::Info, message);
    }

    /// Notes something that has not the effect one would think.
    pub fn warning(&mut self, place: Place, message: impl Into<String>) {
        self.push(place, Severity::Warning, message);
    }

    /// Notes an item that is left out.
    pub fn error(&mut self, place: Place, message: impl Into<String>) {
        self.push(place, Severity::Error, message);
    }

    fn push(&mut self, place: Place, severity: Severity, message: impl Into<String>) {
        self.0.push(Diagnostic { place, severity, message: message.into() });
    }

    /// Whether anything is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    /// All of them, in the order of the lines.
    pub fn sorted(mut self) -> Vec<Diagnostic> {
        self.0.sort_by_key(|d| d.place);
        self.0
    }

    /// All of them, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }
}
