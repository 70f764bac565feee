//! etcd members in network namespaces of their own, joined by a bridge in a hub; the test's thread is in the hub. Needs root and `ip`; all goes when it is dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reboot_lock::etcd::{Config, Etcd};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A cluster.
pub struct Lab {
    name: String,
    pub directory: tempfile::TempDir,
    pub members: Vec<Option<Child>>,
    /// What makes their disks slow.
    brakes: Vec<Option<Child>>,
    more: Vec<String>,
    pub scheme: &'static str,
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The etcd that images ship: out of the builder's cache, by the lock of the recipe; else one that is installed, or what `GARBOARD_ETCD` names.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<(PathBuf, Option<tempfile::TempDir>)> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("GARBOARD_ETCD") {
            return (PathBuf::from(path), None);
        }
        match shipped() {
            Some((path, directory)) => (path, Some(directory)),
            None => (PathBuf::from("etcd"), None),
        }
    });
    &found.0
}

fn shipped() -> Option<(PathBuf, tempfile::TempDir)> {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    let lock = std::fs::read_to_string(recipes.join("docker.lock")).ok()?;
    let section = lock.split("[[").find(|section| section.contains("name = \"etcd-server\""))?;
    let sum = section.lines().find_map(|line| line.strip_prefix("sha256 = "))?.trim_matches('"').to_owned();
    let cache = std::env::var_os("GARBOARD_CACHE").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).map(|cache| cache.join("garboard"))
    })?;
    let package = cache.join("blobs").join(&sum[..2]).join(&sum);
    let directory = tempfile::tempdir().ok()?;
    let done = Command::new("dpkg-deb").arg("-x").arg(&package).arg(directory.path()).status().ok()?;
    done.success().then(|| (directory.path().join("usr/bin/etcd"), directory))
}

