//! A Debian archive made in a test: packages, indexes, release files signed with a key of its own, in a directory, and a
//! loopback web server that can fail as real ones do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use pgp::composed::{
    CleartextSignedMessage, EncryptionCaps, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::ser::Serialize;
use pgp::types::Password;

use super::Debian;
use super::cache::Cache;
use super::mirror::Mirror;
use super::release::Keyring;
use super::request::PackageRequest;
use super::transport::Transport;
use crate::digest::Sha256;

/// A time at which everything in the archive is valid, long after its keys were made.
pub const NOW: i64 = 4_000_000_000;

/// A signing key with a subkey, like the archive's.
pub fn key() -> SignedSecretKey {
    let subkey = SubkeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_sign(true)
        .can_encrypt(EncryptionCaps::None)
        .can_authenticate(false)
        .build()
        .unwrap();
    let mut params = SecretKeyParamsBuilder::default();
    params.key_type(KeyType::Ed25519Legacy).can_certify(true).can_sign(true).can_encrypt(EncryptionCaps::None);
    params.primary_user_id("Test archive <archive@example.org>".into()).subkeys(vec![subkey]);
    params.build().unwrap().generate(rand::thread_rng()).unwrap()
}

pub fn keyring(key: &SignedSecretKey) -> Keyring {
    let mut bytes = Vec::new();
    SignedPublicKey::from(key.clone()).to_writer(&mut bytes).unwrap();
    Keyring::from_bytes("test", &bytes).unwrap()
}

/// Signs with the subkey.
pub fn sign(key: &SignedSecretKey, text: &str) -> String {
    let message = CleartextSignedMessage::sign(rand::thread_rng(), text, &key.secret_subkeys[0].key, &Password::empty()).unwrap();
    message.to_armored_string(Default::default()).unwrap()
}

/// One file of a package: path, mode, content; a path that ends in `/` is a directory, content `-> x` a symbolic
/// link, `== x` a hard link, `xz x` is compressed.
pub type TestFile<'a> = (&'a str, u32, &'a str);

fn tar_of(files: &[TestFile<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        // The name is written raw, so that a test can write one that the builder refuses.
        let name = format!("./{path}");
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let compressed;
        let mut body: &[u8] = &[];
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        } else if let Some(target) = content.strip_prefix("-> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name(target).unwrap();
        } else if let Some(target) = content.strip_prefix("== ") {
            header.set_entry_type(tar::EntryType::Link);
            header.set_link_name(format!("./{target}")).unwrap();
        } else if let Some(plain) = content.strip_prefix("xz ") {
            compressed = xz(plain.as_bytes());
            body = &compressed;
        } else {
            body = content.as_bytes();
        }
        header.set_size(body.len() as u64);
        header.set_cksum();
        builder.append(&header, body).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut out).unwrap();
    out
}

