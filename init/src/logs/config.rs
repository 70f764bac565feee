//! Settings of the log store, in `journald.conf`'s syntax, and what they default to.
//!
//! Read are `[Journal]` sections of `/etc/systemd/journald.conf` and of `*.conf` in `journald.conf.d` below `/usr/lib/systemd`,
//! `/run/systemd` and `/etc/systemd`, in the order of their names, as systemd does. Known: `SystemMaxUse=`, `SystemMaxFileSize=`,
//! `RateLimitIntervalSec=`, `RateLimitBurst=`, `SyncIntervalSec=`. A value that cannot be read keeps the default and is reported.

use super::rate_limit::RateLimit;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Bound of the store in bytes; by default the smaller of 64 MiB and a tenth of the file system.
    pub max_use: Option<u64>,
    /// Bytes of one segment; by default a sixteenth of the bound.
    pub max_file: Option<u64>,
    /// Limit of a unit that has none of its own.
    pub rate_limit: RateLimit,
    /// Microseconds until what is written is synced.
    pub sync_interval: u64,
    /// What was wrong, one line each.
    pub complaints: Vec<String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        let rate_limit = RateLimit { interval: 30_000_000, burst: 10_000 };
        LogConfig { max_use: None, max_file: None, rate_limit, sync_interval: 5_000_000, complaints: Vec::new() }
    }
}

impl LogConfig {
    /// Reads the files below `root`.
    pub fn load(root: &Path) -> LogConfig {
        let mut files: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
        for directory in ["usr/lib/systemd", "run/systemd", "etc/systemd"] {
            let Ok(entries) = std::fs::read_dir(root.join(directory).join("journald.conf.d")) else { continue };
            for entry in entries.flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "conf")) {
                files.insert(entry.file_name(), entry.path());
            }
        }
        let mut config = LogConfig::default();
        for path in std::iter::once(root.join("etc/systemd/journald.conf")).chain(files.into_values()) {
            if let Ok(text) = std::fs::read_to_string(&path) {
                config.apply(&text, &path.display().to_string());
            }
        }
        config
    }

    /// Applies one file's text.
    pub fn apply(&mut self, text: &str, name: &str) {
        let mut ours = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('[') {
                ours = line == "[Journal]";
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| ours && !line.starts_with(['#', ';'])) else { continue };
            let (key, value) = (key.trim(), value.trim());
            if !self.set(key, value) {
                self.complaints.push(format!("{name}:{}: cannot read '{value}' as a value of {key}=, ignored", number + 1));
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) -> bool {
        let defaults = LogConfig::default();
        match key {
            "SystemMaxUse" => set_or_default(&mut self.max_use, value, None, |v| size(v).map(Some)),
            "SystemMaxFileSize" => set_or_default(&mut self.max_file, value, None, |v| size(v).map(Some)),
            "RateLimitIntervalSec" => set_or_default(&mut self.rate_limit.interval, value, defaults.rate_limit.interval, time_span),
            "RateLimitBurst" => set_or_default(&mut self.rate_limit.burst, value, defaults.rate_limit.burst, |v| v.parse().ok()),
            "SyncIntervalSec" => set_or_default(&mut self.sync_interval, value, defaults.sync_interval, time_span),
            // journald's other keys have no meaning here; a file made for it is no mistake.
            _ => true,
        }
    }

    /// The bound in bytes on a file system of this size.
    pub fn total(&self, file_system: Option<u64>) -> u64 {
        let default = file_system.map_or(64 * MIB, |size| (size / 10).min(64 * MIB));
        self.max_use.unwrap_or(default).max(MIB)
    }

    /// The size of a segment under that bound.
    pub fn segment(&self, total: u64) -> u64 {
        self.max_file.unwrap_or(total / 16).clamp(64 * 1024, (total / 4).clamp(64 * 1024, 16 * MIB))
    }
}

fn set_or_default<T>(slot: &mut T, value: &str, default: T, parse: impl Fn(&str) -> Option<T>) -> bool {
    if value.is_empty() {
        *slot = default;
        return true;
    }
    parse(value).map(|parsed| *slot = parsed).is_some()
}

/// Bytes, with systemd's suffixes K, M, G, T to the base 1024.
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at_checked(split)?;
    let shift = match suffix.trim() {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A time span such as `30s`, `1min 30s` or `5` (seconds), in microseconds.
pub fn time_span(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at_checked(split)?;
        let after = after.trim_start();
        let split = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(split)?;
        let factor: u64 = match unit {
            "us" | "usec" => 1,
            "ms" | "msec" => 1_000,
            "" | "s" | "sec" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "minute" | "minutes" => 60_000_000,
            "h" | "hr" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            "w" | "week" | "weeks" => 604_800_000_000,
            "month" | "months" | "M" => 2_629_800_000_000,
            "y" | "year" | "years" => 31_557_600_000_000,
            _ => return None,
        };
        total = total.checked_add(digits.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = next.trim_start();
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journald_conf_sets_what_we_know_and_complains_about_bad_values() {
        let mut config = LogConfig::default();
        let text = "[Journal]\nSystemMaxUse=200M\nRateLimitBurst=0\n#SyncIntervalSec=1\nSyncIntervalSec=1min 5s\nStorage=persistent\nSystemMaxFileSize=lots\n[Other]\nRateLimitBurst=7\n";
        config.apply(text, "journald.conf");
        assert_eq!((config.max_use, config.rate_limit.burst, config.sync_interval), (Some(200 << 20), 0, 65_000_000));
        assert_eq!(config.complaints, ["journald.conf:7: cannot read 'lots' as a value of SystemMaxFileSize=, ignored"]);
        config.apply("[Journal]\nRateLimitBurst=\n", "later.conf");
        assert_eq!(config.rate_limit.burst, 10_000);
    }

    #[test]
    fn the_bound_is_a_tenth_of_a_small_file_system() {
        let config = LogConfig::default();
        assert_eq!(config.total(Some(100 << 20)), 10 << 20);
        assert_eq!(config.total(Some(10 << 30)), 64 << 20);
        assert_eq!(config.segment(64 << 20), 4 << 20);
    }

    #[test]
    fn time_spans() {
        assert_eq!(time_span("5"), Some(5_000_000));
        assert_eq!(time_span("1h 30min"), Some(5_400_000_000));
        assert_eq!(time_span("2d"), Some(172_800_000_000));
        assert_eq!(time_span("tomorrow"), None);
        assert_eq!(time_span(""), None);
        assert_eq!(time_span("99999999999999999999s"), None);
    }
}
