//! Enabling, disabling and masking of units, as `systemctl enable --root` would do it: links in `/etc/systemd/system`.

use std::collections::BTreeSet;

use super::{StepsError, origin, text};
use crate::tree::{Node, Tree};

/// What the recipe says of units.
#[derive(Clone, Debug, Default)]
pub struct UnitSpec {
    /// Enabled by their `[Install]` section; a name with `*` stands for all units that have one.
    pub enable: Vec<String>,
    /// Linked to `/dev/null`.
    pub mask: Vec<String>,
}

const CONFIG: &str = "etc/systemd/system";
const DIRECTORIES: &[&str] = &["etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system"];

/// What a unit's `[Install]` section asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Install {
    wanted_by: Vec<String>,
    required_by: Vec<String>,
    upheld_by: Vec<String>,
    alias: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

/// Makes the links.
///
/// # Errors
/// When a unit is not in the image or has nothing to be enabled by.
pub fn apply(tree: &mut Tree, spec: &UnitSpec) -> Result<(), StepsError> {
    let mut pending = Vec::new();
    for name in &spec.enable {
        if name.contains('*') { pending.extend(matching(tree, name)?) } else { pending.push(name.clone()) }
    }
    let mut seen = BTreeSet::new();
    while let Some(unit) = pending.pop() {
        if seen.insert(unit.clone()) {
            pending.extend(enable(tree, &unit)?);
        }
    }
    for unit in &spec.mask {
        check_name(unit)?;
        tree.put(&format!("{CONFIG}/{unit}"), Node::symlink("/dev/null", &origin("units")))?;
    }
    Ok(())
}

/// The units that a pattern stands for: all of the image that have an `[Install]` section. Templates are not meant.
fn matching(tree: &Tree, pattern: &str) -> Result<Vec<String>, StepsError> {
    let mut names = BTreeSet::new();
    for directory in DIRECTORIES {
        for (path, _) in tree.below(directory) {
            let Some(name) = path.strip_prefix(directory).and_then(|path| path.strip_prefix('/')) else { continue };
            if super::files::matches(pattern, name) && !name.contains("@.") && tree.file(path).is_some() {
                let text = text::read(tree, path)?.unwrap_or_default();
                if parse_install(&text) != Install::default() {
                    names.insert(name.to_owned());
                }
            }
        }
    }
    Ok(names.into_iter().collect())
}

/// Makes one unit's links; returns the names in `Also=`.
fn enable(tree: &mut Tree, unit: &str) -> Result<Vec<String>, StepsError> {
    let problem = |reason: &str| StepsError::Unit { unit: unit.to_owned(), reason: reason.to_owned() };
    check_name(unit)?;
    let file = find(tree, unit).ok_or_else(|| problem("the image has no such unit file; check the name, or include its package"))?;
    let text = text::read(tree, &file)?.unwrap_or_default();
    let install = parse_install(&text);
    if install == Install::default() {
        return Err(problem("it has no [Install] section: other units start it, so it need not be enabled"));
    }
    let mut name = unit.to_owned();
    if let Some((prefix, suffix)) = unit.split_once("@.") {
        let instance =
            install.default_instance.as_deref().ok_or_else(|| problem("it is a template without DefaultInstance=: name an instance"))?;
        name = format!("{prefix}@{instance}.{suffix}");
    }
    let expand = |text: &str| expand(text, &name);
    let origin = origin("units");
    for (kind, targets) in [("wants", &install.wanted_by), ("requires", &install.required_by), ("upholds", &install.upheld_by)] {
        for target in targets {
            let target = expand(target);
            check_name(&target)?;
            tree.put(&format!("{CONFIG}/{target}.{kind}/{name}"), Node::symlink(format!("/{file}"), &origin))?;
        }
    }
    for alias in &install.alias {
        let alias = expand(alias);
        check_name(&alias)?;
        if alias != unit {
            tree.put(&format!("{CONFIG}/{alias}"), Node::symlink(format!("/{file}"), &origin))?;
        }
    }
    Ok(install.also.iter().map(|also| expand(also)).collect())
}

/// Where a unit's file is; an instance's is its template's.
pub(super) fn find(tree: &Tree, unit: &str) -> Option<String> {
    let template = unit.split_once('@').and_then(|(prefix, rest)| rest.rsplit_once('.').map(|(_, suffix)| format!("{prefix}@.{suffix}")));
    let names = std::iter::once(unit.to_owned()).chain(template);
    names.flat_map(|name| DIRECTORIES.iter().map(move |directory| format!("{directory}/{name}"))).find(|path| tree.file(path).is_some())
}

