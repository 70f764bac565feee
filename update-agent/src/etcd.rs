//! A snapshot of etcd's data, before a release with another etcd takes them over and an older one can read them no more; and how far the
//! other members of its cluster are ([`cluster`]).
//!
//! Taken only if `etcd.service` runs on this host. Kept on state, `LEFT-to-TAKEN.db`; putting one back is for people (`docs/updating.md`).

mod cluster;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;

use crate::process::run;

/// How long a snapshot may take: that of the largest data that etcd recommends, from a slow disk.
const LIMIT: Duration = Duration::from_secs(300);
/// How long an answer of `systemctl` may take.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// Snapshots that are kept.
const KEEP: usize = 2;

/// The etcd of a host.
#[async_trait(?Send)]
pub trait Etcd {
    /// Whether it runs, or tries to.
    async fn runs(&self) -> Result<bool, String>;
    /// The version that all members of its cluster have reached, as they agreed.
    async fn cluster(&self) -> Result<String, String>;
    /// Writes a snapshot into a new file.
    async fn save(&self, file: &Path) -> Result<(), String>;
}

/// Takes a snapshot if etcd runs; says where it is.
///
/// # Errors
/// In words, when etcd runs and there is no whole snapshot of it afterwards.
pub async fn snapshot(etcd: &dyn Etcd, directory: &Path, name: &str) -> Result<Option<PathBuf>, String> {
    if !etcd.runs().await? {
        return Ok(None);
    }
    let text = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("{path}: {error}")
    };
    // They hold whatever secrets etcd does.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(text(directory))?;
    let (part, file) = (directory.join(format!("{name}.part")), directory.join(format!("{name}.db")));
    let written = async {
        let _ = fs::remove_file(&part);
        etcd.save(&part).await?;
        let saved = fs::File::open(&part).map_err(text(&part))?;
        if saved.metadata().map_err(text(&part))?.len() == 0 {
            return Err(format!("{}: etcdctl has written nothing", part.display()));
        }
        saved.sync_all().map_err(text(&part))?;
        fs::rename(&part, &file).map_err(text(&file))?;
        fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(text(directory))
    };
    if let Err(error) = written.await {
        // What is not whole only takes room; etcdctl has a name of its own for it.
        let _ = fs::remove_file(&part);
        let _ = fs::remove_file(directory.join(format!("{name}.part.part")));
        return Err(error);
    }
    prune(directory);
    Ok(Some(file))
}

/// Keeps the newest.
fn prune(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let snapshots = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "db"));
    let mut snapshots: Vec<_> = snapshots.filter_map(|entry| Some((entry.metadata().ok()?, entry.path()))).collect();
    snapshots.sort_by_key(|(meta, _)| std::cmp::Reverse((meta.mtime(), meta.mtime_nsec())));
    for (_, path) in snapshots.iter().skip(KEEP) {
        let _ = fs::remove_file(path);
    }
}

/// The etcd that the host's `etcd.service` runs, through `etcdctl`.
#[derive(Clone, Debug)]
pub struct HostEtcd {
    /// `systemctl`.
    pub systemctl: PathBuf,
    /// `etcdctl`.
    pub etcdctl: PathBuf,
    /// How long a snapshot may take.
    pub limit: Duration,
}

impl Default for HostEtcd {
    fn default() -> Self {
        Self { systemctl: "/usr/bin/systemctl".into(), etcdctl: "/usr/bin/etcdctl".into(), limit: LIMIT }
    }
}

impl HostEtcd {
    async fn property(&self, name: &str) -> Result<String, String> {
        let mut command = Command::new(&self.systemctl);
        run(command.args(["show", "-p", name, "--value", "etcd.service"]), ASK_LIMIT).await
    }

    /// What `etcdctl` has to be told to reach it. Nothing where somebody has set that for this service, who knows better.
    async fn client(&self) -> Result<Vec<(&'static str, String)>, String> {
        let process = self.property("MainPID").await?;
        if std::env::var_os("ETCDCTL_ENDPOINTS").is_some() {
            return Ok(Vec::new());
        }
        let read = |what: &str| fs::read(format!("/proc/{}/{what}", process.trim())).unwrap_or_default();
        Ok(client(&settings(&read("environ"), &read("cmdline"))))
    }
}

#[async_trait(?Send)]
impl Etcd for HostEtcd {
    async fn runs(&self) -> Result<bool, String> {
        let state = self.property("ActiveState").await?;
        Ok(matches!(state.trim(), "active" | "activating" | "reloading" | "deactivating"))
    }

    async fn cluster(&self) -> Result<String, String> {
        let client: BTreeMap<_, _> = self.client().await?.into_iter().collect();
        cluster::version(&|name| client.get(name).cloned().or_else(|| std::env::var(name).ok())).await
    }

    async fn save(&self, file: &Path) -> Result<(), String> {
        let mut command = Command::new(&self.etcdctl);
        command.args(["snapshot", "save"]).arg(file).env("ETCDCTL_API", "3").envs(self.client().await?);
        run(&mut command, self.limit).await.map(drop)
    }
}

