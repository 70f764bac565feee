//! A suite's `InRelease`: the signature of one of the trusted keys is checked before anything in it is believed; then
//! that it is the suite that was asked for, and that it has not expired.

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::packet::SignatureType;
use pgp::types::KeyDetails;
use thiserror::Error;

use super::date;
use super::deb822;
use crate::digest::Sha256;

/// The Debian archive's public keys: automatic signing, security and stable release keys of bullseye, bookworm, trixie.
const ARCHIVE_KEYS: &[u8] = include_bytes!("../../keys/debian-archive-keyring.pgp");

/// Why an index of a suite is not believed.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// The keys cannot be read.
    #[error("the keyring {name} cannot be read: {reason}")]
    Keyring {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// Not a signed message.
    #[error("{url} is not a signed InRelease file: {reason}; is the mirror a Debian archive?")]
    NotSigned {
        /// From where.
        url: String,
        /// Why.
        reason: String,
    },
    /// No signature of a trusted key.
    #[error("{url} has no valid signature of a trusted key ({reason}); the mirror or the way to it cannot be trusted: use another mirror")]
    BadSignature {
        /// From where.
        url: String,
        /// What was tried.
        reason: String,
    },
    /// Another suite.
    #[error("{url} is for suite '{found}', not '{wanted}'; use another mirror or correct the suite")]
    WrongSuite {
        /// From where.
        url: String,
        /// What the recipe names.
        wanted: String,
        /// What came.
        found: String,
    },
    /// Past `Valid-Until`.
    #[error(
        "{url} expired on {until}: the mirror is out of date; use another mirror, check this machine's clock, or pass --allow-expired {suite}"
    )]
    Expired {
        /// From where.
        url: String,
        /// The suite.
        suite: String,
        /// `Valid-Until` as it stands there.
        until: String,
    },
    /// A field is missing or malformed.
    #[error("{url} has no usable {field}")]
    Field {
        /// From where.
        url: String,
        /// Which field.
        field: String,
    },
    /// No such component or architecture.
    #[error("suite '{suite}' has no index {path}; it has the components {components}")]
    NoIndex {
        /// The suite.
        suite: String,
        /// What was looked for.
        path: String,
        /// What there is.
        components: String,
    },
}

/// Public keys that may sign a suite.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

impl Keyring {
    /// The keys of the Debian archive, which are part of this program.
    ///
    /// # Errors
    /// Never for the keys that are built in.
    pub fn debian() -> Result<Self, ReleaseError> {
        Self::from_bytes("built in", ARCHIVE_KEYS)
    }

