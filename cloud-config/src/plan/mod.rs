//! From what was asked for to an ordered list of actions. Pure: nothing here looks at the machine but through [`Facts`].
//!
//! The order is CoreOS's with cloud-init's early and late ends: bootcmd; names; groups, users, keys; files; units; one
//! daemon-reload; enable; unit commands; what runs last is queued for the final stage.

mod render;
mod units;

pub use render::{describe, render};
pub(crate) use units::changes_units;

use crate::config::Config;
use crate::config::reader::Placed;
use crate::config::users::User;
use crate::diagnostics::{Diagnostics, Place};
use crate::substitute::Addresses;
use crate::userdata::{Frequency, Kind, Part};
use serde::Serialize;

/// Where unit files that last are written.
pub const UNIT_DIR: &str = "/etc/systemd/system";
/// Where unit files that go with the boot are written; never /run/systemd/system, which would say that systemd is PID 1.
pub const RUNTIME_UNIT_DIR: &str = "/run/garboard/units";
/// Where network files that last are written.
pub const NETWORK_DIR: &str = "/etc/systemd/network";
/// Where network files that go with the boot are written.
pub const RUNTIME_NETWORK_DIR: &str = "/run/garboard/network";
/// The image's user for people.
pub const DEFAULT_USER: &str = "core";
/// Settings that other programs read.
pub const SETTINGS: &str = "/var/lib/cloud-config/settings.json";

/// What the source knows about the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Changes when the machine is a new one.
    pub instance_id: Option<String>,
    /// Used when user-data names none.
    pub hostname: Option<String>,
    /// Keys for the default user.
    pub keys: Vec<String>,
    /// For substitution.
    pub addresses: Addresses,
}

/// What planning must know about the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The host name now.
    pub hostname: String,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Run a script now and wait for it.
    RunNow {
        /// Its name.
        name: String,
        /// Its bytes.
        #[serde(skip)]
        content: Vec<u8>,
    },
    /// /etc/hostname and the kernel's.
    SetHostname {
        /// The name.
        name: String,
    },
    /// A file with exactly this content.
    WriteFile(FileAction),
    /// A symbolic link.
    Link {
        /// Where.
        path: String,
        /// To what.
        target: String,
    },
    /// Take a mask away.
    Unmask {
        /// The link to /dev/null.
        path: String,
    },
    /// A group and its members.
    Group {
        /// Its name.
        name: String,
        /// Who joins.
        members: Vec<String>,
    },
    /// A user, made or brought up to date.
    User {
        /// Its name.
        name: String,
        /// Everything about it.
        #[serde(skip)]
        user: Box<User>,
    },
    /// A password hash.
    Password {
        /// Whose.
        user: String,
        /// The hash.
        #[serde(skip)]
        hash: String,
    },
    /// Keys in ~/.ssh/authorized_keys.
    AuthorizedKeys {
        /// Whose.
        user: String,
        /// The lines.
        keys: Vec<String>,
    },
    /// Let init read its units again, if any changed.
    DaemonReload,
    /// Carry out `[Install]`.
    Enable {
        /// Which.
        unit: String,
        /// Until the next boot only.
        runtime: bool,
    },
    /// `start` and so on, queued: nothing here may wait for a unit that waits for this program.
    Command {
        /// Which.
        unit: String,
        /// What.
        verb: String,
    },
    /// A script for the final stage.
    Queue {
        /// Its name.
        name: String,
        /// How often it runs.
        frequency: Frequency,
        /// Its bytes.
        #[serde(skip)]
        content: Vec<u8>,
    },
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileAction {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner, name or number.
    pub owner: String,
    /// Group, name or number; the owner's own if absent.
    pub group: Option<String>,
    /// Added to what is there.
    pub append: bool,
    /// The bytes.
    #[serde(skip)]
    pub content: Vec<u8>,
    /// Whether the report may show the bytes.
    #[serde(skip)]
    pub secret: bool,
}

impl FileAction {
    fn system(path: String, mode: u32, content: impl Into<Vec<u8>>) -> FileAction {
        FileAction { path, mode, owner: "root".to_owned(), group: None, append: false, content: content.into(), secret: false }
    }
}

/// An action and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where it was asked for.
    #[serde(flatten)]
    pub place: Place,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// Everything to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// Printed when the final stage ends.
    pub final_message: Option<String>,
}

