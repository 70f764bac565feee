//! A host in a directory of its own, and its daemon in this process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reboot_locksmith::connect;
use reboot_locksmith::control::{self, Request};
use reboot_locksmith::daemon::Daemon;
use reboot_locksmith::paths::Paths;
use reboot_locksmith::status::Status;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;

use super::lab::{Lab, address};

/// A host: its files, its PID 1 that only counts, and its daemon.
pub struct Host {
    pub directory: tempfile::TempDir,
    pub paths: Paths,
    pub told: Arc<AtomicUsize>,
    daemon: Option<JoinHandle<std::io::Result<()>>>,
}

impl Host {
    /// `reboot`: settings beside the endpoints.
    pub fn new(lab: &Lab, member: usize, reboot: &serde_json::Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        for path in [paths.machine_id(), paths.boot_id(), paths.boot(), paths.settings(), paths.needed(), paths.systemctl()] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::create_dir_all(paths.proc().join("1")).unwrap();
        fs::write(paths.machine_id(), format!("host{member}\n")).unwrap();
        fs::write(paths.hostname(), format!("host{member}\n")).unwrap();
        fs::write(paths.environment(), format!("COREOS_PRIVATE_IPV4={}\n", address(member))).unwrap();
        fs::write(paths.systemctl(), "#!/bin/sh\n[ \"$1\" = is-enabled ]\n").unwrap();
        fs::set_permissions(paths.systemctl(), fs::Permissions::from_mode(0o755)).unwrap();
        let endpoints: Vec<String> = (0..lab.members.len()).map(|member| lab.url(member)).collect();
        let mut settings = serde_json::json!({ "garboard": { "reboot": { "endpoints": endpoints, "warn": 0 } } });
        settings["garboard"]["reboot"].as_object_mut().unwrap().extend(reboot.as_object().unwrap().clone());
        fs::write(paths.settings(), settings.to_string()).unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let (listener, counter) = (tokio::net::UnixListener::bind(paths.init()).unwrap(), Arc::clone(&told));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let _ = stream.read_line(&mut String::new()).await;
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"{\"reply\":\"done\",\"warnings\":[]}\n").await;
            }
        });
        Self { directory, paths, told, daemon: None }
    }

    /// What a boot into a version leaves, healthy at once.
    pub fn is_in(&self, boot_id: &str, version: &str) {
        let _ = fs::remove_file(self.paths.needed());
        fs::write(self.paths.boot_id(), boot_id).unwrap();
        fs::write(self.paths.boot(), format!(r#"{{"version": "{version}", "phases": {{"boot-complete": 9.0}}}}"#)).unwrap();
    }

    /// Such a boot, and its daemon.
    pub async fn boots(&mut self, boot_id: &str, version: &str) {
        if let Some(daemon) = self.daemon.take() {
            daemon.abort();
            let _ = daemon.await;
        }
        self.is_in(boot_id, version);
        let daemon = Daemon::new(self.paths.clone(), Box::new(connect::connect)).await.unwrap();
        self.daemon = Some(tokio::spawn(daemon.run()));
    }

    pub fn update(&self, version: &str) {
        let new = self.paths.needed().with_extension("new");
        fs::write(&new, format!(r#"{{"version": "{version}", "reason": "an update is in place"}}"#)).unwrap();
        fs::rename(new, self.paths.needed()).unwrap();
    }

    pub async fn status(&self) -> Status {
        for _ in 0..500 {
            if let Ok(Some(reply)) = control::ask(&self.paths.control(), &Request::Status).await {
                return reply.status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no daemon answers");
    }

    pub async fn waits_for(&self, words: &str) {
        let mut why = String::new();
        for _ in 0..600 {
            why = self.status().await.why();
            if why.contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("'{words}' is not in: {why}");
    }

    pub async fn is_told(&self) {
        for _ in 0..900 {
            if self.told.load(Ordering::SeqCst) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not told: {}", self.status().await.why());
    }

    /// A hook of a shell's lines, for the reboot alone.
    pub fn hook(&self, lines: &str) {
        let path = self.paths.hooks().join("10-hook");
        fs::create_dir_all(self.paths.hooks()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n[ $1 = cancelled ] && exit\n{lines}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Waits until somebody listens there.
    pub async fn serves(&self, address: &str) {
        for _ in 0..300 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody listens on {address}: {:?}", self.status().await.warnings);
    }
}
