//! The serial console of a machine: what it said, and what in it is a failure by itself.

use std::fs;
use std::path::PathBuf;

/// A line that fails a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble(pub String);

/// Texts that no healthy boot prints.
const TROUBLE: &[&str] = &[
    "Kernel panic",
    "Oops:",
    "BUG:",
    "general protection fault",
    "Call Trace:",
    "is corrupted",
    "EXT4-fs error",
    "erofs: (device",
    "I/O error",
    "garboard: boot-failed",
    "garboard: boot-degraded",
    "garboard: emergency",
    "Failed to start",
    "entered failed state",
    "panicked at",
];

/// The console's log file.
#[derive(Clone, Debug)]
pub struct Console {
    path: PathBuf,
}

impl Console {
    /// The console that QEMU writes to this file.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// All text so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.path).unwrap_or_default()).replace('\r', "")
    }

    /// The last lines, for messages.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(40)).copied().collect::<Vec<_>>().join("\n")
    }

    /// The line with this text, from the text on.
    #[must_use]
    pub fn line_with(&self, mark: &str) -> Option<String> {
        let text = self.text();
        // The last line may be half there.
        let (whole, _) = text.rsplit_once('\n')?;
        let line = whole.lines().find(|line| line.contains(mark))?;
        line.get(line.find(mark)?..).map(str::to_owned)
    }

    /// Lines that fail a test, except those with one of the expected texts.
    #[must_use]
    pub fn trouble(&self, expected: &[&str]) -> Vec<Trouble> {
        find_trouble(&self.text(), expected)
    }
}

fn find_trouble(text: &str, expected: &[&str]) -> Vec<Trouble> {
    let bad = |line: &&str| TROUBLE.iter().any(|mark| line.contains(mark)) && !expected.iter().any(|mark| line.contains(mark));
    text.lines().filter(bad).map(|line| Trouble(line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oops_is_trouble_and_an_expected_failure_is_not() {
        let text = "[ 1.0] fine\n[ 2.0] Oops: 0000 [#1]\nFailed to start broken.service\n";
        assert_eq!(find_trouble(text, &[]).len(), 2);
        assert_eq!(find_trouble(text, &["broken.service"]), [Trouble("[ 2.0] Oops: 0000 [#1]".into())]);
    }
}
