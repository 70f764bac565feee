//! Dependencies that nobody writes: those of each kind of unit (`DefaultDependencies=`), and those that follow from
//! settings whatever `DefaultDependencies=` says.

use crate::index::Index;
use crate::name::{UnitKind, UnitName};
use crate::timer::TimerTrigger;
use crate::unit::{Config, DependencyKind as Kind, Unit};

/// File systems that need the network.
const NETWORK_FILE_SYSTEMS: [&str; 14] =
    ["afs", "ceph", "cifs", "smb3", "smbfs", "sshfs", "ncpfs", "ncp", "nfs", "nfs4", "gfs", "gfs2", "glusterfs", "pvfs2"];

/// Adds everything that follows from the unit's own settings.
pub(crate) fn complete(unit: &mut Unit, index: &Index) {
    add_triggers(unit);
    add_mount_requirements(unit, index);
    if let Some(slice) = unit.cgroup().and_then(|cgroup| cgroup.slice.clone()) {
        unit.dependencies.add(Kind::Requires, slice.clone());
        unit.dependencies.add(Kind::After, slice);
    }
    if unit.kind == UnitKind::Slice {
        add_parent_slice(unit);
    }
    if let Config::Service(service) = &unit.config {
        for socket in service.sockets.clone() {
            unit.dependencies.add(Kind::Wants, socket.clone());
            unit.dependencies.add(Kind::After, socket.clone());
            unit.dependencies.add(Kind::TriggeredBy, socket);
        }
    }
    if unit.default_dependencies {
        add_defaults(unit);
    }
}

fn add(unit: &mut Unit, kind: Kind, name: &str) {
    if unit.name.as_str() != name
        && let Ok(name) = UnitName::parse(name)
    {
        unit.dependencies.add(kind, name);
    }
}

fn ends_at_shutdown(unit: &mut Unit) {
    add(unit, Kind::Conflicts, "shutdown.target");
    add(unit, Kind::Before, "shutdown.target");
}

fn after_sysinit(unit: &mut Unit) {
    add(unit, Kind::Requires, "sysinit.target");
    add(unit, Kind::After, "sysinit.target");
}

fn add_defaults(unit: &mut Unit) {
    match unit.kind {
        UnitKind::Service => {
            after_sysinit(unit);
            add(unit, Kind::After, "basic.target");
            ends_at_shutdown(unit);
        }
        UnitKind::Socket => {
            after_sysinit(unit);
            add(unit, Kind::Before, "sockets.target");
            ends_at_shutdown(unit);
        }
        UnitKind::Timer => {
            after_sysinit(unit);
            add(unit, Kind::Before, "timers.target");
            let calendar =
                matches!(&unit.config, Config::Timer(timer) if timer.triggers.iter().any(|t| matches!(t, TimerTrigger::Calendar(_))));
            if calendar {
                add(unit, Kind::After, "time-sync.target");
                add(unit, Kind::After, "time-set.target");
            }
            ends_at_shutdown(unit);
        }
        UnitKind::Path => {
            after_sysinit(unit);
            add(unit, Kind::Before, "paths.target");
            ends_at_shutdown(unit);
        }
        UnitKind::Target => {
            // The order after what the target lists depends on the other unit too: see `orders_after`.
            if unit.name.as_str() != "shutdown.target" {
                ends_at_shutdown(unit);
            }
        }
        UnitKind::Mount => add_mount_defaults(unit),
        UnitKind::Automount => {
            add(unit, Kind::Before, "local-fs.target");
            add(unit, Kind::After, "local-fs-pre.target");
            add(unit, Kind::Conflicts, "umount.target");
            add(unit, Kind::Before, "umount.target");
        }
        UnitKind::Swap => {
            add(unit, Kind::Before, "swap.target");
            add(unit, Kind::Conflicts, "umount.target");
            add(unit, Kind::Before, "umount.target");
        }
        UnitKind::Slice | UnitKind::Scope => ends_at_shutdown(unit),
        UnitKind::Device => {}
    }
}

fn add_mount_defaults(unit: &mut Unit) {
    let Config::Mount(mount) = &unit.config else { return };
    if mount.mount_point == "/" {
        return;
    }
    let options: Vec<String> = mount.options.split(',').map(str::to_owned).collect();
    let network = mount.file_system.as_deref().is_some_and(|kind| {
        let kind = kind.strip_prefix("fuse.").unwrap_or(kind);
        NETWORK_FILE_SYSTEMS.contains(&kind)
    }) || options.iter().any(|option| option == "_netdev");
    let no_fail = options.iter().any(|option| option == "nofail");
    if network {
        add(unit, Kind::After, "remote-fs-pre.target");
        add(unit, Kind::After, "network.target");
        add(unit, Kind::After, "network-online.target");
        add(unit, Kind::Wants, "network-online.target");
        if !no_fail {
            add(unit, Kind::Before, "remote-fs.target");
        }
    } else {
        add(unit, Kind::After, "local-fs-pre.target");
        if !no_fail {
            add(unit, Kind::Before, "local-fs.target");
        }
    }
    add(unit, Kind::Conflicts, "umount.target");
    add(unit, Kind::Before, "umount.target");
}

