//! `garboard` as a program given bad input: exit code, one clear line, and nothing half-written under a final name. The
//! mirror is a directory here or a web server on the loopback. What needs a signed archive (bad signatures, expired and
//! tampered release files and indexes, missing packages, unsatisfiable dependencies) is tested beside the code, in
//! `src/debian/`: the keys that this program trusts are built in.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is test code")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use image_builder::debian::lock::{Lock, LockedPackage, LockedSuite};
use image_builder::debian::request::PackageRequest;
use image_builder::debian::universe::Archive;
use image_builder::digest::Sha256;
use image_builder::recipe;
use tempfile::TempDir;

const RECIPE: &str = "[packages]\nsuite = 'trixie'\ninclude = ['app']\nsecurity = false\n[kernel]\npackage = 'app'\n";
const PACKAGE: &str = "pool/main/a/app/app_1.0-1_amd64.deb";

/// A place with a recipe, where `garboard` runs.
struct Place {
    directory: TempDir,
    mirror: String,
}

impl Place {
    fn new(recipe: &str) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("r.toml"), recipe).unwrap();
        Self { directory, mirror: "file:///nowhere/debian".to_owned() }
    }

    /// With a lock that has one package, of which the mirror has `served`.
    fn locked(body: &[u8], served: Option<&[u8]>) -> Self {
        let mut place = Self::new(RECIPE);
        let suite = LockedSuite {
            name: "trixie".to_owned(),
            archive: Archive::Debian,
            date: "2026-09-12T07:55:41Z".to_owned(),
            inrelease: Sha256::of(b""),
        };
        let package = LockedPackage {
            name: "app".to_owned(),
            version: "1.0-1".to_owned(),
            architecture: "amd64".to_owned(),
            suite: suite.name.clone(),
            path: PACKAGE.to_owned(),
            size: body.len() as u64,
            sha256: Sha256::of(body),
            scripts: BTreeMap::new(),
        };
        let request = PackageRequest::from_recipe(&recipe::load(&place.at("r.toml")).unwrap(), "amd64");
        Lock::new(request, vec![suite], vec![package]).write(&place.at("r.lock")).unwrap();
        place.mirror = serve(served.map(|bytes| (format!("/debian/{PACKAGE}"), bytes.to_vec())).into_iter().collect());
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_garboard"));
        command.args(arguments).current_dir(self.directory.path()).env("GARBOARD_MIRROR", &self.mirror);
        command.env("GARBOARD_CACHE", self.at("cache")).env_remove("GARBOARD_PROGRAMS").env_remove("http_proxy");
        command
    }

    fn build(&self, arguments: &[&str]) -> Output {
        self.command(&[&["build", "r.toml", "--out", "out"], arguments].concat()).output().unwrap()
    }

    /// A build that must fail with one line that has all of these texts, leaving the output directory empty.
    fn fails(&self, arguments: &[&str], expected: &[&str]) {
        one_line(&self.build(arguments), expected);
        self.nothing_is_left();
    }

    fn nothing_is_left(&self) {
        let left: Vec<_> =
            fs::read_dir(self.at("out")).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

/// Exit code 1, and one line on standard error, beside what was done before.
fn one_line(output: &Output, expected: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("garboard: ")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert_eq!(text.lines().last(), Some(lines[0]), "{text}");
    for part in expected {
        assert!(lines[0].contains(part), "'{part}' is not in: {text}");
    }
}

/// A mirror on the loopback that has these paths; it ends with the test's process.
fn serve(files: BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/debian", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let (status, body) = files.get(&path).map_or(("404 Not Found", &[][..]), |body| ("200 OK", body));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    url
}

#[test]
fn bad_usage_is_2() {
    let place = Place::new(RECIPE);
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["build"],
        &["build", "r.toml", "--frobnicate"],
        &["build", "r.toml", "--version", "1+3"],
        &["build", "r.toml", "--version", "a-version-that-is-too-long"],
        &["build", "r.toml", "--format", "vmdk9"],
        &["build", "r.toml", "-q", "--json"],
    ] {
        let output = place.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    place.nothing_is_left();
    assert_eq!(place.command(&["--help"]).output().unwrap().status.code(), Some(0));
}

#[test]
fn unit_files_are_verified_before_they_are_on_a_host() {
    let place = Place::new(RECIPE);
    fs::write(place.at("good.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    fs::write(place.at("bad.service"), "[Service]\nExecStart=/bin/true\nProtectSytem=strict\n").unwrap();
    assert!(place.command(&["verify", "good.service"]).output().unwrap().status.success());
    let output = place.command(&["verify", "good.service", "bad.service"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("bad.service:3: ") && said.contains("ProtectSytem") && said.lines().count() == 1, "{said}");
    let missing = place.command(&["verify", "missing.service"]).output().unwrap();
    assert!(String::from_utf8(missing.stderr).unwrap().starts_with("garboard: missing.service: "));
}

#[test]
fn a_broken_recipe_is_named_with_its_line() {
    for (text, expected) in [
        ("name = 'r'\n[packages]\nsuit = 'trixie'\n", "r.toml:3: unknown key 'suit'; did you mean 'suite'?"),
        ("name = 'r'\n[kernel]\npackages = 'linux'\n", "r.toml:3: unknown key 'packages'; did you mean 'package'?"),
        ("[packages\n", "r.toml:1: "),
        ("[[user]]\nuid = 7\n", "missing field `name`"),
        ("extends = 'base.toml'\n", "cannot read the recipe base.toml"),
        ("[kernel]\npackage = 'x'\n", "no suite is given"),
        (
            "[packages]\nsuite = 'trixie'\n[kernel]\npackage = 'x'\n[output]\nformats = ['vmdk9']\n",
            "r.toml: there is no image format 'vmdk9'",
        ),
    ] {
        Place::new(text).fails(&[], &[expected]);
    }
    let place = Place::new(RECIPE);
    one_line(&place.command(&["build", "gone.toml"]).output().unwrap(), &["cannot read the recipe gone.toml"]);
}

#[test]
fn a_lock_that_is_missing_drifted_or_damaged_stops_a_locked_build() {
    Place::new(RECIPE).fails(&["--locked"], &["r.lock is missing", "garboard lock"]);
    let place = Place::locked(b"body", None);
    let lock = fs::read_to_string(place.at("r.lock")).unwrap();
    fs::write(place.at("r.toml"), RECIPE.replace("'app']", "'app', 'vim']")).unwrap();
    place.fails(&["--locked"], &["r.lock does not fit the recipe", "include has 'vim' more", "garboard lock"]);
    assert_eq!(fs::read_to_string(place.at("r.lock")).unwrap(), lock, "a locked build never writes the lock");
    fs::write(place.at("r.toml"), RECIPE).unwrap();
    fs::write(place.at("r.lock"), lock.replace("[[package]]", "<<<<<<< HEAD\n[[package]]")).unwrap();
    place.fails(&[], &["r.lock is not a lock file", "in line"]);
}

#[test]
fn a_locked_package_that_is_gone_is_named() {
    Place::locked(b"body", None).fails(&["--locked"], &["app 1.0-1 is gone from the mirror", PACKAGE, "garboard lock", "snapshot"]);
}

#[test]
fn a_tampered_package_of_the_mirror_is_refused_and_not_kept() {
    let place = Place::locked(b"the true package", Some(b"the evil package"));
    place.fails(&["--locked"], &["app 1.0-1", "not what was signed", "use another mirror"]);
    assert!(!has_files(&place.at("cache/blobs")) && !has_files(&place.at("cache/unpacked")));
}

#[test]
fn a_tampered_package_of_the_cache_is_not_used() {
    let place = Place::locked(b"the true package", Some(b"the true package"));
    // It is no package, which shows that its bytes were believed.
    place.fails(&["--locked"], &["cannot unpack app 1.0-1"]);
    let name = Sha256::of(b"the true package").to_string();
    let blob = place.at("cache/blobs").join(&name[..2]).join(&name);
    fs::write(&blob, b"the evil package").unwrap();
    place.fails(&["--locked", "--offline"], &["app 1.0-1 is not in the package cache", "--offline"]);
    assert!(!blob.exists(), "what is damaged is dropped");
    place.fails(&["--locked"], &["cannot unpack app 1.0-1"]);
    assert_eq!(fs::read(&blob).unwrap(), b"the true package", "and fetched again");
}

#[test]
fn no_network_is_one_line_with_the_url() {
    let mut place = Place::new(RECIPE);
    // A port that was free a moment ago: nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.mirror = format!("http://{free}/debian");
    place.fails(&[], &["cannot fetch suite trixie", &free.to_string(), "check the network"]);
    assert!(!place.at("r.lock").exists());
    let mut locked = Place::locked(b"body", None);
    locked.mirror.clone_from(&place.mirror);
    locked.fails(&["--locked"], &["cannot fetch app 1.0-1", "check the network"]);
    locked.fails(&["--locked", "--offline"], &["app 1.0-1 is not in the package cache", "1 of 1 files"]);
    place.fails(&["--offline"], &["suite 'trixie' is not in the package cache"]);
}

#[test]
fn what_is_no_archive_is_not_believed() {
    let mut place = Place::new(RECIPE);
    place.fails(&[], &["/nowhere/debian"]);
    place.mirror = serve(BTreeMap::from([("/debian/dists/trixie/InRelease".to_owned(), b"<html>Log in</html>".to_vec())]));
    place.fails(&[], &["is the mirror a Debian archive?"]);
    place.mirror = "ftp://example.org/debian".to_owned();
    place.fails(&[], &["'ftp://example.org/debian' is not a mirror"]);
    assert!(!has_files(&place.at("cache/releases")) && !place.at("r.lock").exists());
}

#[test]
fn an_unusable_cache_is_named() {
    let place = Place::locked(b"body", Some(b"body"));
    fs::write(place.at("file"), b"").unwrap();
    place.fails(&["--locked", "--cache", "file"], &["the package cache cannot be used", "file/blobs", "GARBOARD_CACHE"]);
    place.fails(&["--locked", "--cache", "/proc/garboard"], &["the package cache cannot be used", "/proc/garboard"]);
    // A release file, index or package of it that is there and cannot be read.
    let place = Place::locked(b"body", Some(b"body"));
    let name = Sha256::of(b"body").to_string();
    fs::create_dir_all(place.at("cache/unpacked/1").join(&name[..2]).join(format!("{name}.index"))).unwrap();
    place.fails(&["--locked"], &["the package cache cannot be used", "reading", ".index"]);
}

#[test]
fn an_output_directory_that_cannot_be_is_named() {
    let place = Place::locked(b"body", Some(b"body"));
    fs::write(place.at("out"), b"").unwrap();
    one_line(&place.build(&["--locked"]), &["cannot make the output directory out"]);
}

#[test]
fn a_full_disk_stops_a_download_and_it_goes_on_later() {
    let body: Vec<u8> = (0..200_000_u32).map(|number| (number / 7) as u8).collect();
    let place = Place::locked(&body, Some(&body));
    // A limit on the size of files instead of a full disk: 64 KiB. The same, but needs no privilege.
    let script = format!("ulimit -f 128; trap '' XFSZ; exec {:?} build r.toml --out out --locked", env!("CARGO_BIN_EXE_garboard"));
    let mut limited = Command::new("sh");
    limited.args(["-c", &script]).current_dir(place.directory.path()).env("GARBOARD_MIRROR", &place.mirror);
    let output = limited.env("GARBOARD_CACHE", place.at("cache")).output().unwrap();
    one_line(&output, &["the package cache cannot be used", "writing", "File too large", "free space"]);
    place.nothing_is_left();
    let partial = place.at("cache/partial").join(format!("{}.part", Sha256::of(&body)));
    let begun = fs::metadata(&partial).unwrap().len();
    assert!(begun > 0 && begun < 200_000, "{begun}");
    place.fails(&["--locked"], &["cannot unpack app 1.0-1"]);
    assert!(!partial.exists(), "the download was finished");
}

#[test]
fn errors_are_one_line_in_every_style_of_output() {
    for style in ["--json", "-q"] {
        let output = Place::locked(b"body", None).build(&["--locked", style]);
        one_line(&output, &["app 1.0-1 is gone"]);
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}

fn has_files(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.map(|entry| entry.unwrap().path()).any(|path| !path.is_dir() || has_files(&path))
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new(RECIPE);
    fs::write(place.at("a.service"), "[Service]\nExecStart=/bin/true\nNonsense=1\n").unwrap();
    for arguments in
        [&["completions", "bash"][..], &["verify", "a.service"], &["verify", "a.service", "--json"], &["--help"], &["build", "--help"]]
    {
        let heard = place.command(arguments).output().unwrap();
        assert!(!heard.stdout.is_empty(), "{arguments:?}");
        let (_, closed) = std::io::pipe().unwrap();
        let unheard =
            place.command(arguments).stdout(closed).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((unheard.status.code(), text(&unheard)), (heard.status.code(), text(&heard)), "{arguments:?}");
    }
}
