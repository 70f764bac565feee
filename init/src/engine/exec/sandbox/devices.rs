//! `PrivateDevices=`: a `/dev` with only the pseudo devices.

use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive};

use super::apply::cstring;

/// Mounts it.
pub fn mount_private() -> io::Result<()> {
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
