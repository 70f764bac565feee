//! Every directive that systemd knows and what becomes of it here, one table per section.
//!
//! A row names the directive, says how far we go with it ([`Support`]) and how its value is stored. A directive that
//! takes rights away and is not enforced refuses the unit; the list of what *is* enforced is [`ENFORCED`], which
//! whoever teaches the exec helper a new restriction extends.

mod enforced;
mod exec;
mod kill;
mod mount;
mod resources;
mod sandbox;
mod service;
mod setters;
mod socket;
mod timer;
mod unit;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;

pub use enforced::ENFORCED;

use crate::name::UnitKind;
use crate::specifier::SpecifierContext;
use crate::unit::{Config, Unit};
use crate::value::ValueError;

/// How far we go with a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what it says.
    Supported,
    /// It needs nothing from us; nothing is said.
    Silent,
    /// It is read, but not done; `verify` and `status` say so.
    Warned,
    /// It takes rights away; while it is not in [`ENFORCED`], a unit that uses it is not started.
    Refused,
}

/// What a value asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it was switched off or reset.
    None,
    /// Something.
    Active,
}

impl From<bool> for Effect {
    fn from(on: bool) -> Self {
        if on { Self::Active } else { Self::None }
    }
}

pub(crate) type Outcome = Result<Effect, ValueError>;

/// A value on its way into a field.
pub(crate) struct Input<'a> {
    /// As written.
    pub value: &'a str,
    /// For specifiers.
    pub context: SpecifierContext<'a>,
    /// Parts of the value that were passed over.
    pub notes: RefCell<Vec<String>>,
}

impl Input<'_> {
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.notes.borrow_mut().push(text.into());
    }
}

/// One directive.
pub(crate) struct Row<T: 'static> {
    key: &'static str,
    support: Support,
    set: fn(&mut T, &Input<'_>) -> Outcome,
}

pub(crate) const fn yes<T>(key: &'static str, set: fn(&mut T, &Input<'_>) -> Outcome) -> Row<T> {
    Row { key, support: Support::Supported, set }
}

pub(crate) const fn warn<T>(key: &'static str, set: fn(&mut T, &Input<'_>) -> Outcome) -> Row<T> {
    Row { key, support: Support::Warned, set }
}

pub(crate) const fn refuse<T>(key: &'static str, set: fn(&mut T, &Input<'_>) -> Outcome) -> Row<T> {
    Row { key, support: Support::Refused, set }
}

/// A directive that is read by nobody and needs no word.
pub(crate) const fn silent<T>(key: &'static str) -> Row<T> {
    Row { key, support: Support::Silent, set: |_, _| Ok(Effect::None) }
}

/// A directive that is not done, whatever its value.
pub(crate) const fn ignored<T>(key: &'static str) -> Row<T> {
    Row { key, support: Support::Warned, set: |_, input| Ok(Effect::from(!input.value.is_empty())) }
}

pub(crate) struct Table<T: 'static> {
    rows: &'static [Row<T>],
    index: OnceLock<HashMap<&'static str, usize>>,
}

impl<T> Table<T> {
    pub(crate) const fn new(rows: &'static [Row<T>]) -> Self {
        Self { rows, index: OnceLock::new() }
    }

    fn apply(&self, target: &mut T, key: &str, input: &Input<'_>) -> Option<Applied> {
        let index = self.index.get_or_init(|| self.rows.iter().enumerate().map(|(position, row)| (row.key, position)).collect());
        let row = index.get(key).and_then(|&position| self.rows.get(position))?;
        Some(Applied { key: row.key, support: effective(row.key, row.support), outcome: (row.set)(target, input) })
    }

    fn describe(&self, section: &'static str, out: &mut Vec<DirectiveInfo>) {
        out.extend(self.rows.iter().map(|row| DirectiveInfo { section, key: row.key, support: effective(row.key, row.support) }));
    }
}

fn effective(key: &str, support: Support) -> Support {
    if matches!(support, Support::Warned | Support::Refused) && ENFORCED.contains(&key) { Support::Supported } else { support }
}

/// What came of one assignment.
pub(crate) struct Applied {
    pub key: &'static str,
    pub support: Support,
    pub outcome: Outcome,
}

/// Whether a section means something in a unit of this kind.
pub(crate) fn knows_section(kind: UnitKind, section: &str) -> bool {
    section == "Unit" || section == "Install" || kind.section() == Some(section)
}

