//! The whole way from a request to a tree, against an archive made here, and the ways in which it must fail.

use std::fs;

use super::testing::{NOW, Server, TestArchive, request, request_without};
use super::*;
use crate::progress::Silent;
use crate::tree::Kind;

fn error<T>(result: Result<T, DebianError>) -> String {
    let text = result.err().expect("it must fail").to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

fn flip_byte(path: &std::path::Path, from_end: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn two_packages() -> TestArchive {
    let mut archive = TestArchive::new();
    archive.simple("trixie", "app", "1.0-1", "Depends: lib (>= 2)\n");
    archive.simple("trixie", "lib", "2.1-1", "");
    archive.publish("");
    archive
}

#[test]
fn a_request_becomes_a_lock_and_a_tree() {
    let archive = two_packages();
    let (lock, assembled) = archive.debian().lock(&request(&["app"]), None, &Silent).unwrap();
    let names: Vec<&str> = lock.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["app", "lib"]);
    assert_eq!(lock.packages[0].scripts["postinst"], crate::digest::Sha256::of(b"#!/bin/sh\n"));
    assert_eq!(assembled.tree.file("usr/share/doc/lib/copyright").unwrap().read().unwrap(), b"free\n");
    assert_eq!(assembled.packages[1].copyright.as_deref(), Some("usr/share/doc/lib/copyright"));
    assert_eq!(assembled.packages[1].field("Version"), Some("2.1-1"));
}

#[test]
fn a_locked_build_reads_no_index_and_works_offline() {
    let archive = two_packages();
    let mut debian = archive.debian();
    let lock = debian.resolve(&request(&["app"]), &Silent).unwrap();
    debian.fetch(&lock, &Silent).unwrap();
    fs::remove_dir_all(archive.root("trixie")).unwrap();
    (debian.offline, debian.mirror) = (true, None);
    assert_eq!(debian.unpack(&lock, &Silent).unwrap().packages.len(), 2);
}

#[test]
fn offline_says_what_is_missing() {
    let archive = two_packages();
    let mut debian = archive.debian();
    debian.offline = true;
    assert!(error(debian.resolve(&request(&["app"]), &Silent)).contains("suite 'trixie' is not in the package cache"));
    debian.offline = false;
    let lock = debian.resolve(&request(&["app"]), &Silent).unwrap();
    debian.offline = true;
    assert_eq!(debian.resolve(&request(&["app"]), &Silent).unwrap(), lock);
    assert!(error(debian.unpack(&lock, &Silent)).contains("2 of 2 files are missing"));
}

#[test]
fn a_tampered_package_is_refused_by_name() {
    let archive = two_packages();
    flip_byte(&archive.pool("trixie", "lib", "2.1-1"), 40);
    let text = error(archive.debian().lock(&request(&["app"]), None, &Silent));
    assert!(text.contains("lib 2.1-1") && text.contains("not what was signed"), "{text}");
}

#[test]
fn a_tampered_index_is_refused() {
    let archive = two_packages();
    flip_byte(&archive.root("trixie").join("dists/trixie/main/binary-amd64/Packages.xz"), 30);
    let text = error(archive.debian().resolve(&request(&["app"]), &Silent));
    assert!(text.contains("the index of trixie/main") && text.contains("not what was signed"), "{text}");
}

#[test]
fn a_changed_release_file_is_refused() {
    let archive = two_packages();
    let path = archive.release_path("trixie");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("Origin: Test", "Origin: Tent")).unwrap();
    let text = error(archive.debian().resolve(&request(&["app"]), &Silent));
    assert!(text.contains("no valid signature") && text.contains("does not match"), "{text}");
}

#[test]
fn a_key_that_is_not_trusted_is_refused() {
    let archive = two_packages();
    let mut debian = archive.debian();
    debian.keyring = release::Keyring::debian().unwrap();
    let text = error(debian.resolve(&request(&["app"]), &Silent));
    assert!(text.contains("is not known"), "{text}");
    fs::write(archive.release_path("trixie"), "<html>captive portal</html>").unwrap();
    assert!(error(debian.resolve(&request(&["app"]), &Silent)).contains("is the mirror a Debian archive?"));
}

#[test]
fn a_damaged_signature_is_refused_in_few_words() {
    let archive = two_packages();
    let path = archive.release_path("trixie");
    let signed = fs::read_to_string(&path).unwrap();
    let at = signed.find("-----BEGIN PGP SIGNATURE").unwrap();
    for from in [40, 60, 80, 120] {
        let mut bytes = signed.clone().into_bytes();
        bytes[at + from..at + from + 8].copy_from_slice(b"*{[(}])*");
        fs::write(&path, bytes).unwrap();
        let text = error(archive.debian().resolve(&request(&["app"]), &Silent));
        assert!(text.contains("trixie/InRelease") && text.len() < 600, "{from}: {text}");
    }
}

#[test]
fn text_outside_the_signature_is_refused() {
    let archive = two_packages();
    let path = archive.release_path("trixie");
    let signed = fs::read_to_string(&path).unwrap();
    for forged in [format!("Codename: trixie\n{signed}"), format!("{signed}\nCodename: trixie\n")] {
        fs::write(&path, forged).unwrap();
        assert!(error(archive.debian().resolve(&request(&["app"]), &Silent)).contains("not a signed InRelease"));
    }
}

