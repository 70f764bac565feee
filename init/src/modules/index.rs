//! What depmod knows of the modules of one kernel: `modules.dep`, `.alias`, `.softdep`, `.builtin`, `.devname`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::glob;

/// One module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Below the directory of the kernel's release.
    pub path: String,
    /// Names of all modules it needs, in the order in which they are to be loaded.
    pub needs: Vec<String>,
}

/// A device node that exists before its module is loaded, so that opening it loads the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticNode {
    /// Module name.
    pub module: String,
    /// Below `/dev`.
    pub node: String,
    /// `true` for a block device.
    pub block: bool,
    /// Major and minor number.
    pub device: (u32, u32),
}

/// The index of one kernel release.
#[derive(Clone, Debug, Default)]
pub struct Index {
    directory: PathBuf,
    modules: HashMap<String, Module>,
    aliases: Vec<(String, String)>,
    soft: HashMap<String, SoftDependencies>,
    builtin: HashSet<String>,
}

/// What should be loaded before and after a module, when it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftDependencies {
    /// Before.
    pub before: Vec<String>,
    /// After.
    pub after: Vec<String>,
}

/// The kernel's spelling of a module name or alias: dashes are underscores, except within brackets.
#[must_use]
pub fn normal(name: &str) -> String {
    let mut bracket = false;
    name.chars()
        .map(|c| {
            match c {
                '[' => bracket = true,
                ']' => bracket = false,
                _ => {}
            }
            if c == '-' && !bracket { '_' } else { c }
        })
        .collect()
}

/// `kernel/fs/overlayfs/overlay.ko.xz` is the module `overlay`.
#[must_use]
pub fn name_of_path(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split_once(".ko").map_or(file, |(stem, _)| stem))
}

impl Index {
    /// Reads the index of a release below `root`. Missing files are empty ones: a kernel without modules is fine.
    #[must_use]
    pub fn read(root: &Path, release: &str) -> Self {
        let directory = ["usr/lib/modules", "lib/modules"]
            .into_iter()
            .map(|base| root.join(base).join(release))
            .find(|path| path.is_dir())
            .unwrap_or_else(|| root.join("usr/lib/modules").join(release));
        let text = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
        Self::parse(&text("modules.dep"), &text("modules.alias"), &text("modules.softdep"), &text("modules.builtin")).at(directory)
    }

    fn at(mut self, directory: PathBuf) -> Self {
        self.directory = directory;
        self
    }

    /// Builds the index from the texts of its files.
    #[must_use]
    pub fn parse(dep: &str, alias: &str, softdep: &str, builtin: &str) -> Self {
        let modules = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| {
                // depmod lists what is needed first last.
                let needs = needs.split_whitespace().rev().map(name_of_path).collect();
                (name_of_path(path), Module { path: path.to_owned(), needs })
            })
            .collect();
        let aliases = alias
            .lines()
            .filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '))
            .map(|(pattern, module)| (normal(pattern.trim()), normal(module)))
            .collect();
        let soft = softdep.lines().filter_map(parse_softdep).collect();
        Self { directory: PathBuf::new(), modules, aliases, soft, builtin: builtin.lines().map(name_of_path).collect() }
    }

    /// A module by its name.
    #[must_use]
    pub fn module(&self, name: &str) -> Option<&Module> {
        self.modules.get(name)
    }

    /// Where a module's file is.
    #[must_use]
    pub fn file(&self, module: &Module) -> PathBuf {
        self.directory.join(&module.path)
    }

    /// Whether a module is part of the kernel itself.
    #[must_use]
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(name)
    }

    /// The modules whose aliases match, without repetitions.
    #[must_use]
    pub fn by_alias(&self, alias: &str) -> Vec<&str> {
        let alias = normal(alias);
        let kind = alias.split(':').next().unwrap_or(&alias);
        let mut found: Vec<&str> = Vec::new();
        for (pattern, module) in &self.aliases {
            // Nearly all patterns are of another bus; comparing its name first spares the matching.
            if pattern.starts_with(kind) && !found.contains(&module.as_str()) && glob::matches(pattern, &alias) {
                found.push(module);
            }
        }
        found
    }

    /// The soft dependencies of a module.
    #[must_use]
    pub fn soft(&self, name: &str) -> Option<&SoftDependencies> {
        self.soft.get(name)
    }

    /// The nodes of `modules.devname` of a release; the rest of the index is not read.
    #[must_use]
    pub fn static_nodes_of(root: &Path, release: &str) -> Vec<StaticNode> {
        let path = root.join("usr/lib/modules").join(release).join("modules.devname");
        parse_devname(&fs::read_to_string(path).unwrap_or_default())
    }
}

