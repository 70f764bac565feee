//! Enabling and masking of units, as `systemctl enable --root` would do it: links in `/etc/systemd/system`.

use std::collections::BTreeSet;

use unit_files::specifier::SpecifierContext;
use unit_files::unit::InstallInfo;
use unit_files::{HostFacts, LoadState, Loader, Unit, UnitName};

use super::unit_source::TreeSource;
use super::{StepsError, origin};
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

/// A link to be made: path below the configuration directory, and target.
type Link = (String, String);

/// Makes the links.
///
/// # Errors
/// When a unit is not in the image or has nothing to be enabled by.
pub fn apply(tree: &mut Tree, spec: &UnitSpec) -> Result<(), StepsError> {
    let origin = origin("units");
    let links = plan(tree, spec)?;
    for (path, target) in links {
        tree.put(&format!("{CONFIG}/{path}"), Node::symlink(target, &origin))?;
    }
    Ok(())
}

fn plan(tree: &Tree, spec: &UnitSpec) -> Result<Vec<Link>, StepsError> {
    let loader = Loader::new(TreeSource::new(tree), HostFacts::default());
    let mut pending = Vec::new();
    for name in &spec.enable {
        if name.contains('*') {
            pending.extend(matching(&loader, name));
        } else {
            pending.push(parse(name)?);
        }
    }
    let mut links = Vec::new();
    let mut seen = BTreeSet::new();
    while let Some(unit) = pending.pop() {
        if seen.insert(unit.clone()) {
            pending.extend(enable(&loader, &unit, &mut links)?);
        }
    }
    for unit in &spec.mask {
        links.push((parse(unit)?.to_string(), "/dev/null".to_owned()));
    }
    Ok(links)
}

/// The units that a pattern stands for: all of the image that have an `[Install]` section. Templates are not meant.
fn matching(loader: &Loader<TreeSource>, pattern: &str) -> Vec<UnitName> {
    let fits = |name: &&UnitName| super::files::matches(pattern, name.as_str()) && !name.is_template() && loader.resolve(name) == **name;
    loader.names().filter(fits).filter(|name| !loader.load(name).install.is_empty()).cloned().collect()
}

/// Adds one unit's links; returns the names in `Also=`.
fn enable(loader: &Loader<TreeSource>, name: &UnitName, links: &mut Vec<Link>) -> Result<Vec<UnitName>, StepsError> {
    let problem = |reason: &str| StepsError::Unit { unit: name.to_string(), reason: reason.to_owned() };
    let unit: Unit = loader.load(name);
    let file = match (unit.load_state, &unit.fragment) {
        (LoadState::Masked, _) => return Err(problem("it is masked, that is, linked to /dev/null")),
        (_, Some(file)) => file.clone(),
        (_, None) => return Err(problem("the image has no such unit file; check the name, or include its package")),
    };
    let InstallInfo { wanted_by, required_by, upheld_by, alias, also, default_instance } = &unit.install;
    if unit.install.is_empty() {
        return Err(problem("it has no [Install] section: other units start it, so it need not be enabled"));
    }
    let target = match (name.is_template(), default_instance) {
        (false, _) => name.clone(),
        (true, Some(instance)) => name.with_instance(instance).map_err(|error| problem(&error.to_string()))?,
        (true, None) => return Err(problem("it is a template without DefaultInstance=: name an instance")),
    };
    let facts = HostFacts::default();
    let context = SpecifierContext { name: &target, fragment: Some(&file), facts: &facts };
    let expand = |text: &str| {
        let expanded = context.expand(text).map_err(|error| problem(&error.to_string()))?;
        parse(&expanded)
    };
    for (kind, owners) in [("wants", wanted_by), ("requires", required_by), ("upholds", upheld_by)] {
        for owner in owners {
            links.push((format!("{}.{kind}/{target}", expand(owner)?), file.clone()));
        }
    }
    for alias in alias {
        let alias = expand(alias)?;
        if alias != *name {
            links.push((alias.to_string(), file.clone()));
        }
    }
    also.iter().map(|also| expand(also)).collect()
}

fn parse(unit: &str) -> Result<UnitName, StepsError> {
    UnitName::parse(unit).map_err(|error| StepsError::Unit { unit: unit.to_owned(), reason: error.to_string() })
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
        for (unit, part) in [("gone.service", "no such unit file"), ("static.service", "no [Install]"), ("ssh", "ssh")] {
            let error = apply(&mut tree, &spec(&[unit], &[])).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