/// Stores one assignment; `None` when the directive is not known in that section.
pub(crate) fn apply(unit: &mut Unit, section: &str, key: &str, input: &Input<'_>) -> Option<Applied> {
    match section {
        "Unit" => return unit::UNIT.apply(unit, key, input),
        "Install" => return unit::INSTALL.apply(&mut unit.install, key, input),
        _ => {}
    }
    let applied = match &mut unit.config {
        Config::Service(config) => service::SERVICE
            .apply(config, key, input)
            .or_else(|| exec::EXEC.apply(Arc::make_mut(&mut config.exec), key, input))
            .or_else(|| sandbox::SANDBOX.apply(Arc::make_mut(&mut config.exec), key, input))
            .or_else(|| kill::KILL.apply(&mut config.kill, key, input))
            .or_else(|| resources::RESOURCES.apply(Arc::make_mut(&mut config.cgroup), key, input)),
        Config::Socket(config) => socket::SOCKET
            .apply(config, key, input)
            .or_else(|| exec::EXEC.apply(Arc::make_mut(&mut config.exec), key, input))
            .or_else(|| sandbox::SANDBOX.apply(Arc::make_mut(&mut config.exec), key, input))
            .or_else(|| kill::KILL.apply(&mut config.kill, key, input))
            .or_else(|| resources::RESOURCES.apply(Arc::make_mut(&mut config.cgroup), key, input)),
        Config::Mount(config) => mount::MOUNT
            .apply(config, key, input)
            .or_else(|| exec::EXEC.apply(Arc::make_mut(&mut config.exec), key, input))
            .or_else(|| sandbox::SANDBOX.apply(Arc::make_mut(&mut config.exec), key, input))
            .or_else(|| kill::KILL.apply(&mut config.kill, key, input))
            .or_else(|| resources::RESOURCES.apply(Arc::make_mut(&mut config.cgroup), key, input)),
        Config::Swap(config) => mount::SWAP
            .apply(config, key, input)
            .or_else(|| exec::EXEC.apply(Arc::make_mut(&mut config.exec), key, input))
            .or_else(|| sandbox::SANDBOX.apply(Arc::make_mut(&mut config.exec), key, input))
            .or_else(|| kill::KILL.apply(&mut config.kill, key, input))
            .or_else(|| resources::RESOURCES.apply(Arc::make_mut(&mut config.cgroup), key, input)),
        Config::Timer(config) => timer::TIMER.apply(config, key, input),
        Config::Path(config) => timer::PATH.apply(config, key, input),
        Config::Automount(config) => mount::AUTOMOUNT.apply(config, key, input),
        Config::Slice(config) | Config::Scope(config) => resources::RESOURCES.apply(config, key, input),
        Config::Target | Config::Device => None,
    };
    applied.or_else(|| if section == "Service" { unit::SERVICE_OLD_PLACES.apply(unit, key, input) } else { None })
}

/// One directive, for the table in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectiveInfo {
    /// Where it stands; `exec`, `sandbox`, `kill` and `resources` belong to every section with processes.
    pub section: &'static str,
    /// Its name.
    pub key: &'static str,
    /// How far we go with it.
    pub support: Support,
}

/// Every directive that has a row.
#[must_use]
pub fn all() -> Vec<DirectiveInfo> {
    let mut out = Vec::new();
    unit::UNIT.describe("Unit", &mut out);
    unit::INSTALL.describe("Install", &mut out);
    service::SERVICE.describe("Service", &mut out);
    unit::SERVICE_OLD_PLACES.describe("Service", &mut out);
    exec::EXEC.describe("exec", &mut out);
    sandbox::SANDBOX.describe("sandbox", &mut out);
    kill::KILL.describe("kill", &mut out);
    resources::RESOURCES.describe("resources", &mut out);
    socket::SOCKET.describe("Socket", &mut out);
    timer::TIMER.describe("Timer", &mut out);
    timer::PATH.describe("Path", &mut out);
    mount::MOUNT.describe("Mount", &mut out);
    mount::AUTOMOUNT.describe("Automount", &mut out);
    mount::SWAP.describe("Swap", &mut out);
    out
}

/// Whether a directive takes rights away, so that losing its value must not pass.
pub(crate) fn takes_rights_away(key: &str) -> bool {
    static KEYS: OnceLock<std::collections::HashSet<&'static str>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let sandbox = sandbox::SANDBOX.rows.iter().filter(|row| row.support == Support::Refused).map(|row| row.key);
        let exec = exec::EXEC.rows.iter().filter(|row| row.support == Support::Refused).map(|row| row.key);
        let resources = resources::RESOURCES.rows.iter().filter(|row| row.support == Support::Refused).map(|row| row.key);
        sandbox.chain(exec).chain(resources).collect()
    });
    keys.contains(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_directive_has_two_rows_in_a_section() {
        let mut seen = std::collections::HashSet::new();
        for info in all() {
            assert!(seen.insert((info.section, info.key)), "{} {}", info.section, info.key);
        }
        assert!(seen.len() > 350, "{}", seen.len());
    }

    #[test]
    fn what_is_said_to_be_enforced_exists_and_takes_rights_away() {
        for key in ENFORCED {
            assert!(all().iter().any(|info| info.key == *key), "{key}");
        }
    }
}
