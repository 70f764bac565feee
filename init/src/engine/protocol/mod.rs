//! What is said on PID 1's control socket (`/run/garboard/control`).
//!
//! A client sends one [`Request`] as a line of JSON and reads [`Reply`] lines until one for which [`Reply::is_last`] holds; the
//! server then closes the connection. Reading is open to every user of the host, changing needs uid 0 (`SO_PEERCRED`). Fields
//! may be added: readers ignore the ones they do not know.

use serde::{Deserialize, Serialize};

mod reply;

pub use reply::{ActiveState, Analysis, ErrorCode, JobInfo, JobResult, LoadState, Reply, SystemStatus, UnitStatus, UnitTiming};

/// The longest request line that PID 1 reads.
pub const MAX_REQUEST: usize = 64 * 1024;

/// One request; one per connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Changes the state of units: `start`, `stop`, `restart` and their kin.
    Job {
        /// What to do.
        verb: Verb,
        /// Full unit names, or glob patterns over loaded units for every verb but `start`.
        units: Vec<String>,
        /// What happens to jobs that are already queued.
        #[serde(default)]
        mode: JobMode,
        /// Whether to answer only when the jobs are done ([`Reply::JobDone`] for each).
        #[serde(default)]
        wait: bool,
    },
    /// Answers a [`Reply::Unit`] for each unit; patterns match loaded units.
    Status {
        /// Full unit names or glob patterns.
        units: Vec<String>,
    },
    /// Answers one [`Reply::System`].
    SystemStatus,
    /// Answers [`Reply::Properties`] for each unit (systemd's property names), or for PID 1 itself when no unit is named.
    Show {
        /// Full unit names or glob patterns.
        units: Vec<String>,
    },
    /// Answers a [`Reply::Unit`] (without processes) for each loaded unit that matches.
    ListUnits {
        /// Also units that are inactive, and names that others mention but that do not exist.
        #[serde(default)]
        all: bool,
        /// Glob patterns; none matches everything.
        #[serde(default)]
        patterns: Vec<String>,
    },
    /// Answers a [`Reply::Job`] for each queued job.
    ListJobs,
    /// Answers a [`Reply::Dependency`] for each edge of the tree below a unit, parents first.
    ListDependencies {
        /// Full unit name.
        unit: String,
        /// Who needs the unit, rather than what it needs.
        #[serde(default)]
        reverse: bool,
        /// Only ordering: `after` (what it waits for) or `before`.
        #[serde(default)]
        order: Option<Order>,
        /// Below every unit, not only targets.
        #[serde(default)]
        all: bool,
    },
    /// Answers [`Reply::Socket`] for each `.socket` unit.
    ListSockets,
    /// Answers [`Reply::Timer`] for each `.timer` unit.
    ListTimers,
    /// Reads all unit files again; what runs keeps running.
    DaemonReload,
    /// Executes PID 1 again; kept for scripts, the same as a reload.
    DaemonReexec,
    /// Forgets `failed` states and start limits, of the named units or of all.
    ResetFailed {
        /// Full unit names or glob patterns; none means all.
        #[serde(default)]
        units: Vec<String>,
    },
    /// Sends a signal to processes of units.
    Kill {
        /// Full unit names or glob patterns.
        units: Vec<String>,
        /// Signal number.
        signal: i32,
        /// Which of the unit's processes.
        #[serde(default)]
        whom: Whom,
    },
    /// Drops queued jobs by number; none means all.
    Cancel {
        /// Numbers as [`JobInfo::id`] gives them.
        #[serde(default)]
        jobs: Vec<u32>,
    },
    /// Waits until the queue of jobs is empty, then answers [`Reply::System`] (`systemctl is-system-running --wait`).
    WaitIdle,
    /// Shuts the machine down.
    Power {
        /// How it ends.
        action: PowerAction,
        /// Skip stopping units: 1 goes to the final killing and unmounting, 2 ends at once.
        #[serde(default)]
        force: u8,
    },
    /// Answers one [`Reply::Analysis`].
    Analyze,
    /// Variables given to every service started from now on.
    SetEnvironment {
        /// Each `NAME=value`.
        variables: Vec<String>,
    },
    /// Takes such variables away.
    UnsetEnvironment {
        /// Names.
        names: Vec<String>,
    },
}

impl Request {
    /// Whether only root may ask this.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Status { .. }
                | Self::SystemStatus
                | Self::Show { .. }
                | Self::ListUnits { .. }
                | Self::ListJobs
                | Self::ListDependencies { .. }
                | Self::ListSockets
                | Self::ListTimers
                | Self::WaitIdle
                | Self::Analyze
        )
    }
}

/// What [`Request::Job`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Start, and what is needed for it.
    Start,
    /// Stop, and what needs it.
    Stop,
    /// Stop if running, then start.
    Restart,
    /// Restart if running.
    TryRestart,
    /// Make it read its configuration again.
    Reload,
    /// Reload if it can, else restart.
    ReloadOrRestart,
    /// The same, only if running.
    TryReloadOrRestart,
    /// Start and stop everything else; the unit has to allow it.
    Isolate,
}

/// What happens to jobs that are already queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobMode {
    /// Conflicting jobs are cancelled.
    #[default]
    Replace,
    /// As `Replace`, and the new jobs cannot be replaced themselves.
    ReplaceIrreversibly,
    /// Conflicting jobs make the request fail.
    Fail,
    /// Only the unit itself, whatever it needs.
    IgnoreDependencies,
}

/// A direction of ordering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// What the unit comes after.
    After,
    /// What the unit comes before.
    Before,
}

/// Which processes of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whom {
    /// The main process.
    Main,
    /// The control process: what runs for `ExecReload=` and the like.
    Control,
    /// Every process of the unit's control group.
    #[default]
    All,
}

/// How a shutdown ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// Power off.
    Poweroff,
    /// Start again through the firmware.
    Reboot,
    /// Stop the processor, leave the power on.
    Halt,
    /// Start the loaded kernel directly.
    Kexec,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_readable_line() {
        let request = Request::Job { verb: Verb::TryRestart, units: vec!["web.service".into()], mode: JobMode::Replace, wait: true };
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(line, r#"{"request":"job","verb":"try-restart","units":["web.service"],"mode":"replace","wait":true}"#);
        let short: Request = serde_json::from_str(r#"{"request":"job","verb":"start","units":["a.service"]}"#).unwrap();
        assert!(matches!(short, Request::Job { wait: false, mode: JobMode::Replace, .. }));
    }

    #[test]
    fn replies_survive_the_wire() {
        let job = JobInfo { id: 7, unit: "a.service".into(), kind: "start".into(), running: true, waits_for: Vec::new() };
        for reply in
            [Reply::JobDone { job: job.clone(), result: JobResult::Dependency }, Reply::JobQueued(job), Reply::Done { warnings: vec![] }]
        {
            let line = serde_json::to_string(&reply).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
        }
    }

    #[test]
    fn only_looking_is_open_to_everyone() {
        assert!(!Request::ListJobs.changes());
        assert!(Request::DaemonReload.changes());
        assert!(Request::Power { action: PowerAction::Reboot, force: 0 }.changes());
    }
}