/// What etcd was told, by its environment and, before that, its arguments; names as in the environment, without `ETCD_`.
fn settings(environment: &[u8], arguments: &[u8]) -> BTreeMap<String, String> {
    let texts = |bytes: &[u8]| -> Vec<String> {
        bytes.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty()).collect()
    };
    let mut all = BTreeMap::new();
    for variable in texts(environment) {
        if let Some((name, value)) = variable.strip_prefix("ETCD_").and_then(|variable| variable.split_once('=')) {
            all.insert(name.to_owned(), value.to_owned());
        }
    }
    let arguments = texts(arguments);
    for (at, argument) in arguments.iter().enumerate() {
        let Some(flag) = argument.strip_prefix("--") else { continue };
        let next = arguments.get(at + 1).filter(|next| !next.starts_with("--")).map_or("true", String::as_str);
        let (name, value) = flag.split_once('=').unwrap_or((flag, next));
        all.insert(name.to_ascii_uppercase().replace('-', "_"), value.to_owned());
    }
    all
}

/// What `etcdctl` has to be told to reach it.
fn client(settings: &BTreeMap<String, String>) -> Vec<(&'static str, String)> {
    let get = |name: &str| settings.get(name).filter(|value| !value.is_empty());
    let urls = get("LISTEN_CLIENT_URLS").map_or("http://127.0.0.1:2379", String::as_str);
    let url = urls.split(',').map(str::trim).find(|url| url.starts_with("http")).unwrap_or("http://127.0.0.1:2379");
    let url = url.replacen("//0.0.0.0:", "//127.0.0.1:", 1).replacen("//[::]:", "//[::1]:", 1);
    let mut environment = Vec::new();
    if url.starts_with("https:") {
        // It is this host's own; its certificate need not be for this address.
        environment.push(("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true".to_owned()));
        if get("CLIENT_CERT_AUTH").is_some_and(|value| value == "true")
            && let (Some(certificate), Some(key)) = (get("CERT_FILE"), get("KEY_FILE"))
        {
            environment.extend([("ETCDCTL_CERT", certificate.clone()), ("ETCDCTL_KEY", key.clone())]);
        }
    }
    environment.push(("ETCDCTL_ENDPOINTS", url));
    environment
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Stdio;

    use tokio::time::Instant;

    use super::*;
    use crate::process::Killed;

    /// Programs that are scripts.
    fn host(directory: &Path, systemctl: &str, etcdctl: &str) -> HostEtcd {
        let script = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        HostEtcd { systemctl: script("systemctl", systemctl), etcdctl: script("etcdctl", etcdctl), limit: Duration::from_millis(400) }
    }

    /// A script cannot be started while a process that another test begins still has it open for writing.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    const ACTIVE: &str = r#"case "$*" in *ActiveState*) echo active;; *) echo 1;; esac"#;

    fn files(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_snapshot_is_whole_or_not_there() {
        let _alone = ALONE.lock().await;
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("garboard/etcd");
        let save = r#"test "$1 $2 $ETCDCTL_API" = "snapshot save 3" && echo "$ETCDCTL_ENDPOINTS" > "$3""#;
        let good = host(directory.path(), ACTIVE, save);
        assert_eq!(snapshot(&good, &to, "1.0-to-1.1").await, Ok(Some(to.join("1.0-to-1.1.db"))));
        assert_eq!(fs::read_to_string(to.join("1.0-to-1.1.db")).unwrap().trim(), "http://127.0.0.1:2379");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o700);
        for (etcdctl, why) in [
            ("echo half > $3; echo 'no leader' >&2; exit 1", "no leader"),
            ("exit 0", "No such file"),
            (": > $3", "nothing"),
            ("echo half > $3; exec sleep 20", "not done"),
        ] {
            let began = Instant::now();
            let error = snapshot(&host(directory.path(), ACTIVE, etcdctl), &to, "1.1-to-1.2").await.unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(began.elapsed() < Duration::from_secs(10));
            assert_eq!(files(&to), ["1.0-to-1.1.db"]);
        }
        for next in ["1.1-to-1.2", "1.2-to-1.3"] {
            snapshot(&host(directory.path(), ACTIVE, save), &to, next).await.unwrap();
        }
        assert_eq!(files(&to), ["1.1-to-1.2.db", "1.2-to-1.3.db"], "the newest two are kept");
    }

    #[tokio::test]
    async fn a_process_that_was_left_behind_keeps_nobody_waiting() {
        let _alone = ALONE.lock().await;
        for (script, whole) in [("sleep 30 & echo $!", true), ("sleep 30 & echo $! >&2; exit 1", false)] {
            let began = Instant::now();
            let said = run(Command::new("sh").args(["-c", script]), Duration::from_secs(20)).await;
            let waited = began.elapsed();
            assert_eq!(said.is_ok(), whole, "{said:?}");
            let said = said.unwrap_or_else(|error| error);
            let left: i32 = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
            let left = rustix::process::Pid::from_raw(left).unwrap();
            rustix::process::kill_process(left, rustix::process::Signal::KILL).expect("it holds the pipe still");
            assert!(waited < Duration::from_secs(15), "{waited:?}");
        }
    }

    #[tokio::test]
    async fn without_etcd_there_is_nothing_to_do_and_one_that_tries_to_run_counts() {
        let _alone = ALONE.lock().await;
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("etcd");
        for state in ["inactive", "failed"] {
            let none = host(directory.path(), &format!("echo {state}"), "exit 1");
            assert_eq!(snapshot(&none, &to, "x").await, Ok(None));
        }
        assert!(!to.exists());
        let starting = host(directory.path(), "echo activating", "echo 'connection refused' >&2; exit 1");
        assert!(snapshot(&starting, &to, "x").await.unwrap_err().contains("connection refused"));
        let unknown = host(directory.path(), "exit 1", "exit 0");
        assert!(snapshot(&unknown, &to, "x").await.is_err(), "who does not know does not go on");
    }

    /// The real program, and a host on which it runs, listening where its arguments say.
    fn real(directory: &Path) -> (Killed, HostEtcd) {
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (client, peer) = (format!("http://127.0.0.1:{}", port()), format!("http://127.0.0.1:{}", port()));
        let mut etcd = Command::new("/usr/bin/etcd");
        etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
        etcd.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")]);
        let etcd = etcd.arg("--data-dir").arg(directory.join("data")).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let etcd = Killed(etcd.unwrap());
        let systemctl = format!(r#"case "$*" in *ActiveState*) echo active;; *) echo {};; esac"#, etcd.0.id());
        let host = HostEtcd { etcdctl: "/usr/bin/etcdctl".into(), limit: Duration::from_secs(20), ..host(directory, &systemctl, "") };
        (etcd, host)
    }

    #[tokio::test]
    #[ignore = "needs etcd and etcdctl"]
    async fn a_real_etcd_is_saved() {
        let _alone = ALONE.lock().await;
        let directory = tempfile::tempdir().unwrap();
        let (_etcd, host) = real(directory.path());
        let began = Instant::now();
        let file = loop {
            match snapshot(&host, &directory.path().join("etcd"), "1.0-to-1.1").await {
                Ok(file) => break file.unwrap(),
                Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error}"),
            }
        };
        let mut status = Command::new("/usr/bin/etcdctl");
        let status = run(status.args(["snapshot", "status"]).arg(&file).env("ETCDCTL_API", "3"), Duration::from_secs(20)).await.unwrap();
        assert!(status.contains(", "), "{status}");
        assert_eq!(files(&directory.path().join("etcd")), ["1.0-to-1.1.db"]);
    }

    #[tokio::test]
    #[ignore = "needs etcd"]
    async fn a_real_etcd_says_how_far_its_cluster_is() {
        let _alone = ALONE.lock().await;
        let directory = tempfile::tempdir().unwrap();
        let (_etcd, host) = real(directory.path());
        let began = Instant::now();
        let cluster = loop {
            match host.cluster().await {
                Ok(cluster) => break cluster,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        // Alone, it agrees with itself, on a minor version.
        let said = run(Command::new("/usr/bin/etcd").arg("--version"), Duration::from_secs(20)).await.unwrap();
        let minor = said.lines().find_map(|line| line.strip_prefix("etcd Version: ")?.rsplit_once('.')).unwrap().0;
        assert_eq!(cluster, format!("{minor}.0"));
    }

    #[test]
    fn etcd_is_reached_where_it_listens() {
        let endpoint = |environment: &str, arguments: &str| client(&settings(environment.as_bytes(), arguments.as_bytes()));
        let plain = |url: &str| vec![("ETCDCTL_ENDPOINTS", url.to_owned())];
        assert_eq!(endpoint("", ""), plain("http://127.0.0.1:2379"));
        assert_eq!(endpoint("A=b\0ETCD_LISTEN_CLIENT_URLS=unix://x,http://0.0.0.0:4001\0", "etcd\0"), plain("http://127.0.0.1:4001"));
        let arguments = "etcd\0--listen-client-urls\0http://10.0.0.1:2379,http://127.0.0.1:2379\0--debug\0";
        assert_eq!(endpoint("ETCD_LISTEN_CLIENT_URLS=http://[::]:1\0", arguments), plain("http://10.0.0.1:2379"));
        assert_eq!(endpoint("ETCD_LISTEN_CLIENT_URLS=http://[::]:1\0", ""), plain("http://[::1]:1"));
        let tls = "etcd\0--listen-client-urls=https://10.0.0.1:2379\0--client-cert-auth\0--cert-file=/c\0--key-file\0/k\0";
        let expected = [
            ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true"),
            ("ETCDCTL_CERT", "/c"),
            ("ETCDCTL_KEY", "/k"),
            ("ETCDCTL_ENDPOINTS", "https://10.0.0.1:2379"),
        ];
        assert_eq!(endpoint("", tls), expected.map(|(name, value)| (name, value.to_owned())));
    }
}
