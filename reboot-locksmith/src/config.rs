//! The settings in force: what the file says, or, while that is not understood, what was last understood, and no reboot.

use std::path::{Path, PathBuf};

use reboot_lock::etcd::Tls;
use reboot_rules::file::write_whole;
use reboot_rules::settings::{Problem, Settings, parse};
use reboot_rules::windows::{Zones, zones_from};

use crate::fleet_lock_server;
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

/// Files that settings name must be there, and be usable: they are loaded as they will be when they are needed, since by then the old settings, with
/// their lock and their server, are gone.
fn files(settings: &Settings) -> Result<(), Vec<Problem>> {
    let path = |file: &'_ Option<String>| file.clone().map(PathBuf::from);
    let tls = |ca: Option<PathBuf>, certificate: Option<PathBuf>, key: Option<PathBuf>| {
        Tls::load(ca.as_deref(), certificate.as_deref(), key.as_deref()).map(drop).map_err(|error| error.to_string())
    };
    let etcd = &settings.etcd;
    let password = || match &etcd.password_file {
        Some(file) => std::fs::read_to_string(file).map(drop).map_err(|error| format!("{file}: {error}")),
        None => Ok(()),
    };
    let client_ca = settings.fleet_lock.as_ref().and_then(|lock| path(&lock.ca_file));
    let loaded = [
        ("ca_file", tls(path(&etcd.ca_file), None, None)),
        ("cert_file", tls(None, path(&etcd.cert_file), path(&etcd.key_file))),
        ("password_file", password()),
        ("fleet_lock", tls(client_ca, None, None)),
        (fleet_lock_server::SETTING, settings.fleet_lock_server.as_ref().map_or(Ok(()), |server| fleet_lock_server::tls(server).map(drop))),
    ];
    let problem =
        |(key, result): (&str, Result<(), String>)| result.err().map(|message| Problem { key: format!("garboard.reboot.{key}"), message });
    let problems: Vec<Problem> = loaded.into_iter().filter_map(problem).collect();
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
        assert!(Config::load(&paths).doubt().unwrap().contains("/proc/self/status has no certificate in PEM"));
        write(r#"{"group": "web"}"#);
        assert_eq!(Config::load(&paths).settings.group, "web");
    }

    #[test]
    fn certificates_that_cannot_be_used_leave_the_last_good_settings() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        std::fs::create_dir_all(paths.settings().parent().unwrap()).unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        for name in ["one", "two"] {
            let arguments = format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.crt"
            );
            let output = std::process::Command::new("openssl").current_dir(directory.path()).args(arguments.split(' ')).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        // The looks of PEM, and nothing of a certificate: once no base64, once base64 of something else.
        std::fs::write(file("torn.crt"), "-----BEGIN CERTIFICATE-----\nMII*!\n-----END CERTIFICATE-----\n").unwrap();
        std::fs::write(file("other.crt"), "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").unwrap();
        let write = |settings: serde_json::Value| {
            std::fs::write(paths.settings(), serde_json::json!({ "garboard": { "reboot": settings } }).to_string()).unwrap();
            Config::load(&paths)
        };
        let server = |certificate: &str, key: &str, ca: &str| {
            let files = [("cert_file", certificate), ("key_file", key), ("client_ca_file", ca)];
            let mut map: serde_json::Map<_, _> = files.iter().map(|(key, name)| ((*key).to_owned(), file(name).into())).collect();
            map.insert("listen".into(), "127.0.0.1:0".into());
            map
        };
        let good = write(serde_json::json!({
            "group": "db", "ca_file": file("one.crt"), "cert_file": file("two.crt"), "key_file": file("two.key"),
            "fleet_lock": { "url": "https://a", "ca_file": file("one.crt") }, "fleet_lock_server": server("one.crt", "one.key", "two.crt"),
        }));
        assert_eq!((good.doubt(), good.settings.group.as_str()), (None, "db"));
        let last_good = std::fs::read(paths.last_good()).unwrap();
        for (key, settings) in [
            ("ca_file", serde_json::json!({ "ca_file": file("torn.crt") })),
            ("ca_file", serde_json::json!({ "ca_file": file("other.crt") })),
            ("cert_file", serde_json::json!({ "cert_file": file("torn.crt"), "key_file": file("one.key") })),
            ("cert_file", serde_json::json!({ "cert_file": file("one.crt"), "key_file": file("two.key") })),
            ("fleet_lock", serde_json::json!({ "fleet_lock": { "url": "https://a", "ca_file": file("torn.crt") } })),
            ("fleet_lock_server", serde_json::json!({ "fleet_lock_server": server("torn.crt", "one.key", "two.crt") })),
            ("fleet_lock_server", serde_json::json!({ "fleet_lock_server": server("one.crt", "two.key", "two.crt") })),
            ("fleet_lock_server", serde_json::json!({ "fleet_lock_server": server("one.crt", "one.key", "other.crt") })),
        ] {
            let bad = write(settings.clone());
            let doubt = bad.doubt().unwrap_or_else(|| panic!("{settings} passes"));
            assert!(doubt.starts_with(&format!("garboard.reboot.{key}: ")) && !doubt.contains('\n'), "{settings}: {doubt}");
            assert_eq!((&bad.settings, bad.problems.len()), (&good.settings, 1), "{doubt}");
            assert_eq!(std::fs::read(paths.last_good()).unwrap(), last_good, "{doubt}");
        }
    }
}
