//! The settings in force: what the file says, or, while that is not understood, what was last understood, and no reboot.

use std::path::Path;

use reboot_rules::file::write_whole;
use reboot_rules::settings::{Problem, Settings, parse};
use reboot_rules::windows::{Zones, zones_from};

use crate::paths::Paths;

/// Settings, and whether they are to be trusted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The settings.
    pub settings: Settings,
    /// What is wrong with the file; no reboot follows while there is something.
    pub problems: Vec<Problem>,
}

impl Config {
    /// What is wrong, in one line.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        doubt(&self.problems)
    }

    /// Reads the file. What is understood is kept for the day when it is not.
    #[must_use]
    pub fn load(paths: &Paths) -> Self {
        let (zoneinfo, localtime) = (paths.zoneinfo(), paths.localtime());
        let zones = zones_from(&zoneinfo, &localtime);
        let bytes = match std::fs::read(paths.settings()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(error) => {
                let problem = Problem { key: paths.settings().display().to_string(), message: error.to_string() };
                return Self::doubtful(paths, &zones, vec![problem]);
            }
        };
        match parse(&bytes, &zones).and_then(|settings| files(&settings).map(|()| settings)) {
            Ok(settings) => {
                if std::fs::read(paths.last_good()).ok().as_deref() != Some(bytes.as_slice()) {
                    // It may hold a password. Without it a later mistake means the defaults, and no reboot either.
                    let _ = write_private(&paths.last_good(), &bytes);
                }
                Self { settings, problems: Vec::new() }
            }
            Err(problems) => Self::doubtful(paths, &zones, problems),
        }
    }

    fn doubtful(paths: &Paths, zones: Zones<'_>, problems: Vec<Problem>) -> Self {
        let settings = std::fs::read(paths.last_good()).ok().and_then(|bytes| parse(&bytes, zones).ok()).unwrap_or_default();
        Self { settings, problems }
    }
}

/// Mistakes in one line, if there are any.
pub(crate) fn doubt<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Option<String> {
    let lines: Vec<String> = problems.into_iter().map(ToString::to_string).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
    }
    write_whole(path, bytes, true)
}

/// Files that settings name must be there, and look like what they are to be.
fn files(settings: &Settings) -> Result<(), Vec<Problem>> {
    let server = settings.fleet_lock_server.as_ref();
    let named = [
        ("ca_file", settings.etcd.ca_file.as_ref(), "CERTIFICATE"),
        ("cert_file", settings.etcd.cert_file.as_ref(), "CERTIFICATE"),
        ("key_file", settings.etcd.key_file.as_ref(), "PRIVATE KEY"),
        ("password_file", settings.etcd.password_file.as_ref(), ""),
        ("fleet_lock", settings.fleet_lock.as_ref().and_then(|lock| lock.ca_file.as_ref()), "CERTIFICATE"),
        ("fleet_lock_server", server.and_then(|server| server.cert_file.as_ref()), "CERTIFICATE"),
        ("fleet_lock_server", server.and_then(|server| server.key_file.as_ref()), "PRIVATE KEY"),
        ("fleet_lock_server", server.and_then(|server| server.client_ca_file.as_ref()), "CERTIFICATE"),
    ];
    let mut problems = Vec::new();
    for (key, file, holds) in named {
        let Some(file) = file else { continue };
        let message = match std::fs::read_to_string(file) {
            Err(error) => format!("{file}: {error}"),
            Ok(text) if !text.contains(&format!("{holds}-----")) && !holds.is_empty() => {
                format!("{file} holds no {}", holds.to_lowercase())
            }
            Ok(_) => continue,
        };
        problems.push(Problem { key: format!("garboard.reboot.{key}"), message });
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_leaves_the_last_good_settings_and_a_doubt() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        std::fs::create_dir_all(paths.settings().parent().unwrap()).unwrap();
        let write = |text: &str| std::fs::write(paths.settings(), format!(r#"{{"garboard": {{"reboot": {text}}}}}"#)).unwrap();
        assert_eq!(Config::load(&paths), Config::default());
        write(r#"{"group": "db", "strategy": "off"}"#);
        let good = Config::load(&paths);
        assert_eq!((good.settings.group.as_str(), good.doubt()), ("db", None));
        write(r#"{"group": "web", "windows": ["25:00 for 1h"]}"#);
        let bad = Config::load(&paths);
        assert_eq!(bad.settings, good.settings);
        assert!(bad.doubt().unwrap().starts_with("garboard.reboot.windows[0]: "), "{:?}", bad.doubt());
        write(r#"{"ca_file": "/nonexistent/ca.pem"}"#);
        assert!(Config::load(&paths).doubt().unwrap().contains("/nonexistent/ca.pem: No such file"));
        write(r#"{"ca_file": "/proc/self/status"}"#);
        assert!(Config::load(&paths).doubt().unwrap().contains("holds no certificate"));
        write(r#"{"group": "web"}"#);
        assert_eq!(Config::load(&paths).settings.group, "web");
    }
}
