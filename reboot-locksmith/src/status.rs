//! What the daemon says about itself: `status.json` for programs, sentences for people, and metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use daemon_socket::{Metrics, label, labels};
use reboot_rules::inhibitors::Inhibitor;
use reboot_rules::scheduled::Scheduled;
use reboot_rules::{Seconds, show_time};
use serde::{Deserialize, Serialize};

use crate::machine::Phase;
use crate::policy::{Decision, Gate, Wanted};

/// `status --json`. Its field names are documented and stable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// One of [`Phase::NAMES`].
    pub state: String,
    /// The policy's answer.
    pub decision: Option<Decision>,
    /// Why, gate by gate.
    pub gates: Vec<Gate>,
    /// The reboot that is wanted.
    pub wanted: Option<Wanted>,
    /// This host, as others know it.
    pub host: String,
    /// The version that runs.
    pub version: String,
    /// The strategy in force.
    pub strategy: String,
    /// The group.
    pub group: String,
    /// The windows, as written.
    pub windows: Vec<String>,
    /// Whether one is open, or there are none.
    pub window_open: bool,
    /// When the daemon looks again, if nothing happens before.
    pub next: Option<Seconds>,
    /// Why the lock of an earlier boot is kept.
    pub kept: Option<String>,
    /// How the lock of an earlier boot was lost.
    pub lost: Option<String>,
    /// While this host waits for the lock: since when the first of its holders has had it.
    pub holder_since: Option<Seconds>,
    /// The version that this host has quarantined.
    pub quarantined: Option<String>,
    /// A scheduled shutdown.
    pub scheduled: Option<Scheduled>,
    /// All inhibitors.
    pub inhibitors: Vec<Inhibitor>,
    /// Settings that are not understood; while there are any nothing reboots.
    pub settings_problems: Vec<String>,
    /// What else is wrong.
    pub warnings: Vec<String>,
    /// Counters since the start of the daemon, by name.
    pub counters: BTreeMap<String, u64>,
}

/// Names of the counters, and what they count.
pub const COUNTERS: [(&str, &str); 8] = [
    ("evaluations", "Times that the policy was asked."),
    ("locks", "Locks that were got."),
    ("gave_back", "Times that lock and reservation were given back without a reboot."),
    ("drains", "Drains that were begun."),
    ("drain_failures", "Drains that failed."),
    ("undone", "Drains that were undone."),
    ("reboots", "Reboots that PID 1 was told to do."),
    ("reboot_failures", "Reboots that PID 1 did not do."),
];

impl Status {
    /// Puts what is wrong with `topic` now, or nothing, in place of what was.
    pub fn warn(&mut self, topic: &str, wrong: Option<String>) {
        let about = format!("{topic}: ");
        self.warnings.retain(|line| !line.starts_with(&about));
        self.warnings.extend(wrong.map(|wrong| about + &wrong));
    }

    /// Adds one to a counter.
    pub fn count(&mut self, name: &str) {
        *self.counters.entry(name.to_owned()).or_default() += 1;
    }

