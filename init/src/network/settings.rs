//! All `.network` files of the host, in the order in which they are tried.

use super::netlink::Link;
use super::network_file::NetworkFile;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where they are looked for; the first one that has a name wins.
pub const DIRECTORIES: [&str; 3] = ["etc/systemd/network", "run/garboard/network", "usr/lib/systemd/network"];

/// What the files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Files in the order of their names.
    pub files: Vec<NetworkFile>,
    /// What could not be used.
    pub complaints: Vec<String>,
}

impl Settings {
    /// Reads them below `root`.
    pub fn load(root: &Path) -> Settings {
        let mut paths: BTreeMap<String, PathBuf> = BTreeMap::new();
        for directory in DIRECTORIES {
            let Ok(entries) = std::fs::read_dir(root.join(directory)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".network") && !name.starts_with('.') {
                    paths.entry(name).or_insert_with(|| entry.path());
                }
            }
        }
        let mut settings = Settings::default();
        for (name, path) in paths {
            // An empty file or a link to /dev/null hides one of the same name further down.
            match std::fs::read(&path) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    let (file, complaints) = NetworkFile::parse(&name, &String::from_utf8_lossy(&bytes));
                    complaints.iter().for_each(|complaint| eprintln!("<4>{complaint}"));
                    settings.complaints.extend(complaints);
                    settings.files.push(file);
                }
                Err(error) => settings.complaints.push(format!("cannot read {}: {error}", path.display())),
            }
        }
        settings
    }

    /// The first file that is for this link.
    pub fn file_for(&self, link: &Link, driver: Option<&str>) -> Option<&NetworkFile> {
        self.files.iter().find(|file| file.matching.matches(link, driver))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_hides_the_images_and_order_is_by_name() {
        let root = tempfile::tempdir().unwrap();
        let put = |directory: &str, name: &str, text: &str| {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
            std::fs::write(root.path().join(directory).join(name), text).unwrap();
        };
        put("usr/lib/systemd/network", "50-all.network", "[Match]\nName=*\n[Network]\nDHCP=yes\n");
        put("usr/lib/systemd/network", "10-hidden.network", "[Match]\nName=*\n");
        put("etc/systemd/network", "10-hidden.network", "");
        put("etc/systemd/network", "20-eth0.network", "[Match]\nName=eth0\n[Network]\nAddress=192.0.2.1/24\n");
        put("etc/systemd/network", "notes.txt", "no network file");
        let settings = Settings::load(root.path());
        assert_eq!(settings.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["20-eth0.network", "50-all.network"]);
        let link = |name: &str| Link { name: name.into(), ethernet: true, ..Link::default() };
        assert_eq!(settings.file_for(&link("eth0"), None).unwrap().name, "20-eth0.network");
        assert_eq!(settings.file_for(&link("eth1"), None).unwrap().name, "50-all.network");
    }
}
