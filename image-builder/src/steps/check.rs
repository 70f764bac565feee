//! The last look at the tree: what would fail on the host for want of a file is found here. Libraries that nobody has,
//! units of the boot whose programs are not there or whose files say what PID 1 does not do, links that lead nowhere.

use std::collections::BTreeSet;

use rayon::prelude::*;
use unit_files::exec::EXEC_SEARCH_PATH;
use unit_files::{DependencyKind, HostFacts, LoadState, Loader, UnitName};

use super::unit_source::TreeSource;
use super::{StepsError, elf, ldconfig};
use crate::tree::{Body, Kind, Tree};

/// Everything that is wrong, one line each.
///
/// # Errors
/// When a file cannot be read.
pub fn problems(tree: &Tree) -> Result<Vec<String>, StepsError> {
    let mut problems = libraries(tree)?;
    problems.extend(units(tree));
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

/// What is wrong with the units that a boot starts: what their files say, and programs that are not there. A program with
/// the prefix `-` may be missing.
fn units(tree: &Tree) -> Vec<String> {
    let loader = Loader::new(TreeSource::new(tree), HostFacts::default());
    let mut problems: Vec<String> = loader.problems().iter().map(ToString::to_string).collect();
    let mut pending: Vec<UnitName> = UnitName::parse("default.target").into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = pending.pop() {
        let name = loader.resolve(&name);
        if !seen.insert(name.clone()) {
            continue;
        }
        let unit = loader.load(&name);
        for kind in [DependencyKind::Wants, DependencyKind::Requires, DependencyKind::BindsTo, DependencyKind::Requisite] {
            for other in unit.dependencies.get(kind) {
                if kind != DependencyKind::Wants && matches!(loader.load(other).load_state, LoadState::NotFound) {
                    problems.push(format!("the unit {name} requires {other}, which the image does not have"));
                }
                pending.push(other.clone());
            }
        }
        problems.extend(unit.diagnostics.iter().map(ToString::to_string));
        let Some(service) = unit.service() else { continue };
        let lists = [&service.exec_condition, &service.exec_start_pre, &service.exec_start, &service.exec_start_post, &service.exec_reload];
        for command in lists.into_iter().flatten().chain(service.exec_stop.iter()).chain(service.exec_stop_post.iter()) {
            if !command.ignore_failure && !has_program(tree, &command.path) {
                problems.push(format!("the unit {name} starts '{}', which the image does not have", command.path));
            }
        }
    }
    problems
}

fn has_program(tree: &Tree, program: &str) -> bool {
    let paths = |program: &str| EXEC_SEARCH_PATH.map(|directory| format!("{directory}/{program}"));
    match program.strip_prefix('/') {
        Some(path) => tree.file(path).is_some(),
        // What only the host's facts or the environment complete is for the host to find.
        None => program.contains(['%', '$']) || paths(program).iter().any(|path| tree.file(path.trim_start_matches('/')).is_some()),
    }
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
        tree.put("etc/systemd/system/default.target.wants/a.service", link).unwrap();
        for target in ["default", "sysinit", "basic", "shutdown"] {
            tree.put(&format!("usr/lib/systemd/system/{target}.target"), Node::file(*b"[Unit]\n", 0o644, &from)).unwrap();
        }
        tree.put("usr/bin/broken", Node::symlink("nowhere", &from)).unwrap();
        let problems = problems(&tree).unwrap();
        assert_eq!(
            problems,
            [
                "the unit a.service starts 'kill', which the image does not have",
                "the unit b.service starts '/gone/b', which the image does not have",
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
