//! Makes a mount namespace look as planned.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_remount,
    move_mount, open_tree,
};
use unit_files::exec::{MountPropagation, PrivateTmp};

use super::super::spec::{Failure, Spec, exit};
use super::plan::{Change, Mount, Plan, Rule};
use super::{devices, failure, private_tmp};

/// Makes it so, in a namespace that is this process' own.
pub fn apply(spec: &Spec, plan: &Plan) -> Result<(), Failure> {
    let context = &spec.context;
    let fail = |what: &str, why: io::Error| failure(exit::NAMESPACE, what, why);
    // Mounts of the host still arrive, ours never leave.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(|why| fail("/", why.into()))?;
    let mut sources = Vec::new();
    for source in &plan.sources {
        match open_source(&source.path, source.recursive) {
            Ok(fd) => sources.push(Some(fd)),
            Err(why) if source.optional && why.kind() == io::ErrorKind::NotFound => sources.push(None),
            Err(why) => return Err(fail(&source.path, why)),
        }
    }
    // Made now: afterwards /run may be read-only.
    for directory in [true, false] {
        hidden(directory).map_err(|why| fail("/run/garboard/inaccessible", why))?;
    }
    if context.private_tmp != PrivateTmp::No {
        private_tmp::mount(spec).map_err(|why| fail("private /tmp", why))?;
    }
    for change in &plan.mounts {
        match mount_change_at(change, &sources) {
            Err(why) if !(change.optional && why.kind() == io::ErrorKind::NotFound) => return Err(fail(&change.path, why)),
            _ => {}
        }
    }
    protect(&plan.rules).map_err(|(path, why)| fail(&path, why))?;
    let propagation = match context.mount_flags {
        Some(MountPropagation::Slave) => None,
        Some(MountPropagation::Private) => Some(MountPropagationFlags::PRIVATE),
        // What the unit's own namespaces below this one mount may be seen here, as on the host.
        Some(MountPropagation::Shared) | None => Some(MountPropagationFlags::SHARED),
    };
    if let Some(flags) = propagation {
        mount_change("/", flags | MountPropagationFlags::REC).map_err(|why| fail("/", why.into()))?;
    }
    Ok(())
}

/// A copy of a piece of the tree, to be put somewhere else later.
fn open_source(path: &str, recursive: bool) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags };
    Ok(open_tree(CWD, path, flags)?)
}

fn mount_change_at(change: &Change, sources: &[Option<OwnedFd>]) -> io::Result<()> {
    let path = Path::new(&change.path);
    match &change.mount {
        Mount::Bind(number) => {
            let Some(source) = sources.get(*number).and_then(Option::as_ref) else { return Ok(()) };
            let directory = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode).is_dir();
            make_mount_point(path, directory)?;
            move_mount(source, "", CWD, path.canonicalize()?, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        }
        Mount::Tmpfs(options) => {
            if !change.optional {
                make_mount_point(path, true)?;
            }
            let flags = MountFlags::NODEV | MountFlags::NOSUID;
            mount("tmpfs", path.canonicalize()?, "tmpfs", flags, Some(&*cstring(options)))?;
        }
        Mount::Hidden => {
            let path = path.canonicalize()?;
            mount_bind(hidden(path.is_dir())?, &path)?;
            remount(&path, MountFlags::RDONLY)?;
        }
        Mount::Devices => devices::mount_private()?,
        Mount::Proc(options) => {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("proc", path, "proc", flags, Some(&*cstring(options)))?;
        }
        Mount::Queues => {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("mqueue", path.canonicalize()?, "mqueue", flags, None)?;
        }
    }
    Ok(())
}

pub(super) fn cstring(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap_or_default()
}

/// Makes what is missing of a place to mount on.
fn make_mount_point(path: &Path, directory: bool) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if directory {
        return std::fs::create_dir_all(path);
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).open(path).map(drop)
}

/// Applies the rules: each path becomes a mount of its own, then each mount takes the flags of the innermost rule around it.
fn protect(rules: &[Rule]) -> Result<(), (String, io::Error)> {
    let mut real: Vec<(PathBuf, &Rule)> = Vec::new();
    for rule in rules {
        match Path::new(&rule.path).canonicalize() {
            Ok(path) => real.push((path, rule)),
            Err(why) if rule.optional && why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err((rule.path.clone(), why)),
        }
    }
    if real.is_empty() {
        return Ok(());
    }
    let fail = |path: &Path| {
        let path = path.display().to_string();
        move |why: io::Error| (path, why)
    };
    real.sort_by(|a, b| a.0.cmp(&b.0));
    let have = mounts().map_err(fail(Path::new("/proc/self/mountinfo")))?;
    for (path, _) in real.iter().filter(|(path, _)| !have.contains(path)) {
        mount_bind_recursive(path, path).map_err(|why| fail(path)(why.into()))?;
    }
    for at in mounts().map_err(fail(Path::new("/proc/self/mountinfo")))? {
        let around = || real.iter().filter(|(path, _)| at.starts_with(path)).map(|(_, rule)| *rule);
        let read_only = around().filter_map(|rule| rule.read_only).next_back() == Some(true);
        let no_exec = around().filter_map(|rule| rule.no_exec).next_back() == Some(true);
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, read_only);
        flags.set(MountFlags::NOEXEC, no_exec);
        if flags.is_empty() {
            continue;
        }
        match remount(&at, flags) {
            // A mount that something else covers cannot be reached, by the unit either.
            Err(why)
                if !real.iter().any(|(path, _)| *path == at)
                    && matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {}
            other => other.map_err(fail(&at))?,
        }
    }
    Ok(())
}

/// Adds flags to the mount at a path; those it has stay.
fn remount(path: &Path, flags: MountFlags) -> io::Result<()> {
    use rustix::fs::StatVfsMountFlags as Have;
    let have = rustix::fs::statvfs(path)?.f_flag;
    let pairs = [
        (Have::RDONLY, MountFlags::RDONLY),
        (Have::NOSUID, MountFlags::NOSUID),
        (Have::NODEV, MountFlags::NODEV),
        (Have::NOEXEC, MountFlags::NOEXEC),
        (Have::NOATIME, MountFlags::NOATIME),
        (Have::NODIRATIME, MountFlags::NODIRATIME),
        (Have::RELATIME, MountFlags::RELATIME),
    ];
    let kept = pairs.into_iter().filter(|(have_it, _)| have.contains(*have_it)).fold(MountFlags::empty(), |all, (_, flag)| all | flag);
    Ok(mount_remount(path, MountFlags::BIND | kept | flags, "")?)
}

/// Every mount point, outermost first.
fn mounts() -> io::Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut out: Vec<PathBuf> = text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect();
    out.sort();
    out.dedup();
    Ok(out)
}

fn unescape(field: &str) -> PathBuf {
    PathBuf::from(field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"))
}

/// An empty directory or file that nobody may open.
fn hidden(directory: bool) -> io::Result<PathBuf> {
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
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(why),
        _ => Ok(path),
    }
}
