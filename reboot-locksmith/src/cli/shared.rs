//! What `locksmithctl` does with the lock in etcd: by itself, so that it works where no daemon runs.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use plain_output::{causes, say};
use reboot_lock::audit::Actor;
use reboot_lock::fleetlock::Client;
use reboot_lock::lock::RebootLock;
use reboot_lock::{Claim, Purpose, Semaphore};
use reboot_rules::inhibitors::clean;
use reboot_rules::settings::{FleetLock, Settings, Strategy};
use reboot_rules::show_time;
use serde_json::{Value, json};

use super::{EtcdArgs, Quarantine, person, print_json};
use crate::config::Config;
use crate::connect;
use crate::host::Identity;
use crate::paths::Paths;

/// The settings, and what options say instead of them.
fn settings_for(paths: &Paths, args: &EtcdArgs) -> Settings {
    let mut settings = Config::load(paths).settings;
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    if let Some(group) = &args.group {
        settings.group.clone_from(group);
    }
    let etcd = &mut settings.etcd;
    if !args.endpoint.is_empty() {
        etcd.endpoints.clone_from(&args.endpoint);
    }
    etcd.ca_file = file(&args.etcd_cafile).or(etcd.ca_file.take());
    etcd.cert_file = file(&args.etcd_certfile).or(etcd.cert_file.take());
    etcd.key_file = file(&args.etcd_keyfile).or(etcd.key_file.take());
    if args.etcd_username.is_some() {
        (etcd.username, etcd.password, etcd.password_file) = (args.etcd_username.clone(), args.etcd_password.clone(), None);
    }
    settings
}

/// Where the lock is that settings and options name.
enum Place {
    Etcd(RebootLock),
    /// A server; where the strategy says so and no option names an etcd.
    FleetLock(FleetLock),
}

/// What the commands need: this host, the group, and where its lock is.
struct Shared {
    identity: Identity,
    group: String,
    place: Place,
}

impl Shared {
    /// With the strategies `off` and `reboot` the lock is in etcd, too: people use it where the daemon does not.
    fn open(paths: &Paths, args: &EtcdArgs) -> anyhow::Result<Self> {
        let settings = settings_for(paths, args);
        let identity = Identity::read(paths).map_err(|why| anyhow!(why))?;
        let place = match (&settings.fleet_lock, settings.strategy) {
            (Some(server), Some(Strategy::FleetLock)) if args.endpoint.is_empty() => Place::FleetLock(server.clone()),
            _ => {
                let etcd = connect::etcd(&settings.etcd).map_err(|why| anyhow!(why))?;
                Place::Etcd(connect::lock(&settings, Arc::new(etcd)).map_err(|why| anyhow!(why))?)
            }
        };
        Ok(Self { identity, group: settings.group, place })
    }

    /// What a server has no word for.
    fn etcd(&self) -> anyhow::Result<&RebootLock> {
        match &self.place {
            Place::Etcd(lock) => Ok(lock),
            Place::FleetLock(server) => {
                bail!("the FleetLock server {} has the lock: its operator does that, or name an etcd with --endpoint", server.url)
            }
        }
    }

    fn client(&self, server: &FleetLock, id: &str) -> anyhow::Result<Client> {
        connect::fleet_lock(server, &self.group, id).map_err(|why| anyhow!(why))
    }

    fn actor(&self, why: &str) -> Actor {
        Actor { host: self.identity.hostname.clone(), by: format!("locksmithctl ({})", person()), why: why.to_owned() }
    }
}

/// As the old `status`: free slots, all slots, holders, one a line; then what it lacked.
fn render(semaphore: &Semaphore, waiting: u64) -> String {
    let mut text = format!("Available: {}\nMax: {}\n", semaphore.free(), semaphore.max);
    if waiting > 0 {
        text.push_str(&format!("Waiting: {waiting}\n"));
    }
    if !semaphore.holders.is_empty() {
        text.push_str("\nMACHINE ID\n");
    }
    for holder in &semaphore.holders {
        let version = holder.version.as_ref().map_or_else(String::new, |version| format!(", version {version}"));
        text.push_str(&format!(
            "{}  {}  since {}  {}{version}\n",
            clean(&holder.id),
            clean(&holder.hostname),
            show_time(holder.since),
            clean(&holder.reason)
        ));
    }
    text
}

