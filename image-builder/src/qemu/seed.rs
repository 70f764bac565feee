//! The disk that gives a machine its first configuration: NoCloud, a small FAT file system with the label `cidata`
//! (<https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html>).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use thiserror::Error;

const SIZE: u64 = 2 << 20;

/// What a machine is told.
#[derive(Clone, Debug, Default)]
pub struct Seed {
    /// A different id makes the machine apply "once per instance" things again.
    pub instance_id: String,
    /// Host name, unless the user data has one.
    pub hostname: Option<String>,
    /// Keys for the user `core`, as in `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// The cloud-config or script itself.
    pub user_data: Vec<u8>,
}

/// Why the disk was not made.
#[derive(Debug, Error)]
#[error("cannot write the configuration disk {path}: {source}")]
pub struct SeedError {
    path: String,
    source: io::Error,
}

impl Seed {
    /// Writes the disk.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), SeedError> {
        self.try_write(path).map_err(|source| SeedError { path: path.display().to_string(), source })
    }

    fn try_write(&self, path: &Path) -> io::Result<()> {
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(SIZE)?;
        let options = FormatVolumeOptions::new().volume_label(*b"CIDATA     ").fat_type(FatType::Fat12);
        fatfs::format_volume(&mut file, options)?;
        let volume = FileSystem::new(&mut file, FsOptions::new())?;
        volume.root_dir().create_file("meta-data")?.write_all(self.meta_data().as_bytes())?;
        volume.root_dir().create_file("user-data")?.write_all(&self.user_data)?;
        volume.unmount()
    }

    /// YAML whose strings are JSON strings, which YAML understands.
    fn meta_data(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = format!("instance-id: {}\n", quoted(&self.instance_id));
        if let Some(hostname) = &self.hostname {
            text.push_str(&format!("local-hostname: {}\n", quoted(hostname)));
        }
        if !self.ssh_keys.is_empty() {
            text.push_str("public-keys:\n");
        }
        for key in &self.ssh_keys {
            text.push_str(&format!("  - {}\n", quoted(key)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_disk_holds_what_was_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed.img");
        let seed = Seed {
            instance_id: "i-1".into(),
            hostname: Some("web".into()),
            ssh_keys: vec!["ssh-ed25519 AAAA a \"b\"".into()],
            user_data: b"#cloud-config\n".to_vec(),
        };
        seed.write(&path).unwrap();
        let volume = FileSystem::new(File::open(&path).unwrap(), FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), "CIDATA");
        let mut text = String::new();
        volume.root_dir().open_file("meta-data").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "instance-id: \"i-1\"\nlocal-hostname: \"web\"\npublic-keys:\n  - \"ssh-ed25519 AAAA a \\\"b\\\"\"\n");
    }
}
