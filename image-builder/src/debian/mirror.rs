//! Which mirror: the command line, then `GARBOARD_MIRROR`, then the recipe, then the host's own apt sources where they
//! are Debian's. A mirror is not trusted, so choosing one by what the host has is safe; no mirror is built in.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::deb822;

/// Why there is no mirror.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MirrorError {
    /// Nobody names one.
    #[error(
        "no Debian mirror is known: pass --mirror URL, set GARBOARD_MIRROR, or put `mirror` into the recipe's [packages] (this host's apt sources name none)"
    )]
    None,
    /// Not a URL that can be used.
    #[error(
        "'{0}' is not a mirror: expected http://, https:// or file:/// and the archive's directory, for example http://mirror.example.org/debian"
    )]
    BadUrl(String),
}

/// An archive's base URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    base: String,
}

impl Mirror {
    /// Checks a URL.
    ///
    /// # Errors
    /// When it is not http, https or file.
    pub fn new(url: &str) -> Result<Self, MirrorError> {
        let base = url.trim().trim_end_matches('/');
        let rest = ["http://", "https://", "file://"].iter().find_map(|scheme| base.strip_prefix(scheme));
        let sound = rest.is_some_and(|rest| !rest.is_empty() && !base.contains(char::is_whitespace) && !base.contains(['?', '#']));
        if sound { Ok(Self { base: base.to_owned() }) } else { Err(MirrorError::BadUrl(url.to_owned())) }
    }

    /// The first choice that is there. `sources` reads the host's apt sources when nothing else names a mirror.
    ///
    /// # Errors
    /// When none is there, or the one that counts is not a URL.
    pub fn choose(
        argument: Option<&str>,
        environment: Option<&str>,
        recipe: Option<&str>,
        sources: impl FnOnce() -> Option<String>,
    ) -> Result<Self, MirrorError> {
        let named = [argument, environment, recipe].into_iter().flatten().find(|url| !url.trim().is_empty());
        let url = named.map(str::to_owned).or_else(sources).ok_or(MirrorError::None)?;
        Self::new(&url)
    }

    /// The URL of a path below the mirror.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// The security archive beside it: the directory `debian` becomes `debian-security`. `None` when the URL has no
    /// such directory.
    #[must_use]
    pub fn security(&self) -> Option<Self> {
        let mut parts: Vec<&str> = self.base.split('/').collect();
        let at = parts.iter().rposition(|part| *part == "debian").filter(|&at| at > 2)?;
        *parts.get_mut(at)? = "debian-security";
        Some(Self { base: parts.join("/") })
    }
}

/// The Debian archive that apt on the host at `root` uses, from `etc/apt/sources.list` and `sources.list.d`.
#[must_use]
pub fn host_sources(root: &Path) -> Option<String> {
    let apt = root.join("etc/apt");
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(apt.join("sources.list.d")) {
        let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        found.sort();
        files.extend(found);
    }
    files.iter().find_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        match path.extension()?.to_str()? {
            "list" => text.lines().find_map(one_line),
            "sources" => deb822::paragraphs(&text).find_map(stanza),
            _ => None,
        }
    })
}

fn one_line(line: &str) -> Option<String> {
    let line = line.split('#').next()?.trim().strip_prefix("deb")?;
    let line = line.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match line.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", line),
    };
    let mut words = rest.split_whitespace();
    let (url, suite) = (words.next()?, words.next()?);
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    is_debian(url, &[suite], words, signed_by).then(|| url.to_owned())
}

fn stanza(paragraph: &str) -> Option<String> {
    let words = |name: &str| deb822::field(paragraph, name).unwrap_or_default().split_whitespace();
    let off = deb822::field(paragraph, "Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    if off || !words("Types").any(|kind| kind == "deb") {
        return None;
    }
    let suites: Vec<&str> = words("Suites").collect();
    words("URIs").find(|url| is_debian(url, &suites, words("Components"), deb822::field(paragraph, "Signed-By"))).map(str::to_owned)
}

