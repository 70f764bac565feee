//! What `locksmithctl` does with the lock in etcd: by itself, so that it works where no daemon runs.

use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, bail};
use reboot_lock::audit::Actor;
use reboot_lock::etcd::Tls;
use reboot_lock::fleetlock::Client;
use reboot_lock::lock::RebootLock;
use reboot_lock::{Claim, Purpose, Semaphore};
use reboot_rules::settings::{Settings, Strategy};
use reboot_rules::show_time;
use serde_json::{Value, json};

use super::{EtcdArgs, Quarantine, person, print_json};
use crate::config::Config;
use crate::connect;
use crate::host::Identity;
use crate::paths::Paths;

/// How long a FleetLock server may take.
const FLEET_LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings, and what options say instead of them.
fn settings_for(paths: &Paths, args: &EtcdArgs) -> Settings {
    let mut settings = Config::load(paths).settings;
    let file = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
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

fn identity(paths: &Paths) -> anyhow::Result<Identity> {
    Identity::read(paths).map_err(|why| anyhow!(why))
}

/// The FleetLock server that has the lock, where the strategy says so and no option names an etcd.
fn fleet_lock(settings: &Settings, args: &EtcdArgs, id: &str) -> anyhow::Result<Option<Client>> {
    match (&settings.fleet_lock, settings.strategy) {
        (Some(server), Some(Strategy::FleetLock)) if args.endpoint.is_empty() => {
            let tls = Tls::load(server.ca_file.as_ref().map(Path::new), None, None)?;
            Ok(Some(Client::new(&server.url, &tls, &settings.group, id, FLEET_LOCK_TIMEOUT)?))
        }
        _ => Ok(None),
    }
}

/// The lock in etcd that settings and options name, and this host. With the strategies `off` and `reboot`, too: people use it where the daemon does not.
fn open(paths: &Paths, args: &EtcdArgs) -> anyhow::Result<(RebootLock, Identity)> {
    let settings = settings_for(paths, args);
    if let (Some(server), Some(Strategy::FleetLock), true) = (&settings.fleet_lock, settings.strategy, args.endpoint.is_empty()) {
        bail!("the FleetLock server {} has the lock: its operator does that, or name an etcd with --endpoint", server.url);
    }
    let etcd = connect::etcd(&settings.etcd).map_err(|why| anyhow!(why))?;
    let lock = connect::lock(&settings, etcd).map_err(|why| anyhow!(why))?;
    Ok((lock, identity(paths)?))
}

fn actor(identity: &Identity, why: &str) -> Actor {
    Actor { host: identity.hostname.clone(), by: format!("locksmithctl ({})", person()), why: why.to_owned() }
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
        let clean = reboot_rules::inhibitors::clean;
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
    let shared = if asked || uses_etcd {
        let (lock, _) = open(paths, args)?;
        Some(lock.status().await)
    } else {
        None
    };
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
            print!("{}", render(&status.semaphore, status.waiting));
            for record in &status.quarantines {
                println!("Quarantined: version {} failed on {}: {}", record.version, record.hostname, record.reason);
            }
            println!();
        }
        match &daemon {
            Ok(status) => print!("{}", status.render()),
            Err(error) => println!("this host: {error:#}"),
        }
    }
    match shared {
        Some(Err(error)) => bail!(error),
        _ => Ok(()),
    }
}

pub(super) async fn lock(paths: &Paths, args: &EtcdArgs, id: Option<String>, why: &str, as_json: bool) -> anyhow::Result<()> {
    let own_id = identity(paths)?.machine_id;
    if let Some(client) = fleet_lock(&settings_for(paths, args), args, id.as_ref().unwrap_or(&own_id))? {
        client.pre_reboot().await?;
        return if as_json { print_json(&json!({ "id": id.unwrap_or(own_id) })) } else { Ok(()) };
    }
    let (lock, identity) = open(paths, args)?;
    let own = id.as_ref().is_none_or(|id| *id == identity.machine_id);
    let claim = Claim {
        id: id.unwrap_or_else(|| identity.machine_id.clone()),
        hostname: if own { identity.hostname.clone() } else { String::new() },
        boot_id: if own { identity.boot_id.clone() } else { String::new() },
        purpose: Purpose::Manual,
        reason: why.to_owned(),
        version: None,
    };
    let held = lock.try_lock(&claim, &actor(&identity, why)).await?;
    if as_json { print_json(&held.holder) } else { Ok(()) }
}

pub(super) async fn unlock(paths: &Paths, args: &EtcdArgs, id: Option<String>, why: &str, as_json: bool) -> anyhow::Result<()> {
    let own_id = identity(paths)?.machine_id;
    if let Some(client) = fleet_lock(&settings_for(paths, args), args, id.as_ref().unwrap_or(&own_id))? {
        client.steady_state().await?;
        // The server does not say whether there was one.
        return if as_json { print_json(&json!({ "id": id.unwrap_or(own_id), "held": Value::Null })) } else { Ok(()) };
    }
    let (lock, identity) = open(paths, args)?;
    let id = id.unwrap_or_else(|| identity.machine_id.clone());
    let had = lock.unlock(&id, None, &actor(&identity, why)).await?;
    if as_json {
        print_json(&json!({ "id": id, "held": had }))?;
    } else if !had {
        println!("{id} does not hold the lock of group {}", lock.group());
    }
    Ok(())
}

pub(super) async fn set_max(paths: &Paths, args: &EtcdArgs, max: u32, as_json: bool) -> anyhow::Result<()> {
    let (lock, identity) = open(paths, args)?;
    let old = lock.set_max(max, &actor(&identity, "set by hand")).await?;
    if as_json {
        return print_json(&json!({ "old": old, "max": max }));
    }
    println!("Old-Max: {old}\nMax: {max}");
    Ok(())
}

pub(super) async fn quarantine(paths: &Paths, args: &EtcdArgs, command: Quarantine, as_json: bool) -> anyhow::Result<()> {
    let (lock, identity) = open(paths, args)?;
    match command {
        Quarantine::List => {
            let all = lock.quarantines().await?;
            if as_json {
                return print_json(&all);
            }
            for record in all {
                println!(
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
            if !lock.clear_quarantine(&version, &actor(&identity, &why)).await? {
                bail!("version {version} is not quarantined: `locksmithctl quarantine list` shows what is");
            }
            if as_json { print_json(&json!({ "cleared": version })) } else { Ok(()) }
        }
    }
}

pub(super) async fn audit(paths: &Paths, args: &EtcdArgs, as_json: bool) -> anyhow::Result<()> {
    let (lock, _) = open(paths, args)?;
    let all = lock.audit().await?;
    if as_json {
        return print_json(&all);
    }
    for record in all {
        let act = serde_json::to_value(record.act).ok().and_then(|act| act.as_str().map(str::to_owned)).unwrap_or_default();
        let clean = reboot_rules::inhibitors::clean;
        println!(
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
