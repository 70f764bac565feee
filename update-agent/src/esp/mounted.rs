//! [`EspFiles`] by the kernel's vfat: mounted at the first change, unmounted by [`EspFiles::finish`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{EspFile, EspFiles, HEAD, UKI_DIR};

/// The ESP of a host.
#[derive(Debug)]
pub struct MountedEsp {
    device: PathBuf,
    at: PathBuf,
    mounted: bool,
}

impl MountedEsp {
    /// The partition's device, and the directory to mount it at.
    #[must_use]
    pub fn new(device: &Path, at: &Path) -> Self {
        Self { device: device.to_owned(), at: at.to_owned(), mounted: false }
    }

    fn directory(&mut self) -> io::Result<PathBuf> {
        if !self.mounted {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
            mount(&self.device, &self.at, "vfat", flags, c"umask=0077,shortname=mixed,errors=remount-ro")?;
            self.mounted = true;
        }
        Ok(self.at.join(UKI_DIR))
    }

    /// Makes names durable, and all else that the file system still holds back.
    fn sync(directory: &Path) -> io::Result<()> {
        let directory = File::open(directory)?;
        directory.sync_all()?;
        Ok(rustix::fs::syncfs(&directory)?)
    }
}

impl Drop for MountedEsp {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl EspFiles for MountedEsp {
    fn list(&mut self) -> io::Result<Vec<EspFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.directory()?)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_file() {
                files.push(EspFile { name: entry.file_name().to_string_lossy().into_owned(), size: meta.len() });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn create(&mut self, name: &str, content: &mut dyn Read) -> io::Result<()> {
        let directory = self.directory()?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(directory.join(name))?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = content.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            file.write_all(buffer.get(..count).unwrap_or_default())?;
        }
        file.sync_all()?;
        Self::sync(&directory)
    }

    fn write_head(&mut self, name: &str, head: &[u8; HEAD]) -> io::Result<()> {
        let directory = self.directory()?;
        let file = OpenOptions::new().write(true).open(directory.join(name))?;
        file.write_all_at(head, 0)?;
        file.sync_all()?;
        Self::sync(&directory)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let directory = self.directory()?;
        if fs::exists(directory.join(to))? {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        fs::rename(directory.join(from), directory.join(to))?;
        Self::sync(&directory)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let directory = self.directory()?;
        fs::remove_file(directory.join(name))?;
        Self::sync(&directory)
    }

    fn free(&mut self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.directory()?)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.mounted {
            unmount(&self.at, UnmountFlags::empty())?;
            self.mounted = false;
        }
        Ok(())
    }
}
