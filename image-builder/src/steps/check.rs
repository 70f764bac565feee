//! The last look at the tree: what would fail on the host for want of a file is found here. Libraries that nobody has,
//! programs of enabled units that are not there, links that lead nowhere.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::{StepsError, elf, ldconfig, text};
use crate::tree::{Body, Kind, Tree};

/// Directories in which a unit's program is looked for when its path is not absolute.
const PROGRAMS: &[&str] = &["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin"];

/// Everything that is wrong, one line each.
///
/// # Errors
/// When a file cannot be read.
pub fn problems(tree: &Tree) -> Result<Vec<String>, StepsError> {
    let mut problems = libraries(tree)?;
    problems.extend(programs_of_units(tree)?);
    problems.extend(dangling_links(tree));
    Ok(problems)
}

/// ELF files that need a library or loader that the image does not have.
fn libraries(tree: &Tree) -> Result<Vec<String>, StepsError> {
    let files: Vec<(&str, &Body)> = tree
        .iter()
        .filter(|(path, _)| !path.starts_with("usr/lib/modules/") && !path.starts_with("boot/"))
        .filter_map(|(path, node)| match &node.kind {
            Kind::File(body) if body.len() >= 64 => Some((path, body)),
            _ => None,
        })
        .collect();
    let programs: Vec<(&str, elf::Dynamic)> = files
        .into_par_iter()
        .filter_map(|(path, body)| match elf::dynamic(body) {
            Ok(dynamic) => dynamic.map(|dynamic| Ok((path, dynamic))),
            Err(reason) => Some(Err(StepsError::Library { path: path.to_owned(), reason })),
        })
        .collect::<Result<_, StepsError>>()?;
    let directories = ldconfig::directories(tree)?;
    let has = |directory: &str, name: &str| tree.file(&format!("{}/{name}", directory.trim_matches('/'))).is_some();
    let mut problems = Vec::new();
    for (path, dynamic) in programs {
        let here = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        for name in &dynamic.needed {
            let own = dynamic.search.iter().map(|directory| directory.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", here));
            if !own.chain(directories.iter().cloned()).any(|directory| has(&directory, name)) {
                let origin = tree.get(path).map_or("", |node| &node.origin);
                problems.push(format!("'/{path}' of {origin} needs the library {name}, which no package of the image has"));
            }
        }
        if let Some(loader) = &dynamic.interpreter
            && tree.file(loader.trim_start_matches('/')).is_none()
        {
            problems.push(format!("'/{path}' needs the loader {loader}, which no package of the image has"));
        }
    }
    Ok(problems)
}

/// Programs that enabled units start and that are not there. A program with the prefix `-` may be missing.
fn programs_of_units(tree: &Tree) -> Result<Vec<String>, StepsError> {
    let mut problems = Vec::new();
    for (unit, path) in started_units(tree)? {
        let text = text::read(tree, &path)?.unwrap_or_default().replace("\\\n", " ");
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let Some(word) = value.split_whitespace().next().filter(|_| key.trim().starts_with("Exec")) else { continue };
            let program = word.trim_start_matches(['@', '-', ':', '+', '!', '|']);
            let optional = word.strip_suffix(program).is_some_and(|prefix| prefix.contains('-'));
            if optional || program.is_empty() || program.contains(['%', '$']) {
                continue;
            }
            let there = match program.strip_prefix('/') {
                Some(path) => tree.file(path).is_some(),
                None => PROGRAMS.iter().any(|directory| tree.file(&format!("{directory}/{program}")).is_some()),
            };
            if !there {
                problems.push(format!("the enabled unit {unit} starts '{program}', which the image does not have"));
            }
        }
    }
    Ok(problems)
}

/// Units that are linked into some unit's `.wants` or `.requires`, and what those pull in by name; with their files.
fn started_units(tree: &Tree) -> Result<BTreeMap<String, String>, StepsError> {
    let mut pending: Vec<String> = Vec::new();
    for directory in ["etc/systemd/system", "usr/lib/systemd/system"] {
        for (path, _) in tree.below(directory) {
            if let Some((parent, name)) = path.rsplit_once('/')
                && (parent.ends_with(".wants") || parent.ends_with(".requires"))
            {
                pending.push(name.to_owned());
            }
        }
    }
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while let Some(unit) = pending.pop() {
        if !seen.insert(unit.clone()) {
            continue;
        }
        let Some(path) = super::units::find(tree, &unit) else { continue };
        let text = text::read(tree, &path)?.unwrap_or_default();
        for line in text.lines() {
            if let Some((key, value)) = line.split_once('=')
                && matches!(key.trim(), "Wants" | "Requires" | "BindsTo")
            {
                pending.extend(value.split_whitespace().map(str::to_owned));
            }
        }
        found.insert(unit, path);
    }
    Ok(found)
}

/// Links from directories of programs and units that lead nowhere. Elsewhere packages ship links to what others bring.
fn dangling_links(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for directory in ["usr/bin", "usr/sbin", "etc/systemd/system", "usr/lib/systemd/system"] {
        for (path, node) in tree.below(directory) {
            if let Kind::Symlink(target) = &node.kind
                && target != "/dev/null"
                && tree.resolve(path).is_none()
            {
                problems.push(format!("'/{path}' of {} is a link to '{target}', which the image does not have", node.origin));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::origin;
    use crate::tree::Node;

    #[test]
    fn programs_of_enabled_units_must_be_there() {
        let mut tree = Tree::new();
        let from = origin("test");
        let unit =
            "[Unit]\nWants=b.service\n[Service]\nExecStartPre=-/gone/optional\nExecStart=@/usr/bin/there x\nExecReload=kill $MAINPID\n";
        tree.put("usr/lib/systemd/system/a.service", Node::file(unit.as_bytes(), 0o644, &from)).unwrap();
        tree.put("usr/lib/systemd/system/b.service", Node::file(*b"[Service]\nExecStart=/gone/b\n", 0o644, &from)).unwrap();
        tree.put("usr/lib/systemd/system/c.service", Node::file(*b"[Service]\nExecStart=/gone/c\n", 0o644, &from)).unwrap();
        tree.put("usr/bin/there", Node::file(*b"", 0o755, &from)).unwrap();
        let link = Node::symlink("/usr/lib/systemd/system/a.service", &from);
        tree.put("etc/systemd/system/x.target.wants/a.service", link).unwrap();
        tree.put("usr/bin/broken", Node::symlink("nowhere", &from)).unwrap();
        let problems = problems(&tree).unwrap();
        assert_eq!(
            problems,
            [
                "the enabled unit a.service starts 'kill', which the image does not have",
                "the enabled unit b.service starts '/gone/b', which the image does not have",
                "'/usr/bin/broken' of garboard/test is a link to 'nowhere', which the image does not have",
            ]
        );
    }

    #[test]
    fn libraries_must_be_there() {
        let mut tree = Tree::new();
        let shell = std::fs::read("/bin/bash").unwrap();
        tree.put("usr/bin/bash", Node::file(shell, 0o755, &origin("test"))).unwrap();
        let problems = problems(&tree).unwrap();
        assert!(problems.iter().any(|line| line.contains("needs the library libc.so.6")), "{problems:?}");
        assert!(problems.iter().any(|line| line.contains("needs the loader /lib64/ld-linux")), "{problems:?}");
    }
}
