//! `Condition…=` and `Assert…=`: questions about the machine.
//!
//! A kind that cannot be answered here counts as not met, and the unit's status says which condition it was.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use unit_files::condition::{Condition, ConditionKind};

use super::pattern;
use crate::cmdline::CommandLine;

/// What does not change while the machine runs.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The kernel command line.
    pub cmdline: CommandLine,
    /// The state partition was made by this boot.
    pub first_boot: bool,
    /// What the machine runs on, systemd's word (`qemu`, `docker`, `none`).
    pub virtualization: String,
    /// 32 hexadecimal digits.
    pub machine_id: String,
}

/// Checks a list: all plain ones must hold, and one of those marked `|` if there are any. The first that does not hold otherwise.
///
/// # Errors
/// The condition that did not hold, as one would write it.
pub fn check(conditions: &[Condition], facts: &Facts) -> Result<(), String> {
    let mut triggers = conditions.iter().filter(|condition| condition.trigger).peekable();
    if let Some(first) = triggers.peek().copied()
        && !triggers.any(|condition| holds(condition, facts))
    {
        return Err(written(first));
    }
    match conditions.iter().filter(|condition| !condition.trigger).find(|condition| !holds(condition, facts)) {
        Some(condition) => Err(written(condition)),
        None => Ok(()),
    }
}

fn written(condition: &Condition) -> String {
    let marks = format!("{}{}", if condition.trigger { "|" } else { "" }, if condition.negate { "!" } else { "" });
    format!("Condition{}={marks}{}", condition.kind.as_str(), condition.argument)
}

fn holds(condition: &Condition, facts: &Facts) -> bool {
    answer(condition.kind, &condition.argument, facts) != condition.negate
}

fn answer(kind: ConditionKind, argument: &str, facts: &Facts) -> bool {
    use ConditionKind as K;
    let path = Path::new(argument);
    match kind {
        K::PathExists => path.symlink_metadata().is_ok() && path.exists(),
        K::PathExistsGlob => glob(argument),
        K::PathIsDirectory => path.is_dir(),
        K::PathIsSymbolicLink => path.symlink_metadata().is_ok_and(|data| data.is_symlink()),
        K::PathIsMountPoint => is_mount_point(path),
        K::PathIsReadWrite => {
            path.exists() && rustix::fs::statvfs(path).is_ok_and(|fs| !fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        }
        K::PathIsSocket => path.metadata().is_ok_and(|data| data.file_type().is_socket()),
        K::PathIsEncrypted => false,
        K::DirectoryNotEmpty => std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()),
        K::FileNotEmpty => path.metadata().is_ok_and(|data| data.is_file() && data.len() > 0),
        K::FileIsExecutable => path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0),
        K::KernelCommandLine => match argument.split_once('=') {
            Some((name, value)) => facts.cmdline.values(name).any(|have| have == value),
            None => facts.cmdline.flag(argument) || facts.cmdline.value(argument).is_some(),
        },
        K::KernelVersion => compare_list(argument, &release()),
        K::KernelModuleLoaded => Path::new("/sys/module").join(argument.replace('-', "_")).exists(),
        K::Virtualization => match argument {
            "yes" | "true" | "1" | "on" => facts.virtualization != "none",
            "no" | "false" | "0" | "off" => facts.virtualization == "none",
            "container" => is_container(&facts.virtualization),
            "vm" => facts.virtualization != "none" && !is_container(&facts.virtualization),
            word => facts.virtualization == word,
        },
        K::Architecture => argument == "native" || argument == unit_files::specifier::systemd_architecture(std::env::consts::ARCH),
        K::Firmware => match argument {
            "uefi" => Path::new("/sys/firmware/efi").exists(),
            "device-tree" => Path::new("/sys/firmware/devicetree").exists(),
            _ => false,
        },
        K::Host => {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            pattern::matches(argument, name.trim()) || argument == facts.machine_id
        }
        K::FirstBoot => yes(argument) == facts.first_boot,
        K::NeedsUpdate => false,
        K::AcPower => yes(argument),
        K::User => argument == "root" || argument == "0" || argument == "@system",
        K::Group => argument == "root" || argument == "0",
        K::Memory => numeric(argument, total_memory()),
        K::Cpus => numeric(argument, std::thread::available_parallelism().map_or(1, |n| n.get() as u64)),
        K::CpuFeature => {
            let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            text.lines().find(|line| line.starts_with("flags")).is_some_and(|line| line.split_whitespace().any(|word| word == argument))
        }
        K::Environment => std::env::vars().any(|(name, value)| argument == name || argument == format!("{name}={value}")),
        K::ControlGroupController => {
            let have = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
            argument == "v2" || argument.split_whitespace().all(|word| have.split_whitespace().any(|have| have == word))
        }
        K::Capability => capability(argument),
        K::OsRelease => os_release(argument),
        K::Security => match argument {
            "uefi-secureboot" => secure_boot(),
            "tpm2" => Path::new("/sys/class/tpmrm").is_dir(),
            "apparmor" | "selinux" | "smack" | "tomoyo" => {
                std::fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|text| text.trim().split(',').any(|lsm| lsm == argument))
            }
            _ => false,
        },
        K::Version => match argument.split_once(char::is_whitespace) {
            Some(("kernel", rest)) => compare_list(rest, &release()),
            _ => false,
        },
        K::Credential | K::MemoryPressure | K::CpuPressure | K::IoPressure => false,
    }
}

