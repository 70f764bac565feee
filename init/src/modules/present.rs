//! The devices that are there, by the aliases under which their drivers are looked for.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// The aliases of the devices of every bus, each once.
///
/// The processor's own are left out: its crypto modules are asked for by the kernel when something needs them, and KVM when
/// `/dev/kvm` is opened; loading all of them costs more than the rest of a boot on an emulated machine.
#[must_use]
pub fn aliases(sys: &Path) -> Vec<String> {
    let mut aliases: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    for bus in entries(&sys.join("bus")) {
        for device in entries(&bus.path().join("devices")) {
            let Ok(text) = fs::read_to_string(device.path().join("modalias")) else { continue };
            let alias = text.trim();
            if !alias.is_empty() && seen.insert(alias.to_owned()) {
                aliases.push(alias.to_owned());
            }
        }
    }
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_of_all_buses_each_once() {
        let sys = tempfile::tempdir().unwrap();
        for (path, alias) in [
            ("bus/pci/devices/a", "pci:x\n"),
            ("bus/virtio/devices/b", "virtio:y\n"),
            ("bus/pci/devices/c", "pci:x\n"),
            ("bus/pci/devices/d", "\n"),
        ] {
            let path = sys.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("modalias"), alias).unwrap();
        }
        let mut found = aliases(sys.path());
        found.sort();
        assert_eq!(found, ["pci:x", "virtio:y"]);
    }
}
