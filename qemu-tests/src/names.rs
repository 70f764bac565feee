//! A DNS server for machines: dnsmasq on loopback, which knows the records that it is given and nothing else.

use std::fmt::Write as _;
use std::fs::File;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A server; it lives as long as this.
#[derive(Debug)]
pub struct Names {
    child: Child,
    directory: TempDir,
    port: u16,
}

impl Names {
    /// Serves records, written as options of dnsmasq: `host-record=NAME,ADDRESS`, `srv-host=SERVICE,TARGET,PORT`.
    ///
    /// # Panics
    /// When dnsmasq cannot be started.
    #[must_use]
    pub fn serve(records: &[String]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = UdpSocket::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port on loopback").port();
        let mut config =
            format!("port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-hosts\nno-resolv\nlog-queries\nlog-facility=-\n");
        for record in records {
            let _ = writeln!(config, "{record}");
        }
        let file = directory.path().join("config");
        std::fs::write(&file, config).expect("dnsmasq's configuration");
        let log = File::create(directory.path().join("log")).expect("dnsmasq's log");
        let mut command = Command::new("dnsmasq");
        command.args(["--keep-in-foreground", "--user=root", "--pid-file="]).arg(format!("--conf-file={}", file.display()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("dnsmasq");
        Self { child, directory, port }
    }

    /// The lines of a cloud-config's `write_files` by which a machine with QEMU's user network asks this server before the service starts. Machines ask
    /// at port 53, which is not for tests to take.
    #[must_use]
    pub fn asked_by(&self, service: &str) -> String {
        let to = format!("iptables -t nat -A OUTPUT -p udp --dport 53 -j DNAT --to-destination 10.0.2.2:{}", self.port);
        let script = format!("iptables -t nat -S OUTPUT | grep -q :{} || {to}", self.port);
        format!(
            "- path: /etc/systemd/system/{service}.d/names.conf\n  content: |\n    [Service]\n    ExecStartPre=+/bin/sh -c \"{script}\"\n"
        )
    }

    /// What was asked, and what dnsmasq says besides.
    #[must_use]
    pub fn log(&self) -> String {
        let log: PathBuf = self.directory.path().join("log");
        std::fs::read_to_string(log).unwrap_or_default()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
