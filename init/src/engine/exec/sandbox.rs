//! The mount namespace of a unit: what it may not see or change.
//!
//! Only what the kernel does in a few calls; what the unit asks for and is not here was refused when the unit was loaded.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_remount};
use unit_files::exec::{ExecContext, PathRule, PrivateTmp, ProtectHome, ProtectSystem};

use super::spec::{Failure, Spec, exit};
use crate::sys::process::unshare;

/// What happens to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Access {
    ReadWrite,
    ReadOnly,
    Tmpfs,
    Inaccessible,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    path: String,
    access: Access,
    optional: bool,
}

/// Enters the namespace, when there is anything to change.
pub fn enter(spec: &Spec) -> Result<(), Failure> {
    let context = &spec.context;
    let changes = plan(context);
    let private_tmp = context.private_tmp != PrivateTmp::No;
    if changes.is_empty() && !private_tmp && !context.private_devices && !context.private_mounts {
        return Ok(());
    }
    let fail = |what: &str, why: std::io::Error| Failure { code: exit::NAMESPACE, message: format!("sandbox: {what}: {why}") };
    unshare(libc::CLONE_NEWNS).map_err(|why| fail("new mount namespace", why))?;
    // Mounts of the host still arrive, ours never leave.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(|why| fail("/", why.into()))?;
    if private_tmp {
        for (path, mode) in [("/tmp", "mode=1777"), ("/var/tmp", "mode=1777")] {
            if Path::new(path).is_dir() {
                let flags = MountFlags::NOSUID | MountFlags::NODEV;
                mount("tmpfs", path, "tmpfs", flags, Some(&*cstring(mode))).map_err(|why| fail(path, why.into()))?;
            }
        }
    }
    if context.private_devices {
        private_devices().map_err(|why| fail("/dev", why))?;
    }
    // Made now: afterwards /run may be read-only.
    for directory in [true, false] {
        hidden(directory).map_err(|why| fail("/run/garboard/inaccessible", why))?;
    }
    let writable: Vec<PathBuf> = changes
        .iter()
        .filter(|change| change.access == Access::ReadWrite)
        .filter_map(|change| Path::new(&change.path).canonicalize().ok())
        .collect();
    for change in &changes {
        match apply(change, &writable) {
            Ok(()) => {}
            Err(why) if change.optional && why.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => return Err(fail(&change.path, why)),
        }
    }
    Ok(())
}

fn cstring(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap_or_default()
}

/// What has to be changed, outermost first.
fn plan(context: &ExecContext) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add = |paths: &[&str], access: Access| {
        changes.extend(paths.iter().map(|path| Change { path: (*path).to_owned(), access, optional: true }));
    };
    match context.protect_system {
        ProtectSystem::No => {}
        ProtectSystem::Yes => add(&["/usr", "/boot", "/efi"], Access::ReadOnly),
        ProtectSystem::Full => add(&["/usr", "/boot", "/efi", "/etc"], Access::ReadOnly),
        ProtectSystem::Strict => {
            add(&["/"], Access::ReadOnly);
            add(&["/dev", "/proc", "/sys"], Access::ReadWrite);
        }
    }
    let homes = ["/home", "/root", "/run/user"];
    match context.protect_home {
        ProtectHome::No => {}
        ProtectHome::Yes => add(&homes, Access::Inaccessible),
        ProtectHome::ReadOnly => add(&homes, Access::ReadOnly),
        ProtectHome::Tmpfs => add(&homes, Access::Tmpfs),
    }
    if context.protect_kernel_tunables {
        add(
            &[
                "/proc/acpi",
                "/proc/apm",
                "/proc/asound",
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/latency_stats",
                "/proc/mtrr",
                "/proc/sys",
            ],
            Access::ReadOnly,
        );
        add(&["/proc/sysrq-trigger", "/proc/timer_stats", "/sys"], Access::ReadOnly);
        add(&["/sys/kernel/debug", "/sys/kernel/tracing"], Access::Inaccessible);
    }
    if context.protect_kernel_modules {
        add(&["/usr/lib/modules"], Access::Inaccessible);
    }
    if context.protect_kernel_logs {
        add(&["/proc/kmsg", "/dev/kmsg"], Access::Inaccessible);
    }
    if context.protect_control_groups {
        add(&["/sys/fs/cgroup"], Access::ReadOnly);
    }
    let mut own = |rules: &[PathRule], access: Access| {
        changes.extend(rules.iter().map(|rule| Change { path: rule.path.clone(), access, optional: rule.optional }));
    };
    own(&context.read_only_paths, Access::ReadOnly);
    own(&context.read_write_paths, Access::ReadWrite);
    own(&context.inaccessible_paths, Access::Inaccessible);
    // What the unit is given stays writable, whatever is protected around it.
    if context.protect_system == ProtectSystem::Strict {
        let roots = [
            ("/run", &context.runtime_directory),
            ("/var/lib", &context.state_directory),
            ("/var/cache", &context.cache_directory),
            ("/var/log", &context.logs_directory),
        ];
        for (root, config) in roots {
            changes.extend(config.paths.iter().map(|directory| Change {
                path: format!("{root}/{}", directory.path),
                access: Access::ReadWrite,
                optional: true,
            }));
        }
        if context.private_tmp != PrivateTmp::No {
            changes.extend(["/tmp", "/var/tmp"].map(|path| Change { path: path.into(), access: Access::ReadWrite, optional: true }));
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path).then(a.access.cmp(&b.access)));
    changes
}

