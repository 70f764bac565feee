//! Who signs: a private key in a file, or a program that has one (a hardware token, a vault, a person with a laptop).
//!
//! `NAME.pem` is an Ed25519 key, PKCS#8 in PEM. `NAME.signer.toml` describes a program:
//!
//! ```toml
//! public = "64 hexadecimal digits"             # the Ed25519 public key
//! command = ["program", "argument"]            # the message on stdin; 64 bytes, or 128 hexadecimal digits, on stdout
//! ```
//! `GARBOARD_ROLE` tells the program which role it signs for. What it answers is checked with the public key.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Deserialize;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::{Ed25519Key, Ed25519Scheme, Key};

use crate::error::PublishError;
use crate::files;
use crate::metadata::{self, Role};

const PEM_ENDING: &str = ".pem";
const SIGNER_ENDING: &str = ".signer.toml";
const PEM_TAG: &str = "PRIVATE KEY";

/// Something that can sign.
#[derive(Debug)]
pub struct Signer {
    path: PathBuf,
    public: Vec<u8>,
    with: With,
}

#[derive(Debug)]
enum With {
    Key(Box<Ed25519KeyPair>),
    Program(Vec<String>),
}

/// `NAME.signer.toml`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    public: String,
    command: Vec<String>,
}

impl Signer {
    /// All signers of a directory, by name.
    ///
    /// # Errors
    /// When a file cannot be read or is not what its ending says.
    pub fn all(directory: &Path) -> Result<Vec<Self>, PublishError> {
        let is_one = |name: &String| name.ends_with(PEM_ENDING) || name.ends_with(SIGNER_ENDING);
        files::names(directory)?.into_iter().filter(is_one).map(|name| Self::open(&directory.join(name))).collect()
    }

