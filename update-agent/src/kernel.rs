//! Rebuilding a kernel by a kernel patch, which takes a gigabyte: in a process of its own, `rebuild-kernel.service`, whose control group bounds
//! its memory and gives it the processor last, so that neither the agent nor anybody's containers suffer. Files in one directory on
//! state go back and forth. Nothing that comes of it is believed: the agent compares each chunk with the content map.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use release_format::KernelPatch;
use release_format::limits::MAX_KERNEL;

use crate::process::run;

/// Where the files are, as `rebuild-kernel.service` has it too.
pub const DIRECTORY: &str = "/media/state/garboard/rebuild-kernel";
/// How long it may take: on a slow processor it takes minutes.
const LIMIT: Duration = Duration::from_secs(1200);

/// Who rebuilds kernels.
#[async_trait(?Send)]
pub trait Rebuild {
    /// Bytes of memory that can be had without taking them from somebody.
    fn available(&self) -> u64;
    /// The new `.linux` section, made of the old one.
    async fn rebuild(&self, old: &[u8], patch: &[u8]) -> Result<Vec<u8>, String>;
}

/// By a unit of this host.
#[derive(Clone, Debug)]
pub struct HostKernels {
    /// `systemctl`.
    pub systemctl: PathBuf,
    /// Where the files are.
    pub directory: PathBuf,
}

impl Default for HostKernels {
    fn default() -> Self {
        Self { systemctl: "/usr/bin/systemctl".into(), directory: DIRECTORY.into() }
    }
}

#[async_trait(?Send)]
impl Rebuild for HostKernels {
    fn available(&self) -> u64 {
        available(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
    }

    async fn rebuild(&self, old: &[u8], patch: &[u8]) -> Result<Vec<u8>, String> {
        let told = |error: io::Error| format!("{}: {error}", self.directory.display());
        // What an earlier run left is of no use.
        let _ = fs::remove_dir_all(&self.directory);
        let made = async {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(told)?;
            for (name, bytes) in [("old", old), ("patch", patch)] {
                fs::write(self.directory.join(name), bytes).map_err(told)?;
            }
            let unit = run(Command::new(&self.systemctl).args(["start", "rebuild-kernel.service"]), LIMIT).await;
            // Why is in that unit's log.
            unit?;
            let new = self.directory.join("new");
            let len = fs::metadata(&new).map_err(told)?.len();
            if len > MAX_KERNEL { Err(format!("{}: it has {len} bytes", new.display())) } else { fs::read(new).map_err(told) }
        };
        let made = made.await;
        let _ = fs::remove_dir_all(&self.directory);
        made
    }
}

/// What `rebuild-kernel.service` does: `new` of `old` and `patch`.
///
/// # Errors
/// In words, when a file cannot be read or written, or the patch does not fit.
pub fn rebuild_in(directory: &Path) -> Result<(), String> {
    let text = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("{path}: {error}")
    };
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read(&path).map_err(text(&path))
    };
    let (old, patch) = (read("old")?, read("patch")?);
    let new = KernelPatch::decode(&patch).and_then(|patch| patch.rebuild(&old)).map_err(|error| error.to_string())?;
    let path = directory.join("new");
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(text(&path))?;
    io::Write::write_all(&mut &file, &new).map_err(text(&path))
}

/// `MemAvailable` of `/proc/meminfo`, in bytes; 0 when it is not there.
fn available(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn memory_is_what_the_kernel_says_can_be_had() {
        assert_eq!(available("MemTotal:  2030404 kB\nMemAvailable:    1234 kB\n"), 1234 << 10);
        assert_eq!(available("MemTotal:  2030404 kB\n"), 0);
    }

    #[tokio::test]
    async fn a_unit_that_fails_or_makes_nothing_is_told_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        for (script, expected) in
            [("echo 'it failed' >&2; exit 1", "it failed"), ("exit 0", "No such file"), ("printf kernel > $(dirname $0)/files/new", "")]
        {
            let systemctl = directory.path().join("systemctl");
            fs::write(&systemctl, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
            let kernels = HostKernels { systemctl, directory: directory.path().join("files") };
            match kernels.rebuild(b"old", b"patch").await {
                Ok(new) => assert!(expected.is_empty() && new == b"kernel"),
                Err(error) => assert!(!expected.is_empty() && error.contains(expected), "{error}"),
            }
            assert!(!kernels.directory.exists());
        }
    }

    #[test]
    fn what_is_no_patch_is_told_and_writes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(rebuild_in(directory.path()).unwrap_err().contains("old"));
        fs::write(directory.path().join("old"), b"no kernel").unwrap();
        fs::write(directory.path().join("patch"), b"no patch").unwrap();
        assert!(rebuild_in(directory.path()).unwrap_err().contains("kernel patch"));
        assert!(!directory.path().join("new").exists());
    }
}
