//! Which QEMU and which firmware this host has.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

/// The oldest major version that runs guests soundly without KVM: under 7.2's software emulation, half the boots of
/// a stock kernel ended in memory corruption; 10.0 booted every time.
pub const MIN_QEMU: u32 = 10;

const PROGRAM: &str = "qemu-system-x86_64";
/// Where distributions put OVMF: code, and the variables' template beside it.
const FIRMWARE: [(&str, &str); 4] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
];

/// What is needed of the host to start a machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// The emulator.
    pub qemu: OsString,
    /// Its version as it says itself.
    pub version: String,
    /// UEFI firmware, read-only.
    pub firmware_code: PathBuf,
    /// Template of the firmware's variables; every machine gets a copy.
    pub firmware_vars: PathBuf,
}

/// What is missing.
#[derive(Debug, Error)]
pub enum HostError {
    /// No emulator.
    #[error("cannot run {PROGRAM}: install QEMU {MIN_QEMU} or newer (on Debian 12: apt-get install -t bookworm-backports qemu-system-x86)")]
    NoQemu,
    /// One that corrupts guests.
    #[error(
        "QEMU is version {found}, but older than {MIN_QEMU} corrupts guests without KVM: install {MIN_QEMU} or newer (on Debian 12: apt-get install -t bookworm-backports qemu-system-x86)"
    )]
    OldQemu {
        /// What it says itself.
        found: String,
    },
    /// No UEFI.
    #[error("no UEFI firmware found: install OVMF (on Debian: apt-get install ovmf)")]
    NoFirmware,
}

impl Host {
    /// Looks at this host. `GARBOARD_QEMU` names another emulator.
    ///
    /// # Errors
    /// When something is missing or too old; the message says what to install.
    pub fn find() -> Result<Self, HostError> {
        let qemu = std::env::var_os("GARBOARD_QEMU").unwrap_or_else(|| PROGRAM.into());
        let output = Command::new(&qemu).arg("--version").output().map_err(|_| HostError::NoQemu)?;
        let version = version_of(&String::from_utf8_lossy(&output.stdout)).ok_or(HostError::NoQemu)?;
        if major(&version) < MIN_QEMU {
            return Err(HostError::OldQemu { found: version });
        }
        let (code, vars) =
            FIRMWARE.iter().find(|(code, vars)| Path::new(code).exists() && Path::new(vars).exists()).ok_or(HostError::NoFirmware)?;
        Ok(Self { qemu, version, firmware_code: code.into(), firmware_vars: vars.into() })
    }
}

/// The version in `QEMU emulator version 10.0.2 (Debian ...)`.
fn version_of(text: &str) -> Option<String> {
    text.split_once("version ")?.1.split_whitespace().next().map(str::to_owned)
}

fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version() {
        let version = version_of("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright").unwrap();
        assert_eq!((version.as_str(), major(&version)), ("7.2.22", 7));
        assert_eq!(version_of("nonsense"), None);
        assert_eq!(major("x"), 0);
    }
}