/// Third parties publish `…/linux/debian bookworm stable`, Ubuntu has other suites: only an archive directory `debian`
/// with a suite and the component of the real archive counts, and other keys than Debian's rule it out.
fn is_debian<'a>(url: &str, suites: &[&str], mut components: impl Iterator<Item = &'a str>, signed_by: Option<&str>) -> bool {
    const SUITES: [&str; 14] = [
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
        "sid",
        "experimental",
        "buster",
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "rc-buggy",
    ];
    let sound = Mirror::new(url).is_ok_and(|mirror| mirror.security().is_some());
    let ours = suites.iter().any(|suite| {
        let base = ["-updates", "-backports", "-proposed-updates"].iter().find_map(|end| suite.strip_suffix(end)).unwrap_or(suite);
        SUITES.contains(&base)
    });
    let keys = signed_by.is_none_or(|keys| keys.contains("debian-archive") || keys.contains("BEGIN PGP"));
    sound && ours && keys && components.any(|component| component == "main")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/apt/sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(root.path().join("etc/apt").join(name), text).unwrap();
        }
        host_sources(root.path())
    }

    #[test]
    fn the_first_named_wins() {
        let sources = || Some("http://host.example.org/debian".to_owned());
        let url = |argument, environment, recipe| Mirror::choose(argument, environment, recipe, sources).unwrap().url("x");
        assert_eq!(url(Some("http://a.example.org/debian/"), Some("http://b.example.org"), None), "http://a.example.org/debian/x");
        assert_eq!(url(None, Some("https://b.example.org/debian"), Some("http://c.example.org")), "https://b.example.org/debian/x");
        assert_eq!(url(None, None, None), "http://host.example.org/debian/x");
        assert_eq!(Mirror::choose(None, Some(""), None, || None), Err(MirrorError::None));
        assert!(matches!(Mirror::new("mirror.example.org"), Err(MirrorError::BadUrl(_))));
    }

    #[test]
    fn the_security_archive_lies_beside() {
        let beside = |url: &str| Mirror::new(url).unwrap().security().map(|mirror| mirror.url("x"));
        assert_eq!(beside("http://m.example.org/debian").as_deref(), Some("http://m.example.org/debian-security/x"));
        let snapshot = beside("http://s.example.org/archive/debian/20260912T000000Z");
        assert_eq!(snapshot.as_deref(), Some("http://s.example.org/archive/debian-security/20260912T000000Z/x"));
        assert_eq!(beside("http://debian"), None);
        assert_eq!(beside("http://m.example.org/ubuntu"), None);
    }

    #[test]
    fn apt_sources_of_others_are_ignored() {
        let list = "# deb http://no.example.org/debian trixie main\n\
            deb http://ubuntu.example.org/ubuntu noble main\n\
            deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://docker.example.org/linux/debian bookworm stable\n\
            deb https://pg.example.org/debian bookworm-pgdg main\n\
            deb [signed-by=/usr/share/keyrings/other.gpg] http://other.example.org/debian trixie main\n\
            deb-src http://src.example.org/debian trixie main\n\
            deb [arch=amd64] http://yes.example.org/debian trixie main contrib # note\n";
        assert_eq!(host(&[("sources.list", list)]).as_deref(), Some("http://yes.example.org/debian"));
        let ubuntu = "Types: deb\nURIs: http://u.example.org/ubuntu\nSuites: noble\nComponents: main\n";
        assert_eq!(host(&[("sources.list.d/ubuntu.sources", ubuntu)]), None);
    }

    #[test]
    fn reads_deb822_sources() {
        let text = "Types: deb-src\nURIs: http://src.example.org/debian\nSuites: trixie\nComponents: main\n\n\
            Enabled: no\nTypes: deb\nURIs: http://off.example.org/debian\nSuites: trixie\nComponents: main\n\n\
            Types: deb\n# http://old.example.org/debian\nURIs: http://sec.example.org/debian-security\nSuites: trixie-security\nComponents: main\n\n\
            Types: deb deb-src\nURIs:\n http://yes.example.org/debian/\nSuites: trixie trixie-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        assert_eq!(host(&[("sources.list.d/debian.sources", text)]).as_deref(), Some("http://yes.example.org/debian/"));
    }
}
