//! `coreos`: units, etcd's settings, and what is kept for other programs.

use super::keys::{COREOS, DROP_IN, OEM, UNIT, UPDATE};
use super::reader::{Fields, Placed, Reader};
use super::{Config, etcd};
use crate::diagnostics::Place;
use crate::yaml::Node;

/// What `command` may be.
pub const COMMANDS: &[&str] = &["start", "stop", "restart", "reload", "try-restart", "reload-or-restart", "reload-or-try-restart"];

const SUFFIXES: &[&str] = &[
    "service",
    "socket",
    "target",
    "timer",
    "mount",
    "automount",
    "path",
    "slice",
    "swap",
    "device",
    "scope",
    "network",
    "netdev",
    "link",
];

/// One of `coreos.units`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Where it was written.
    pub place: Place,
    /// `docker.service`.
    pub name: String,
    /// Whether it must never start; `None` where it does not say.
    pub mask: Option<bool>,
    /// Whether its `[Install]` is carried out.
    pub enable: bool,
    /// Whether it is gone with the next boot.
    pub runtime: bool,
    /// The unit file.
    pub content: Option<String>,
    /// What to do with it now.
    pub command: Option<String>,
    /// Additions to the unit.
    pub drop_ins: Vec<DropIn>,
}

/// An addition to a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropIn {
    /// `10-name.conf`.
    pub name: String,
    /// Its lines.
    pub content: String,
}

impl Unit {
    /// `.network`, `.netdev` and `.link` files belong to the network, not to the unit engine.
    pub fn is_network(&self) -> bool {
        [".network", ".netdev", ".link"].iter().any(|s| self.name.ends_with(s))
    }
}

/// A unit name: a known suffix and no path.
pub fn valid_unit_name(name: &str) -> bool {
    name.len() <= 255
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@'))
        && name.rsplit_once('.').is_some_and(|(stem, suffix)| !stem.is_empty() && stem != "@" && SUFFIXES.contains(&suffix))
}

impl Reader<'_> {
    /// The whole key.
    pub fn coreos(&mut self, node: &Node, config: &mut Config) {
        let Some(fields) = self.fields(node, "coreos", COREOS) else { return };
        if let Some(node) = fields.get("units") {
            for (path, item) in self.list(node, "coreos.units") {
                config.units.extend(self.item(|r| r.unit(item, &path)));
            }
        }
        for (key, era) in [("etcd", etcd::Era::Zero), ("etcd2", etcd::Era::Two)] {
            if let Some(node) = fields.get(key) {
                // A member with half of its settings would listen where nobody wants it.
                let settings = self.item(|r| Some(r.etcd(node, &fields.path(key), era)));
                config.etcd.extend(settings.unwrap_or_default());
            }
        }
        if let Some(node) = fields.get("oem") {
            config.oem = self.item(|r| r.oem(node));
        }
        for key in ["update", "locksmith", "flannel"] {
            let Some(node) = fields.get(key) else { continue };
            if key == "update" {
                self.fields(node, "coreos.update", UPDATE);
            }
            config.settings.insert(format!("coreos.{key}"), node.to_json());
        }
    }

    fn unit(&mut self, node: &Node, at: &str) -> Option<Unit> {
        let fields = self.fields(node, at, UNIT)?;
        let Some(name_node) = fields.get("name") else {
            self.error(node.place, format!("`{at}` has no `name`"));
            return None;
        };
        let name = self.line(name_node, &fields.path("name"))?;
        if !valid_unit_name(&name) {
            self.error(name_node.place, format!("`{at}.name` is not the name of a unit, such as `web.service`"));
            return None;
        }
        let unit = Unit {
            place: node.place,
            mask: self.opt_bool(&fields, "mask"),
            enable: self.opt_bool(&fields, "enable").unwrap_or(false),
            runtime: self.opt_bool(&fields, "runtime").unwrap_or(false),
            content: self.opt_text(&fields, "content").filter(|c| !c.is_empty()),
            command: self.unit_command(&fields),
            drop_ins: fields.get("drop_ins").map(|n| self.drop_ins(n, &fields.path("drop_ins"), &name)).unwrap_or_default(),
            name,
        };
        if let (Some(text), Some(node), false) = (&unit.content, fields.get("content"), unit.is_network()) {
            self.check_unit_text(&unit.name, text, (fields.line_of("content"), node), &fields.path("content"), true);
        }
        if unit.mask == Some(true)
            && (unit.content.is_some() || unit.enable || unit.command.as_deref().is_some_and(|c| c.contains("start")))
        {
            self.error(node.place, format!("`{at}`: {} is masked, so it cannot have `content`, be enabled or started as well", unit.name));
        }
        if unit.is_network() && (unit.command.is_some() || unit.enable || !unit.drop_ins.is_empty()) {
            self.diagnostics.warning(node.place, format!("`{at}`: {} is a network file: only its `content` has an effect", unit.name));
        }
        if unit.enable && unit.command.is_none() && !unit.is_network() {
            let message =
                format!("`{at}`: {} is enabled, so it starts from the next boot on; add `command: start` to start it now", unit.name);
            self.diagnostics.info(node.place, message);
        }
        Some(unit)
    }

    fn unit_command(&mut self, fields: &Fields<'_>) -> Option<String> {
        let command = self.opt_line(fields, "command").filter(|c| !c.is_empty())?;
        if COMMANDS.contains(&command.as_str()) {
            return Some(command);
        }
        self.error(fields.place, format!("`{}` must be one of {}", fields.path("command"), COMMANDS.join(", ")));
        None
    }

    fn drop_ins(&mut self, node: &Node, at: &str, unit: &str) -> Vec<DropIn> {
        let mut drop_ins = Vec::new();
        for (path, item) in self.list(node, at) {
            let Some(fields) = self.fields(item, &path, DROP_IN) else { continue };
            let name = self.opt_line(&fields, "name").unwrap_or_default();
            if !name.ends_with(".conf") || name.contains('/') || name.starts_with('.') {
                self.error(item.place, format!("`{path}.name` must be a file name that ends in `.conf`"));
            }
            let content = self.opt_text(&fields, "content").unwrap_or_default();
            if let Some(node) = fields.get("content") {
                self.check_unit_text(unit, &content, (fields.line_of("content"), node), &fields.path("content"), false);
            }
            drop_ins.push(DropIn { name, content });
        }
        drop_ins
    }

    /// `/etc/oem-release`; nothing without an `id`.
    fn oem(&mut self, node: &Node) -> Option<Placed<String>> {
        let fields = self.fields(node, "coreos.oem", OEM)?;
        let mut text = String::new();
        for (key, _) in OEM {
            if let Some(value) = self.opt_line(&fields, key) {
                let quoted = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('`', "\\`");
                text.push_str(&format!("{}=\"{quoted}\"\n", key.to_ascii_uppercase()));
            }
        }
        fields.get("id").map(|_| Placed { place: node.place, value: text })
    }
}
