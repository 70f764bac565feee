//! What the recipe puts in and takes out: files, directories, links, and patterns of paths to remove.

use std::collections::BTreeSet;

use super::accounts::Accounts;
use super::{StepsError, origin};
use crate::tree::{Body, Kind, Node, Tree};

/// One thing that the recipe puts into the tree.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where, without a leading slash.
    pub path: String,
    /// What.
    pub what: What,
    /// Permission bits; not used for links.
    pub mode: u16,
    /// Owner, by name or number.
    pub owner: String,
    /// Group, by name or number.
    pub group: String,
}

/// The kinds of [`Entry`].
#[derive(Clone, Debug)]
pub enum What {
    /// A regular file.
    File(Body),
    /// A directory; what is in it already stays.
    Directory,
    /// A symbolic link with its target.
    Link(String),
}

/// Puts all entries in, in order. Paths are the booted system's: an entry below a linked directory, such as
/// `lib/systemd/system/x`, lands where the link leads.
///
/// # Errors
/// When the tree refuses a path or an owner does not exist.
pub fn place(tree: &mut Tree, entries: &[Entry], accounts: &Accounts) -> Result<(), StepsError> {
    let origin = origin("recipe");
    for entry in entries {
        let unknown = |kind, name: &str| StepsError::UnknownOwner { path: entry.path.clone(), kind, name: name.to_owned() };
        let uid = accounts.uid(&entry.owner).ok_or_else(|| unknown("user", &entry.owner))?;
        let gid = accounts.gid(&entry.group).ok_or_else(|| unknown("group", &entry.group))?;
        let path = real_path(tree, &entry.path);
        let (kind, mode) = match &entry.what {
            What::File(body) => (Kind::File(body.clone()), entry.mode),
            What::Directory => (Kind::Directory, entry.mode),
            What::Link(target) => (Kind::Symlink(target.clone()), 0o777),
        };
        if matches!(kind, Kind::Directory)
            && let Some(node) = tree.get_mut(&path)
            && matches!(node.kind, Kind::Directory)
        {
            (node.uid, node.gid, node.mode) = (uid, gid, mode);
            continue;
        }
        let mut node = Node::new(kind, mode, &origin);
        (node.uid, node.gid) = (uid, gid);
        // A link or file may take the place of a directory only together with what was in it.
        tree.remove(&path);
        tree.put(&path, node)?;
    }
    Ok(())
}

/// The path with the links among its parents followed.
fn real_path(tree: &Tree, path: &str) -> String {
    let mut parent = path;
    while let Some((above, _)) = parent.rsplit_once('/') {
        parent = above;
        if let Some(real) = tree.resolve(parent) {
            return format!("{real}{}", path.strip_prefix(parent).unwrap_or_default()).trim_start_matches('/').to_owned();
        }
    }
    path.to_owned()
}

/// Removes everything that one of the patterns matches, with what is below it, except what a pattern that begins with
/// `!` matches. `dir/**` empties a directory and removes it too; a directory in which something is kept stays.
pub fn remove(tree: &mut Tree, patterns: &[String]) {
    let clean = |pattern: &str| {
        let pattern = pattern.trim_start_matches('/');
        pattern.strip_suffix("/**").unwrap_or(pattern).to_owned()
    };
    let going: Vec<String> = patterns.iter().filter(|pattern| !pattern.starts_with('!')).map(|pattern| clean(pattern)).collect();
    let kept: Vec<String> = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).map(clean).collect();
    let mut matching: Vec<String> = Vec::new();
    // `doc-base` sorts between `doc` and `doc/x`, so what is below a match is found by its parent, not by position.
    let mut doomed = BTreeSet::new();
    for (path, _) in tree.iter().filter(|(path, _)| !path.is_empty()) {
        let inside = path.rsplit_once('/').is_some_and(|(parent, _)| doomed.contains(parent));
        if inside || going.iter().any(|pattern| matches(pattern, path)) {
            doomed.insert(path);
            if !kept.iter().any(|pattern| matches(pattern, path)) {
                matching.push(path.to_owned());
            }
        }
    }
    let mut linked: BTreeSet<String> = tree
        .iter()
        .filter_map(|(_, node)| match &node.kind {
            Kind::HardLink(target) => Some(target.clone()),
            _ => None,
        })
        .collect();
    // Children before their directories, which go only when nothing is left in them.
    for path in matching.into_iter().rev() {
        if tree.below(&path).next().is_none() {
            if linked.contains(&path) {
                // The heir may have to go as well, and then needs one of its own.
                linked.extend(keep_hard_linked_body(tree, &path));
            }
            tree.remove(&path);
        }
    }
}

