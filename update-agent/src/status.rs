//! What the agent says about itself: `status.json` for programs, sentences for people, and metrics.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use daemon_socket::{Metrics, label, labels};
use serde::{Deserialize, Serialize};

use crate::download::{Taken, Way};
use crate::state::Came;

/// The states. Their names are documented and stable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentState {
    /// Nothing to do until the next check.
    #[default]
    Idle,
    /// No server is set: nothing is looked for.
    Disabled,
    /// Metadata is being fetched.
    Checking,
    /// Something newer is there, and is not taken yet; `why` says more.
    Waiting,
    /// A release is being written into the other slot.
    Downloading,
    /// It is being read back and verified.
    Verifying,
    /// Its UKI is being put onto the ESP.
    Committing,
    /// The next boot starts the new version.
    PendingReboot,
    /// This boot is the trial of a new version.
    Trial,
    /// The last attempt failed; it is tried again.
    Error,
}

impl AgentState {
    /// All of them, for metrics.
    pub const ALL: [Self; 10] = [
        Self::Idle,
        Self::Disabled,
        Self::Checking,
        Self::Waiting,
        Self::Downloading,
        Self::Verifying,
        Self::Committing,
        Self::PendingReboot,
        Self::Trial,
        Self::Error,
    ];

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Disabled => "disabled",
            Self::Checking => "checking",
            Self::Waiting => "waiting",
            Self::Downloading => "downloading",
            Self::Verifying => "verifying",
            Self::Committing => "committing",
            Self::PendingReboot => "pending-reboot",
            Self::Trial => "trial",
            Self::Error => "error",
        }
    }
}

/// An error with its stable kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable name.
    pub kind: String,
    /// One line for people.
    pub message: String,
}

/// `status --json`. Its field names are documented and stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// What is going on.
    pub state: AgentState,
    /// One sentence for people.
    pub why: String,
    /// The version that runs.
    pub version: String,
    /// Its slot.
    pub slot: String,
    /// The channel.
    pub channel: String,
    /// The server.
    pub server: String,
    /// The version that `state` is about, if there is one.
    pub target: Option<String>,
    /// Bytes received, and of how many.
    pub progress: Option<(u64, u64)>,
    /// Which way the last update came, and what it took; known after the reboot into it, too.
    pub way: Option<Came>,
    /// Why the target waits, or what is newer than one that waits for the reboot; by its stable name.
    pub wait: Option<String>,
    /// When the wait may be over by itself, in seconds since 1970.
    pub wait_until: Option<u64>,
    /// The pin.
    pub pin: Option<String>,
    /// The last failure since the last success.
    pub error: Option<Problem>,
    /// The last successful check.
    pub checked: Option<u64>,
    /// The next check.
    pub next_check: Option<u64>,
    /// What start-up had to repair.
    pub repaired: Vec<String>,
    /// Settings that could not be understood.
    pub settings_problems: Vec<String>,
    /// Counters since the start of the daemon.
    pub counters: Counters,
}

/// What has happened since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Checks.
    pub checks: u64,
    /// Failed checks and updates.
    pub failures: u64,
    /// Updates put in place.
    pub updates: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes that did not have to be.
    pub saved: u64,
    /// Updates by the way that they came: by patch, by chunks, in full.
    pub ways: [u64; 3],
    /// Pieces that could not be used as planned and came another way.
    pub fallbacks: u64,
}

impl Counters {
    /// Counts an update that was put in place.
    pub fn count(&mut self, taken: &Taken) {
        self.saved += taken.saved();
        self.fallbacks += taken.fallbacks;
        for (way, count) in Way::ALL.iter().zip(&mut self.ways) {
            *count += u64::from(*way == taken.way);
        }
    }
}