/// `softdep NAME pre: A B post: C`.
pub(super) fn parse_softdep(line: &str) -> Option<(String, SoftDependencies)> {
    let mut words = line.strip_prefix("softdep ")?.split_whitespace();
    let name = normal(words.next()?);
    let mut soft = SoftDependencies::default();
    let mut after = None;
    for word in words {
        match (word, after) {
            ("pre:", _) => after = Some(false),
            ("post:", _) => after = Some(true),
            (word, Some(false)) => soft.before.push(normal(word)),
            (word, Some(true)) => soft.after.push(normal(word)),
            (_, None) => {}
        }
    }
    Some((name, soft))
}

fn parse_devname(text: &str) -> Vec<StaticNode> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (module, node, device) = (words.next()?, words.next()?, words.next()?);
            let (major, minor) = device.get(1..)?.split_once(':')?;
            Some(StaticNode {
                module: normal(module),
                node: node.to_owned(),
                block: device.starts_with('b'),
                device: (major.parse().ok()?, minor.parse().ok()?),
            })
        })
        .filter(|node| !node.node.split('/').any(|part| part == ".." || part.is_empty()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        Index::parse(
            "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/jbd2/jbd2.ko.xz\nkernel/drivers/md/dm-verity.ko: kernel/drivers/md/dm-mod.ko\n",
            "# Aliases\nalias virtio:d00000002v* virtio_blk\nalias fs-ext4 ext4\nalias dm-mod-x dm-verity\n",
            "softdep btrfs pre: crypto-crc32c pre: xor post: zlib\n",
            "kernel/fs/nfs_common/grace.ko\nkernel/drivers/nvme/host/nvme-core.ko\n",
        )
    }

    #[test]
    fn dependencies_come_in_load_order() {
        let index = sample();
        assert_eq!(index.module("ext4").unwrap().needs, ["jbd2", "crc16"]);
        assert_eq!(index.module("dm_verity").unwrap().path, "kernel/drivers/md/dm-verity.ko");
        assert!(index.is_builtin("nvme_core") && !index.is_builtin("ext4"));
    }

    #[test]
    fn aliases_match_whatever_the_dashes() {
        let index = sample();
        assert_eq!(index.by_alias("virtio:d00000002v00001AF4"), ["virtio_blk"]);
        assert_eq!(index.by_alias("fs-ext4"), ["ext4"]);
        assert!(index.by_alias("fs-xfs").is_empty());
    }

    #[test]
    fn soft_dependencies_have_two_sides() {
        let soft = sample().soft("btrfs").cloned().unwrap();
        assert_eq!((soft.before, soft.after), (vec!["crypto_crc32c".to_owned(), "xor".to_owned()], vec!["zlib".to_owned()]));
    }

    #[test]
    fn static_nodes_stay_below_dev() {
        let nodes = parse_devname("# x\nfuse fuse c10:229\nloop loop-control c10:237\nbad ../x c1:1\ntun net/tun c10:200\n");
        assert_eq!(nodes.iter().map(|n| n.node.as_str()).collect::<Vec<_>>(), ["fuse", "loop-control", "net/tun"]);
        assert_eq!(nodes[2].device, (10, 200));
    }
}
