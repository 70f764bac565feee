//! `LoadCredential=`, `SetCredential=`, `ImportCredential=`: secrets as files that only the unit's user can read.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use unit_files::exec::{Credential, CredentialSource};

use super::spec::{Failure, Spec, exit};

/// Bytes that one credential may have, as in systemd.
const MOST: u64 = 1024 * 1024;
/// Where relative names are looked for, first wins.
const STORES: [&str; 4] = ["/run/credentials/@system", "/etc/credstore", "/run/credstore", "/usr/lib/credstore"];

/// Makes them, once for all processes of a unit's run; returns the directory.
pub fn make(spec: &Spec, owner: Option<(u32, u32)>) -> Result<Option<String>, Failure> {
    if spec.context.credentials.is_empty() {
        return Ok(None);
    }
    let fail = |what: &str, why: &dyn std::fmt::Display| Failure { code: exit::CREDENTIALS, message: format!("{what}: {why}") };
    let [runtime, ..] = &spec.roots;
    let base = Path::new(runtime).join("credentials");
    let place = base.join(&spec.unit);
    if !place.is_dir() {
        let values = collect(&spec.context.credentials).map_err(|(id, why)| fail(&format!("credential {id}"), &why))?;
        write(&base, &place, &values, owner).map_err(|why| fail(&place.to_string_lossy(), &why))?;
    }
    Ok(Some(place.to_string_lossy().into_owned()))
}

/// Reads all of them. A value from `SetCredential=` is what counts where nothing can be loaded.
fn collect(credentials: &[Credential]) -> Result<BTreeMap<String, Vec<u8>>, (String, io::Error)> {
    let mut values = BTreeMap::new();
    let literal = |id: &str| {
        credentials.iter().find_map(|other| match &other.source {
            CredentialSource::Literal(text) if other.id == id => Some(unescape(text)),
            _ => None,
        })
    };
    for credential in credentials {
        let id = &credential.id;
        if credential.encrypted {
            return Err((id.clone(), io::Error::new(io::ErrorKind::Unsupported, "encrypted credentials are not supported")));
        }
        match &credential.source {
            CredentialSource::Literal(_) => {}
            CredentialSource::Path(path) => match load(id, path) {
                Ok(found) => values.extend(found),
                Err(why) => {
                    if literal(id).is_none() {
                        return Err((format!("{id} from {}", if path.is_empty() { id } else { path }), why));
                    }
                }
            },
            CredentialSource::Import => values.extend(import(id)),
        }
    }
    for credential in credentials {
        if let Some(value) = literal(&credential.id) {
            values.entry(credential.id.clone()).or_insert(value);
        }
    }
    Ok(values)
}

/// One file or socket, or all files of a directory, whose names are then put behind the id.
fn load(id: &str, path: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let name = if path.is_empty() { id } else { path };
    let path = if name.starts_with('/') {
        PathBuf::from(name)
    } else {
        let found = STORES.iter().map(|store| Path::new(store).join(name)).find(|path| path.exists());
        found.ok_or(io::ErrorKind::NotFound)?
    };
    let kind = std::fs::metadata(&path)?.file_type();
    if kind.is_dir() {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Some(name) = entry.file_name().to_str()
            {
                out.push((format!("{id}_{name}"), read(std::fs::File::open(entry.path())?)?));
            }
        }
        return Ok(out);
    }
    let value = if kind.is_socket() {
        let stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        read(stream)?
    } else {
        read(std::fs::File::open(&path)?)?
    };
    Ok(vec![(id.to_owned(), value)])
}

fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    from.take(MOST + 1).read_to_end(&mut value)?;
    if value.len() as u64 > MOST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(value) }
}

/// What the stores have under names that match a pattern; what is not there is not missed.
fn import(pattern: &str) -> Vec<(String, Vec<u8>)> {
    let mut out = BTreeMap::new();
    for entry in STORES.iter().flat_map(std::fs::read_dir).flatten().flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if crate::engine::pattern::matches(pattern, &name)
            && !out.contains_key(&name)
            && let Ok(value) = std::fs::File::open(entry.path()).and_then(read)
        {
            out.insert(name, value);
        }
    }
    out.into_iter().collect()
}

/// C escapes, as systemd reads the value of `SetCredential=`.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let Some((letter, after)) = rest.split_first() else { break };
        let digits = |count: usize, radix: u32| {
            let begin = usize::from(radix == 16);
            let text = rest.get(begin..begin + count)?;
            u8::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
        };
        let (byte, used) = match letter {
            b'n' => (Some(b'\n'), 1),
            b't' => (Some(b'\t'), 1),
            b'r' => (Some(b'\r'), 1),
            b's' => (Some(b' '), 1),
            b'a' => (Some(7), 1),
            b'b' => (Some(8), 1),
            b'f' => (Some(12), 1),
            b'v' => (Some(11), 1),
            b'x' => (digits(2, 16), 3),
            b'0'..=b'7' => (digits(3, 8), 3),
            other => (Some(*other), 1),
        };
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = rest.get(used..).unwrap_or_default();
            }
            None => {
                out.extend([b'\\', *letter]);
                rest = after;
            }
        }
    }
    out
}

/// Writes them under another name first: a directory that is there is complete.
fn write(base: &Path, place: &Path, values: &BTreeMap<String, Vec<u8>>, owner: Option<(u32, u32)>) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(base)?;
    let staging = base.join(format!(".new-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&staging);
    std::fs::DirBuilder::new().mode(0o700).create(&staging)?;
    let chown = |path: &Path| owner.map_or(Ok(()), |(uid, gid)| std::os::unix::fs::chown(path, Some(uid), Some(gid)));
    for (id, value) in values {
        let path = staging.join(id);
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o400).open(&path)?;
        io::Write::write_all(&mut file, value)?;
        chown(&path)?;
    }
    chown(&staging)?;
    std::fs::set_permissions(&staging, std::fs::Permissions::from_mode(0o500))?;
    match std::fs::rename(&staging, place) {
        // Another process of the unit was faster.
        Err(_) if place.is_dir() => std::fs::remove_dir_all(&staging),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_loaded_is_what_was_set_and_else_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("key"), "secret").unwrap();
        let credential = |id: &str, source| Credential { id: id.into(), source, encrypted: false };
        let values = collect(&[
            credential("key", CredentialSource::Path(at("key"))),
            credential("key", CredentialSource::Literal("not this".into())),
            credential("other", CredentialSource::Path(at("none"))),
            credential("other", CredentialSource::Literal("a\\nb\\x41\\101\\\\".into())),
        ])
        .unwrap();
        assert_eq!(values["key"], b"secret");
        assert_eq!(values["other"], b"a\nbAA\\");
        let missing = collect(&[credential("x", CredentialSource::Path(at("none")))]).unwrap_err();
        assert!(missing.0.starts_with("x from /"), "{missing:?}");
        std::fs::write(at("big"), vec![0; (MOST + 1) as usize]).unwrap();
        assert!(collect(&[credential("x", CredentialSource::Path(at("big")))]).is_err());
    }
}
