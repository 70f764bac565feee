//! Gets the suites that a request needs: their signed release files, then their indexes, which are kept in the cache cut
//! down to what resolving reads.

use std::io::Read;

use super::cache::Cache;
use super::deb::decompress;
use super::fetch::{FetchError, Wanted};
use super::packages::{Index, trim};
use super::release::{IndexFile, Release};
use super::request::PackageRequest;
use super::transport::TransportError;
use super::universe::{Archive, Suite, Universe};
use super::{Debian, DebianError};
use crate::digest::Sha256;
use crate::progress::{Event, Progress};

/// Release files are about 150 kB.
const MAX_RELEASE: u64 = 16 << 20;
/// Changes whenever trimmed indexes of older programs cannot be used.
const INDEX_FORMAT: &str = "trim1";

/// A suite that is to be read.
struct Plan {
    name: String,
    archive: Archive,
    /// Whether its absence is only worth a warning, or nothing.
    optional: bool,
    only_named: bool,
}

fn plan(request: &PackageRequest) -> Vec<Plan> {
    let suite = &request.suite;
    let mut plans = vec![Plan { name: suite.clone(), archive: Archive::Debian, optional: false, only_named: false }];
    if !matches!(suite.as_str(), "sid" | "unstable" | "experimental") {
        plans.push(Plan { name: format!("{suite}-updates"), archive: Archive::Debian, optional: true, only_named: false });
        if request.security {
            plans.push(Plan { name: format!("{suite}-security"), archive: Archive::Security, optional: true, only_named: false });
        }
    }
    for name in request.from.values() {
        if !plans.iter().any(|plan| plan.name == *name) {
            plans.push(Plan { name: name.clone(), archive: Archive::Debian, optional: false, only_named: true });
        }
    }
    plans
}

impl Debian {
    /// All packages that a request may choose from.
    pub(super) fn universe(&self, request: &PackageRequest, progress: &dyn Progress) -> Result<Universe, DebianError> {
        let mut suites = Vec::new();
        for plan in plan(request) {
            if let Some(suite) = self.suite(&plan, request, progress)? {
                suites.push(suite);
            }
        }
        Ok(Universe { suites, from: request.from.clone() })
    }

    fn suite(&self, plan: &Plan, request: &PackageRequest, progress: &dyn Progress) -> Result<Option<Suite>, DebianError> {
        let mirror = match self.archive(plan.archive) {
            Err(DebianError::NoSecurity) => {
                let text = format!(
                    "'{}' is not used: the mirror's URL has no directory 'debian' to look beside for the security archive",
                    plan.name
                );
                progress.event(Event::Warning { text });
                return Ok(None);
            }
            other => other?,
        };
        let base = format!("dists/{}", plan.name);
        let url = mirror.url(&format!("{base}/InRelease"));
        let remembered = format!("releases/{}", Sha256::of(url.as_bytes()));
        let bytes = if self.offline {
            match self.cache.read(&remembered)? {
                Some(bytes) => bytes,
                None if plan.optional => return Ok(None),
                None => return Err(DebianError::OfflineSuite { suite: plan.name.clone() }),
            }
        } else {
            match self.transport.read(&url, MAX_RELEASE) {
                Ok(bytes) => bytes,
                Err(TransportError::NotFound { .. }) if plan.optional => {
                    if plan.archive == Archive::Security {
                        progress.event(Event::Warning { text: format!("'{}' is not used: {url} is not there", plan.name) });
                    }
                    return Ok(None);
                }
                Err(TransportError::NotFound { url }) => return Err(DebianError::NoSuite { suite: plan.name.clone(), url }),
                Err(source) => return Err(FetchError::Transport { name: format!("suite {}", plan.name), source }.into()),
            }
        };
        // Offline, what was current when it was fetched is what there is.
        let allow_expired = self.offline || self.allow_expired.contains(&plan.name);
        let release = Release::verify(&url, &bytes, &plan.name, &self.keyring, self.now, allow_expired)?;
        if !self.offline {
            self.cache.write(&remembered, &bytes)?;
        }
        let mut indexes = Vec::new();
        for component in &request.components {
            let file = release.index(component, &request.architecture)?;
            let wanted = Wanted {
                name: format!("the index of {}/{component}", plan.name),
                url: mirror.url(&format!("{base}/{}", file.location())),
                size: file.size,
                sha256: file.sha256,
            };
            indexes.push(self.index(&plan.name, &file, &wanted, progress)?);
        }
        Ok(Some(Suite {
            name: plan.name.clone(),
            archive: plan.archive,
            date: release.date,
            inrelease: release.sha256,
            indexes,
            only_named: plan.only_named,
        }))
    }

    fn index(&self, suite: &str, file: &IndexFile, wanted: &Wanted, progress: &dyn Progress) -> Result<Index, DebianError> {
        if let Some(text) = remembered_index(&self.cache, &file.sha256)? {
            return Ok(Index::new(text));
        }
        let fail = |reason: String| DebianError::Index { suite: suite.to_owned(), reason };
        let bytes = match self.fetcher().read(wanted, progress) {
            // An index that is not there is not a package that left the archive.
            Err(FetchError::Gone { url, .. }) => return Err(fail(format!("{url} is not there; the mirror is being updated"))),
            other => other?,
        };
        let mut text = String::new();
        let mut reader = decompress(&file.path, &bytes).map_err(|error| fail(error.to_string()))?;
        reader.read_to_string(&mut text).map_err(|error| fail(error.to_string()))?;
        let text = trim(&text);
        self.cache.write(&index_name(&file.sha256), &with_checksum(&text))?;
        // The compressed form is not needed again.
        self.cache.drop_blob(&file.sha256)?;
        Ok(Index::new(text))
    }
}

fn index_name(sum: &Sha256) -> String {
    format!("indexes/{sum}.{INDEX_FORMAT}")
}

fn with_checksum(text: &str) -> Vec<u8> {
    let mut bytes = format!("{}\n", Sha256::of(text.as_bytes())).into_bytes();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A trimmed index from the cache; a damaged one counts as missing.
fn remembered_index(cache: &Cache, sum: &Sha256) -> Result<Option<String>, DebianError> {
    let Some(bytes) = cache.read(&index_name(sum))? else { return Ok(None) };
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    let Some((stored, rest)) = text.split_once('\n') else { return Ok(None) };
    let sound = stored.parse() == Ok(Sha256::of(rest.as_bytes()));
    Ok(sound.then(|| rest.to_owned()))
}
