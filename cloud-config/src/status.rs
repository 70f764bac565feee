//! What was applied, from where, when, and how it went: kept so that `cloud-config status` can say it.

use crate::apply::{Done, Outcome};
use crate::diagnostics::{Diagnostic, Severity};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// The record of this boot.
pub const RUN_RECORD: &str = "/run/garboard/cloud-config.json";
/// The record of the last time anything was applied.
pub const STATE_RECORD: &str = "/var/lib/cloud-config/status.json";

/// One application of a cloud-config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which source; nothing if there was none.
    pub source: Option<String>,
    /// Where exactly.
    pub place: String,
    /// Sources that were there too and not used.
    pub ignored: Vec<String>,
    /// For which instance.
    pub instance_id: String,
    /// When, in seconds since 1970.
    pub applied_at: u64,
    /// How long it took.
    pub milliseconds: u64,
    /// Why the source could not be read.
    pub failure: Option<String>,
    /// What is wrong with the user-data.
    pub diagnostics: Vec<Diagnostic>,
    /// What became of each step.
    pub steps: Vec<Done>,
    /// What became of the scripts of the final stage.
    #[serde(default)]
    pub scripts: Vec<Done>,
}

impl Record {
    /// Whether everything that was asked for was done.
    pub fn is_good(&self) -> bool {
        self.failure.is_none()
            && self.diagnostics.iter().all(|d| d.severity != Severity::Error)
            && self.steps.iter().chain(&self.scripts).all(|d| d.outcome != Outcome::Failed)
    }

    /// How many things went wrong.
    pub fn faults(&self) -> usize {
        let failed = self.steps.iter().chain(&self.scripts).filter(|d| d.outcome == Outcome::Failed).count();
        usize::from(self.failure.is_some()) + self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count() + failed
    }

    /// Everything that a person must hear: one line each.
    pub fn complaints(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.failure.iter().map(|f| format!("error: {f}")).collect();
        lines.extend(self.diagnostics.iter().filter(|d| d.severity > Severity::Info).map(ToString::to_string));
        for done in self.steps.iter().chain(&self.scripts).filter(|d| d.outcome == Outcome::Failed) {
            let line = if done.place.line > 0 { format!("line {}: ", done.place.line) } else { String::new() };
            lines.push(format!("{line}error: {}: {}", done.what, done.detail.as_deref().unwrap_or("failed")));
        }
        lines
    }

    /// For a person.
    pub fn render(&self) -> String {
        let mut out = String::new();
        match &self.source {
            Some(source) => {
                let _ = writeln!(out, "source:    {source} ({})", self.place);
                let _ = writeln!(out, "instance:  {}", self.instance_id);
            }
            None => out.push_str("source:    none found\n"),
        }
        if !self.ignored.is_empty() {
            let _ = writeln!(out, "not used:  {}", self.ignored.join(", "));
        }
        let _ = writeln!(out, "applied:   {} in {} ms", utc(self.applied_at), self.milliseconds);
        let _ = match self.faults() {
            0 => writeln!(out, "result:    good"),
            1 => writeln!(out, "result:    1 problem"),
            n => writeln!(out, "result:    {n} problems"),
        };
        if let Some(failure) = &self.failure {
            let _ = writeln!(out, "error: {failure}");
        }
        for diagnostic in &self.diagnostics {
            let _ = writeln!(out, "{diagnostic}");
        }
        for done in self.steps.iter().chain(&self.scripts) {
            let outcome = match done.outcome {
                Outcome::Changed => "changed",
                Outcome::Unchanged => "unchanged",
                Outcome::Queued => "queued",
                Outcome::Failed => "FAILED",
            };
            let _ = write!(out, "{outcome:<10} {}", done.what);
            if let Some(detail) = &done.detail {
                let _ = write!(out, ": {detail}");
            }
            out.push('\n');
        }
        out
    }
}

/// `2026-11-22 03:18:51 UTC`, by the civil calendar.
pub fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 0000-03-01, so that the leap day ends the year; 400 years have 146097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_317_531), "2026-11-22 03:18:51 UTC");
    }
}