/// Before a file goes, the first other name of it takes over the body; returns that name.
fn keep_hard_linked_body(tree: &mut Tree, path: &str) -> Option<String> {
    let Some(Kind::File(body)) = tree.get(path).map(|node| node.kind.clone()) else { return None };
    let is_other = |node: &Node| matches!(&node.kind, Kind::HardLink(target) if target == path);
    let others: Vec<String> = tree.iter().filter(|(_, node)| is_other(node)).map(|(other, _)| other.to_owned()).collect();
    let mut heir: Option<String> = None;
    for other in others {
        if let Some(node) = tree.get_mut(&other) {
            node.kind = match &heir {
                None => Kind::File(body.clone()),
                Some(heir) => Kind::HardLink(heir.clone()),
            };
            heir.get_or_insert(other);
        }
    }
    heir
}

/// Whether a pattern matches a whole path.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    // Most patterns are out after their first bytes, without looking for wildcards one by one.
    let literal = pattern.find(['*', '?']).unwrap_or(pattern.len());
    let begins = pattern.as_bytes().get(..literal).is_some_and(|literal| path.as_bytes().starts_with(literal));
    begins && match_bytes(pattern.as_bytes(), path.as_bytes())
}

fn match_bytes(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*', b'/', rest @ ..] => {
            // Any number of whole directories, none included.
            match_bytes(rest, path) || path.iter().enumerate().any(|(at, &byte)| byte == b'/' && match_bytes(rest, &path[at + 1..]))
        }
        [b'*', b'*', rest @ ..] => (0..=path.len()).any(|at| match_bytes(rest, &path[at..])),
        [b'*', rest @ ..] => {
            let name = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
            (0..=name).any(|at| match_bytes(rest, &path[at..]))
        }
        [b'?', rest @ ..] => matches!(path, [byte, tail @ ..] if *byte != b'/' && match_bytes(rest, tail)),
        [byte, rest @ ..] => matches!(path, [there, tail @ ..] if there == byte && match_bytes(rest, tail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::accounts::{self, Ids};

    fn file(path: &str) -> Entry {
        Entry { path: path.into(), what: What::File(Body::from_bytes(*b"new")), mode: 0o600, owner: "0".into(), group: "0".into() }
    }

    #[test]
    fn patterns() {
        assert!(matches("usr/share/doc/**", "usr/share/doc/a/b"));
        assert!(!matches("usr/share/doc/**", "usr/share/docs/a"));
        assert!(matches("**/*.a", "x.a") && matches("**/*.a", "usr/lib/x.a") && !matches("**/*.a", "usr/lib/x.ab"));
        assert!(matches("usr/*/x", "usr/lib/x") && !matches("usr/*/x", "usr/lib/y/x"));
        assert!(matches("a?c", "abc") && !matches("a?c", "a/c"));
        assert!(matches("usr/**/perl*", "usr/lib/x/perl5") && matches("usr/**/perl*", "usr/perl"));
    }

    #[test]
    fn entries_land_where_links_lead_and_replace_what_was_there() {
        let mut tree = Tree::new();
        let from = origin("test");
        tree.put("lib", Node::symlink("usr/lib", &from)).unwrap();
        tree.put("usr/lib/x/old", Node::file(*b"", 0o644, &from)).unwrap();
        let accounts = accounts::build(&tree, &[], &[], &[], &Ids::default()).unwrap();
        place(&mut tree, &[file("lib/systemd/a"), file("usr/lib/x")], &accounts).unwrap();
        assert!(tree.contains("usr/lib/systemd/a") && !tree.contains("lib/systemd/a") && !tree.contains("usr/lib/x/old"));
        let mut bad = file("etc/x");
        bad.owner = "nemo".into();
        let error = place(&mut tree, &[bad], &accounts).unwrap_err();
        assert_eq!(error.to_string(), "'etc/x' shall belong to user 'nemo', which the image does not have: add it to the recipe");
    }

    #[test]
    fn removal_takes_what_is_below_and_spares_what_is_kept() {
        let mut tree = Tree::new();
        for path in ["doc/a/copyright", "doc/a/changelog", "doc/b/readme", "doc-base/x", "man/m", "lib/perl5/x", "lib/perl"] {
            tree.put(path, Node::file(*b"", 0o644, &origin("test"))).unwrap();
        }
        let patterns = ["/doc", "!/doc/*/copyright", "man/**", "/lib/perl*"].map(str::to_owned);
        remove(&mut tree, &patterns);
        let left: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(left, ["", "doc", "doc-base", "doc-base/x", "doc/a", "doc/a/copyright", "lib"]);
    }

    #[test]
    fn removing_one_name_of_a_file_keeps_the_others() {
        let mut tree = Tree::new();
        let from = origin("test");
        tree.put("a/1", Node::file(*b"body", 0o644, &from)).unwrap();
        for other in ["a/0", "b/2", "b/3"] {
            tree.put(other, Node::new(Kind::HardLink("a/1".into()), 0o644, &from)).unwrap();
        }
        remove(&mut tree, &["/a/**".into()]);
        assert!(!tree.contains("a"));
        assert_eq!(tree.file("b/3").unwrap().read().unwrap(), b"body");
        assert!(matches!(&tree.get("b/3").unwrap().kind, Kind::HardLink(target) if target == "b/2"));
    }
}