    /// A few lines for people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("state:     {}\n", self.state);
        let _ = writeln!(text, "strategy:  {} (group {})", self.strategy, self.group);
        if let Some(wanted) = &self.wanted {
            let _ = writeln!(text, "wanted:    by {}: {}", wanted.by, wanted.reason);
        }
        let open = if self.window_open { "open" } else { "closed" };
        let windows = if self.windows.is_empty() { "any time".to_owned() } else { format!("{} ({open} now)", self.windows.join("; ")) };
        let _ = writeln!(text, "windows:   {windows}");
        if let Some(kept) = &self.kept {
            let _ = writeln!(text, "kept lock: {kept}");
        }
        if let Some(lost) = &self.lost {
            let _ = writeln!(text, "lost lock: {lost}");
        }
        if let Some(scheduled) = &self.scheduled {
            let _ = writeln!(text, "scheduled: {} at {} by {}", scheduled.kind, show_time(scheduled.at), scheduled.who);
        }
        for inhibitor in &self.inhibitors {
            let _ = writeln!(text, "inhibitor: {}", inhibitor.describe());
        }
        for line in &self.settings_problems {
            let _ = writeln!(text, "settings:  {line}");
        }
        for line in &self.warnings {
            let _ = writeln!(text, "warning:   {line}");
        }
        text
    }

    /// Plain words about what it waits for.
    #[must_use]
    pub fn why(&self) -> String {
        let mut text = match (&self.wanted, self.decision) {
            (None, _) => "No reboot is wanted.\n".to_owned(),
            (Some(wanted), Some(Decision::Go)) => format!("Rebooting ({}): {}.\n", self.state, wanted.reason),
            (Some(wanted), _) => format!("A reboot is wanted by {} and waits: {}.\n", wanted.by, wanted.reason),
        };
        for gate in self.gates.iter().filter(|gate| gate.kind != "wanted") {
            let _ = writeln!(text, "{} {}: {}", if gate.open { "  yes" } else { "   NO" }, gate.kind, gate.text);
        }
        if let Some(kept) = &self.kept {
            let _ = writeln!(text, "The lock of an earlier boot is kept: {kept}.");
        }
        if let Some(lost) = &self.lost {
            let _ = writeln!(text, "Found when this host came back: {lost}.");
        }
        if let Some(version) = &self.quarantined {
            let _ = writeln!(text, "Version {version} failed on this host and was quarantined by it (`locksmithctl quarantine list`).");
        }
        for line in &self.settings_problems {
            let _ = writeln!(text, "Settings: {line}.");
        }
        if let Some(scheduled) = &self.scheduled {
            let _ = writeln!(text, "A {} is scheduled at {} by {}.", scheduled.kind, show_time(scheduled.at), scheduled.who);
        }
        text
    }

    /// In Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut metrics = Metrics::new("garboard_reboot_");
        let info = labels(&[("strategy", &self.strategy), ("group", &self.group)]);
        metrics.metric("info", "gauge", "The strategy and the group.", &[(info, 1)]);
        let states: Vec<_> = Phase::NAMES.iter().map(|name| (label("state", name), u64::from(*name == self.state))).collect();
        metrics.metric("state", "gauge", "1 for the state that the daemon is in.", &states);
        metrics.plain("wanted", "gauge", "1 while a reboot is wanted.", self.wanted.is_some().into());
        let since = self.wanted.as_ref().map_or(0, |wanted| wanted.since);
        metrics.plain("wanted_since_timestamp_seconds", "gauge", "Since when a reboot is wanted.", since);
        metrics.plain("window_open", "gauge", "1 while a window is open, or there are none.", self.window_open.into());
        let mut closed: BTreeMap<&str, u64> = BTreeMap::new();
        for gate in self.gates.iter().filter(|gate| !gate.open) {
            *closed.entry(gate.kind.as_str()).or_default() += 1;
        }
        let closed: Vec<_> = closed.iter().map(|(kind, count)| (label("gate", kind), *count)).collect();
        metrics.metric("blocked", "gauge", "Parts of the policy that are against the reboot that is wanted.", &closed);
        metrics.plain("inhibitors", "gauge", "Inhibitors.", self.inhibitors.len() as u64);
        metrics.plain("lock_kept", "gauge", "1 while the lock of an earlier boot is kept.", self.kept.is_some().into());
        metrics.plain(
            "lock_lost",
            "gauge",
            "1 when the lock of an earlier boot was gone when the host came back.",
            self.lost.is_some().into(),
        );
        metrics.plain(
            "lock_oldest_holder_since_timestamp_seconds",
            "gauge",
            "Since when the first of the lock's holders has had it, while this host waits for them; else 0.",
            self.holder_since.unwrap_or(0),
        );
        metrics.plain("settings_problems", "gauge", "Settings that are not understood.", self.settings_problems.len() as u64);
        for (name, help) in COUNTERS {
            metrics.plain(&format!("{name}_total"), "counter", help, self.counters.get(name).copied().unwrap_or(0));
        }
        metrics.into_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_prometheus_text_and_why_is_plain_words() {
        let gate = |kind: &str, open| Gate { kind: kind.into(), open, text: format!("about {kind}"), until: None };
        let status = Status {
            state: "waiting".into(),
            gates: vec![gate("wanted", true), gate("window", false), gate("inhibitor", false), gate("inhibitor", false)],
            group: "a\"b".into(),
            holder_since: Some(1_795_368_600),
            ..Status::default()
        };
        let text = status.metrics();
        assert!(
            text.contains("garboard_reboot_state{state=\"waiting\"} 1\n")
                && text.contains("garboard_reboot_blocked{gate=\"inhibitor\"} 2\n")
                && text.contains("garboard_reboot_lock_oldest_holder_since_timestamp_seconds 1795368600\n")
        );
        for line in text.lines() {
            assert!(line.starts_with("# ") || line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<u64>().is_ok()), "{line}");
        }
        assert!(status.why().contains("NO window: about window"), "{}", status.why());
        for (name, _) in COUNTERS {
            assert!(text.contains(&format!("garboard_reboot_{name}_total 0\n")));
        }
    }
}