/// A package file.
pub fn deb(control: &str, scripts: &[(&str, &str)], files: &[TestFile<'_>]) -> Vec<u8> {
    let mut members: Vec<TestFile<'_>> = vec![("control", 0o644, control)];
    members.extend(scripts.iter().map(|&(name, text)| (name, 0o755, text)));
    let control = zstd::encode_all(&tar_of(&members)[..], 1).unwrap();
    let data = xz(&tar_of(files));
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, body) in [("debian-binary", &b"2.0\n"[..]), ("control.tar.zst", &control), ("data.tar.xz", &data)] {
        writeln!(bytes, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", body.len()).unwrap();
        bytes.extend_from_slice(body);
        if body.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// An archive in a directory.
pub struct TestArchive {
    pub directory: tempfile::TempDir,
    pub key: SignedSecretKey,
    /// Suite directory to the paragraphs of its index.
    indexes: BTreeMap<String, String>,
}

impl TestArchive {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), key: key(), indexes: BTreeMap::new() }
    }

    /// The archive's directory, `debian`, or `debian-security` for such a suite.
    pub fn root(&self, suite: &str) -> PathBuf {
        self.directory.path().join(if suite.ends_with("-security") { "debian-security" } else { "debian" })
    }

    pub fn pool(&self, suite: &str, name: &str, version: &str) -> PathBuf {
        self.root(suite).join(format!("pool/{name}_{version}.deb"))
    }

    /// Adds a package with one file of its own.
    pub fn simple(&mut self, suite: &str, name: &str, version: &str, fields: &str) {
        let path = format!("usr/share/doc/{name}/copyright");
        self.package(suite, name, version, fields, &[("postinst", "#!/bin/sh\n")], &[(&path, 0o644, "free\n")]);
    }

    pub fn package(&mut self, suite: &str, name: &str, version: &str, fields: &str, scripts: &[(&str, &str)], files: &[TestFile<'_>]) {
        let mut control = format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\n{fields}");
        let bytes = deb(&control, scripts, files);
        let path = self.pool(suite, name, version);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &bytes).unwrap();
        writeln!(control, "Filename: pool/{name}_{version}.deb\nSize: {}\nSHA256: {}\n", bytes.len(), Sha256::of(&bytes)).unwrap();
        self.indexes.entry(suite.to_owned()).or_default().push_str(&control);
    }

    pub fn release_path(&self, suite: &str) -> PathBuf {
        self.root(suite).join(format!("dists/{suite}/InRelease"))
    }

    /// Writes indexes and signed release files; `extra` goes into the release files, for example a `Valid-Until`.
    pub fn publish(&self, extra: &str) {
        for (suite, text) in &self.indexes {
            let index = xz(text.as_bytes());
            let directory = self.root(suite).join(format!("dists/{suite}"));
            fs::create_dir_all(directory.join("main/binary-amd64")).unwrap();
            fs::write(directory.join("main/binary-amd64/Packages.xz"), &index).unwrap();
            let release = format!(
                "Origin: Test\nSuite: stable\nCodename: {suite}\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n{extra}Components: main\nSHA256:\n {} {} main/binary-amd64/Packages.xz\n",
                Sha256::of(&index),
                index.len()
            );
            fs::write(self.release_path(suite), sign(&self.key, &release)).unwrap();
        }
    }

    /// What a build uses, with the archive's directory as mirror and a cache beside it.
    pub fn debian(&self) -> Debian {
        Debian {
            mirror: Some(Mirror::new(&format!("file://{}", self.directory.path().join("debian").display())).unwrap()),
            keyring: keyring(&self.key),
            cache: Cache::open(self.directory.path().join("cache")).unwrap(),
            transport: Transport::new(),
            offline: false,
            allow_expired: Vec::new(),
            now: NOW,
        }
    }
}

pub use super::request::tests::request;

/// A request for packages of `trixie` with exclusions.
pub fn request_without(include: &[&str], exclude: &[&str]) -> PackageRequest {
    let mut request = request(include);
    request.exclude = exclude.iter().map(|&name| name.to_owned()).collect();
    request
}

/// A web server on the loopback for one directory.
pub struct Server {
    pub address: String,
    /// Request lines with their range, for example `/a bytes=5-`.
    pub requests: Arc<Mutex<Vec<String>>>,
    /// So many next answers for packages are cut off in the middle.
    pub cut: Arc<AtomicUsize>,
}

impl Server {
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: format!("http://{}", listener.local_addr().unwrap()), requests: Arc::default(), cut: Arc::default() };
        let (root, requests, cut) = (root.to_owned(), Arc::clone(&server.requests), Arc::clone(&server.cut));
        // Ends with the test's process: there is nothing to clean up.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(&stream, &root, &requests, &cut);
            }
        });
        server
    }
}

fn answer(mut stream: &TcpStream, root: &Path, requests: &Mutex<Vec<String>>, cut: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut range) = (String::new(), String::new());
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range:") {
            range = value.trim().to_owned();
        }
    }
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    requests.lock().unwrap().push(format!("{path} {range}").trim().to_owned());
    let Ok(body) = fs::read(root.join(path.trim_start_matches('/'))) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let start: usize = range.strip_prefix("bytes=").and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0);
    let status = if start > 0 {
        format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", body.len() - 1, body.len())
    } else {
        "200 OK".to_owned()
    };
    let body = &body[start..];
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    let cut_here = path.ends_with(".deb") && cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    stream.write_all(if cut_here { &body[..body.len() / 2] } else { body })
}