fn apply(change: &Change, writable: &[PathBuf]) -> std::io::Result<()> {
    let path = Path::new(&change.path).canonicalize()?;
    match change.access {
        Access::Inaccessible => {
            let directory = path.is_dir();
            let hidden = hidden(directory)?;
            mount_bind(&hidden, &path)?;
            read_only(&path)?;
        }
        Access::Tmpfs => {
            mount("tmpfs", &path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(&*cstring("mode=755")))?;
            read_only(&path)?;
        }
        Access::ReadOnly => {
            // The root is a mount already, and one on top of it would not be seen.
            if path != Path::new("/") {
                mount_bind_recursive(&path, &path)?;
            }
            for mount in mounts_below(&path)? {
                // A deeper rule keeps what it names, and the mounts in there, as they are.
                if writable.iter().any(|kept| kept != &path && kept.starts_with(&path) && mount.starts_with(kept)) {
                    continue;
                }
                match read_only(&mount) {
                    // A mount that something else covers cannot be reached, by the unit either.
                    Err(why) if mount != path && matches!(why.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidInput) => {}
                    other => other?,
                }
            }
        }
        Access::ReadWrite => {
            mount_bind_recursive(&path, &path)?;
            let flags = mount_flags(&path)?;
            mount_remount(&path, MountFlags::BIND | flags, "")?;
        }
    }
    Ok(())
}

fn read_only(path: &Path) -> std::io::Result<()> {
    let flags = mount_flags(path)?;
    Ok(mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | flags, "")?)
}

/// Flags of the mount at a path that a remount has to repeat.
fn mount_flags(path: &Path) -> std::io::Result<MountFlags> {
    use rustix::fs::StatVfsMountFlags as Have;
    let have = rustix::fs::statvfs(path)?.f_flag;
    let pairs = [
        (Have::NOSUID, MountFlags::NOSUID),
        (Have::NODEV, MountFlags::NODEV),
        (Have::NOEXEC, MountFlags::NOEXEC),
        (Have::NOATIME, MountFlags::NOATIME),
        (Have::NODIRATIME, MountFlags::NODIRATIME),
        (Have::RELATIME, MountFlags::RELATIME),
    ];
    Ok(pairs.into_iter().filter(|(have_it, _)| have.contains(*have_it)).fold(MountFlags::empty(), |all, (_, flag)| all | flag))
}

/// Mount points at and below a path.
fn mounts_below(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut out: Vec<PathBuf> =
        text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).filter(|mount| mount.starts_with(path)).collect();
    out.sort();
    out.dedup();
    Ok(out)
}

fn unescape(field: &str) -> PathBuf {
    PathBuf::from(field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"))
}

/// An empty directory or file that nobody may open.
fn hidden(directory: bool) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let base = Path::new("/run/garboard/inaccessible");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(base)?;
    let path = base.join(if directory { "directory" } else { "file" });
    let made = if directory {
        std::fs::DirBuilder::new().mode(0o000).create(&path)
    } else {
        std::fs::OpenOptions::new().create_new(true).write(true).mode(0o000).open(&path).map(drop)
    };
    match made {
        Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => Err(why),
        _ => Ok(path),
    }
}

/// A `/dev` with only the pseudo devices.
fn private_devices() -> std::io::Result<()> {
    let staging = Path::new("/run/garboard/private-dev");
    std::fs::create_dir_all(staging)?;
    mount("tmpfs", staging, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, Some(&*cstring("mode=755,size=64k")))?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let (from, to) = (Path::new("/dev").join(name), staging.join(name));
        std::fs::write(&to, "")?;
        mount_bind(&from, &to)?;
    }
    for name in ["pts", "shm", "mqueue", "hugepages"] {
        let (from, to) = (Path::new("/dev").join(name), staging.join(name));
        if from.is_dir() {
            std::fs::create_dir(&to)?;
            mount_bind_recursive(&from, &to)?;
        }
    }
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, staging.join(name))?;
    }
    // Syslog keeps working.
    if Path::new("/dev/log").exists() {
        let to = staging.join("log");
        std::fs::write(&to, "")?;
        mount_bind("/dev/log", &to)?;
    }
    rustix::mount::mount_move(staging, "/dev")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_protection_keeps_the_units_own_directories_writable() {
        let mut context = ExecContext { protect_system: ProtectSystem::Strict, ..ExecContext::default() };
        context.state_directory.paths.push(unit_files::exec::ManagedDirectory { path: "etcd".into(), links: Vec::new() });
        let changes = plan(&context);
        let find = |path: &str| changes.iter().position(|change| change.path == path).unwrap();
        assert_eq!(changes[find("/")].access, Access::ReadOnly);
        assert_eq!(changes[find("/var/lib/etcd")].access, Access::ReadWrite);
        assert!(find("/") < find("/var/lib/etcd"), "outermost first");
    }

    #[test]
    fn nothing_asked_for_is_nothing_done() {
        assert!(plan(&ExecContext::default()).is_empty());
    }
}
