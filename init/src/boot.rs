//! What one boot knows about itself: handed from the initramfs stage to PID 1 in `/run/garboard/boot.json`, and from
//! early PID 1 to the unit engine as [`BootContext`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cmdline::CommandLine;

/// Where [`BootRecord`] lives.
pub const BOOT_RECORD: &str = "/run/garboard/boot.json";

/// The contents of `/run/garboard/boot.json`. Its field names are documented and stable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BootRecord {
    /// `IMAGE_VERSION` of the running root.
    pub version: String,
    /// `a` or `b`, empty when the root is not one of our slots (a test, a container).
    pub slot: String,
    /// The verity root hash, in hexadecimal.
    pub root_hash: String,
    /// The disk that was booted from, `/dev/vda`.
    pub disk: String,
    /// The UKI that was booted, by its name on the ESP; empty when the loader did not say.
    pub uki: String,
    /// The state partition was made by this boot.
    pub first_boot: bool,
    /// Starts in a row, this one included, that have not been called good yet.
    pub unfinished_starts: u32,
    /// Why this boot goes no further than rescue; empty when it goes on.
    pub rescue: String,
    /// Files below `/etc` on state that hide an image's file that has changed since.
    pub hidden_etc: Vec<String>,
    /// What went wrong without stopping the boot, one line each.
    pub warnings: Vec<String>,
    /// Monotonic seconds at the end of each phase, by name (`kernel`, `modules`, `disk`, `root`, `state`, `initramfs`, `early`, ...).
    pub phases: BTreeMap<String, f64>,
}

/// What the engine is started with.
#[derive(Clone, Debug)]
pub struct BootContext {
    /// The record so far; the engine adds its own phases and writes it with [`BootRecord::store`].
    pub record: BootRecord,
    /// The kernel command line.
    pub cmdline: CommandLine,
    /// 128 random bits in hexadecimal, the kernel's boot id without dashes.
    pub boot_id: String,
    /// 32 lower-case hexadecimal digits.
    pub machine_id: String,
    /// The consoles for `boot-complete` and emergencies, `/dev/ttyS0`, the kernel's main console last.
    pub consoles: Vec<String>,
    /// Fires (is readable) when the power button was pressed; `None` where there is none.
    pub power_button: Option<crate::shutdown::power_button::PowerButton>,
}

/// Why the record could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {BOOT_RECORD}: {0}")]
pub struct StoreError(#[from] std::io::Error);

impl BootRecord {
    /// Notes that a phase ended now.
    pub fn phase(&mut self, name: &str) {
        self.phases.insert(name.to_owned(), crate::sys::time::uptime());
    }

    /// Reads what the initramfs stage left; the default when there is nothing to read, as in a container.
    #[must_use]
    pub fn load() -> Self {
        std::fs::read(BOOT_RECORD).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// When `/run/garboard` cannot be written.
    pub fn store(&self) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from)?;
        std::fs::create_dir_all("/run/garboard")?;
        let temporary = format!("{BOOT_RECORD}.new");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, BOOT_RECORD)?;
        Ok(())
    }
}

/// Where starts that were never called good are counted; on state.
pub const STARTS: &str = "/media/state/garboard/starts";

/// Called when the health gate has held, and when a start ends in order: the counting of starts begins anew.
///
/// # Errors
/// When state cannot be written.
pub fn mark_good() -> std::io::Result<()> {
    match std::fs::remove_file(STARTS) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