impl Lab {
    /// A cluster of `size` members with these arguments more, and the thread moved to it; nothing without root.
    pub fn new(size: usize, scheme: &'static str, more: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: network namespaces need root");
            return None;
        }
        let name = format!("gbl{}-{}", std::process::id() % 100_000, NUMBER.fetch_add(1, Ordering::SeqCst));
        let directory = tempfile::tempdir().unwrap();
        let more = more.iter().map(|word| word.replace("DIR", directory.path().to_str().unwrap())).collect();
        let none = || (0..size).map(|_| None).collect();
        let lab = Self { name, directory, members: none(), brakes: none(), more, scheme };
        let hub = &lab.name;
        run(&format!("ip netns add {hub}"));
        run(&format!("ip -n {hub} link set lo up"));
        run(&format!("ip -n {hub} link add br0 type bridge"));
        run(&format!("ip -n {hub} addr add 10.77.0.254/24 dev br0"));
        run(&format!("ip -n {hub} link set br0 up"));
        for member in 0..size {
            let space = lab.space(member);
            run(&format!("ip netns add {space}"));
            run(&format!("ip -n {space} link set lo up"));
            run(&format!("ip -n {hub} link add m{member} type veth peer name eth0 netns {space}"));
            run(&format!("ip -n {hub} link set m{member} master br0 up"));
            run(&format!("ip -n {space} addr add {}/24 dev eth0", address(member)));
            run(&format!("ip -n {space} link set eth0 up"));
        }
        let hub = File::open(format!("/run/netns/{}", lab.name)).unwrap();
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&hub), Some(LinkNameSpaceType::Network)).unwrap();
        Some(lab)
    }

    fn space(&self, member: usize) -> String {
        format!("{}-{member}", self.name)
    }

    pub fn url(&self, member: usize) -> String {
        format!("{}://{}:2379", self.scheme, address(member))
    }

    /// Starts a member, for the first time or again.
    pub fn start(&mut self, member: usize) {
        let log = File::options().append(true).create(true).open(self.directory.path().join(format!("m{member}.log"))).unwrap();
        let peer = |member: usize| format!("http://{}:2380", address(member));
        let all: Vec<String> = (0..self.members.len()).map(|member| format!("m{member}={}", peer(member))).collect();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(member)]).arg(program());
        command.args([format!("--name=m{member}"), format!("--initial-cluster={}", all.join(","))]);
        command.arg(format!("--data-dir={}", self.directory.path().join(format!("m{member}")).display()));
        command.args([format!("--listen-peer-urls={}", peer(member)), format!("--initial-advertise-peer-urls={}", peer(member))]);
        let clients = self.url(member);
        command.args([format!("--listen-client-urls={clients}"), format!("--advertise-client-urls={clients}")]);
        command.args(&self.more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.members[member] = Some(command.spawn().unwrap());
    }

    /// kill -9.
    pub fn kill(&mut self, member: usize) {
        end(self.members[member].take());
    }

    /// Makes each flush of a running member's disk take so much longer, until the next call: strace holds up every `fdatasync`.
    pub fn slow_disk(&mut self, member: usize, by: Option<Duration>) {
        end(self.brakes[member].take());
        let Some(by) = by else { return };
        let process = self.members[member].as_ref().unwrap().id();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-o", "/dev/null", "-p", &process.to_string(), "-e", "trace=fsync,fdatasync"]);
        strace.arg("-e").arg(format!("inject=fsync,fdatasync:delay_enter={}", by.as_micros()));
        let child = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace");
        self.brakes[member] = Some(child);
        let begun = Instant::now();
        while !is_traced(process) {
            assert!(begun.elapsed() < Duration::from_secs(10), "strace does not follow etcd: may this process use ptrace?");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops a member's process, or lets it go on.
    pub fn freeze(&self, member: usize, frozen: bool) {
        let signal = if frozen { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let child = self.members[member].as_ref().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
    }

    /// Cuts a member off from everybody, or joins it again.
    pub fn cut(&self, member: usize, off: bool) {
        run(&format!("ip -n {} link set m{member} {}", self.name, if off { "down" } else { "up" }));
    }

    pub fn config(&self) -> Config {
        let urls: Vec<String> = (0..self.members.len()).map(|member| self.url(member)).collect();
        let mut config = Config::new(&urls.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        config.timeout = Duration::from_secs(4);
        config
    }

    pub fn etcd(&self) -> Etcd {
        Etcd::new(self.config()).unwrap()
    }

    /// Makes the first member reachable by all addresses in 10.78.0.0/16: `--listen-client-urls=http://0.0.0.0:2379` has to be among its arguments. Hosts
    /// have an address each; with one for all, the kernel's search for a free port takes most of the time once there are some ten thousand connections.
    pub fn add_addresses(&self) {
        run(&format!("ip -n {} route add local 10.78.0.0/16 dev lo", self.space(0)));
        run(&format!("ip -n {} route add 10.78.0.0/16 via {}", self.name, address(0)));
    }

    /// By the address of that number.
    pub fn etcd_at(&self, number: u8) -> Etcd {
        let url = format!("http://10.78.0.{number}:2379").parse().unwrap();
        Etcd::new(Config { endpoints: vec![url], ..self.config() }).unwrap()
    }

    /// Starts all members and waits until the cluster works.
    pub async fn start_all(&mut self) {
        for member in 0..self.members.len() {
            self.start(member);
        }
        self.works().await;
    }

    /// Waits until something can be read.
    pub async fn works(&self) {
        use reboot_lock::store::Store;
        let etcd = self.etcd();
        let begun = Instant::now();
        while let Err(error) = etcd.count(&reboot_lock::store::Keys::One("x".to_owned())).await {
            assert!(begun.elapsed().as_secs() < 40, "etcd does not come up: {error}; {}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The ends of the members' logs.
    pub fn logs(&self) -> String {
        let end = |member: usize| {
            let log = std::fs::read_to_string(self.directory.path().join(format!("m{member}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(5)..].join("\n")
        };
        (0..self.members.len()).map(end).collect::<Vec<_>>().join("\n")
    }
}

/// Kills a process.
fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Whether somebody traces all threads of a process.
fn is_traced(process: u32) -> bool {
    let traced = |task: &Path| std::fs::read_to_string(task.join("status")).is_ok_and(|status| !status.contains("TracerPid:\t0\n"));
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks.flatten().all(|task| traced(&task.path()))
}

pub fn address(member: usize) -> String {
    format!("10.77.0.{}", member + 1)
}

impl Drop for Lab {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.slow_disk(member, None);
            self.kill(member);
            let _ = Command::new("ip").args(["netns", "delete", &self.space(member)]).status();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}
