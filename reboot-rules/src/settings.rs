//! Settings of reboots, as cloud-config leaves them in `/var/lib/cloud-config/settings.json`: `garboard.reboot.*`; where that does not
//! say, `garboard.update.reboot_strategy` and CoreOS's `coreos.update.reboot-strategy` and `coreos.locksmith.*`.
//!
//! All or nothing: a text with one mistake gives no settings, only the list of mistakes, since a rule that was meant and is not
//! understood may be the one that forbids a reboot.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Seconds;
use crate::settings_values::{absolute_path, boolean, endpoints, field, group, length, list, secret, text, window};
use crate::windows::{Window, Zones};

/// How this host comes to a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Never by itself.
    Off,
    /// Without asking other hosts.
    Reboot,
    /// With the group's lock in etcd.
    EtcdLock,
    /// With the lock if etcd can be reached, without it if not.
    BestEffort,
    /// With the permission of a FleetLock server.
    FleetLock,
}

impl Strategy {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Reboot => "reboot",
            Self::EtcdLock => "etcd-lock",
            Self::BestEffort => "best-effort",
            Self::FleetLock => "fleet-lock",
        }
    }

    /// Whether the lock in etcd is part of it.
    #[must_use]
    pub fn uses_etcd(self) -> bool {
        matches!(self, Self::EtcdLock | Self::BestEffort)
    }
}

/// What happens while etcd cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdDown {
    /// No reboot until it can.
    Wait,
    /// A reboot without the lock when it has been so for so long.
    ProceedAfter(Seconds),
}

/// What becomes of the lock of a host that does not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vanished {
    /// It stays taken until somebody frees it.
    Keep,
    /// It is free after so long.
    ExpireAfter(Seconds),
}

/// How etcd is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Etcd {
    /// URLs, tried in turn; empty: the etcd of this host.
    pub endpoints: Vec<String>,
    /// PEM file of the certificates that etcd's is checked with.
    pub ca_file: Option<String>,
    /// PEM file of our certificate.
    pub cert_file: Option<String>,
    /// PEM file of its key.
    pub key_file: Option<String>,
    /// User.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// File that holds its password.
    pub password_file: Option<String>,
}

/// The FleetLock server that is asked for permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetLock {
    /// Base URL.
    pub url: String,
    /// PEM file of the certificates that the server's is checked with.
    pub ca_file: Option<String>,
}

/// The FleetLock server that this host is for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetLockServer {
    /// Where it listens.
    pub listen: SocketAddr,
    /// PEM file of its certificate; without one it speaks plain HTTP.
    pub cert_file: Option<String>,
    /// PEM file of the key.
    pub key_file: Option<String>,
    /// PEM file of the certificates that clients' are checked with.
    pub client_ca_file: Option<String>,
}

/// What happens between the permission and the reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// All of it together.
    pub timeout: Seconds,
    /// Each hook.
    pub hook_timeout: Seconds,
    /// Whether containers are stopped.
    pub containers: bool,
    /// Whether a hook that fails calls the reboot off, to be tried again.
    pub hooks_must_succeed: bool,
}

/// All of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The strategy; the default depends on the host.
    pub strategy: Option<Strategy>,
    /// The group whose lock is taken.
    pub group: String,
    /// When reboots may happen; any time when empty.
    pub windows: Vec<Window>,
    /// Over how long hosts that could reboot at once are spread.
    pub jitter: Seconds,
    /// How etcd is reached.
    pub etcd: Etcd,
    /// What happens while it is not.
    pub etcd_down: EtcdDown,
    /// What becomes of locks whose host has vanished.
    pub vanished: Vanished,
    /// Whether a member of an etcd cluster minds the cluster's quorum.
    pub quorum: bool,
    /// The server that is asked with the strategy `fleet-lock`.
    pub fleet_lock: Option<FleetLock>,
    /// The server that is offered to others.
    pub fleet_lock_server: Option<FleetLockServer>,
    /// What happens before a reboot.
    pub drain: Drain,
    /// How long users who are logged in are warned.
    pub warn: Seconds,
    /// By how much they can put it off, all in all.
    pub warn_extend: Seconds,
    /// How long inhibitors of the mode `delay` are waited for.
    pub inhibit_delay: Seconds,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: None,
            group: "default".to_owned(),
            windows: Vec::new(),
            jitter: 0,
            etcd: Etcd::default(),
            etcd_down: EtcdDown::Wait,
            vanished: Vanished::Keep,
            quorum: true,
            fleet_lock: None,
            fleet_lock_server: None,
            drain: Drain { timeout: 600, hook_timeout: 120, containers: true, hooks_must_succeed: true },
            warn: 300,
            warn_extend: 3600,
            inhibit_delay: crate::inhibitors::DELAY_MAX,
        }
    }
}

/// A setting that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its full key.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.key, self.message)
    }
}

/// What is said about a key that is none.
pub const UNKNOWN: &str = "is not known";

