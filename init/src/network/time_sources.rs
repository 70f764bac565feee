//! Time servers by DHCP, handed to chrony.

use super::published::write_whole;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where chrony's Debian configuration looks for servers that DHCP gave.
const SOURCES: &str = "run/chrony-dhcp/garboard.sources";

/// Writes the servers and, when they have changed and chrony runs, tells it. Best effort: time has other sources.
pub fn publish(root: &Path, text: &str) {
    let path = root.join(SOURCES);
    if text.is_empty() && !path.exists() {
        return;
    }
    if write_whole(&path, text).is_ok_and(|written| written) && root.join("run/chrony/chronyd.sock").exists() {
        let told =
            Command::new("chronyc").arg("reload").arg("sources").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if let Err(error) = told {
            eprintln!("<4>cannot run chronyc to tell of new time servers: {error}");
        }
    }
}
