//! Where everything is; below another directory in tests.

use std::path::{Path, PathBuf};

/// All paths.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident: $path:literal,)*) => {
        impl Paths {
            $($(#[$doc])* #[must_use] pub fn $name(&self) -> PathBuf { self.root.join($path) })*
        }
    };
}

impl Paths {
    /// All paths below a directory.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// What `init` found about a version.
    #[must_use]
    pub fn verdict(&self, version: &str) -> PathBuf {
        self.root.join("media/state/garboard/verdicts").join(format!("{version}.json"))
    }
}

paths! {
    /// What cloud-config leaves.
    settings: "var/lib/cloud-config/settings.json",
    /// The settings that were last understood.
    last_good: "media/state/garboard/reboot/settings.json",
    /// The journal.
    journal: "media/state/garboard/reboot/journal.json",
    /// What the update agent leaves when a reboot is wanted.
    needed: "run/garboard/update/reboot-needed",
    /// What this boot knows about itself.
    boot: "run/garboard/boot.json",
    /// This host's addresses.
    environment: "run/garboard/environment",
    /// A scheduled shutdown.
    scheduled: "run/garboard/shutdown-scheduled",
    /// There while a shutdown waits for inhibitors of mode `delay`.
    pending: "run/garboard/shutdown-pending",
    /// Held inhibitors.
    held: "run/garboard/inhibitors",
    /// Lasting inhibitors.
    lasting: "media/state/garboard/inhibitors",
    /// Where containers take inhibitors.
    inhibit_socket: "run/garboard/inhibit/socket",
    /// The socket that the command line uses.
    control: "run/garboard/reboot/control",
    /// The socket for Prometheus: HTTP.
    metrics: "run/garboard/reboot/metrics",
    /// The status.
    status: "run/garboard/reboot/status.json",
    /// The operator's hooks.
    hooks: "etc/garboard/pre-reboot.d",
    /// PID 1's socket.
    init: "run/garboard/control",
    /// Rules of time zones.
    zoneinfo: "usr/share/zoneinfo",
    /// The host's own time zone.
    localtime: "etc/localtime",
    /// The machine's identity.
    machine_id: "etc/machine-id",
    /// The kernel's name for this boot.
    boot_id: "proc/sys/kernel/random/boot_id",
    /// The host's name.
    hostname: "proc/sys/kernel/hostname",
    /// Processes.
    proc: "proc",
    /// Groups.
    groups: "etc/group",
    /// Asks whether etcd is enabled.
    systemctl: "usr/bin/systemctl",
    /// Stops and starts containers.
    docker: "usr/bin/docker",
}
