//! Where the engine finds and leaves things; one place, so that tests can have it all below a directory of their own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Paths and switches of one engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Paths {
    /// Unit directories, first wins.
    pub units: Vec<String>,
    /// `/run/garboard`: control and notify sockets.
    pub runtime: PathBuf,
    /// Root of the cgroup v2 hierarchy, or a directory in it that is ours.
    pub cgroups: PathBuf,
    /// Log daemon's stream socket.
    pub log_stream: String,
    /// Log daemon's datagram socket.
    pub log_socket: String,
    /// Roots of `RuntimeDirectory=` and its siblings.
    pub directories: [String; 5],
    /// Settings of the health gate.
    pub health: PathBuf,
    /// Directory of the operator's checks.
    pub health_checks: PathBuf,
    /// What is started at boot.
    pub default_unit: String,
    /// Directory of stamps of `Persistent=` timers.
    pub timer_stamps: PathBuf,
    /// Whether this is the init of a machine; otherwise nothing outside the paths above is touched.
    pub machine: bool,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            units: unit_files::source::SEARCH_PATH.map(str::to_owned).to_vec(),
            runtime: "/run/garboard".into(),
            cgroups: "/sys/fs/cgroup".into(),
            log_stream: "/run/garboard/log/stdout".into(),
            log_socket: "/run/garboard/log/socket".into(),
            directories: ["/run", "/var/lib", "/var/cache", "/var/log", "/etc"].map(str::to_owned),
            health: "/etc/garboard/health.toml".into(),
            health_checks: "/etc/garboard/health.d".into(),
            default_unit: "default.target".into(),
            timer_stamps: "/var/lib/garboard/timers".into(),
            machine: true,
        }
    }
}

impl Paths {
    /// The control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.runtime.join("control")
    }

    /// What the process that asks inhibitors for a key of the machine has to say: how long it waits, or why the key does not end it.
    #[must_use]
    pub fn power_key(&self) -> PathBuf {
        self.runtime.join("power-key")
    }

    /// The notify socket.
    #[must_use]
    pub fn notify(&self) -> PathBuf {
        self.runtime.join("notify")
    }
}
