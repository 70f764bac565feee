//! Loading modules of the initramfs: what is not a driver at once, drivers for devices that are there, and no more of them as
//! soon as the disk is found. The rest of the machine's drivers is the device daemon's business, with the root's modules.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;

use super::failure::Failure;
use crate::cmdline::CommandLine;
use crate::modules::info::Info;
use crate::modules::{insert, present};

const MODULES: &str = "/modules";

#[derive(Clone, Debug)]
struct Candidate {
    name: String,
    file_name: String,
    info: Info,
}

/// The modules of the initramfs, in the builder's order, which puts what is needed first.
#[derive(Debug)]
pub(super) struct Drivers {
    candidates: Vec<Candidate>,
    done: HashSet<String>,
    devices: Vec<String>,
    cmdline: CommandLine,
    /// What could not be loaded; the disk may not need it.
    pub(super) warnings: Vec<String>,
}

impl Drivers {
    /// Reads what is there.
    pub(super) fn read(cmdline: &CommandLine) -> Result<Self, Failure> {
        let order = fs::read_to_string(Path::new(MODULES).join("order")).map_err(Failure::ModuleOrder)?;
        let candidates = order
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| {
                let file_name = if line.contains(".ko") { line.to_owned() } else { format!("{line}.ko") };
                let info = fs::read(Path::new(MODULES).join(&file_name)).map(|file| Info::parse(&file)).unwrap_or_default();
                Candidate { name: insert::module_name(&file_name), file_name, info }
            })
            .filter(|candidate| !insert::is_blacklisted_on(cmdline, &candidate.name))
            .collect();
        let devices = present::aliases(Path::new("/sys"));
        Ok(Self { candidates, done: HashSet::new(), devices, cmdline: cmdline.clone(), warnings: Vec::new() })
    }

    /// Loads what serves every machine: device mapper, file systems, hashes.
    pub(super) fn load_common(&mut self) {
        for name in common(&self.candidates) {
            self.load_with_needs(&name);
        }
    }

    /// Loads what the ESP needs to be mounted: `nls_*` are the character sets of its names.
    pub(super) fn load_for_esp(&mut self) {
        for name in ["vfat", "nls_cp437", "nls_ascii"] {
            self.load_with_needs(name);
        }
    }

    /// Loads the next driver that has a device and was not tried; false when there is none.
    pub(super) fn load_next(&mut self) -> bool {
        let next = self.candidates.iter().find(|candidate| !self.done.contains(&candidate.name) && candidate.info.drives(&self.devices));
        let Some(name) = next.map(|candidate| candidate.name.clone()) else { return false };
        self.load_with_needs(&name);
        // A driver of a controller brings forth devices at once; those that come later are heard of as events.
        self.devices = present::aliases(Path::new("/sys"));
        true
    }

    /// Takes note of a device that has appeared.
    pub(super) fn appeared(&mut self, alias: &str) {
        self.devices.push(alias.to_owned());
    }

    fn load_with_needs(&mut self, name: &str) {
        for step in with_needs(&self.candidates, name) {
            if self.done.insert(step.clone())
                && let Some(candidate) = self.candidates.iter().find(|candidate| candidate.name == step)
            {
                let parameters = insert::parameters_on(&self.cmdline, &candidate.name);
                let loaded = File::open(Path::new(MODULES).join(&candidate.file_name))
                    .and_then(|file| insert::insert(&file, &candidate.file_name, &parameters));
                if let Err(error) = loaded {
                    self.warnings.push(format!("cannot load the module {}: {error}", candidate.name));
                }
            }
        }
    }
}

/// What is neither a driver nor only there because another module needs it. What a mount asks for by itself, from the root's
/// modules, can wait as well: of the file systems only those of the root and of `/etc` are wanted.
fn common(candidates: &[Candidate]) -> Vec<String> {
    let needed: HashSet<&str> = candidates.iter().flat_map(|candidate| &candidate.info.depends).map(String::as_str).collect();
    let is_other_file_system = |candidate: &Candidate| {
        !["erofs", "overlay", "efivarfs"].contains(&candidate.name.as_str())
            && candidate.info.aliases.iter().any(|alias| alias.starts_with("fs_"))
    };
    candidates
        .iter()
        .filter(|candidate| !candidate.info.is_driver() && !needed.contains(candidate.name.as_str()) && !is_other_file_system(candidate))
        .filter(|candidate| !candidate.name.starts_with("nls_"))
        .map(|candidate| candidate.name.clone())
        .collect()
}

/// A module and everything it needs, in the builder's order.
fn with_needs(candidates: &[Candidate], name: &str) -> Vec<String> {
    let mut wanted = HashSet::from([name.to_owned()]);
    let mut queue = vec![name.to_owned()];
    while let Some(name) = queue.pop() {
        for need in candidates.iter().filter(|candidate| candidate.name == name).flat_map(|candidate| &candidate.info.depends) {
            if wanted.insert(need.clone()) {
                queue.push(need.clone());
            }
        }
    }
    candidates.iter().map(|candidate| candidate.name.clone()).filter(|name| wanted.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Candidate> {
        let make = |name: &str, aliases: &[&str], depends: &[&str]| Candidate {
            name: name.to_owned(),
            file_name: format!("{name}.ko"),
            info: Info {
                aliases: aliases.iter().map(|alias| crate::modules::index::normal(alias)).collect(),
                depends: depends.iter().map(|name| (*name).to_owned()).collect(),
            },
        };
        vec![
            make("sha256_ssse3", &["cpu:type:x86", "crypto-sha256"], &[]),
            make("virtio_blk", &["virtio:d00000002v*"], &[]),
            make("scsi_common", &[], &[]),
            make("scsi_mod", &[], &["scsi_common"]),
            make("libata", &[], &["scsi_mod"]),
            make("ahci", &["pci:v*bc01sc06i01*"], &["libata"]),
            make("dm_mod", &["devname:mapper/control"], &[]),
            make("dm_verity", &["dm-verity"], &["dm_mod"]),
            make("erofs", &["fs-erofs"], &[]),
            make("vfat", &["fs-vfat"], &["fat"]),
            make("fat", &[], &[]),
            make("nls_ascii", &[], &[]),
        ]
    }

    #[test]
    fn drivers_and_what_only_they_need_wait_for_a_device() {
        assert_eq!(common(&sample()), ["sha256_ssse3", "dm_verity", "erofs"]);
    }

    #[test]
    fn what_is_needed_comes_first() {
        assert_eq!(with_needs(&sample(), "ahci"), ["scsi_common", "scsi_mod", "libata", "ahci"]);
        assert_eq!(with_needs(&sample(), "dm_verity"), ["dm_mod", "dm_verity"]);
    }
}
