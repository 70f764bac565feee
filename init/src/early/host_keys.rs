//! `init host-keys`: makes the SSH host keys that are missing. No RSA: it takes long on a slow machine and no client of
//! today needs it.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

const KINDS: [&str; 2] = ["ed25519", "ecdsa"];
const DIRECTORY: &str = "/etc/ssh";

/// The program.
pub fn main(_args: &[String]) -> ExitCode {
    let mut failed = false;
    for kind in KINDS {
        if let Err(message) = make(Path::new(DIRECTORY), kind) {
            failed = true;
            eprintln!("host-keys: {message}");
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Makes a key under another name first: a power cut must not leave half a key that would then be kept for ever.
fn make(directory: &Path, kind: &str) -> Result<(), String> {
    let key = directory.join(format!("ssh_host_{kind}_key"));
    if fs::metadata(&key).is_ok_and(|metadata| metadata.len() > 0) {
        return Ok(());
    }
    let temporary = directory.join(format!(".ssh_host_{kind}_key.new"));
    let public = |key: &Path| key.with_file_name(format!("{}.pub", key.file_name().unwrap_or_default().to_string_lossy()));
    for path in [&temporary, &public(&temporary)] {
        let _ = fs::remove_file(path);
    }
    let output = Command::new("/usr/bin/ssh-keygen")
        .args(["-q", "-t", kind, "-N", "", "-C", "", "-f"])
        .arg(&temporary)
        .output()
        .map_err(|error| format!("cannot run /usr/bin/ssh-keygen: {error}"))?;
    if !output.status.success() {
        return Err(format!("ssh-keygen of a {kind} key: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let moved = fs::File::open(&temporary)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(public(&temporary), public(&key)))
        .and_then(|()| fs::rename(&temporary, &key));
    moved.map_err(|error| format!("cannot put {} in place: {error}", key.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_is_made_and_a_present_one_kept() {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path(), "ed25519").unwrap();
        let key = directory.path().join("ssh_host_ed25519_key");
        let first = fs::read(&key).unwrap();
        make(directory.path(), "ed25519").unwrap();
        assert_eq!(fs::read(&key).unwrap(), first);
        assert!(directory.path().join("ssh_host_ed25519_key.pub").exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