pub(super) async fn status(paths: &Paths, args: &EtcdArgs, as_json: bool) -> anyhow::Result<()> {
    let daemon = super::status(paths).await;
    let asked = args.group.is_some() || !args.endpoint.is_empty();
    let uses_etcd = daemon.as_ref().map_or(true, |status| matches!(status.strategy.as_str(), "etcd-lock" | "best-effort"));
    let shared = if asked || uses_etcd { Some(Shared::open(paths, args)?.etcd()?.status().await) } else { None };
    if as_json {
        let lock = match &shared {
            None => Value::Null,
            Some(Err(error)) => json!({ "error": error.to_string(), "kind": error.kind() }),
            Some(Ok(status)) => json!({
                "max": status.semaphore.max, "available": status.semaphore.free(), "waiting": status.waiting,
                "holders": status.semaphore.holders, "quarantines": status.quarantines,
            }),
        };
        print_json(&json!({ "lock": lock, "host": daemon.as_ref().ok() }))?;
    } else {
        if let Some(Ok(status)) = &shared {
            plain_output::print(&render(&status.semaphore, status.waiting));
            for record in &status.quarantines {
                say!("Quarantined: version {} failed on {}: {}", record.version, record.hostname, record.reason);
            }
            say!("");
        }
        match &daemon {
            Ok(status) => plain_output::print(&status.render()),
            Err(error) => say!("this host: {}", causes(&**error)),
        }
    }
    match shared {
        Some(Err(error)) => bail!(error),
        _ => Ok(()),
    }
}

pub(super) async fn lock(paths: &Paths, args: &EtcdArgs, id: Option<String>, why: &str, as_json: bool) -> anyhow::Result<()> {
    let shared = Shared::open(paths, args)?;
    let identity = &shared.identity;
    let id = id.unwrap_or_else(|| identity.machine_id.clone());
    let lock = match &shared.place {
        Place::Etcd(lock) => lock,
        Place::FleetLock(server) => {
            shared.client(server, &id)?.pre_reboot().await?;
            return if as_json { print_json(&json!({ "id": id })) } else { Ok(()) };
        }
    };
    let own = id == identity.machine_id;
    let claim = Claim {
        id,
        hostname: if own { identity.hostname.clone() } else { String::new() },
        boot_id: if own { identity.boot_id.clone() } else { String::new() },
        purpose: Purpose::Manual,
        reason: why.to_owned(),
        version: None,
    };
    let held = lock.try_lock(&claim, &shared.actor(why)).await?;
    if as_json { print_json(&held.holder) } else { Ok(()) }
}

pub(super) async fn unlock(paths: &Paths, args: &EtcdArgs, id: Option<String>, why: &str, as_json: bool) -> anyhow::Result<()> {
    let shared = Shared::open(paths, args)?;
    let id = id.unwrap_or_else(|| shared.identity.machine_id.clone());
    let lock = match &shared.place {
        Place::Etcd(lock) => lock,
        Place::FleetLock(server) => {
            shared.client(server, &id)?.steady_state().await?;
            // The server does not say whether there was one.
            return if as_json { print_json(&json!({ "id": id, "held": Value::Null })) } else { Ok(()) };
        }
    };
    let (had, reserved) = free(lock, &id, &shared.actor(why)).await?;
    if as_json {
        return print_json(&json!({ "id": id, "held": had, "reserved": reserved }));
    }
    if !had {
        say!("{id} does not hold the lock of group {}", lock.group());
    }
    if reserved {
        say!("{id} had reserved to take its etcd member down; that is given back, too");
    }
    Ok(())
}

/// Gives back a host's lock, and its reservation: who frees one for a host that never returns would be held up by the other. Whether it had them.
async fn free(lock: &RebootLock, id: &str, actor: &Actor) -> anyhow::Result<(bool, bool)> {
    Ok((lock.unlock(id, None, actor).await?, lock.unreserve(id, actor).await?))
}

pub(super) async fn set_max(paths: &Paths, args: &EtcdArgs, max: u32, as_json: bool) -> anyhow::Result<()> {
    let shared = Shared::open(paths, args)?;
    let old = shared.etcd()?.set_max(max, &shared.actor("set by hand")).await?;
    if as_json {
        return print_json(&json!({ "old": old, "max": max }));
    }
    say!("Old-Max: {old}\nMax: {max}");
    Ok(())
}

pub(super) async fn quarantine(paths: &Paths, args: &EtcdArgs, command: Quarantine, as_json: bool) -> anyhow::Result<()> {
    let shared = Shared::open(paths, args)?;
    let lock = shared.etcd()?;
    match command {
        Quarantine::List => {
            let all = lock.quarantines().await?;
            if as_json {
                return print_json(&all);
            }
            for record in all {
                say!(
                    "{}  failed on {} (group {}) at {}: {}",
                    record.version,
                    record.hostname,
                    record.group,
                    show_time(record.since),
                    record.reason
                );
            }
            Ok(())
        }
        Quarantine::Clear { version, why } => {
            if !lock.clear_quarantine(&version, &shared.actor(&why)).await? {
                bail!("version {version} is not quarantined: `locksmithctl quarantine list` shows what is");
            }
            if as_json { print_json(&json!({ "cleared": version })) } else { Ok(()) }
        }
    }
}