    fn open(path: &Path) -> Result<Self, PublishError> {
        let bad = |reason: String| PublishError::Text { path: path.to_owned(), reason };
        let bytes = files::read(path)?;
        if path.to_string_lossy().ends_with(SIGNER_ENDING) {
            let text = std::str::from_utf8(&bytes).map_err(|_| bad("not text".to_owned()))?;
            let description: Description = toml::from_str(text).map_err(|error| bad(error.message().to_owned()))?;
            let public = from_hex(&description.public).filter(|public| public.len() == 32);
            let public = public.ok_or_else(|| bad("'public' must be an Ed25519 public key, 64 hexadecimal digits".to_owned()))?;
            if description.command.is_empty() {
                return Err(bad("'command' must name a program".to_owned()));
            }
            return Ok(Self { path: path.to_owned(), public, with: With::Program(description.command) });
        }
        let pem = pem::parse(&bytes).ok().filter(|pem| pem.tag() == PEM_TAG);
        let pem = pem.ok_or_else(|| bad("not a private key: PKCS#8 in PEM is expected".to_owned()))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pem.contents());
        let pair = pair.map_err(|error| bad(format!("not an Ed25519 key in PKCS#8: {error}")))?;
        let public = pair.public_key().as_ref().to_vec();
        Ok(Self { path: path.to_owned(), public, with: With::Key(Box::new(pair)) })
    }

    /// Makes a key, readable by its owner alone.
    pub(crate) fn generate(directory: &Path, name: &str) -> Result<Self, PublishError> {
        let path = directory.join(format!("{name}{PEM_ENDING}"));
        if path.exists() {
            return Err(PublishError::KeysExist(directory.to_owned()));
        }
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let document = document.map_err(|_| metadata::encode("a key", &"this host gives no random numbers"))?;
        let text = pem::encode(&pem::Pem::new(PEM_TAG, document.as_ref()));
        files::replace(&path, text.as_bytes(), 0o600)?;
        Self::open(&path)
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The part of the file's name before `.pem` or `.signer.toml`.
    pub(crate) fn stem(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.trim_end_matches(PEM_ENDING).trim_end_matches(SIGNER_ENDING).to_owned()
    }

    /// The public key as TUF has it.
    #[must_use]
    pub fn key(&self) -> Key {
        let keyval = Ed25519Key { public: metadata::hex(&self.public), _extra: Default::default() };
        Key::Ed25519 { keyval, scheme: Ed25519Scheme::Ed25519, _extra: Default::default() }
    }

    /// The key's name in metadata.
    ///
    /// # Errors
    /// Never in practice: when the key cannot be written as JSON.
    pub fn key_id(&self) -> Result<Decoded<Hex>, PublishError> {
        self.key().key_id().map_err(|error| metadata::encode("a key", &error))
    }

    /// Whether others may read the private key.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let mode = fs::metadata(&self.path).map_or(0, |found| found.permissions().mode());
        matches!(self.with, With::Key(_)) && mode & 0o077 != 0
    }

    /// Signs a message.
    ///
    /// # Errors
    /// When the program fails, or answers with something that is not its signature.
    pub fn sign(&self, role: Role, message: &[u8]) -> Result<Vec<u8>, PublishError> {
        match &self.with {
            With::Key(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            With::Program(command) => self.ask(command, role, message),
        }
    }

    fn ask(&self, command: &[String], role: Role, message: &[u8]) -> Result<Vec<u8>, PublishError> {
        let fail = |reason: String| PublishError::Signer { path: self.path.clone(), reason };
        let (program, arguments) = command.split_first().ok_or_else(|| fail("no command".to_owned()))?;
        let started = Command::new(program)
            .args(arguments)
            .env("GARBOARD_ROLE", role.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.map_err(|error| fail(format!("cannot start '{program}': {error}")))?;
        // One that does not read its input answers for itself: the signature will be wrong.
        let _ = child.stdin.take().map(|mut input| input.write_all(message));
        let output = child.wait_with_output().map_err(|error| fail(error.to_string()))?;
        if !output.status.success() {
            return Err(fail(format!("'{program}' failed: {}", output.status)));
        }
        let text = std::str::from_utf8(&output.stdout).ok().map(str::trim);
        let raw = (output.stdout.len() == 64).then(|| output.stdout.clone());
        let signature = raw.or_else(|| text.and_then(from_hex)).filter(|signature| signature.len() == 64);
        let signature = signature.ok_or_else(|| fail("the answer is neither 64 bytes nor 128 hexadecimal digits".to_owned()))?;
        let valid = UnparsedPublicKey::new(&ED25519, &self.public).verify(message, &signature).is_ok();
        if valid { Ok(signature) } else { Err(fail("the answer is not a signature of its public key".to_owned())) }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).filter_map(|pair| Some(pair.first()? << 4 | pair.last()?)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_signs_and_its_answer_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let key = Signer::generate(directory.path(), "targets").unwrap();
        let signature = key.sign(Role::Targets, b"message").unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let write = |script: &str| {
            let text = format!("public = \"{}\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n", hex(&key.public));
            let path = directory.path().join("external.signer.toml");
            fs::write(&path, text).unwrap();
            Signer::open(&path).unwrap()
        };
        let good = format!("test \"$(cat)\" = message && test $GARBOARD_ROLE = targets && echo {}", hex(&signature));
        assert_eq!(write(&good).sign(Role::Targets, b"message").unwrap(), signature);
        let message = |script: &str| write(script).sign(Role::Targets, b"message").unwrap_err().to_string();
        assert!(message("exit 3").contains("failed: exit status: 3"));
        assert!(message("echo hello").contains("neither 64 bytes"));
        assert!(message("head -c 64 /dev/zero").contains("not a signature of its public key"));
        assert!(message(&good.replace("= message", "= other")).contains("failed"));
    }

    #[test]
    fn keys_are_for_their_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let key = Signer::generate(directory.path(), "root").unwrap();
        assert!(!key.is_exposed());
        fs::set_permissions(key.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(key.is_exposed());
        assert!(matches!(Signer::generate(directory.path(), "root"), Err(PublishError::KeysExist(_))));
    }

    #[test]
    fn files_that_are_no_keys_are_named() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("a.pem", "hello"), ("b.signer.toml", "public = 'xy'\ncommand = ['x']"), ("c.signer.toml", "key = 1")] {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            assert!(Signer::open(&path).unwrap_err().to_string().contains(name));
        }
    }
}
