//! From settings to the lock and the guard that they name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reboot_lock::etcd::{Config, Etcd, Tls};
use reboot_lock::fleetlock::Client;
use reboot_lock::keys::DEFAULT_PREFIX;
use reboot_lock::lock::{Options, RebootLock};
use reboot_lock::{Group, quorum};
use reboot_rules::settings::{self, Settings, Strategy, Vanished};
use url::Url;

use crate::daemon::{Ask, Others};
use crate::etcd_lock::EtcdLock;
use crate::fleet_lock::FleetLock;
use crate::fleet_lock_server::Server;
use crate::permission::{Guard, Lock};
use crate::quorum_guard::QuorumGuard;

/// How long a FleetLock server may take.
const FLEET_LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// The etcd of this host.
pub const LOCAL: &str = "http://127.0.0.1:2379";

/// The etcd that settings name.
///
/// # Errors
/// One line: which setting cannot be followed.
pub fn etcd(settings: &settings::Etcd) -> Result<Etcd, String> {
    let path = |file: &Option<String>| file.clone().map(std::path::PathBuf::from);
    let (ca, certificate, key) = (path(&settings.ca_file), path(&settings.cert_file), path(&settings.key_file));
    let tls = Tls::load(ca.as_deref(), certificate.as_deref(), key.as_deref()).map_err(|error| error.to_string())?;
    let endpoints: Vec<&str> = settings.endpoints.iter().map(String::as_str).collect();
    let mut config = Config::new(if endpoints.is_empty() { &[LOCAL] } else { &endpoints }).map_err(|error| error.to_string())?;
    config.tls = tls;
    let password = match (&settings.password, &settings.password_file) {
        (Some(password), _) => Some(password.clone()),
        (None, Some(file)) => Some(std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?.trim_end().to_owned()),
        (None, None) => None,
    };
    config.user = settings.username.clone().zip(password);
    Etcd::new(config).map_err(|error| error.to_string())
}

/// The client URL of this host's member: an endpoint that is here, else the loopback.
fn local(settings: &settings::Etcd, environment: &str) -> Result<Url, String> {
    let addresses: Vec<&str> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(_, value)| value.trim_matches('"')).collect();
    let urls: Vec<Url> = settings.endpoints.iter().filter_map(|endpoint| endpoint.parse().ok()).collect();
    let here = |url: &&Url| {
        url.host_str().is_some_and(|host| host == "127.0.0.1" || host == "localhost" || host == "[::1]" || addresses.contains(&host))
    };
    if let Some(url) = urls.iter().find(here) {
        return Ok(url.clone());
    }
    let scheme = urls.first().map_or("http", Url::scheme);
    format!("{scheme}://127.0.0.1:2379").parse().map_err(|error: url::ParseError| error.to_string())
}

/// A client of a FleetLock server, for the host with this id.
///
/// # Errors
/// One line: which setting cannot be followed.
pub fn fleet_lock(server: &settings::FleetLock, group: &str, id: &str) -> Result<Client, String> {
    let tls = Tls::load(server.ca_file.as_ref().map(Path::new), None, None).map_err(|error| error.to_string())?;
    Client::new(&server.url, &tls, group, id, FLEET_LOCK_TIMEOUT).map_err(|error| error.to_string())
}

/// The lock of a group.
///
/// # Errors
/// One line.
pub fn lock(settings: &Settings, etcd: Arc<Etcd>) -> Result<RebootLock, String> {
    let group: Group = settings.group.parse().map_err(|error: reboot_lock::LockError| error.to_string())?;
    Ok(RebootLock::new(etcd, group, options(settings)))
}

/// How locks behave, by the settings.
#[must_use]
pub fn options(settings: &Settings) -> Options {
    Options { expire_after: expire_after(settings), ..Options::default() }
}

fn expire_after(settings: &Settings) -> Option<Duration> {
    match settings.vanished {
        Vanished::Keep => None,
        Vanished::ExpireAfter(seconds) => Some(Duration::from_secs(seconds)),
    }
}

/// Makes what the settings name.
///
/// # Errors
/// One line: which setting cannot be followed, and why.
pub fn connect(ask: &Ask<'_>) -> Result<Others, String> {
    let Ask { settings, strategy, etcd_enabled, identity, claimed, paths } = *ask;
    let etcd = || etcd(&settings.etcd).map(Arc::new);
    let lock: Option<Arc<dyn Lock>> = match strategy {
        Strategy::EtcdLock | Strategy::BestEffort => Some(Arc::new(EtcdLock::new(lock(settings, etcd()?)?, identity.clone(), claimed))),
        Strategy::FleetLock => Some(Arc::new(FleetLock::new(settings, identity, claimed)?)),
        Strategy::Off | Strategy::Reboot => None,
    };
    let guard: Option<Arc<dyn Guard>> = if etcd_enabled && settings.quorum {
        let etcd = etcd()?;
        let local = local(&settings.etcd, &std::fs::read_to_string(paths.environment()).unwrap_or_default())?;
        Some(Arc::new(QuorumGuard {
            guard: quorum::Guard::new(etcd.clone(), DEFAULT_PREFIX),
            etcd,
            local,
            identity: identity.clone(),
            expire_after: expire_after(settings),
        }))
    } else {
        None
    };
    Ok(Others { lock, guard, server: Server::start(settings, &identity.hostname)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_of_this_host_is_found_among_the_endpoints() {
        let of = |endpoints: &[&str], environment: &str| {
            let settings = settings::Etcd { endpoints: endpoints.iter().map(ToString::to_string).collect(), ..settings::Etcd::default() };
            local(&settings, environment).unwrap().to_string()
        };
        assert_eq!(of(&[], ""), "http://127.0.0.1:2379/");
        assert_eq!(of(&["https://10.0.0.1:2379", "https://10.0.0.2:2379"], "COREOS_PRIVATE_IPV4=10.0.0.2\n"), "https://10.0.0.2:2379/");
        assert_eq!(of(&["https://10.0.0.1:2379"], "COREOS_PRIVATE_IPV4=10.0.0.9\n"), "https://127.0.0.1:2379/");
    }
}
