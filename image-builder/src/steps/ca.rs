//! Certificate authorities without `update-ca-certificates` and `openssl rehash`: one file with all of them, for programs
//! that take a file, and the directory in which OpenSSL finds each by the hash of its subject. Both are where Debian has
//! them, and so are the names.

use std::collections::BTreeMap;

use ureq::tls::{PemItem, parse_pem};

use super::subject_hash::subject_hash;
use super::{StepsError, origin};
use crate::tree::{Kind, Node, Tree};

const SOURCE: &str = "usr/share/ca-certificates";
const DIRECTORY: &str = "etc/ssl/certs";
/// The bundle, where Debian has it.
pub const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// Makes the bundle, the directory and the links by which OpenSSL's own defaults find them.
///
/// # Errors
/// When a certificate cannot be read or is not one, or the tree refuses a path.
pub fn apply(tree: &mut Tree) -> Result<(), StepsError> {
    let mut bundle: Vec<u8> = Vec::new();
    let mut links: Vec<(String, String)> = Vec::new();
    let mut hashes: BTreeMap<String, u32> = BTreeMap::new();
    for (path, node) in tree.below(SOURCE).filter(|(path, _)| path.ends_with(".crt")) {
        let Kind::File(body) = &node.kind else { continue };
        let bytes = body.read().map_err(|source| StepsError::Read { path: path.to_owned(), source })?;
        let name = link_name(path);
        hashes.insert(name.clone(), hash(&bytes).ok_or_else(|| StepsError::Certificate { path: path.to_owned() })?);
        links.push((name, format!("/{path}")));
        bundle.extend(bytes);
        if bundle.last() != Some(&b'\n') {
            bundle.push(b'\n');
        }
    }
    if bundle.is_empty() {
        return Ok(());
    }
    let mut count: BTreeMap<u32, u32> = BTreeMap::new();
    for (name, hash) in hashes {
        let number = count.entry(hash).or_default();
        links.push((format!("{hash:08x}.{number}"), name));
        *number += 1;
    }
    let origin = origin("ca");
    tree.put(BUNDLE, Node::file(bundle, 0o644, &origin))?;
    for (name, target) in links {
        tree.put(&format!("{DIRECTORY}/{name}"), Node::symlink(target, &origin))?;
    }
    for (link, target) in [("usr/lib/ssl/cert.pem", format!("/{BUNDLE}")), ("usr/lib/ssl/certs", format!("/{DIRECTORY}"))] {
        if !tree.contains(link) {
            tree.put(link, Node::symlink(target, &origin))?;
        }
    }
    Ok(())
}

/// The name in the directory of a certificate's file, spelt as `update-ca-certificates` does.
fn link_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.strip_suffix(".crt").unwrap_or(name);
    let plain = name.chars().map(|c| match c {
        ' ' | ',' => '_',
        '(' | ')' => '=',
        other => other,
    });
    plain.chain(".pem".chars()).collect()
}

/// The subject's hash of the first certificate in a PEM file.
fn hash(pem: &[u8]) -> Option<u32> {
    parse_pem(pem).find_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => subject_hash(certificate.der()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // openssl ecparam -name prime256v1 -genkey -noout | openssl req -x509 -key /dev/stdin -subj '/O=Test  Authority/CN=A' -days 1
    const A: &str = include_str!("../../tests/data/ca-a.pem");

    #[test]
    fn certificates_are_joined_in_order_each_on_its_own_lines_and_found_by_hash() {
        let mut tree = Tree::new();
        apply(&mut tree).unwrap();
        assert!(!tree.contains(BUNDLE));
        for (name, text) in [("mozilla/Same (subject), twice.crt", A.trim_end()), ("mozilla/A.crt", A), ("README", "no")] {
            tree.put(&format!("{SOURCE}/{name}"), Node::file(text.as_bytes(), 0o644, &origin("test"))).unwrap();
        }
        apply(&mut tree).unwrap();
        assert_eq!(tree.file("usr/lib/ssl/cert.pem").unwrap().read().unwrap(), format!("{A}{A}").into_bytes());
        let links: Vec<String> =
            tree.below(DIRECTORY).map(|(path, node)| format!("{} {:?}", &path[DIRECTORY.len() + 1..], node.kind)).collect();
        assert_eq!(links.len(), 5, "{links:#?}");
        for hash in ["a250a7ea.0", "a250a7ea.1"] {
            assert_eq!(tree.file(&format!("usr/lib/ssl/certs/{hash}")).unwrap().read().unwrap().trim_ascii(), A.as_bytes().trim_ascii());
        }
        assert!(tree.contains("etc/ssl/certs/Same_=subject=__twice.pem"));
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let mut tree = Tree::new();
        tree.put(&format!("{SOURCE}/bad.crt"), Node::file(*b"hello", 0o644, &origin("test"))).unwrap();
        assert_eq!(
            apply(&mut tree).unwrap_err().to_string(),
            "'usr/share/ca-certificates/bad.crt' is not a certificate in PEM: correct or remove it"
        );
    }
}