fn yes(word: &str) -> bool {
    matches!(word, "1" | "yes" | "y" | "true" | "t" | "on")
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn is_container(word: &str) -> bool {
    ["docker", "podman", "lxc", "lxc-libvirt", "systemd-nspawn", "rkt", "openvz", "wsl", "proot", "container-other"].contains(&word)
}

fn total_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_mul(1024)
}

/// Splits `>= 4G` into its operator and the rest; none is `default`.
fn operator<'a>(text: &'a str, default: &'a str) -> (&'a str, &'a str) {
    for operator in ["<=", ">=", "!=", "<>", "==", "<", ">", "=", "$="] {
        if let Some(rest) = text.trim_start().strip_prefix(operator) {
            return (operator, rest.trim());
        }
    }
    (default, text.trim())
}

fn ordered(operator: &str, order: std::cmp::Ordering) -> bool {
    match operator {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        "!=" | "<>" => order.is_ne(),
        _ => order.is_eq(),
    }
}

fn numeric(argument: &str, have: u64) -> bool {
    let (operator, text) = operator(argument, ">=");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match text.get(digits.len()..).and_then(|suffix| suffix.chars().next()) {
        Some('K' | 'k') => 1 << 10,
        Some('M') => 1 << 20,
        Some('G') => 1 << 30,
        Some('T') => 1_u64 << 40,
        _ => 1,
    };
    digits.trim().parse::<u64>().is_ok_and(|number| ordered(operator, have.cmp(&number.saturating_mul(scale))))
}

fn compare_list(argument: &str, have: &str) -> bool {
    argument.split_whitespace().collect::<Vec<_>>().join(" ").split(' ').all(|word| match operator(word, "") {
        ("", text) => pattern::matches(text, have),
        ("$=", text) => pattern::matches(text, have),
        (operator, text) => ordered(operator, versions(have, text)),
    })
}

/// Numbers compare as numbers, the rest as text.
fn versions(a: &str, b: &str) -> std::cmp::Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        text.split(['.', '-', '+', '~'])
            .map(|part| {
                let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
                (digits.parse().unwrap_or(0), part.get(digits.len()..).unwrap_or_default().to_owned())
            })
            .collect()
    };
    let (a, b) = (parts(a), parts(b));
    let length = b.len();
    a.into_iter().take(length).collect::<Vec<_>>().cmp(&b)
}

fn os_release(argument: &str) -> bool {
    let text = std::fs::read("/etc/os-release").or_else(|_| std::fs::read("/usr/lib/os-release")).unwrap_or_default();
    let values = unit_files::environment::parse_environment_file(&text).assignments;
    argument.split_whitespace().all(|word| {
        let name: String = word.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let (operator, wanted) = operator(word.get(name.len()..).unwrap_or_default(), "=");
        let have = values.iter().rev().find(|(key, _)| *key == name).map_or("", |(_, value)| value.as_str());
        let wanted = wanted.trim_matches('"');
        match operator {
            "$=" => pattern::matches(wanted, have),
            operator => ordered(operator, versions(have, wanted).then(have.len().cmp(&wanted.len()).then(have.cmp(wanted)))),
        }
    })
}

