//! The ESP through `fatfs` on a recorded disk, or on any. As with the kernel's vfat, an act is several writes, and nothing orders them
//! before the flush at its end.

use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{FileSystem, FsOptions};

use crate::esp::{EspFile, EspFiles, HEAD, UKI_DIR};
use crate::target::{Area, Target};

/// The ESP as a stream.
pub struct Window<'a> {
    disk: &'a dyn Target,
    at: u64,
}

impl<'a> Window<'a> {
    pub fn new(disk: &'a dyn Target) -> Self {
        Self { disk, at: 0 }
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read(Area::Esp, self.at, buffer)?;
        self.at += buffer.len() as u64;
        Ok(buffer.len())
    }
}

impl Write for Window<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.disk.write(Area::Esp, self.at, data)?;
        self.at += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.wrapping_add_signed(by),
            SeekFrom::End(by) => self.disk.len(Area::Esp)?.wrapping_add_signed(by),
        };
        Ok(self.at)
    }
}

pub struct FatEsp<'a>(pub &'a dyn Target);

impl FatEsp<'_> {
    fn with<T>(&self, act: impl FnOnce(&fatfs::Dir<'_, Window<'_>>) -> io::Result<T>) -> io::Result<T> {
        let volume = FileSystem::new(Window::new(self.0), FsOptions::new())?;
        let result = {
            let directory = volume.root_dir().open_dir(UKI_DIR)?;
            act(&directory)
        };
        volume.unmount()?;
        result
    }

    fn change(&self, act: impl FnOnce(&fatfs::Dir<'_, Window<'_>>) -> io::Result<()>) -> io::Result<()> {
        self.with(act)?;
        self.0.sync(Area::Esp)
    }
}

impl EspFiles for FatEsp<'_> {
    fn list(&mut self) -> io::Result<Vec<EspFile>> {
        self.with(|dir| {
            let entries: Result<Vec<_>, _> = dir.iter().collect();
            Ok(entries?
                .iter()
                .filter(|entry| entry.is_file())
                .map(|entry| EspFile { name: entry.file_name(), size: entry.len() })
                .collect())
        })
    }

    fn create(&mut self, name: &str, content: &mut dyn Read) -> io::Result<()> {
        self.change(|dir| {
            let mut file = dir.create_file(name)?;
            io::copy(content, &mut file)?;
            file.flush()
        })
    }

    fn write_head(&mut self, name: &str, head: &[u8; HEAD]) -> io::Result<()> {
        self.change(|dir| {
            let mut file = dir.open_file(name)?;
            file.write_all(head)?;
            file.flush()
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.change(|dir| dir.rename(from, dir, to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(|dir| dir.remove(name))
    }

    fn free(&mut self) -> io::Result<u64> {
        crate::esp::fat::Volume::read(self.0).map(|volume| volume.free()).map_err(io::Error::other)
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}