fn check_name(unit: &str) -> Result<(), StepsError> {
    let suffix = unit.rsplit_once('.').map(|(_, suffix)| suffix);
    let known =
        matches!(suffix, Some("service" | "socket" | "target" | "timer" | "path" | "mount" | "automount" | "swap" | "slice" | "scope"));
    if known && !unit.contains('/') {
        return Ok(());
    }
    Err(StepsError::Unit {
        unit: unit.to_owned(),
        reason: "it is not a unit's name: one ends in .service, .socket, .target, .timer and so on".to_owned(),
    })
}

/// The specifiers that `[Install]` sections use.
fn expand(text: &str, unit: &str) -> String {
    let (stem, _) = unit.rsplit_once('.').unwrap_or((unit, ""));
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    text.replace("%i", instance).replace("%p", prefix).replace("%n", unit).replace("%N", stem)
}

fn parse_install(text: &str) -> Install {
    let mut install = Install::default();
    let mut inside = false;
    for line in text.replace("\\\n", " ").lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[Install]";
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| inside && !line.starts_with(['#', ';'])) else { continue };
        let list = match key.trim() {
            "WantedBy" => &mut install.wanted_by,
            "RequiredBy" => &mut install.required_by,
            "UpheldBy" => &mut install.upheld_by,
            "Alias" => &mut install.alias,
            "Also" => &mut install.also,
            "DefaultInstance" => {
                install.default_instance = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
                continue;
            }
            _ => continue,
        };
        let words: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            list.clear();
        }
        list.extend(words);
    }
    install
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    fn tree(units: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new();
        for (name, text) in units {
            tree.put(&format!("usr/lib/systemd/system/{name}"), Node::file(text.as_bytes(), 0o644, &origin("test"))).unwrap();
        }
        tree
    }

    fn spec(enable: &[&str], mask: &[&str]) -> UnitSpec {
        let own = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        UnitSpec { enable: own(enable), mask: own(mask) }
    }

    fn link<'a>(tree: &'a Tree, path: &str) -> Option<&'a str> {
        match &tree.get(&format!("{CONFIG}/{path}"))?.kind {
            Kind::Symlink(target) => Some(target),
            _ => None,
        }
    }

    #[test]
    fn links_are_what_systemctl_makes() {
        let mut tree = tree(&[
            ("ssh.service", "[Unit]\n[Install]\n# c\nWantedBy=multi-user.target \\\n  local.target\nAlias=sshd.service\nAlso=ssh.socket\n"),
            ("ssh.socket", "[Install]\nRequiredBy=sockets.target\n"),
            ("getty@.service", "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n"),
        ]);
        apply(&mut tree, &spec(&["ssh.service", "getty@.service", "getty@ttyS0.service"], &["x.timer"])).unwrap();
        let ssh = Some("/usr/lib/systemd/system/ssh.service");
        assert_eq!(link(&tree, "multi-user.target.wants/ssh.service"), ssh);
        assert_eq!(link(&tree, "local.target.wants/ssh.service"), ssh);
        assert_eq!(link(&tree, "sshd.service"), ssh);
        assert_eq!(link(&tree, "sockets.target.requires/ssh.socket"), Some("/usr/lib/systemd/system/ssh.socket"));
        let getty = Some("/usr/lib/systemd/system/getty@.service");
        assert_eq!(link(&tree, "getty.target.wants/getty@tty1.service"), getty);
        assert_eq!(link(&tree, "getty.target.wants/getty@ttyS0.service"), getty);
        assert_eq!(link(&tree, "x.timer"), Some("/dev/null"));
    }

    #[test]
    fn a_pattern_enables_what_can_be_enabled() {
        let mut tree = tree(&[
            ("our-a.service", "[Install]\nWantedBy=a.target\n"),
            ("our-b.service", "[Service]\n"),
            ("our-c@.service", "[Install]\nWantedBy=a.target\n"),
            ("other.service", "[Install]\nWantedBy=a.target\n"),
        ]);
        apply(&mut tree, &spec(&["our-*"], &[])).unwrap();
        let links: Vec<&str> = tree.below("etc/systemd/system/a.target.wants").map(|(path, _)| path).collect();
        assert_eq!(links, ["etc/systemd/system/a.target.wants/our-a.service"]);
    }

    #[test]
    fn says_why_a_unit_cannot_be_enabled() {
        let mut tree = tree(&[("static.service", "[Service]\nExecStart=/x\n")]);
        for (unit, part) in [("gone.service", "no such unit file"), ("static.service", "no [Install]"), ("ssh", "not a unit's name")] {
            let error = apply(&mut tree, &spec(&[unit], &[])).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