#[test]
fn an_expired_suite_is_refused_unless_allowed() {
    let archive = two_packages();
    archive.publish("Valid-Until: Sat, 19 Sep 2026 07:55:41 UTC\n");
    let mut debian = archive.debian();
    let text = error(debian.resolve(&request(&["app"]), &Silent));
    assert!(text.contains("expired on Sat, 19 Sep 2026") && text.contains("--allow-expired trixie"), "{text}");
    debian.allow_expired = vec!["trixie".to_owned()];
    assert!(debian.resolve(&request(&["app"]), &Silent).is_ok());
    debian.allow_expired.clear();
    debian.now = 1_789_199_741;
    assert!(debian.resolve(&request(&["app"]), &Silent).is_ok());
}

#[test]
fn another_suite_is_refused() {
    let archive = two_packages();
    let (from, to) = (archive.root("trixie").join("dists/trixie"), archive.root("trixie").join("dists/forky"));
    fs::rename(from, to).unwrap();
    let mut wanted = request(&["app"]);
    wanted.suite = "forky".to_owned();
    assert!(error(archive.debian().resolve(&wanted, &Silent)).contains("is for suite 'trixie', not 'forky'"));
    assert!(error(archive.debian().resolve(&request(&["app"]), &Silent)).contains("the mirror has no suite 'trixie'"));
}

#[test]
fn security_updates_win_and_are_recorded() {
    let mut archive = two_packages();
    archive.simple("trixie-security", "lib", "2.1-1+deb13u1", "");
    archive.publish("");
    let mut wanted = request(&["app"]);
    assert_eq!(archive.debian().resolve(&wanted, &Silent).unwrap().packages[1].version, "2.1-1");
    wanted.security = true;
    let (lock, _) = archive.debian().lock(&wanted, None, &Silent).unwrap();
    assert_eq!((lock.packages[1].version.as_str(), lock.packages[1].suite.as_str()), ("2.1-1+deb13u1", "trixie-security"));
    assert_eq!(lock.suites[1].archive, Archive::Security);
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let archive = two_packages();
    let server = Server::start(archive.directory.path());
    let mut debian = archive.debian();
    debian.mirror = Some(Mirror::new(&format!("{}/debian", server.address)).unwrap());
    let lock = debian.resolve(&request(&["lib"]), &Silent).unwrap();
    server.cut.store(1, Ordering::SeqCst);
    debian.unpack(&lock, &Silent).unwrap();
    let half = lock.packages[0].size / 2;
    let requests = server.requests.lock().unwrap();
    assert!(requests.contains(&format!("/debian/pool/lib_2.1-1.deb bytes={half}-")), "{requests:?}");
}

#[test]
fn a_wrong_beginning_of_a_download_is_thrown_away() {
    let archive = two_packages();
    let server = Server::start(archive.directory.path());
    let mut debian = archive.debian();
    debian.mirror = Some(Mirror::new(&format!("{}/debian", server.address)).unwrap());
    let lock = debian.resolve(&request(&["lib"]), &Silent).unwrap();
    let mut partial = debian.cache.partial(&lock.packages[0].sha256).unwrap();
    std::io::Write::write_all(partial.file(), b"not the beginning").unwrap();
    drop(partial);
    debian.unpack(&lock, &Silent).unwrap();
}

#[test]
fn a_package_that_left_the_mirror_says_to_lock_anew() {
    let archive = two_packages();
    let lock = archive.debian().resolve(&request(&["app"]), &Silent).unwrap();
    fs::remove_file(archive.pool("trixie", "lib", "2.1-1")).unwrap();
    let text = error(archive.debian().unpack(&lock, &Silent));
    assert!(text.contains("lib 2.1-1 is gone from the mirror") && text.contains("garboard lock RECIPE"), "{text}");
}

#[test]
fn damage_in_the_cache_is_repaired() {
    let archive = two_packages();
    let debian = archive.debian();
    let lock = debian.resolve(&request(&["app"]), &Silent).unwrap();
    debian.unpack(&lock, &Silent).unwrap();
    for kind in ["blobs", "unpacked", "indexes"] {
        for file in files_below(&debian.cache.root().join(kind)) {
            flip_byte(&file, 1);
        }
        let assembled = debian.unpack(&lock, &Silent).unwrap();
        assert_eq!(assembled.tree.file("usr/share/doc/app/copyright").unwrap().read().unwrap(), b"free\n", "{kind}");
        assert_eq!(debian.resolve(&request(&["app"]), &Silent).unwrap(), lock, "{kind}");
    }
}

