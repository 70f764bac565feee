//! Presets: which units are to be enabled by default.

use std::collections::BTreeMap;

use crate::glob;
use crate::name::UnitName;
use crate::source::UnitSource;

use super::{InstallError, Installer, Plan};

/// Where presets are; the first directory wins for files of the same name.
const DIRECTORIES: [&str; 3] = ["/etc/systemd/system-preset", "/run/garboard/system-preset", "/usr/lib/systemd/system-preset"];

impl<S: UnitSource> Installer<'_, S> {
    /// Whether presets want a unit enabled: the first line that matches decides, and without any it is yes.
    ///
    /// # Errors
    /// When a preset file cannot be read.
    pub fn preset_enables(&self, name: &UnitName) -> Result<bool, InstallError> {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for directory in DIRECTORIES {
            for entry in self.source().list(directory)? {
                if entry.name.ends_with(".preset") {
                    let path = format!("{directory}/{}", entry.name);
                    files.entry(entry.name).or_insert(path);
                }
            }
        }
        for path in files.values() {
            let bytes = self.source().read(path)?.unwrap_or_default();
            for line in String::from_utf8_lossy(&bytes).lines() {
                let mut words = line.split_whitespace();
                let (verb, pattern) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                if matches!(verb, "enable" | "disable") && glob::matches(pattern, name.as_str()) {
                    return Ok(verb == "enable");
                }
            }
        }
        Ok(true)
    }

    /// `systemctl preset`: enables and disables as presets say.
    ///
    /// # Errors
    /// As [`Installer::enable`].
    pub fn preset(&self, names: &[UnitName]) -> Result<Plan, InstallError> {
        let mut plan = Plan::default();
        for name in names {
            let one = std::slice::from_ref(name);
            let part = if self.preset_enables(name)? { self.enable(one)? } else { self.disable(one)? };
            plan.operations.extend(part.operations);
            plan.carries_install_info |= part.carries_install_info;
        }
        Ok(plan)
    }
}
