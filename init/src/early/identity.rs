//! Who this host is: its name and its machine id.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::cmdline::CommandLine;

const MACHINE_ID: &str = "/etc/machine-id";

/// An id that is in effect although it could not be stored.
#[derive(Debug)]
pub(super) struct NotStored {
    pub(super) id: String,
    pub(super) error: io::Error,
}

/// The first line of `/etc/hostname` that is a valid name, else `localhost`.
pub(super) fn hostname(text: &str) -> String {
    let valid = |name: &&str| {
        name.len() <= 64 && !name.starts_with(['-', '.']) && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).find(valid).unwrap_or("localhost").to_owned()
}

/// The machine id: the stored one, or, at the first boot, a new one.
pub(super) fn machine_id(cmdline: &CommandLine) -> Result<String, NotStored> {
    if let Some(id) = fs::read_to_string(MACHINE_ID).ok().and_then(|text| valid_id(&text)) {
        return Ok(id);
    }
    let firmware = fs::read_to_string("/sys/class/dmi/id/product_uuid").unwrap_or_default();
    let is_virtual = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" hypervisor"));
    let id = cmdline
        .value("systemd.machine_id")
        .and_then(valid_id)
        .or_else(|| is_virtual.then(|| from_firmware(&firmware)).flatten())
        .unwrap_or_else(random_id);
    match store(&id) {
        Ok(()) => Ok(id),
        Err(error) => Err(NotStored { id, error }),
    }
}

fn store(id: &str) -> io::Result<()> {
    let temporary = Path::new(MACHINE_ID).with_extension("new");
    fs::write(&temporary, format!("{id}\n"))?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o444))?;
    fs::rename(temporary, MACHINE_ID)
}

fn valid_id(text: &str) -> Option<String> {
    let id = text.trim();
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && id.bytes().any(|byte| byte != b'0'))
        .then(|| id.to_ascii_lowercase())
}

/// A virtual machine's UUID is given by who made it, so it stays the same when its disk is made again. Values that
/// vendors leave in firmware for every machine are no identity.
fn from_firmware(uuid: &str) -> Option<String> {
    let id = valid_id(&uuid.trim().replace('-', ""))?;
    let distinct = id.bytes().collect::<std::collections::HashSet<_>>().len();
    (distinct > 4).then_some(id)
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    uuid::Builder::from_random_bytes(bytes).into_uuid().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        assert_eq!(hostname("# c\n\n node-1.example.org \n"), "node-1.example.org");
        for bad in ["", "-x", "a b", "ä"] {
            assert_eq!(hostname(bad), "localhost", "{bad}");
        }
    }

    #[test]
    fn only_real_ids_are_ids() {
        assert_eq!(valid_id("0123456789ABCDEF0123456789abcdef\n").as_deref(), Some("0123456789abcdef0123456789abcdef"));
        for bad in ["", "uninitialized\n", "00000000000000000000000000000000", "xyz"] {
            assert_eq!(valid_id(bad), None, "{bad}");
        }
        assert_eq!(random_id().len(), 32);
    }

    #[test]
    fn firmware_uuids_that_everybody_has_are_refused() {
        assert!(from_firmware("4C4C4544-0034-5A10-8035-B7C04F4A4D32").is_some());
        for bad in ["", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "00000000-0000-0000-0000-000000000000", "Not Settable"] {
            assert_eq!(from_firmware(bad), None, "{bad}");
        }
    }
}