fn files_below(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn packages_share_directories_and_lie_below_usr() {
    let mut archive = TestArchive::new();
    let base = [
        ("bin", 0o777, "-> usr/bin"),
        ("lib", 0o777, "-> usr/lib"),
        ("usr/", 0o755, ""),
        ("usr/bin/", 0o755, ""),
        ("usr/lib/", 0o755, ""),
        ("srv/", 0o750, ""),
    ];
    archive.package("trixie", "base-files", "1", "", &[], &base);
    let files = [
        ("bin/", 0o755, ""),
        ("bin/tool", 0o4755, "tool"),
        ("lib/hard", 0o644, "== bin/tool"),
        ("srv/", 0o755, ""),
        ("lib/modules/6/a.ko.xz", 0o644, "xz module"),
    ];
    archive.package("trixie", "a-tool", "1", "", &[], &files);
    archive.publish("");
    let (_, assembled) = archive.debian().lock(&request(&["a-tool", "base-files"]), None, &Silent).unwrap();
    let tree = &assembled.tree;
    assert_eq!(tree.get("usr/bin/tool").map(|node| (node.mode, &*node.origin)), Some((0o4755, "a-tool")));
    assert!(matches!(&tree.get("usr/lib/hard").unwrap().kind, Kind::HardLink(target) if target == "usr/bin/tool"));
    assert!(matches!(&tree.get("bin").unwrap().kind, Kind::Symlink(target) if target == "usr/bin"));
    assert_eq!(tree.get("srv").unwrap().mode, 0o750, "base-files says it first");
    assert_eq!(tree.file("usr/lib/modules/6/a.ko").unwrap().read().unwrap(), b"module");
    assert_eq!(tree.file("bin/tool").unwrap().read().unwrap(), b"tool");
}

#[test]
fn one_file_of_two_packages_needs_replaces() {
    let mut archive = TestArchive::new();
    archive.package("trixie", "a", "1", "", &[], &[("x", 0o644, "a")]);
    archive.package("trixie", "b", "1", "", &[], &[("x", 0o644, "b")]);
    archive.package("trixie", "c", "1", "Replaces: a (<< 2), b\n", &[], &[("x", 0o644, "c")]);
    archive.publish("");
    let text = error(archive.debian().lock(&request(&["a", "b"]), None, &Silent));
    assert!(text.contains("a and b both have '/x'"), "{text}");
    let (_, assembled) = archive.debian().lock(&request(&["a", "c"]), None, &Silent).unwrap();
    assert_eq!(assembled.tree.file("x").unwrap().read().unwrap(), b"c");
}

#[test]
fn a_package_cannot_leave_the_image() {
    for path in ["../etc/passwd", "usr/../../x"] {
        let mut archive = TestArchive::new();
        archive.package("trixie", "evil", "1", "", &[], &[(path, 0o644, "x")]);
        archive.publish("");
        assert!(error(archive.debian().lock(&request(&["evil"]), None, &Silent)).contains("leaves the image"));
    }
}

#[test]
fn the_unpacked_form_is_the_same_whoever_unpacks() {
    let archive = two_packages();
    let mut debian = archive.debian();
    let (lock, _) = debian.lock(&request(&["app"]), None, &Silent).unwrap();
    let first: Vec<Vec<u8>> = sorted(files_below(&debian.cache.root().join("unpacked")));
    debian.cache = cache::Cache::open(archive.directory.path().join("other")).unwrap();
    debian.unpack(&lock, &Silent).unwrap();
    assert_eq!(sorted(files_below(&debian.cache.root().join("unpacked"))), first);
    assert_eq!(debian.now, NOW);
}

fn sorted(mut paths: Vec<std::path::PathBuf>) -> Vec<Vec<u8>> {
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn exclusions_count_as_satisfied() {
    let mut archive = TestArchive::new();
    archive.simple("trixie", "app", "1", "Depends: perl:any, debconf (>= 0.5) | debconf-2.0, lib\n");
    archive.simple("trixie", "lib", "1", "Depends: perl-base (>= 99)\n");
    archive.publish("");
    let lock = archive.debian().resolve(&request_without(&["app"], &["perl*", "debconf"]), &Silent).unwrap();
    assert_eq!(lock.packages.len(), 2);
}

#[test]
fn a_full_disk_is_one_clear_line() {
    let archive = two_packages();
    let debian = archive.debian();
    let lock = debian.resolve(&request(&["lib"]), &Silent).unwrap();
    let part = debian.cache.root().join(format!("partial/{}.part", lock.packages[0].sha256));
    std::os::unix::fs::symlink("/dev/full", part).unwrap();
    let text = error(debian.unpack(&lock, &Silent));
    assert!(text.contains("writing") && text.contains("No space left on device") && text.contains("free space"), "{text}");
}

#[test]
fn two_builds_may_fetch_at_the_same_time() {
    let archive = two_packages();
    let debian = archive.debian();
    let lock = debian.resolve(&request(&["app"]), &Silent).unwrap();
    thread::scope(|scope| {
        let builds: Vec<_> = (0..4).map(|_| scope.spawn(|| debian.unpack(&lock, &Silent).map(|built| built.packages.len()))).collect();
        for build in builds {
            assert_eq!(build.join().unwrap().unwrap(), 2);
        }
    });
    assert!(files_below(&debian.cache.root().join("partial")).is_empty());
}

#[test]
fn the_built_in_keys_are_whole() {
    assert!(release::Keyring::debian().is_ok());
}
