//! The directory of certificates, against `openssl rehash`.
#![allow(clippy::unwrap_used, reason = "all of this is test code")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use image_builder::steps::ca;
use image_builder::tree::{Kind, Node, Tree};

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap_or_else(|error| panic!("these tests need openssl: {error}"));
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate with an unusual subject: not all of them are in what Mozilla trusts.
fn make(directory: &Path, name: &str, options: &[&str]) {
    let (key, certificate) = (directory.join("key"), directory.join(format!("{name}.crt")));
    if !key.exists() {
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key.to_str().unwrap()]);
    }
    let fixed = ["req", "-x509", "-new", "-days", "2", "-key", key.to_str().unwrap(), "-out", certificate.to_str().unwrap()];
    openssl(&[&fixed[..], options].concat());
}

/// Hash links of a directory, with what they lead to.
type Links = BTreeMap<String, String>;

#[test]
fn the_hash_links_are_those_of_openssl() {
    let directory = tempfile::tempdir().unwrap();
    let odd = directory.path().join("odd");
    fs::create_dir(&odd).unwrap();
    make(&odd, "Blanks (and, commas)", &["-subj", "/O=  Two   Blanks /CN=MIXED case"]);
    make(&odd, "letters", &["-utf8", "-subj", "/C=HU/O=NetLock Kft. Főtanúsítvány ÁÉŐ/emailAddress=A@Example.org"]);
    make(&odd, "latin", &["-utf8", "-nameopt", "utf8", "-subj", "/O=Société Générale"]);
    make(&odd, "several", &["-multivalue-rdn", "-subj", "/CN=zeta+OU=alpha+serialNumber=17/DC=Example/UID=x"]);
    make(&odd, "same-1", &["-subj", "/O=Same/CN=Twice"]);
    make(&odd, "same-2", &["-subj", "/O=same/CN=twice", "-set_serial", "7"]);
    make(&odd, "empty", &["-subj", "/"]);
    make(&odd, "long", &["-subj", &format!("/O={}/OU={}", "o".repeat(64), "u".repeat(64))]);

    let mut sources: Vec<_> = fs::read_dir(&odd).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mozilla = fs::read_dir("/usr/share/ca-certificates/mozilla").expect("these tests need ca-certificates");
    sources.extend(mozilla.map(|entry| entry.unwrap().path()));
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    assert!(sources.len() > 100, "{}", sources.len());

    let mut tree = Tree::new();
    let origin: Arc<str> = Arc::from("test");
    for path in &sources {
        let name = path.file_name().unwrap().to_str().unwrap();
        tree.put(&format!("usr/share/ca-certificates/all/{name}"), Node::file(fs::read(path).unwrap(), 0o644, &origin)).unwrap();
    }
    ca::apply(&mut tree).unwrap();
    let mut ours = Links::new();
    let theirs_directory = directory.path().join("theirs");
    fs::create_dir(&theirs_directory).unwrap();
    for (path, node) in tree.below("etc/ssl/certs") {
        let name = path.rsplit('/').next().unwrap();
        match &node.kind {
            Kind::Symlink(target) if name.ends_with(".pem") => {
                fs::write(theirs_directory.join(name), tree.file(target.trim_start_matches('/')).unwrap().read().unwrap()).unwrap();
            }
            Kind::Symlink(target) => drop(ours.insert(name.to_owned(), target.clone())),
            _ => {}
        }
    }
    openssl(&["rehash", theirs_directory.to_str().unwrap()]);
    let theirs: Links = fs::read_dir(&theirs_directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_symlink())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_link(&path).unwrap().to_str().unwrap().to_owned()))
        .collect();
    assert_eq!(ours.len(), sources.len());
    assert_eq!(ours, theirs);
}
