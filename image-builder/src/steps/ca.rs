//! The bundle of certificate authorities without `update-ca-certificates`: one file for programs that take a file, and
//! the link by which OpenSSL's own default finds the same. Its hashed directory is not made: the file serves.

use super::{StepsError, origin};
use crate::tree::{Kind, Node, Tree};

const SOURCE: &str = "usr/share/ca-certificates";
/// The bundle, where Debian has it.
pub const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// Makes the bundle and the links.
///
/// # Errors
/// When a certificate cannot be read or the tree refuses a path.
pub fn apply(tree: &mut Tree) -> Result<(), StepsError> {
    let mut bundle: Vec<u8> = Vec::new();
    for (path, node) in tree.below(SOURCE).filter(|(path, _)| path.ends_with(".crt")) {
        if let Kind::File(body) = &node.kind {
            bundle.extend(body.read().map_err(|source| StepsError::Read { path: path.to_owned(), source })?);
            if bundle.last() != Some(&b'\n') {
                bundle.push(b'\n');
            }
        }
    }
    if bundle.is_empty() {
        return Ok(());
    }
    let origin = origin("ca");
    tree.put(BUNDLE, Node::file(bundle, 0o644, &origin))?;
    for (link, target) in [("usr/lib/ssl/cert.pem", format!("/{BUNDLE}")), ("usr/lib/ssl/certs", "/etc/ssl/certs".to_owned())] {
        if !tree.contains(link) {
            tree.put(link, Node::symlink(target, &origin))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_joined_in_order_each_on_its_own_lines() {
        let mut tree = Tree::new();
        apply(&mut tree).unwrap();
        assert!(!tree.contains(BUNDLE));
        for (name, text) in [("mozilla/B.crt", "b"), ("mozilla/A.crt", "a\n"), ("README", "no")] {
            tree.put(&format!("{SOURCE}/{name}"), Node::file(text.as_bytes(), 0o644, &origin("test"))).unwrap();
        }
        apply(&mut tree).unwrap();
        assert_eq!(tree.file("usr/lib/ssl/cert.pem").unwrap().read().unwrap(), b"a\nb\n");
    }
}
