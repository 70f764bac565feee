//! A cloud-config with types: what was asked for, nothing yet decided about how.
//!
//! [`read`] takes the merged map and gives a [`Config`] and diagnostics; it never fails as a whole.

mod commands;
pub mod coreos;
pub mod etcd;
pub mod files;
mod garboard;
pub mod keys;
pub mod reader;
mod unit_text;
pub mod users;

use crate::diagnostics::Diagnostics;
use crate::yaml::{Node, Value};
use reader::{Placed, Reader};

/// Everything that was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `hostname`.
    pub hostname: Option<Placed<String>>,
    /// `fqdn`.
    pub fqdn: Option<Placed<String>>,
    /// `prefer_fqdn_over_hostname`.
    pub prefer_fqdn: bool,
    /// `preserve_hostname`.
    pub preserve_hostname: bool,
    /// `manage_etc_hosts`, when it asks for something.
    pub manage_etc_hosts: Option<Placed<()>>,
    /// `timezone`.
    pub timezone: Option<Placed<String>>,
    /// Keys for the default user.
    pub keys: Vec<Placed<String>>,
    /// `user`: the default user's name and settings, where it is not `core`.
    pub default_user: Option<users::User>,
    /// `groups`.
    pub groups: Vec<users::Group>,
    /// `users`.
    pub users: Vec<users::User>,
    /// `chpasswd`.
    pub passwords: Vec<users::Password>,
    /// `write_files`.
    pub files: Vec<files::File>,
    /// `coreos.units`.
    pub units: Vec<coreos::Unit>,
    /// `coreos.etcd2` and `coreos.etcd`.
    pub etcd: Vec<Placed<etcd::Setting>>,
    /// `coreos.oem`, as the file it becomes.
    pub oem: Option<Placed<String>>,
    /// `bootcmd` as a script.
    pub bootcmd: Option<Placed<String>>,
    /// `runcmd` as a script.
    pub runcmd: Option<Placed<String>>,
    /// `final_message`.
    pub final_message: Option<String>,
    /// What other programs will read: `garboard`, `coreos.update` and the like, by their full key.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// A host name as the kernel and DNS take it.
pub fn valid_hostname(name: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 64 && name.split('.').all(label)
}

/// Reads the merged map.
pub fn read(root: &Node, diagnostics: &mut Diagnostics) -> Config {
    let mut config = Config::default();
    let mut r = Reader::new(diagnostics);
    let Some(fields) = r.fields(root, "", keys::TOP) else { return config };

    for (key, slot) in [("hostname", &mut config.hostname), ("fqdn", &mut config.fqdn)] {
        let Some(node) = fields.get(key) else { continue };
        let Some(name) = r.line(node, key) else { continue };
        if valid_hostname(&name) {
            *slot = Some(Placed { place: node.place, value: name });
        } else {
            r.error(node.place, format!("`{key}` is not a host name: letters, digits, `-` and `.`, at most 64, no label over 63"));
        }
    }
    config.prefer_fqdn = r.opt_bool(&fields, "prefer_fqdn_over_hostname").unwrap_or(false);
    config.preserve_hostname = r.opt_bool(&fields, "preserve_hostname").unwrap_or(false);
    if let Some(node) = fields.get("manage_etc_hosts") {
        match (&node.value, node.text.as_str()) {
            (Value::Bool(false), _) => {}
            (Value::Bool(true), _) => config.manage_etc_hosts = Some(Placed { place: node.place, value: () }),
            (Value::Str(s), _) if s == "localhost" || s == "template" => {
                config.manage_etc_hosts = Some(Placed { place: node.place, value: () })
            }
            _ => r.error(node.place, "`manage_etc_hosts` must be true, false, localhost or template"),
        }
    }
    if let Some(node) = fields.get("timezone")
        && let Some(zone) = r.line(node, "timezone")
    {
        let part = |p: &str| !p.is_empty() && p != ".." && p != "." && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+.".contains(&b));
        if zone.split('/').all(part) {
            config.timezone = Some(Placed { place: node.place, value: zone });
        } else {
            r.error(node.place, "`timezone` must be a name such as Europe/Berlin");
        }
    }
    if let Some(node) = fields.get("ssh_authorized_keys") {
        config.keys = r.ssh_keys(node, "ssh_authorized_keys");
    }
    if let Some(node) = fields.get("user") {
        config.default_user = r.item(|r| match &node.value {
            Value::Map(_) => r.user(node, "user", Some("default")),
            _ => {
                let name = r.line(node, "user")?;
                if users::valid_name(&name) {
                    return Some(users::User { place: node.place, name, ..users::User::default() });
                }
                r.error(node.place, "`user` is not a valid user name");
                None
            }
        });
    }
    if let Some(node) = fields.get("groups") {
        config.groups = r.groups(node);
    }
    if let Some(node) = fields.get("users") {
        config.users = r.users(node);
    }
    if let Some(node) = fields.get("chpasswd") {
        config.passwords = r.chpasswd(node);
    }
    if let Some(node) = fields.get("write_files") {
        config.files = r.write_files(node);
    }
    if let Some(node) = fields.get("bootcmd") {
        config.bootcmd = r.commands(node, "bootcmd");
    }
    if let Some(node) = fields.get("runcmd") {
        config.runcmd = r.commands(node, "runcmd");
    }
    config.final_message = r.opt_text(&fields, "final_message");
    if let Some(node) = fields.get("coreos") {
        r.coreos(node, &mut config);
    }
    if let Some(node) = fields.get("garboard") {
        r.garboard(node, &mut config);
    }
    r.reboots(root, &config);
    config
}