pub(super) async fn audit(paths: &Paths, args: &EtcdArgs, as_json: bool) -> anyhow::Result<()> {
    let all = Shared::open(paths, args)?.etcd()?.audit().await?;
    if as_json {
        return print_json(&all);
    }
    for record in all {
        let act = serde_json::to_value(record.act).ok().and_then(|act| act.as_str().map(str::to_owned)).unwrap_or_default();
        say!(
            "{}  {act:<16} {}  on {} by {}: {}",
            show_time(record.time),
            clean(&record.subject),
            clean(&record.host),
            clean(&record.by),
            clean(&record.why)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reboot_lock::Holder;

    #[tokio::test]
    async fn with_a_fleet_lock_server_the_lock_is_its_own() {
        use reboot_lock::fleetlock::{Listener, Service};
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        for path in [paths.machine_id(), paths.settings()] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        std::fs::write(paths.machine_id(), "a").unwrap();
        let store = std::sync::Arc::new(reboot_lock::store::Memory::default());
        let service = Service::new(store.clone(), reboot_lock::Options::default(), None, "server");
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None, service).await.unwrap();
        let url = format!("http://{}", listener.address().unwrap());
        let _server = tokio::spawn(async move { listener.serve().await });
        let settings = json!({ "garboard": { "reboot": { "strategy": "fleet-lock", "fleet_lock": url } } });
        std::fs::write(paths.settings(), settings.to_string()).unwrap();
        let args = EtcdArgs::default();
        let there = RebootLock::new(store, reboot_lock::Group::default(), reboot_lock::Options::default());
        let holders = async || there.status().await.unwrap().semaphore.holders.iter().map(|holder| holder.id.clone()).collect::<Vec<_>>();
        lock(&paths, &args, None, "try", false).await.unwrap();
        assert_eq!(holders().await, ["a"]);
        let refused = lock(&paths, &args, Some("b".into()), "try", false).await.unwrap_err().to_string();
        assert!(refused.contains("failed_lock_semaphore_full"), "{refused}");
        unlock(&paths, &args, None, "try", true).await.unwrap();
        assert!(holders().await.is_empty());
        let refused = set_max(&paths, &args, 2, false).await.unwrap_err().to_string();
        assert!(refused.contains("its operator does that"), "{refused}");
    }

    #[tokio::test]
    async fn unlock_frees_the_lock_and_the_reservation_of_that_host_alone() {
        use reboot_lock::quorum::{Guard, Reservation, Reserved};
        let store = Arc::new(reboot_lock::store::Memory::default());
        let lock = RebootLock::new(store.clone(), reboot_lock::Group::default(), reboot_lock::Options::default());
        let guard = Guard::new(store, reboot_lock::keys::DEFAULT_PREFIX);
        let actor = Actor { host: "c".into(), by: "x".into(), why: "x".into() };
        let (hostname, boot_id, reason) = (String::new(), String::new(), String::new());
        let claim = Claim { id: "a".into(), hostname, boot_id, purpose: Purpose::Update, reason, version: None };
        lock.try_lock(&claim, &actor).await.unwrap();
        assert_eq!(guard.reserve(&Reservation::new("a", "a", "one", 0), None).await.unwrap(), Reserved::Ours);
        assert_eq!(free(&lock, "b", &actor).await.unwrap(), (false, false));
        assert_eq!(free(&lock, "a", &actor).await.unwrap(), (true, true));
        assert_eq!(free(&lock, "a", &actor).await.unwrap(), (false, false));
        assert_eq!(guard.reservation().await.unwrap().0, None);
    }

    #[test]
    fn status_begins_as_it_always_did() {
        let holder = Holder {
            id: "c988".into(),
            hostname: "web\n1".into(),
            boot_id: "b".into(),
            purpose: Purpose::Update,
            reason: "an update".into(),
            version: Some("1.1".into()),
            since: 0,
            fence: 1,
            expires: false,
        };
        let text = render(&Semaphore { max: 1, generation: 4, holders: vec![holder] }, 2);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..5], ["Available: 0", "Max: 1", "Waiting: 2", "", "MACHINE ID"]);
        assert_eq!(lines[5], "c988  web 1  since 1970-01-01 00:00 UTC  an update, version 1.1");
    }
}