impl Plan {
    fn push(&mut self, place: Place, action: Action) {
        self.steps.push(Step { place, action });
    }
}

/// Plans a configuration, the scripts of the user-data and the source's metadata.
pub fn plan(config: &Config, scripts: &[Part], metadata: &Metadata, facts: &Facts, diagnostics: &mut Diagnostics) -> Plan {
    let mut plan = Plan { final_message: config.final_message.clone(), ..Plan::default() };
    for part in scripts.iter().filter(|p| p.kind == Kind::Boothook) {
        plan.push(at(part), Action::RunNow { name: script_name(part), content: without_marker(&part.body) });
    }
    if let Some(script) = &config.bootcmd {
        plan.push(script.place, Action::RunNow { name: "bootcmd".to_owned(), content: script.value.clone().into_bytes() });
    }
    names(config, metadata, facts, &mut plan);
    accounts(config, metadata, &mut plan);
    files(config, &mut plan, diagnostics);
    units::plan(config, &mut plan, diagnostics);
    for part in scripts {
        if let Kind::Script(frequency) = part.kind {
            plan.push(at(part), Action::Queue { name: script_name(part), frequency, content: part.body.clone() });
        }
    }
    if let Some(script) = &config.runcmd {
        let content = script.value.clone().into_bytes();
        plan.push(script.place, Action::Queue { name: "runcmd".to_owned(), frequency: Frequency::Instance, content });
    }
    plan
}

fn at(part: &Part) -> Place {
    Place { part: part.number, line: 1 }
}

fn script_name(part: &Part) -> String {
    let clean =
        |n: &str| n.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' }).collect::<String>();
    match part.name.as_deref().map(clean) {
        Some(name) => format!("part-{:03}-{name}", part.number),
        None => format!("part-{:03}", part.number),
    }
}

/// `#cloud-boothook` stands before the script's own first line.
fn without_marker(body: &[u8]) -> Vec<u8> {
    match body.strip_prefix(b"#cloud-boothook") {
        Some(rest) => rest.iter().position(|b| *b == b'\n').and_then(|end| rest.get(end + 1..)).unwrap_or_default().to_vec(),
        None => body.to_vec(),
    }
}

/// hostname, hosts, time zone.
fn names(config: &Config, metadata: &Metadata, facts: &Facts, plan: &mut Plan) {
    let short = |p: &Placed<String>| Placed { place: p.place, value: p.value.split('.').next().unwrap_or_default().to_owned() };
    let from_metadata = metadata.hostname.clone().filter(|h| crate::config::valid_hostname(h));
    let from_metadata = from_metadata.map(|value| Placed { place: Place::default(), value });
    let fqdn = config.fqdn.clone().or_else(|| config.hostname.clone().or_else(|| from_metadata.clone()).filter(|h| h.value.contains('.')));
    let wanted = match (&fqdn, config.prefer_fqdn) {
        (Some(fqdn), true) => Some(fqdn.clone()),
        _ => config.hostname.clone().or_else(|| fqdn.as_ref().map(short)).or_else(|| from_metadata.as_ref().map(short)),
    };
    let name = match wanted {
        Some(wanted) if !config.preserve_hostname => {
            plan.push(wanted.place, Action::SetHostname { name: wanted.value.clone() });
            wanted.value
        }
        _ => facts.hostname.clone(),
    };
    if let Some(manage) = &config.manage_etc_hosts {
        let mut own = fqdn.map(|f| f.value).into_iter().chain([name.clone(), name.split('.').next().unwrap_or_default().to_owned()]);
        let mut names: Vec<String> = Vec::new();
        own.by_ref().filter(|n| !n.is_empty() && n != "localhost").for_each(|n| {
            if !names.contains(&n) {
                names.push(n);
            }
        });
        let mut text = String::from("127.0.0.1 localhost\n");
        if !names.is_empty() {
            text.push_str(&format!("127.0.1.1 {}\n", names.join(" ")));
        }
        text.push_str("::1 localhost ip6-localhost ip6-loopback\n");
        plan.push(manage.place, Action::WriteFile(FileAction::system("/etc/hosts".to_owned(), 0o644, text)));
    }
    if let Some(zone) = &config.timezone {
        plan.push(zone.place, Action::Link { path: "/etc/localtime".to_owned(), target: format!("/usr/share/zoneinfo/{}", zone.value) });
        let content = format!("{}\n", zone.value);
        plan.push(zone.place, Action::WriteFile(FileAction::system("/etc/timezone".to_owned(), 0o644, content)));
    }
}

