//! From settings to the lock and the guard that they name.

use reboot_rules::settings::Strategy;

use crate::daemon::{Ask, Others};

/// Makes what the settings name. Locks in etcd and FleetLock are not in this version: a host that is to have one does not reboot by itself, and
/// says so.
///
/// # Errors
/// One line: which setting cannot be followed, and why.
pub fn connect(ask: &Ask<'_>) -> Result<Others, String> {
    match ask.strategy {
        Strategy::Off | Strategy::Reboot => Ok((None, None)),
        other => Err(format!("the strategy {} is not in this version: say off or reboot", other.as_str())),
    }
}