    /// Keys from the bytes of a binary or armoured keyring file.
    ///
    /// # Errors
    /// When it is not one, or a key's own signatures do not hold.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self, ReleaseError> {
        let fail = |reason: String| ReleaseError::Keyring { name: name.to_owned(), reason };
        let parsed: Result<Vec<SignedPublicKey>, _> = if bytes.starts_with(b"-----BEGIN") {
            SignedPublicKey::from_armor_many(bytes).and_then(|(keys, _)| keys.collect())
        } else {
            SignedPublicKey::from_bytes_many(bytes).and_then(Iterator::collect)
        };
        let keys = parsed.map_err(|error| fail(error.to_string()))?;
        if keys.is_empty() {
            return Err(fail("there is no key in it".to_owned()));
        }
        Ok(Self { keys })
    }

    /// Adds further keys.
    pub fn extend(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }

    /// Checks that one of the message's signatures was made by one of the keys, which must be bound to its certificate
    /// and not be expired or revoked.
    fn check(&self, message: &CleartextSignedMessage, now: i64) -> Result<(), String> {
        let text = message.signed_text();
        let mut tried = Vec::new();
        for signature in message.signatures() {
            let text_or_binary = matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary));
            if !text_or_binary || !is_strong(signature) {
                tried.push("a signature of a kind that is not accepted".to_owned());
                continue;
            }
            let ids = signature.issuer_key_id();
            let mut known = false;
            for key in &self.keys {
                let primary = &key.primary_key;
                if ids.contains(&&primary.legacy_key_id()) {
                    known = true;
                    match certificate_problem(key, now) {
                        Some(problem) => tried.push(format!("key {} {problem}", primary.legacy_key_id())),
                        None if signature.verify(primary, text.as_bytes()).is_ok() => return Ok(()),
                        None => tried.push(format!("the signature of key {} does not match", primary.legacy_key_id())),
                    }
                }
                for subkey in key.public_subkeys.iter().filter(|subkey| ids.contains(&&subkey.key.legacy_key_id())) {
                    known = true;
                    let id = subkey.key.legacy_key_id();
                    let problem = certificate_problem(key, now).or_else(|| subkey_problem(key, subkey, now));
                    match problem {
                        Some(problem) => tried.push(format!("key {id} {problem}")),
                        None if signature.verify(&subkey.key, text.as_bytes()).is_ok() => return Ok(()),
                        None => tried.push(format!("the signature of key {id} does not match")),
                    }
                }
            }
            if !known {
                let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
                tried.push(format!("key {} is not known", names.join(", ")));
            }
        }
        Err(if tried.is_empty() { "there is no signature".to_owned() } else { tried.join("; ") })
    }
}

fn is_strong(signature: &pgp::packet::Signature) -> bool {
    use pgp::crypto::hash::HashAlgorithm as Hash;
    matches!(signature.hash_alg(), Some(Hash::Sha256 | Hash::Sha384 | Hash::Sha512 | Hash::Sha3_256 | Hash::Sha3_512))
}

fn certificate_problem(key: &SignedPublicKey, now: i64) -> Option<String> {
    if !key.details.revocation_signatures.is_empty() {
        return Some("was revoked".to_owned());
    }
    let primary = &key.primary_key;
    let own = key.details.users.iter().flat_map(|user| &user.signatures).chain(&key.details.direct_signatures);
    // Certifications by other people are not counted: only what the key says of itself.
    let own: Vec<_> = own.filter(|signature| signature.issuer_key_id().contains(&&primary.legacy_key_id())).collect();
    let bound = key.details.users.iter().any(|user| {
        user.signatures.iter().any(|signature| signature.verify_certification(primary, pgp::types::Tag::UserId, &user.id).is_ok())
    });
    if !bound {
        return Some("has no valid self-signature".to_owned());
    }
    let newest = own.into_iter().max_by_key(|signature| signature.created().map(|time| time.as_secs()))?;
    expired(primary.created_at().as_secs(), newest, now)
}

fn subkey_problem(key: &SignedPublicKey, subkey: &pgp::composed::SignedPublicSubKey, now: i64) -> Option<String> {
    if subkey.signatures.iter().any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Some("was revoked".to_owned());
    }
    let binding = subkey.signatures.iter().find(|signature| signature.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok());
    let Some(binding) = binding else { return Some("is not bound to its certificate".to_owned()) };
    if !binding.key_flags().sign() {
        return Some("may not sign".to_owned());
    }
    expired(subkey.key.created_at().as_secs(), binding, now)
}

fn expired(created: u32, signature: &pgp::packet::Signature, now: i64) -> Option<String> {
    let valid_for = i64::from(signature.key_expiration_time()?.as_secs());
    (valid_for != 0 && i64::from(created) + valid_for < now).then(|| "has expired".to_owned())
}

/// What a verified `InRelease` says.
#[derive(Clone, Debug)]
pub struct Release {
    /// The suite that was asked for.
    pub suite: String,
    /// `Date`, as seconds since 1970.
    pub date: i64,
    /// Sum of the whole signed file.
    pub sha256: Sha256,
    text: String,
}

