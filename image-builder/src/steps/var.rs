//! `/var` is empty in the image, since the state partition's is mounted over it. What packages ship there becomes
//! `tmpfiles.d` lines, which make it at the first boot and whenever it is missing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::accounts::Accounts;
use super::{StepsError, origin, text};
use crate::tree::{Kind, Tree};

/// Where the lines go.
pub const TMPFILES: &str = "usr/lib/tmpfiles.d/garboard-packages.conf";
/// Files that packages ship in `/var` are kept here, to be copied.
const FACTORY: &str = "usr/share/factory";

/// Empties `/var`.
///
/// # Errors
/// When the tree refuses a path or a body cannot be read.
pub fn apply(tree: &mut Tree, accounts: &Accounts) -> Result<(), StepsError> {
    let known = declared(tree)?;
    let mut lines = String::from("# What the packages of this image have in /var.\n");
    let mut files = Vec::new();
    for (path, node) in tree.below("var") {
        if known.contains(path) {
            continue;
        }
        let user = accounts.user_name(node.uid).map_or_else(|| node.uid.to_string(), str::to_owned);
        let group = accounts.group_name(node.gid).map_or_else(|| node.gid.to_string(), str::to_owned);
        // Writing to a String cannot fail.
        let _ = match &node.kind {
            Kind::Directory => writeln!(lines, "d /{path} {:04o} {user} {group} -", node.mode),
            Kind::Symlink(target) => writeln!(lines, "L /{path} - - - - {target}"),
            Kind::File(_) | Kind::HardLink(_) => {
                files.push((path.to_owned(), node.clone()));
                writeln!(lines, "C /{path} {:04o} {user} {group} - /{FACTORY}/{path}", node.mode)
            }
        };
    }
    for (path, mut node) in files {
        if let Kind::HardLink(target) = &node.kind
            && let Some(body) = tree.file(target)
        {
            node.kind = Kind::File(body.clone());
        }
        tree.put(&format!("{FACTORY}/{path}"), node)?;
    }
    let all: Vec<String> = tree.below("var").map(|(path, _)| path.to_owned()).collect();
    for path in all {
        tree.remove(&path);
    }
    text::write(tree, TMPFILES, &lines, 0o644, &origin("var"))
}

/// Paths that `tmpfiles.d` files of the image make already.
fn declared(tree: &Tree) -> Result<BTreeSet<String>, StepsError> {
    let mut known = BTreeSet::new();
    for (path, _) in tree.below("usr/lib/tmpfiles.d").filter(|(path, _)| path.ends_with(".conf")) {
        let text = text::read(tree, path)?.unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let makes = words.next().is_some_and(|kind| kind.starts_with(['d', 'D', 'v', 'q', 'Q', 'L', 'C', 'f', 'F']));
            if let (true, Some(path)) = (makes, words.next()) {
                known.insert(path.trim_start_matches('/').to_owned());
            }
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::accounts::{self, GroupSpec, Ids};
    use crate::tree::Node;

    #[test]
    fn var_becomes_tmpfiles_lines() {
        let mut tree = Tree::new();
        let from = origin("test");
        let mail = GroupSpec { name: "mail".into(), gid: Some(8) };
        let accounts = accounts::build(&tree, &[], &[mail], &[], &Ids::default()).unwrap();
        let mut node = Node::new(Kind::Directory, 0o2775, &from);
        node.gid = 8;
        tree.put("var/mail", node).unwrap();
        tree.put("var/lib/x/seed", Node::file(*b"s", 0o600, &from)).unwrap();
        tree.put("var/run", Node::symlink("/run", &from)).unwrap();
        tree.put("var/tmp", Node::directory(&from)).unwrap();
        tree.put("usr/lib/tmpfiles.d/a.conf", Node::file(*b"# c\nd /var/tmp 1777 root root -\n", 0o644, &from)).unwrap();
        apply(&mut tree, &accounts).unwrap();
        let text = text::read(&tree, TMPFILES).unwrap().unwrap();
        let expected = "# What the packages of this image have in /var.\n\
            d /var/lib 0755 0 0 -\nd /var/lib/x 0755 0 0 -\nC /var/lib/x/seed 0600 0 0 - /usr/share/factory/var/lib/x/seed\n\
            d /var/mail 2775 0 mail -\nL /var/run - - - - /run\n";
        assert_eq!(text, expected);
        assert_eq!(tree.below("var").count(), 0);
        assert!(tree.contains("var") && tree.contains("usr/share/factory/var/lib/x/seed"));
    }
}
