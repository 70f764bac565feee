//! `modprobe.d`: options, aliases, blacklists, install commands; and the same from the kernel command line.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::index::{SoftDependencies, normal, parse_softdep};
use crate::cmdline::CommandLine;
use crate::glob;

/// The directories of `modprobe.d`, the strongest first.
pub const DIRECTORIES: [&str; 4] = ["etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d"];

/// What the kernel's own index does not say: opening `/dev/kvm` asks for its device number, and `kvm` alone does nothing.
const BUILT_IN: &str = "alias char-major-10-232 kvm\nsoftdep kvm post: kvm_intel kvm_amd\n";

/// Everything that was configured about modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    options: HashMap<String, Vec<String>>,
    aliases: Vec<(String, String)>,
    blacklist: HashSet<String>,
    install: HashMap<String, String>,
    soft: HashMap<String, SoftDependencies>,
}

impl Config {
    /// Reads the directories below `root`.
    #[must_use]
    pub fn read(root: &Path, cmdline: &CommandLine) -> Self {
        let mut config = Self::default();
        config.add(BUILT_IN);
        for (_, text) in crate::dropin::read_all(root, &DIRECTORIES, "conf") {
            config.add(&text);
        }
        for list in ["modprobe.blacklist", "module_blacklist"] {
            config.blacklist.extend(cmdline.values(list).flat_map(|names| names.split(',')).map(normal));
        }
        config
    }

    /// Adds the lines of one file. Lines that are not understood are skipped, as modprobe does.
    pub fn add(&mut self, text: &str) {
        for line in text.replace("\\\n", " ").lines() {
            let line = line.trim();
            let mut words = line.split_whitespace();
            let (Some(command), Some(name)) = (words.next(), words.next()) else { continue };
            let rest = || line.splitn(3, char::is_whitespace).nth(2).unwrap_or_default().trim().to_owned();
            match command {
                "options" => self.options.entry(normal(name)).or_default().push(words.collect::<Vec<_>>().join(" ")),
                "alias" => self.aliases.extend(words.next().map(|module| (normal(name), normal(module)))),
                "blacklist" => {
                    self.blacklist.insert(normal(name));
                }
                "install" => {
                    self.install.insert(normal(name), rest());
                }
                "softdep" => self.soft.extend(parse_softdep(line)),
                _ => {}
            }
        }
    }

    /// The parameters for a module, from the files and then the command line.
    #[must_use]
    pub fn parameters(&self, module: &str, cmdline: &CommandLine) -> String {
        let mut words: Vec<String> = self.options.get(module).cloned().unwrap_or_default();
        words.extend(Some(super::insert::parameters_on(cmdline, module)).filter(|text| !text.is_empty()));
        words.join(" ")
    }

    /// The modules that configured aliases give for a name.
    #[must_use]
    pub fn by_alias(&self, alias: &str) -> Vec<&str> {
        let alias = normal(alias);
        self.aliases.iter().filter(|(pattern, _)| glob::matches(pattern, &alias)).map(|(_, module)| module.as_str()).collect()
    }

    /// Whether a module may not be loaded by alias.
    #[must_use]
    pub fn is_blacklisted(&self, module: &str) -> bool {
        self.blacklist.contains(module)
    }

    /// The command that stands in for loading a module.
    #[must_use]
    pub fn install_command(&self, module: &str) -> Option<&str> {
        self.install.get(module).map(String::as_str)
    }

    /// Configured soft dependencies.
    #[must_use]
    pub fn soft(&self, module: &str) -> Option<&SoftDependencies> {
        self.soft.get(module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_kind() {
        let mut config = Config::default();
        config.add(
            "# c\noptions kvm-intel nested=1 \\\n ept=0\nalias net-pf-10 off\nblacklist pcspkr\ninstall cramfs /bin/false\nnonsense\n",
        );
        config.add("options kvm_intel x=2\nsoftdep a pre: b\n");
        let cmdline = CommandLine::parse("kvm-intel.y=3 quiet");
        assert_eq!(config.parameters("kvm_intel", &cmdline), "nested=1 ept=0 x=2 y=3");
        assert_eq!(config.by_alias("net-pf-10"), ["off"]);
        assert!(config.is_blacklisted("pcspkr"));
        assert_eq!(config.install_command("cramfs"), Some("/bin/false"));
        assert_eq!(config.soft("a").unwrap().before, ["b"]);
    }

    #[test]
    fn the_command_line_can_blacklist() {
        let root = tempfile::tempdir().unwrap();
        let config = Config::read(root.path(), &CommandLine::parse("modprobe.blacklist=a-b,c"));
        assert!(config.is_blacklisted("a_b") && config.is_blacklisted("c"));
    }
}
