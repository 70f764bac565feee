//! `coreos.units` and etcd's settings as files, links and calls of systemctl.

use super::{Action, FileAction, NETWORK_DIR, Plan, RUNTIME_NETWORK_DIR, RUNTIME_UNIT_DIR, UNIT_DIR};
use crate::config::Config;
use crate::config::coreos::Unit;
use crate::diagnostics::Diagnostics;

/// The drop-in that CoreOS's cloud-config wrote; people override and look for it by this name.
const ETCD_DROP_IN: &str = "etcd.service.d/20-cloudinit.conf";

pub(super) fn plan(config: &Config, plan: &mut Plan, diagnostics: &mut Diagnostics) {
    let units: Vec<Unit> = config.units.iter().map(|u| renamed(u, diagnostics)).collect();
    for unit in &units {
        files(unit, plan);
    }
    if let Some(first) = config.etcd.first() {
        let mut text = String::from("[Service]\n");
        for setting in &config.etcd {
            text.push_str(&environment_line(&setting.value.variable, &setting.value.value));
        }
        let path = format!("{RUNTIME_UNIT_DIR}/{ETCD_DROP_IN}");
        plan.push(first.place, Action::WriteFile(FileAction::system(path, 0o644, text)));
        let started = units.iter().any(|u| u.name == "etcd.service" && u.command.is_some());
        if !started {
            diagnostics.info(
                first.place,
                "etcd's settings do not start it; it starts if it is enabled, or by `command: start` under `coreos.units`",
            );
        }
    }
    if plan.steps.iter().any(|s| changes_units(&s.action)) {
        plan.push(Default::default(), Action::DaemonReload);
    }
    let engine = || units.iter().filter(|u| !u.is_network());
    for unit in engine().filter(|u| u.enable) {
        plan.push(unit.place, Action::Enable { unit: unit.name.clone(), runtime: unit.runtime });
    }
    for unit in engine() {
        if let Some(verb) = &unit.command {
            // The old name of one verb.
            let verb = if verb == "reload-or-try-restart" { "try-reload-or-restart" } else { verb };
            plan.push(unit.place, Action::Command { unit: unit.name.clone(), verb: verb.to_owned() });
        }
    }
}

/// Whether init must read its units again after this.
pub(crate) fn changes_units(action: &Action) -> bool {
    let path = match action {
        Action::WriteFile(file) => &file.path,
        Action::Link { path, .. } | Action::Unmask { path } => path,
        _ => return false,
    };
    [UNIT_DIR, RUNTIME_UNIT_DIR, "/media/state/units"].iter().any(|dir| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')))
}

/// Units of CoreOS that have another name here: the image has one etcd, and its unit has no number.
const RENAMED: [(&str, &str); 2] = [("etcd2.service", "etcd.service"), ("locksmithd.service", "reboot-locksmith.service")];

fn renamed(unit: &Unit, diagnostics: &mut Diagnostics) -> Unit {
    match RENAMED.iter().find(|(old, _)| unit.name == *old && unit.content.is_none()) {
        Some((old, new)) => {
            diagnostics.info(unit.place, format!("{old} is {new} on this host"));
            Unit { name: (*new).to_owned(), ..unit.clone() }
        }
        None => unit.clone(),
    }
}

fn files(unit: &Unit, plan: &mut Plan) {
    let dir = match (unit.is_network(), unit.runtime) {
        (true, false) => NETWORK_DIR,
        (true, true) => RUNTIME_NETWORK_DIR,
        (false, false) => UNIT_DIR,
        (false, true) => RUNTIME_UNIT_DIR,
    };
    let path = format!("{dir}/{}", unit.name);
    if unit.is_network() {
        // The network daemon watches these directories itself.
        if let Some(content) = &unit.content {
            plan.push(unit.place, Action::WriteFile(FileAction::system(path, 0o644, content.clone())));
        }
        return;
    }
    if unit.mask == Some(true) {
        plan.push(unit.place, Action::Link { path, target: "/dev/null".to_owned() });
    } else {
        // A mask of an earlier boot goes away when the unit is asked for again; a unit file never does.
        let asked =
            unit.mask == Some(false) || unit.content.is_some() || unit.enable || unit.command.as_deref().is_some_and(|c| c != "stop");
        if asked {
            for dir in [UNIT_DIR, RUNTIME_UNIT_DIR] {
                plan.push(unit.place, Action::Unmask { path: format!("{dir}/{}", unit.name) });
            }
        }
        if let Some(content) = &unit.content {
            plan.push(unit.place, Action::WriteFile(FileAction::system(path, 0o644, content.clone())));
        }
    }
    for drop_in in &unit.drop_ins {
        let path = format!("{dir}/{}.d/{}", unit.name, drop_in.name);
        plan.push(unit.place, Action::WriteFile(FileAction::system(path, 0o644, drop_in.content.clone())));
    }
}

/// `Environment="NAME=value"` with everything quoted that unit files treat specially.
fn environment_line(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    format!("Environment=\"{name}={value}\"\n")
}