/// The keys of `garboard.reboot`.
pub const KEYS: [&str; 24] = [
    "strategy",
    "group",
    "windows",
    "time_zone",
    "jitter",
    "endpoints",
    "ca_file",
    "cert_file",
    "key_file",
    "username",
    "password",
    "password_file",
    "etcd_down",
    "vanished",
    "quorum",
    "fleet_lock",
    "fleet_lock_server",
    "drain_timeout",
    "hook_timeout",
    "hooks_must_succeed",
    "stop_containers",
    "warn",
    "warn_extend",
    "inhibit_delay",
];

/// The keys of `coreos.locksmith`.
pub const LOCKSMITH_KEYS: [&str; 10] = [
    "reboot_strategy",
    "window_start",
    "window_length",
    "group",
    "endpoint",
    "etcd_cafile",
    "etcd_certfile",
    "etcd_keyfile",
    "etcd_username",
    "etcd_password",
];

/// Reads the whole of `settings.json`.
///
/// # Errors
/// All mistakes in what concerns reboots.
pub fn parse(bytes: &[u8], zones: Zones<'_>) -> Result<Settings, Vec<Problem>> {
    match serde_json::from_slice::<Map<String, Value>>(bytes) {
        Ok(all) => read(&all, zones),
        Err(error) => Err(vec![Problem { key: "settings".to_owned(), message: format!("they are no JSON object: {error}") }]),
    }
}

/// Reads the settings from the map whose keys are `garboard`, `coreos.update` and `coreos.locksmith`.
///
/// # Errors
/// All mistakes in what concerns reboots.
pub fn read(all: &Map<String, Value>, zones: Zones<'_>) -> Result<Settings, Vec<Problem>> {
    let mut reading = Reading { settings: Settings::default(), problems: Vec::new(), zones };
    let old = |name: &str| all.get(name).and_then(Value::as_object);
    if let Some(strategy) = old("coreos.update").and_then(|update| field(update, "reboot_strategy")) {
        reading.note("coreos.update.reboot_strategy", |settings| settings.set_strategy(strategy));
    }
    if let Some(locksmith) = old("coreos.locksmith") {
        reading.locksmith(locksmith);
    }
    let ours = all.get("garboard").and_then(Value::as_object);
    let update = ours.and_then(|ours| ours.get("update")).and_then(Value::as_object);
    if let Some(strategy) = update.and_then(|update| field(update, "reboot_strategy")) {
        reading.note("garboard.update.reboot_strategy", |settings| settings.set_strategy(strategy));
    }
    match ours.and_then(|ours| ours.get("reboot")) {
        None | Some(Value::Null) => {}
        Some(Value::Object(reboot)) => reading.ours(reboot),
        Some(_) => reading.problem("garboard.reboot", "must be a map"),
    }
    reading.whole();
    if reading.problems.is_empty() { Ok(reading.settings) } else { Err(reading.problems) }
}

struct Reading<'a> {
    settings: Settings,
    problems: Vec<Problem>,
    zones: Zones<'a>,
}

impl Reading<'_> {
    fn problem(&mut self, key: &str, message: impl Into<String>) {
        // A value may hold anything; what is said about it stays one line.
        let message = message.into().replace(|c: char| c.is_control(), " ");
        self.problems.push(Problem { key: key.to_owned(), message });
    }

    fn note(&mut self, key: &str, set: impl FnOnce(&mut Settings) -> Result<(), String>) {
        if let Err(message) = set(&mut self.settings) {
            self.problem(key, message);
        }
    }

    fn locksmith(&mut self, map: &Map<String, Value>) {
        let zones = self.zones;
        for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            let key = name.replace('-', "_");
            let full = format!("coreos.locksmith.{key}");
            let ours = match key.as_str() {
                "reboot_strategy" => "strategy",
                "group" => "group",
                "endpoint" => "endpoints",
                "etcd_cafile" => "ca_file",
                "etcd_certfile" => "cert_file",
                "etcd_keyfile" => "key_file",
                "etcd_username" => "username",
                "etcd_password" => "password",
                "window_start" | "window_length" => continue,
                _ => {
                    self.problem(&full, UNKNOWN);
                    continue;
                }
            };
            self.note(&full, |settings| settings.set(ours, value));
        }
        match (field(map, "window_start"), field(map, "window_length")) {
            (None, None) => {}
            (Some(start), Some(length)) => self.note("coreos.locksmith.window_start", |settings| {
                let start = crate::settings_values::clock(start)?;
                settings.windows = vec![Window::locksmith(&start, text(length)?, zones)?];
                Ok(())
            }),
            (Some(_), None) => self.problem("coreos.locksmith.window_start", "needs a `window_length` beside it"),
            (None, Some(_)) => self.problem("coreos.locksmith.window_length", "needs a `window_start` beside it"),
        }
    }

    fn ours(&mut self, map: &Map<String, Value>) {
        let zone = field(map, "time_zone").cloned();
        for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            let key = name.replace('-', "_");
            if key == "windows" {
                self.windows(value, zone.as_ref());
            } else {
                self.note(&format!("garboard.reboot.{key}"), |settings| settings.set(&key, value));
            }
        }
        if let Some(zone) = zone.filter(|_| field(map, "windows").is_none()) {
            self.problem("garboard.reboot.time_zone", format!("{zone} is of no use without `windows`"));
        }
    }

    fn windows(&mut self, value: &Value, zone: Option<&Value>) {
        let zone = match zone.map(text) {
            None => None,
            Some(Ok(zone)) => Some(zone),
            Some(Err(message)) => return self.problem("garboard.reboot.time_zone", message),
        };
        let zones = self.zones;
        let mut windows = Vec::new();
        for (at, item) in list(value).iter().enumerate() {
            match window(item, zone, zones) {
                Ok(window) => windows.push(window),
                Err(message) => self.problem(&format!("garboard.reboot.windows[{at}]"), message),
            }
        }
        if windows.is_empty() && self.problems.is_empty() {
            self.problem("garboard.reboot.windows", "is empty: leave it out for reboots at any time, or say `strategy: off` for none");
        }
        self.settings.windows = windows;
    }

    /// What settings must be together.
    fn whole(&mut self) {
        let etcd = self.settings.etcd.clone();
        if etcd.cert_file.is_some() != etcd.key_file.is_some() {
            self.problem("garboard.reboot.cert_file", "`cert_file` and `key_file` go together");
        }
        if etcd.password.is_some() && etcd.password_file.is_some() {
            self.problem("garboard.reboot.password_file", "`password` and `password_file` exclude each other");
        }
        if etcd.username.is_some() != (etcd.password.is_some() || etcd.password_file.is_some()) {
            self.problem("garboard.reboot.username", "`username` and a password go together");
        }
        if self.settings.strategy == Some(Strategy::FleetLock) && self.settings.fleet_lock.is_none() {
            self.problem("garboard.reboot.fleet_lock", "the strategy `fleet-lock` needs the server's URL here");
        }
    }
}