impl Status {
    /// Writes it for others to read.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn store(&self, path: &Path) -> std::io::Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let temporary: PathBuf = path.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec_pretty(self).map_err(std::io::Error::from)?)?;
        std::fs::rename(temporary, path)
    }

    /// A few lines for people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("version:  {} (slot {})\n", self.version, self.slot);
        let _ = writeln!(text, "state:    {}", self.state.as_str());
        if let Some(target) = &self.target {
            let _ = writeln!(text, "target:   {target}");
        }
        if let Some((received, of)) = self.progress {
            let percent = received.saturating_mul(100) / of.max(1);
            let _ = writeln!(text, "progress: {} of {} MiB ({percent} %)", received >> 20, of >> 20);
        }
        if let Some(way) = &self.way {
            let _ = writeln!(text, "came:     {} {}", way.version, way.taken.render());
        }
        if !self.why.is_empty() {
            let _ = writeln!(text, "why:      {}", self.why);
        }
        let server = if self.server.is_empty() { "none" } else { &self.server };
        let _ = writeln!(text, "channel:  {} at {server}", self.channel);
        if let Some(pin) = &self.pin {
            let _ = writeln!(text, "pinned:   {pin}");
        }
        if let Some(error) = &self.error {
            let _ = writeln!(text, "error:    {}: {}", error.kind, error.message);
        }
        for line in &self.repaired {
            let _ = writeln!(text, "repaired: {line}");
        }
        for line in &self.settings_problems {
            let _ = writeln!(text, "settings: {line}");
        }
        text
    }

    /// In Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut metrics = Metrics::new("garboard_update_");
        let info = labels(&[("version", &self.version), ("slot", &self.slot), ("channel", &self.channel)]);
        metrics.metric("info", "gauge", "The running version.", &[(info, 1)]);
        let states: Vec<_> =
            AgentState::ALL.iter().map(|state| (label("state", state.as_str()), u64::from(*state == self.state))).collect();
        metrics.metric("state", "gauge", "1 for the state that the agent is in.", &states);
        if let Some(target) = &self.target {
            metrics.metric("target", "gauge", "The version that the state is about.", &[(label("version", target), 1)]);
        }
        let (received, of) = self.progress.unwrap_or_default();
        metrics.plain("progress_bytes", "gauge", "Bytes received of the update under way.", received);
        metrics.plain("size_bytes", "gauge", "Bytes to receive for the update under way.", of);
        metrics.plain("checks_total", "counter", "Checks since the daemon started.", self.counters.checks);
        metrics.plain("failures_total", "counter", "Failed checks and updates since the daemon started.", self.counters.failures);
        metrics.plain("installed_total", "counter", "Updates put in place since the daemon started.", self.counters.updates);
        metrics.plain("received_bytes_total", "counter", "Bytes received since the daemon started.", self.counters.received);
        metrics.plain("saved_bytes_total", "counter", "Bytes that updates did not have to fetch.", self.counters.saved);
        metrics.plain("fallbacks_total", "counter", "Pieces of updates that came another way than planned.", self.counters.fallbacks);
        let ways: Vec<_> = Way::ALL.iter().zip(self.counters.ways).map(|(way, count)| (label("way", way.as_str()), count)).collect();
        metrics.metric("way_total", "counter", "Updates by the way that they came.", &ways);
        if let Some(Came { version, taken }) = &self.way {
            // A host reboots into what it installed, often at once: nobody may have seen the counters.
            let came = labels(&[("version", version), ("way", taken.way.as_str())]);
            metrics.metric("last_way", "gauge", "Which way the last update came.", &[(came, 1)]);
            metrics.plain("last_received_bytes", "gauge", "Bytes received for the last update.", taken.received);
            metrics.plain("last_saved_bytes", "gauge", "Bytes that the last update did not have to fetch.", taken.saved());
            metrics.plain("last_fallbacks", "gauge", "Pieces of the last update that came another way than planned.", taken.fallbacks);
        }
        metrics.plain("last_check_timestamp_seconds", "gauge", "When metadata was last fetched and verified.", self.checked.unwrap_or(0));
        if let Some(error) = &self.error {
            metrics.metric(
                "error",
                "gauge",
                "1 for the kind of the last failure since the last success.",
                &[(label("kind", &error.kind), 1)],
            );
        }
        metrics.into_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_prometheus_text() {
        let status = Status {
            version: "1.0".into(),
            slot: "a".into(),
            channel: "stable".into(),
            state: AgentState::Downloading,
            progress: Some((5, 10)),
            ..Status::default()
        };
        let text = status.metrics();
        assert!(text.contains("garboard_update_state{state=\"downloading\"} 1\n"));
        assert!(text.contains("garboard_update_state{state=\"idle\"} 0\n"));
        assert!(text.contains("garboard_update_progress_bytes 5\n"));
        for line in text.lines() {
            assert!(line.starts_with("# ") || line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<u64>().is_ok()), "{line}");
        }
    }

    #[test]
    fn state_names_are_the_same_everywhere() {
        for state in AgentState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