/// The beginning of a parser's message, which may go on with all the bytes that it was given.
fn brief(message: &str) -> String {
    let end = message.find(['{', '[', '(']).unwrap_or(message.len());
    message.get(..end).unwrap_or_default().trim_end().chars().take(120).collect()
}

impl Release {
    /// Verifies and reads an `InRelease` file that came from `url`. `now` is in seconds since 1970; `None` accepts an
    /// expired file, because the user asked for that.
    ///
    /// # Errors
    /// When it is not signed by a trusted key, is another suite's or has expired.
    pub fn verify(url: &str, bytes: &[u8], suite: &str, keyring: &Keyring, now: i64, allow_expired: bool) -> Result<Self, ReleaseError> {
        let not_signed = |reason: String| ReleaseError::NotSigned { url: url.to_owned(), reason };
        let text = std::str::from_utf8(bytes).map_err(|error| not_signed(error.to_string()))?;
        let (message, _) = CleartextSignedMessage::from_string(text).map_err(|error| not_signed(brief(&error.to_string())))?;
        keyring.check(&message, now).map_err(|reason| ReleaseError::BadSignature { url: url.to_owned(), reason })?;
        // What was signed is the normalised text, with CRLF line ends; nothing outside of it is read.
        let text = message.signed_text().replace("\r\n", "\n");
        let field = |name: &str| deb822::field(&text, name);
        let missing = |field: &str| ReleaseError::Field { url: url.to_owned(), field: field.to_owned() };

        let names = [field("Codename"), field("Suite")];
        if !names.contains(&Some(suite)) {
            let found = names.into_iter().flatten().next().unwrap_or("?").to_owned();
            return Err(ReleaseError::WrongSuite { url: url.to_owned(), wanted: suite.to_owned(), found });
        }
        let date = field("Date").and_then(date::parse).ok_or_else(|| missing("Date"))?;
        if let Some(until) = field("Valid-Until") {
            let end = date::parse(until).ok_or_else(|| missing("Valid-Until"))?;
            if end < now && !allow_expired {
                return Err(ReleaseError::Expired { url: url.to_owned(), suite: suite.to_owned(), until: until.to_owned() });
            }
        }
        Ok(Self { suite: suite.to_owned(), date, sha256: Sha256::of(bytes), text })
    }

    /// The hash and size of a file of the suite, for example `main/binary-amd64/Packages.xz`.
    ///
    /// # Errors
    /// When the suite has no such file.
    pub fn index(&self, component: &str, architecture: &str) -> Result<IndexFile, ReleaseError> {
        // The security archive names its components `updates/main` in the release file, and serves them as `main`.
        let path = format!("{component}/binary-{architecture}/Packages.xz");
        let lines = deb822::field(&self.text, "SHA256").unwrap_or_default().lines();
        for line in lines {
            let mut words = line.split_whitespace();
            let (Some(sum), Some(size), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            if name == path
                && let (Ok(sha256), Ok(size)) = (sum.parse(), size.parse())
            {
                let by_hash = deb822::field(&self.text, "Acquire-By-Hash") == Some("yes");
                return Ok(IndexFile { path, sha256, size, by_hash });
            }
        }
        let components = deb822::field(&self.text, "Components").unwrap_or("none").split_whitespace().collect::<Vec<_>>().join(", ");
        Err(ReleaseError::NoIndex { suite: self.suite.clone(), path, components })
    }
}

/// One index as a release lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// Path below the suite's directory.
    pub path: String,
    /// Sum.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// Whether it can be fetched by its sum, so that an update of the mirror in between does no harm.
    pub by_hash: bool,
}

impl IndexFile {
    /// Path below the suite's directory from which to fetch.
    #[must_use]
    pub fn location(&self) -> String {
        match self.path.rsplit_once('/') {
            Some((directory, _)) if self.by_hash => format!("{directory}/by-hash/SHA256/{}", self.sha256),
            _ => self.path.clone(),
        }
    }
}