impl Settings {
    fn set_strategy(&mut self, value: &Value) -> Result<(), String> {
        self.strategy = Some(match value {
            // YAML 1.1 makes `off` a boolean.
            Value::Bool(false) => Strategy::Off,
            _ => match text(value)? {
                "off" | "false" => Strategy::Off,
                "reboot" => Strategy::Reboot,
                "etcd-lock" => Strategy::EtcdLock,
                "best-effort" => Strategy::BestEffort,
                "fleet-lock" | "fleet_lock" => Strategy::FleetLock,
                other => return Err(format!("'{other}' is none of off, reboot, etcd-lock, best-effort, fleet-lock")),
            },
        });
        Ok(())
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let file = || absolute_path(value).map(Some);
        match key {
            "strategy" => self.set_strategy(value)?,
            "group" => self.group = group(value)?,
            "time_zone" => drop(text(value)?),
            "jitter" => self.jitter = length(value)?,
            "endpoints" => self.etcd.endpoints = endpoints(value)?,
            "ca_file" => self.etcd.ca_file = file()?,
            "cert_file" => self.etcd.cert_file = file()?,
            "key_file" => self.etcd.key_file = file()?,
            "username" => self.etcd.username = Some(text(value)?.to_owned()),
            "password" => self.etcd.password = Some(secret(value)?),
            "password_file" => self.etcd.password_file = file()?,
            "etcd_down" => {
                self.etcd_down = match text(value)?.split_once('=') {
                    None if value == "wait" => EtcdDown::Wait,
                    Some(("proceed-after", span)) => EtcdDown::ProceedAfter(length(&Value::from(span))?),
                    _ => return Err(format!("{value} is neither `wait` nor `proceed-after=1h`")),
                }
            }
            "vanished" => {
                self.vanished = match text(value)?.split_once('=') {
                    None if value == "keep" => Vanished::Keep,
                    Some(("expire-after", span)) => match length(&Value::from(span))? {
                        seconds if seconds < 300 => {
                            return Err("`expire-after` must be five minutes or more: hosts take that to reboot".to_owned());
                        }
                        seconds => Vanished::ExpireAfter(seconds),
                    },
                    _ => return Err(format!("{value} is neither `keep` nor `expire-after=24h`")),
                }
            }
            "quorum" => self.quorum = boolean(value)?,
            "fleet_lock" => self.fleet_lock = Some(crate::settings_values::fleet_lock(value)?),
            "fleet_lock_server" => self.fleet_lock_server = Some(crate::settings_values::fleet_lock_server(value)?),
            "drain_timeout" => self.drain.timeout = length(value)?,
            "hook_timeout" => self.drain.hook_timeout = length(value)?,
            "hooks_must_succeed" => self.drain.hooks_must_succeed = boolean(value)?,
            "stop_containers" => self.drain.containers = boolean(value)?,
            "warn" => self.warn = length(value)?,
            "warn_extend" => self.warn_extend = length(value)?,
            "inhibit_delay" => self.inhibit_delay = length(value)?,
            _ => return Err(UNKNOWN.to_owned()),
        }
        Ok(())
    }

    /// The strategy that counts on a host where etcd is enabled or not.
    #[must_use]
    pub fn strategy_on(&self, etcd_enabled: bool) -> Strategy {
        self.strategy.unwrap_or(if etcd_enabled { Strategy::EtcdLock } else { Strategy::Reboot })
    }
}

#[cfg(test)]
mod tests;
