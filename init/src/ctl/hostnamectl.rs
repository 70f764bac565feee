//! `hostnamectl`: the host's name, and what it is.

use std::path::Path;
use std::process::ExitCode;

use super::human;

const HELP: &str = "\
usage: hostnamectl [--json] [status | hostname [NAME] | set-hostname NAME]

  --static     only the name in /etc/hostname
  --transient  only the name that the kernel has now
";
const HOSTNAME: &str = "/etc/hostname";

/// The front-end `hostnamectl`.
pub fn hostnamectl(args: &[String]) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("hostnamectl: {message}");
            ExitCode::from(code)
        }
    }
}

type Outcome = Result<(), (u8, String)>;

/// Which of the two names.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Which {
    stored: bool,
    running: bool,
}

fn run(args: &[String]) -> Outcome {
    let mut which = Which::default();
    let mut json = false;
    let mut words: Vec<&str> = Vec::new();
    for arg in args {
        match arg.as_str() {
            "-h" | "--help" => {
                plain_output::print(HELP);
                return Ok(());
            }
            "--static" => which.stored = true,
            "--transient" => which.running = true,
            "--no-ask-password" | "--no-pager" => {}
            "-j" | "--json" | "--json=short" | "--json=pretty" => json = true,
            "--json=off" => json = false,
            "--pretty" => return Err((2, "--pretty is not supported: a host has one name".to_owned())),
            option if option.starts_with('-') => return Err((2, format!("unknown option {option}"))),
            word => words.push(word),
        }
    }
    match words.as_slice() {
        [] | ["status"] => status(which, json),
        ["hostname"] => {
            plain_output::print(&format!("{}\n", name(which)));
            Ok(())
        }
        ["hostname" | "set-hostname", name] => set(name, which),
        [verb @ ("icon-name" | "chassis" | "deployment" | "location"), ..] => {
            Err((2, format!("'{verb}' is not supported: nothing here uses it")))
        }
        ["set-hostname"] => Err((2, "set-hostname needs a name".to_owned())),
        [verb, ..] => Err((2, format!("unknown verb '{verb}'; 'hostnamectl --help' lists them"))),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn stored() -> String {
    read(HOSTNAME).lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default().to_owned()
}

fn running() -> String {
    read("/proc/sys/kernel/hostname")
}

fn name(which: Which) -> String {
    let stored = stored();
    if which.running || (!which.stored && stored.is_empty()) { running() } else { stored }
}

/// Whether a text can be the name of a host: dotted labels of letters, digits and hyphens, 64 characters at most.
fn valid(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 64 && name.split('.').all(label)
}

fn set(name: &str, which: Which) -> Outcome {
    if !valid(name) {
        return Err((1, format!("{name:?} is no host name: use letters, digits, '-' and '.', 64 characters at most")));
    }
    let both = which == Which::default();
    if both || which.stored {
        store(Path::new(HOSTNAME), name).map_err(|why| (1, format!("{HOSTNAME}: {why}")))?;
    }
    if both || which.running {
        rustix::system::sethostname(name.as_bytes()).map_err(|why| (1, format!("cannot set the name: {why}")))?;
    }
    Ok(())
}

/// Replaces a file in one step, so that a power cut leaves the old or the new one.
pub(super) fn store(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("new");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// A field of os-release.
fn release(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
}

fn facts() -> Vec<(&'static str, &'static str, String)> {
    let os = std::fs::read_to_string("/etc/os-release").or_else(|_| std::fs::read_to_string("/usr/lib/os-release")).unwrap_or_default();
    let system = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let virtualization = crate::engine::virtualization();
    let mut out = vec![
        ("Static hostname", "StaticHostname", stored()),
        ("Transient hostname", "Hostname", Some(running()).filter(|name| *name != stored()).unwrap_or_default()),
        ("Machine ID", "MachineID", read("/etc/machine-id")),
        ("Boot ID", "BootID", read("/proc/sys/kernel/random/boot_id").replace('-', "")),
        ("Virtualization", "Virtualization", Some(virtualization).filter(|kind| kind != "none").unwrap_or_default()),
        ("Operating System", "OperatingSystemPrettyName", release(&os, "PRETTY_NAME").unwrap_or_default()),
        ("Image Version", "ImageVersion", release(&os, "IMAGE_VERSION").unwrap_or_default()),
        ("Kernel", "Kernel", format!("{} {}", text(system.sysname()), text(system.release()))),
        ("Architecture", "Architecture", text(system.machine()).replace('_', "-")),
        ("Hardware Vendor", "HardwareVendor", read("/sys/class/dmi/id/sys_vendor")),
        ("Hardware Model", "HardwareModel", read("/sys/class/dmi/id/product_name")),
        ("Firmware Version", "FirmwareVersion", read("/sys/class/dmi/id/bios_version")),
    ];
    out.retain(|(_, _, value)| !value.is_empty());
    out
}

fn status(which: Which, json: bool) -> Outcome {
    if which != Which::default() {
        plain_output::print(&format!("{}\n", name(which)));
        return Ok(());
    }
    let facts = facts();
    if json {
        let object: serde_json::Map<String, serde_json::Value> =
            facts.into_iter().map(|(_, key, value)| (key.to_owned(), value.into())).collect();
        return human::emit_json(&object).map(|_| ()).map_err(|failure| (1, failure.message));
    }
    plain_output::print(&facts.iter().map(|(title, _, value)| format!("{title:>18}: {value}\n")).collect::<String>());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts() {
        for good in ["node1", "a", "web-1.example.org", "1"] {
            assert!(valid(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", ".a", "a b", "ü", "a_b", &"x".repeat(65)] {
            assert!(!valid(bad), "{bad}");
        }
    }

    #[test]
    fn a_name_is_stored_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hostname");
        store(&path, "old").unwrap();
        store(&path, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn fields_of_os_release() {
        let text = "NAME=x\nPRETTY_NAME=\"Garboard 1.2\"\nIMAGE_VERSION=1.2\n";
        assert_eq!(release(text, "PRETTY_NAME").as_deref(), Some("Garboard 1.2"));
        assert_eq!(release(text, "NAME").as_deref(), Some("x"));
        assert_eq!(release(text, "OTHER"), None);
    }

    #[test]
    fn what_is_not_there_says_so() {
        let run = |words: &[&str]| run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).unwrap_err();
        assert_eq!(run(&["chassis", "vm"]), (2, "'chassis' is not supported: nothing here uses it".to_owned()));
        assert_eq!(run(&["frobnicate"]).0, 2);
        assert_eq!(run(&["set-hostname", "a b"]).0, 1);
    }
}