/// Sockets, timers, paths and automounts start another unit.
fn add_triggers(unit: &mut Unit) {
    let same_name = |kind| unit.name.with_kind(kind);
    let triggered = match &unit.config {
        // Each connection has an instance of its own; none is known beforehand.
        Config::Socket(socket) if socket.accept => None,
        Config::Socket(socket) => socket.service.clone().or_else(|| same_name(UnitKind::Service)),
        Config::Timer(timer) => timer.unit.clone().or_else(|| same_name(UnitKind::Service)),
        Config::Path(path) => path.unit.clone().or_else(|| same_name(UnitKind::Service)),
        Config::Automount(_) => same_name(UnitKind::Mount),
        _ => None,
    };
    if let Some(triggered) = triggered {
        unit.dependencies.add(Kind::Triggers, triggered.clone());
        unit.dependencies.add(Kind::Before, triggered);
    }
}

/// Paths that a unit needs mounted: its mount units are waited for, and required where they are written down.
fn add_mount_requirements(unit: &mut Unit, index: &Index) {
    let mut required = unit.requires_mounts_for.clone();
    let wanted = unit.wants_mounts_for.clone();
    let exec = match &unit.config {
        Config::Service(config) => Some(&config.exec),
        Config::Socket(config) => Some(&config.exec),
        _ => None,
    };
    if let Some(exec) = exec {
        required.extend(exec.working_directory.iter().filter(|path| path.starts_with('/') && !exec.working_directory_optional).cloned());
        required.extend(exec.root_directory.iter().chain(&exec.root_image).cloned());
        for (root, directories) in
            [("/var/lib", &exec.state_directory), ("/var/cache", &exec.cache_directory), ("/var/log", &exec.logs_directory)]
        {
            required.extend(directories.paths.iter().map(|directory| format!("{root}/{}", directory.path)));
        }
    }
    if let Config::Mount(mount) = &unit.config {
        // What it is mounted on, and a source that is a path (a bind mount or an image).
        required.extend(mount.mount_point.rsplit_once('/').map(|(parent, _)| parent.to_owned()).filter(|parent| !parent.is_empty()));
        if mount.what.starts_with('/') && !mount.what.starts_with("/dev/") {
            required.push(mount.what.clone());
        }
        if mount.what.starts_with("/dev/")
            && let Ok(device) = UnitName::from_path(&mount.what, UnitKind::Device)
        {
            unit.dependencies.add(Kind::BindsTo, device.clone());
            unit.dependencies.add(Kind::After, device);
        }
    }
    for (paths, kind) in [(required, Kind::Requires), (wanted, Kind::Wants)] {
        for path in paths {
            for mount in mounts_of(&path) {
                if mount == unit.name {
                    continue;
                }
                if index.file(&mount).is_some() {
                    unit.dependencies.add(kind, mount.clone());
                }
                unit.dependencies.add(Kind::After, mount);
            }
        }
    }
}

/// The mount units that a path may lie on, `/` aside, which is always there.
fn mounts_of(path: &str) -> Vec<UnitName> {
    let mut mounts = Vec::new();
    let mut prefix = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        prefix.push('/');
        prefix.push_str(part);
        mounts.extend(UnitName::from_path(&prefix, UnitKind::Mount).ok());
    }
    mounts
}

fn add_parent_slice(unit: &mut Unit) {
    if let Some((parent, _)) = unit.name.stem().rsplit_once('-')
        && !parent.is_empty()
    {
        let parent = format!("{parent}.slice");
        add(unit, Kind::Requires, &parent);
        add(unit, Kind::After, &parent);
    }
}

/// Whether a target is ordered after a unit that it pulls in, although nobody wrote so: both have default dependencies,
/// and the unit does not come after the target by its own word. Needs both units, so whoever holds them asks.
#[must_use]
pub fn orders_after(target: &Unit, other: &Unit) -> bool {
    let pulled = [Kind::Requires, Kind::Requisite, Kind::Wants, Kind::BindsTo, Kind::Upholds];
    target.kind == UnitKind::Target
        && target.default_dependencies
        && other.default_dependencies
        && pulled.iter().any(|kind| target.dependencies.has(*kind, other.name.as_str()))
        && !target.dependencies.has(Kind::Before, other.name.as_str())
        && !other.dependencies.has(Kind::After, target.name.as_str())
}
