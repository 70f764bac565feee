//! `PrivateTmp=`: a `/tmp` and a `/var/tmp` that only the unit's processes share.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount_bind};
use unit_files::exec::PrivateTmp;

use super::super::spec::Spec;
use super::apply::cstring;

const PLACES: [&str; 2] = ["/tmp", "/var/tmp"];

/// Mounts both.
pub fn mount(spec: &Spec) -> io::Result<()> {
    let connected = spec.context.private_tmp == PrivateTmp::Connected && !spec.invocation.is_empty();
    for place in PLACES.map(Path::new).into_iter().filter(|place| place.is_dir()) {
        if connected {
            let own = make(place, &spec.unit, &spec.invocation)?;
            mount_bind(own, place)?;
        } else {
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            rustix::mount::mount("tmpfs", place, "tmpfs", flags, Some(&*cstring("mode=1777")))?;
        }
    }
    Ok(())
}

/// The directory below the real one, which nobody but root can look into; the same for all processes of a unit's run.
/// Its name has the invocation in it, which nobody can guess and so nobody can have made before.
fn make(place: &Path, unit: &str, invocation: &str) -> io::Result<PathBuf> {
    let outer = place.join(super::super::private_tmp_name(unit, invocation));
    match std::fs::DirBuilder::new().mode(0o700).create(&outer) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => {}
    }
    let found = outer.symlink_metadata()?;
    if !found.is_dir() || found.uid() != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let inner = outer.join("tmp");
    match std::fs::create_dir(&inner) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => {}
    }
    std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o1777))?;
    Ok(inner)
}