fn capability(name: &str) -> bool {
    let known = [
        "cap_chown",
        "cap_dac_override",
        "cap_dac_read_search",
        "cap_fowner",
        "cap_fsetid",
        "cap_kill",
        "cap_setgid",
        "cap_setuid",
        "cap_setpcap",
        "cap_linux_immutable",
        "cap_net_bind_service",
        "cap_net_broadcast",
        "cap_net_admin",
        "cap_net_raw",
        "cap_ipc_lock",
        "cap_ipc_owner",
        "cap_sys_module",
        "cap_sys_rawio",
        "cap_sys_chroot",
        "cap_sys_ptrace",
        "cap_sys_pacct",
        "cap_sys_admin",
        "cap_sys_boot",
        "cap_sys_nice",
        "cap_sys_resource",
        "cap_sys_time",
        "cap_sys_tty_config",
        "cap_mknod",
        "cap_lease",
        "cap_audit_write",
        "cap_audit_control",
        "cap_setfcap",
        "cap_mac_override",
        "cap_mac_admin",
        "cap_syslog",
        "cap_wake_alarm",
        "cap_block_suspend",
        "cap_audit_read",
        "cap_perfmon",
        "cap_bpf",
        "cap_checkpoint_restore",
    ];
    let Some(number) = known.iter().position(|known| known.eq_ignore_ascii_case(name)) else { return false };
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = text.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok()).unwrap_or(0);
    bounding >> number & 1 == 1
}

fn secure_boot() -> bool {
    std::fs::read("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c").is_ok_and(|bytes| bytes.last() == Some(&1))
}

fn is_mount_point(path: &Path) -> bool {
    let Ok(real) = path.canonicalize() else { return false };
    let Some(parent) = real.parent() else { return true };
    let device = |path: &Path| path.metadata().map(|data| data.dev()).ok();
    if device(&real) != device(parent) {
        return true;
    }
    // A bind mount of the same file system has the same device.
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let real = real.to_string_lossy();
    text.lines().any(|line| line.split(' ').nth(4) == Some(&*real))
}

fn glob(pattern_text: &str) -> bool {
    let mut places = vec![String::from(if pattern_text.starts_with('/') { "/" } else { "." })];
    for part in pattern_text.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for place in &places {
            if part.contains(['*', '?', '[']) {
                let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
                let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
                next.extend(
                    names.filter(|name| pattern::matches(part, name) && !name.starts_with('.')).map(|name| format!("{place}/{name}")),
                );
            } else if Path::new(place).join(part).symlink_metadata().is_ok() {
                next.push(format!("{place}/{part}"));
            }
        }
        places = next;
    }
    !places.is_empty()
}

/// What this machine runs on.
#[must_use]
pub fn virtualization() -> String {
    if let Ok(text) = std::fs::read("/proc/1/environ") {
        let container = text.split(|byte| *byte == 0).find_map(|word| word.strip_prefix(b"container="));
        if let Some(name) = container {
            return String::from_utf8_lossy(name).into_owned();
        }
    }
    if Path::new("/.dockerenv").exists() {
        return "docker".into();
    }
    let dmi = ["sys_vendor", "product_name", "bios_vendor"]
        .map(|file| std::fs::read_to_string(format!("/sys/class/dmi/id/{file}")).unwrap_or_default());
    let dmi = dmi.join(" ");
    let table = [
        ("QEMU", "qemu"),
        ("KVM", "kvm"),
        ("Amazon EC2", "amazon"),
        ("VMware", "vmware"),
        ("innotek", "oracle"),
        ("VirtualBox", "oracle"),
        ("Xen", "xen"),
        ("Microsoft Corporation Virtual", "microsoft"),
        ("Google", "google"),
        ("Parallels", "parallels"),
    ];
    if let Some((_, word)) = table.iter().find(|(mark, _)| dmi.contains(mark)) {
        return (*word).to_owned();
    }
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if cpu.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor")) { "vm-other".into() } else { "none".into() }
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
