//! Network namespaces with servers in them, for tests of the daemon. Needs root and `ip`.

use super::daemon::{Daemon, Paths};
use super::published::NetworkStatus;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Two namespaces joined by veth pairs: `c0`, `c1`, ... for the client, `s0`, `s1`, ... for the server.
pub struct Lab {
    pub client: String,
    pub server: String,
    pub root: tempfile::TempDir,
    servers: Vec<Child>,
}

pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Lab {
    /// Panics without root, unless `GARBOARD_TESTS_MAY_SKIP` is set: a test that has shown nothing must not look as if it had.
    pub fn new(links: u32) -> Option<Lab> {
        if !rustix::process::geteuid().is_root() {
            let may_skip = std::env::var_os("GARBOARD_TESTS_MAY_SKIP").is_some();
            assert!(may_skip, "network namespaces need root; set GARBOARD_TESTS_MAY_SKIP=1 to go without these tests");
            eprintln!("SKIPPED: network namespaces need root");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = |role: &str| format!("garboard-{role}-{}-{number}", std::process::id());
        let lab = Lab { client: name("c"), server: name("s"), root: tempfile::tempdir().unwrap(), servers: Vec::new() };
        std::fs::create_dir_all(lab.root.path().join("etc/systemd/network")).unwrap();
        // Network namespaces share the host's name: with one of our own none is taken from DHCP.
        std::fs::write(lab.root.path().join("etc/hostname"), "lab\n").unwrap();
        run(&format!("ip netns add {}", lab.client));
        run(&format!("ip netns add {}", lab.server));
        for link in 0..links {
            run(&format!("ip -n {} link add c{link} type veth peer name s{link} netns {}", lab.client, lab.server));
            run(&format!("ip -n {} addr add 10.{link}.0.1/24 dev s{link}", lab.server));
            run(&format!("ip -n {} link set s{link} up", lab.server));
        }
        Some(lab)
    }

    pub fn dnsmasq(&mut self, arguments: &str) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.server, "dnsmasq", "-k", "--port=0", "--conf-file=/dev/null", "--no-ping", "--user=root"]);
        command.arg(format!("--dhcp-leasefile={}", self.root.path().join(format!("leases{}", self.servers.len())).display()));
        command.arg("--pid-file=").args(arguments.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
        self.servers.push(command.spawn().unwrap());
        // It serves when its socket is bound: port 67 or 547.
        let begun = Instant::now();
        let (table, port) = if arguments.contains("--enable-ra") { ("udp6", ":0223 ") } else { ("udp", ":0043 ") };
        while !run(&format!("ip netns exec {} cat /proc/net/{table}", self.server)).contains(port) {
            assert!(begun.elapsed() < Duration::from_secs(10), "dnsmasq does not serve");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Router advertisements with this inside of `interface s0 { }`.
    pub fn radvd(&mut self, text: &str) {
        let path = self.path(&format!("radvd{}.conf", self.servers.len()));
        let text = format!("interface s0 {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; {text} }};");
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.server, "radvd", "--nodaemon", "--logmethod=stderr", "--config"]).arg(&path);
        command.arg("--pidfile").arg(path.with_extension("pid")).stdout(Stdio::null()).stderr(Stdio::null());
        self.servers.push(command.spawn().unwrap());
    }

    pub fn stop_servers(&mut self) {
        for mut server in self.servers.drain(..) {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    pub fn file(&self, name: &str, text: &str) {
        let path = self.root.path().join("etc/systemd/network").join(name);
        super::published::write_whole(&path, text).unwrap();
    }

    pub fn daemon(&self) -> Daemon {
        let namespace = std::fs::File::open(Path::new("/run/netns").join(&self.client)).unwrap();
        // Of this thread only, which is the test's own.
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(rustix::thread::LinkNameSpaceType::Network))
            .unwrap();
        Daemon::start(Paths { root: self.root.path().into(), manage_hardware: false }).unwrap()
    }

    pub fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.client))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop_servers();
        for namespace in [&self.client, &self.server] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

pub fn until(daemon: &mut Daemon, what: &str, condition: impl Fn(&NetworkStatus) -> bool) -> NetworkStatus {
    let begun = Instant::now();
    loop {
        let status = daemon.status();
        if condition(&status) {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "waited for {what}: {status:#?}");
        daemon.turn(Some(50)).unwrap();
    }
}
