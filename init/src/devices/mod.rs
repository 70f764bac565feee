//! The device daemon, `init coldplug`: loads modules by modalias, keeps the links below `/dev/disk` and the permissions of nodes.
//!
//! It is ready when one sweep over the devices that are there has been made, with everything that this brought forth;
//! it never waits for the kernel to fall silent. Whoever needs a certain device waits for that one.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::modules::Loader;
use crate::modules::loader::LoadError;
use crate::sys::uevent::{Uevent, UeventSocket};

mod disk_id;
mod disk_links;
mod links;
pub mod permissions;

use disk_links::DiskLinks;

/// The program.
pub fn coldplug(_args: &[String]) -> ExitCode {
    // Before the sweep: what appears during it is an event then.
    let events = match UeventSocket::open() {
        Ok(events) => events,
        Err(error) => {
            eprintln!("coldplug: cannot listen to device events: {error}");
            return ExitCode::FAILURE;
        }
    };
    offer_firmware(Path::new("/"));
    let mut daemon = Daemon { loader: Loader::of_kernel(), tried: HashSet::new(), disks: DiskLinks::new(Path::new("/")) };
    daemon.sweep();
    if let Err(error) = daemon.handle_pending(&events) {
        eprintln!("coldplug: device events: {error}");
        return ExitCode::FAILURE;
    }
    if let Err(error) = crate::notify::notify("READY=1\n", None) {
        eprintln!("coldplug: cannot tell that it is ready: {error}");
    }
    loop {
        match events.next(Instant::now() + Duration::from_secs(24 * 60 * 60)) {
            Ok(Some(event)) => daemon.handle(&event),
            Ok(None) => {}
            Err(error) => {
                eprintln!("coldplug: device events: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}

/// Lets the kernel look for firmware in [`FIRMWARE`] as well, before the image's `/usr/lib/firmware`, when the operator has put some there
/// and the kernel's command line names no other place.
fn offer_firmware(root: &Path) {
    let parameter = root.join("sys/module/firmware_class/parameters/path");
    let free = fs::read_to_string(&parameter).is_ok_and(|text| text.trim().is_empty());
    if !free || !root.join(FIRMWARE.trim_start_matches('/')).is_dir() {
        return;
    }
    if let Err(why) = fs::write(&parameter, FIRMWARE) {
        eprintln!("<4>coldplug: {}: {why}: firmware in {FIRMWARE} will not be found", parameter.display());
    }
}

/// Where an operator puts firmware that the image lacks.
const FIRMWARE: &str = "/media/state/firmware";

#[derive(Debug)]
struct Daemon {
    loader: Loader,
    /// Aliases that were dealt with; machines have many alike.
    tried: HashSet<String>,
    disks: DiskLinks,
}

impl Daemon {
    fn sweep(&mut self) {
        set_permissions(Path::new("/dev"), "");
        // Loaded before we listened.
        for module in MODULES_WITH_SETTINGS.iter().filter(|(module, _)| Path::new("/sys/module").join(module).exists()) {
            apply_settings(module);
        }
        for alias in crate::modules::present::aliases(Path::new("/sys")) {
            self.load(&alias);
        }
        self.disks.sweep();
    }

    /// Deals with events until there is none at the moment.
    fn handle_pending(&mut self, events: &UeventSocket) -> std::io::Result<()> {
        while let Some(event) = events.next(Instant::now())? {
            self.handle(&event);
        }
        Ok(())
    }

    fn handle(&mut self, event: &Uevent) {
        let (Some(action), Some(subsystem)) = (event.get("ACTION"), event.get("SUBSYSTEM")) else {
            // Events were lost: look at everything again.
            self.sweep();
            return;
        };
        match (action, subsystem) {
            ("add", "module") => {
                let name = event.get("DEVPATH").and_then(|path| path.rsplit('/').next()).unwrap_or_default();
                if let Some(module) = MODULES_WITH_SETTINGS.iter().find(|(module, _)| *module == name) {
                    apply_settings(module);
                }
            }
            ("add" | "change", _) => {
                if let Some(alias) = event.get("MODALIAS") {
                    self.load(alias);
                }
            }
            _ => {}
        }
        let Some(node) = event.get("DEVNAME") else { return };
        let is_block = subsystem == "block";
        if action == "add" {
            permissions::apply(node, is_block);
        }
        if is_block {
            let name = event.get("DEVPATH").and_then(|path| path.rsplit('/').next()).unwrap_or(node);
            match action {
                "remove" => self.disks.forget(name),
                "add" | "change" => self.disks.look_at(name),
                _ => {}
            }
        }
    }

    /// Loads what an alias or name stands for. Most aliases are of devices that the kernel drives itself.
    fn load(&mut self, alias: &str) {
        if !self.tried.insert(alias.to_owned()) {
            return;
        }
        match self.loader.load(alias, true, "") {
            Ok(()) | Err(LoadError::Unknown(_)) => {}
            // A driver that does not want the device after all says ENODEV.
            Err(LoadError::Refused { error, .. }) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => eprintln!("coldplug: {error}"),
        }
    }
}

/// Applies the rules to the nodes that exist.
fn set_permissions(directory: &Path, below: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if kind.is_dir() {
            // These are file systems or links of their own.
            if !matches!(name.as_str(), "pts" | "shm" | "mqueue" | "hugepages" | "disk") {
                set_permissions(&entry.path(), &format!("{name}/"));
            }
        } else if !kind.is_symlink() && !kind.is_file() {
            permissions::apply(&name, std::os::unix::fs::FileTypeExt::is_block_device(&kind));
        }
    }
}

/// Modules that bring kernel settings with them, and the settings' prefix.
const MODULES_WITH_SETTINGS: [(&str, &str); 2] = [("br_netfilter", "net.bridge"), ("nf_conntrack", "net.netfilter")];

/// What sysctl.d says of settings that exist only since a module is there.
fn apply_settings((_, prefix): &(&str, &str)) {
    for error in crate::early::sysctl::apply(&[(*prefix).to_owned()]) {
        eprintln!("coldplug: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_on_state_is_offered_to_the_kernel_unless_its_command_line_names_another_place() {
        let root = tempfile::tempdir().unwrap();
        let parameter = root.path().join("sys/module/firmware_class/parameters/path");
        fs::create_dir_all(parameter.parent().unwrap()).unwrap();
        let set = |before: &str| {
            fs::write(&parameter, before).unwrap();
            offer_firmware(root.path());
            fs::read_to_string(&parameter).unwrap()
        };
        assert_eq!(set("\n"), "\n", "there is none");
        fs::create_dir_all(root.path().join("media/state/firmware")).unwrap();
        assert_eq!(set("\n"), "/media/state/firmware");
        assert_eq!(set("/opt/firmware\n"), "/opt/firmware\n");
    }
}
