//! All `.network` files of the host, in the order in which they are tried.

use super::link_file::LinkFile;
use super::netdev_file::{self, VirtualDevice};
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
    /// Virtual links to make.
    pub devices: Vec<VirtualDevice>,
    /// Names and other properties of links.
    pub links: Vec<LinkFile>,
    /// What could not be used.
    pub complaints: Vec<String>,
}

impl Settings {
    /// Reads them below `root`.
    pub fn load(root: &Path) -> Settings {
        let mut settings = Settings::default();
        for (name, path) in named(root, "", ".network") {
            let Some(texts) = settings.texts(root, &name, &path) else { continue };
            let (file, complaints) = NetworkFile::parse_with_drop_ins(&name, &texts);
            settings.complain(complaints);
            settings.files.push(file);
        }
        for (name, path) in named(root, "", ".netdev") {
            let Some(texts) = settings.texts(root, &name, &path) else { continue };
            match netdev_file::parse(&texts) {
                (Some(device), complaints) => {
                    settings.complain(complaints);
                    settings.devices.push(device);
                }
                (None, complaints) => settings.complain(complaints),
            }
        }
        for (name, path) in named(root, "", ".link") {
            let Some(texts) = settings.texts(root, &name, &path) else { continue };
            let (file, complaints) = LinkFile::parse(&texts);
            settings.complain(complaints);
            settings.links.push(file);
        }
        settings
    }

    /// A file's text and those of its drop-ins (`NAME.d/*.conf`). An empty file or a link to /dev/null hides one of the same name
    /// further down.
    fn texts(&mut self, root: &Path, name: &str, path: &Path) -> Option<Vec<(String, String)>> {
        let mut texts = Vec::new();
        let drop_ins = named(root, &format!("{name}.d"), ".conf");
        let drop_ins = drop_ins.into_iter().map(|(drop_in, path)| (format!("{name}.d/{drop_in}"), path));
        for (shown, path) in std::iter::once((name.to_owned(), path.to_owned())).chain(drop_ins) {
            match std::fs::read(&path) {
                Ok(bytes) if bytes.is_empty() && texts.is_empty() => return None,
                Ok(bytes) => texts.push((shown, String::from_utf8_lossy(&bytes).into_owned())),
                Err(error) => self.complain(vec![format!("cannot read {}: {error}", path.display())]),
            }
        }
        Some(texts)
    }

    fn complain(&mut self, complaints: Vec<String>) {
        complaints.iter().for_each(|complaint| eprintln!("<4>{complaint}"));
        self.complaints.extend(complaints);
    }

    /// The first file that is for this link.
    pub fn file_for(&self, link: &Link, driver: Option<&str>) -> Option<&NetworkFile> {
        self.files.iter().find(|file| file.matching.matches(link, driver))
    }
}

/// Files with an ending in all directories, by name; the first directory wins.
fn named(root: &Path, below: &str, ending: &str) -> BTreeMap<String, PathBuf> {
    let mut paths = BTreeMap::new();
    for directory in DIRECTORIES {
        let Ok(entries) = std::fs::read_dir(root.join(directory).join(below)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(ending) && !name.starts_with('.') {
                paths.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    paths
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

    #[test]
    fn drop_ins_add_to_a_file_wherever_they_are() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("usr/lib/systemd/network/50-all.network", "[Match]\nName=e*\n[Network]\nDHCP=yes\n");
        put("usr/lib/systemd/network/50-all.network.d/10-dns.conf", "[Network]\nDNS=192.0.2.1\n");
        put("etc/systemd/network/50-all.network.d/10-dns.conf", "[Network]\nDNS=192.0.2.2\n");
        put("run/garboard/network/50-all.network.d/20-mtu.conf", "[Link]\nMTUBytes=1400\n[Network]\nnonsense\n");
        let settings = Settings::load(root.path());
        let file = &settings.files[0];
        assert!(file.dhcp);
        assert_eq!((file.mtu, file.dns.as_slice()), (Some(1400), &["192.0.2.2".parse().unwrap()][..]));
        assert!(settings.complaints[0].starts_with("50-all.network.d/20-mtu.conf:4:"), "{:?}", settings.complaints);
    }
}
