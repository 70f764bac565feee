//! Reading and writing the four files below a root, under the lock that every account tool takes.

use super::{Database, Table};
use crate::apply::files::{FileError, Meta, write_atomic};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// As long as lckpwdf(3) waits.
const LOCK_WAIT: Duration = Duration::from_secs(15);

/// Why the user database cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// Another program holds the lock.
    #[error("/etc/.pwd.lock: another program is changing users; gave up after 15 s")]
    Busy,
    /// The lock file itself.
    #[error("/etc/.pwd.lock: {0}")]
    Lock(io::Error),
    /// One of the files.
    #[error("{0}: {1}")]
    Read(&'static str, io::Error),
    /// One of the files.
    #[error(transparent)]
    Write(#[from] FileError),
}

/// Held while the files are read, changed and written.
pub struct Lock(#[expect(dead_code, reason = "closing it lets the lock go")] rustix::fd::OwnedFd);

impl Lock {
    /// Takes the lock.
    pub fn take(root: &Path) -> Result<Lock, AccountsError> {
        let path = root.join("etc/.pwd.lock");
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(|e| AccountsError::Lock(e.into()))?;
        let begin = Instant::now();
        loop {
            match rustix::fs::fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(fd)),
                Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) if begin.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => return Err(AccountsError::Busy),
                Err(error) => return Err(AccountsError::Lock(error.into())),
            }
        }
    }
}

/// Reads the database; files that are missing are empty.
pub fn load(root: &Path) -> Result<Database, AccountsError> {
    let read = |name: &'static str| match std::fs::read_to_string(root.join(name)) {
        Ok(text) => Ok(Table::parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Table::default()),
        Err(error) => Err(AccountsError::Read(name, error)),
    };
    Ok(Database { passwd: read("etc/passwd")?, group: read("etc/group")?, shadow: read("etc/shadow")?, gshadow: read("etc/gshadow")? })
}

/// Writes the tables that differ, groups first, so that no user ever has a group that does not exist.
pub fn store(root: &Path, before: &Database, after: &Database) -> Result<bool, AccountsError> {
    let shadow_gid = after.gid("shadow").unwrap_or(0);
    let mut changed = false;
    for (name, old, new, mode, gid) in [
        ("etc/group", &before.group, &after.group, 0o644, 0),
        ("etc/gshadow", &before.gshadow, &after.gshadow, 0o640, shadow_gid),
        ("etc/passwd", &before.passwd, &after.passwd, 0o644, 0),
        ("etc/shadow", &before.shadow, &after.shadow, 0o640, shadow_gid),
    ] {
        if old != new {
            write_atomic(&root.join(name), new.format().as_bytes(), Meta { mode, uid: 0, gid })?;
            changed = true;
        }
    }
    Ok(changed)
}