/// Groups before users, so that users can join them; the default user's keys last; then the sudoers file.
fn accounts(config: &Config, metadata: &Metadata, plan: &mut Plan) {
    let known: Vec<&str> = config.users.iter().chain(&config.default_user).map(|u| u.name.as_str()).collect();
    let later = |m: &&String| known.contains(&m.as_str());
    for group in &config.groups {
        // Members that this configuration makes join when they exist.
        let members = group.members.iter().filter(|m| !later(m)).cloned().collect();
        plan.push(group.place, Action::Group { name: group.name.clone(), members });
    }
    let mut users: Vec<User> = Vec::new();
    for user in config.default_user.iter().chain(&config.users) {
        users.push(user.clone());
    }
    let default = config.default_user.as_ref().map_or(DEFAULT_USER, |u| u.name.as_str());
    for user in &users {
        let mut user = user.clone();
        for group in config.groups.iter().filter(|g| g.members.contains(&user.name)) {
            user.groups.push(group.name.clone());
        }
        let (place, name, keys) = (user.place, user.name.clone(), std::mem::take(&mut user.keys));
        plan.push(place, Action::User { name: name.clone(), user: Box::new(user) });
        if !keys.is_empty() {
            plan.push(place, Action::AuthorizedKeys { user: name, keys });
        }
    }
    let place = config.keys.first().map(|k| k.place).unwrap_or_default();
    let mut keys: Vec<String> = config.keys.iter().map(|k| k.value.clone()).collect();
    keys.extend(metadata.keys.iter().filter(|k| !k.trim().is_empty()).cloned());
    if !keys.is_empty() {
        plan.push(place, Action::AuthorizedKeys { user: default.to_owned(), keys });
    }
    for password in &config.passwords {
        plan.push(password.place, Action::Password { user: password.user.clone(), hash: password.hash.clone() });
    }
    let mut sudoers = String::new();
    for user in &users {
        for rule in &user.sudo {
            sudoers.push_str(&format!("{} {rule}\n", user.name));
        }
    }
    if !sudoers.is_empty() {
        let place = users.iter().find(|u| !u.sudo.is_empty()).map(|u| u.place).unwrap_or_default();
        let text = format!("# Written by cloud-config at every boot; put your own rules into another file.\n{sudoers}");
        plan.push(place, Action::WriteFile(FileAction::system("/etc/sudoers.d/90-cloud-config-users".to_owned(), 0o440, text)));
    }
}

/// `write_files`, those with `defer` last, and what other keys write.
fn files(config: &Config, plan: &mut Plan, diagnostics: &mut Diagnostics) {
    if let Some(oem) = &config.oem {
        plan.push(oem.place, Action::WriteFile(FileAction::system("/etc/oem-release".to_owned(), 0o644, oem.value.clone())));
    }
    if !config.settings.is_empty() {
        let text = serde_json::to_string_pretty(&config.settings).unwrap_or_default() + "\n";
        plan.push(Place::default(), Action::WriteFile(FileAction { secret: true, ..FileAction::system(SETTINGS.to_owned(), 0o600, text) }));
    }
    for defer in [false, true] {
        for file in config.files.iter().filter(|f| f.defer == defer) {
            if file.path == "/etc/environment" && !file.append {
                diagnostics.warning(
                    file.place,
                    "/etc/environment is replaced, so the host's addresses (COREOS_PRIVATE_IPV4 and so on) are in /run/garboard/environment only",
                );
            }
            if file.path.starts_with("/run/systemd/system/") {
                diagnostics.warning(
                    file.place,
                    "/run/systemd/system is not read on this host; use /run/garboard/units or `coreos.units` with `runtime`",
                );
            }
            plan.push(
                file.place,
                Action::WriteFile(FileAction {
                    path: file.path.clone(),
                    mode: file.mode,
                    owner: file.owner.clone(),
                    group: file.group.clone(),
                    append: file.append,
                    content: file.content.clone(),
                    secret: file.mode & 0o044 == 0,
                }),
            );
        }
    }
}
