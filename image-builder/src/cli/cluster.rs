//! `garboard cluster`: several machines in QEMU on one virtual network, one etcd cluster. They live as long as the command: Ctrl-C, an error, or a
//! machine that ends, ends all and leaves nothing behind.

mod plan;

use std::fs;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::report::Report;
use super::run::{SshKey, accelerator, boot_line, image_of, machine_in, overlay};
use crate::progress::{Event, Phase, Progress};
use crate::qemu::{Accelerator, Host, Machine, Nic, Seed};
use plan::{CLIENT, HEALTH, Members, Plan, Tls, address, mac, name, together};

/// Arguments of `garboard cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// A recipe (.toml), which is built first, or an image (.raw, .qcow2)
    target: PathBuf,
    /// How many machines
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// User data for all machines, beside their part in the cluster (which has the keys `hostname` and `coreos`, and `write_files` with
    /// certificates: those count then, and not the file's)
    #[arg(long, value_name = "FILE")]
    cloud_config: Option<PathBuf>,
    /// Members find each other by the SRV records of this domain, which the machines' DNS has to know; else each is told of all
    #[arg(long, value_name = "DOMAIN", conflicts_with = "join")]
    srv: Option<String>,
    /// The first machine is a cluster of its own, and the others join it one by one
    #[arg(long)]
    join: bool,
    /// PEM file of the CA for etcd; with it all speak TLS and ask for certificates
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_key"])]
    tls_ca: Option<PathBuf>,
    /// PEM file of one certificate for all machines: for servers and clients, for 10.99.0.11 and on, and for 127.0.0.1
    #[arg(long, value_name = "FILE", requires = "tls_ca")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "tls_ca")]
    tls_key: Option<PathBuf>,
    /// Size of each machine's disk in GiB
    #[arg(long, value_name = "GIB", default_value_t = 8)]
    disk: u32,
    /// Memory of each machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,
    /// Virtual processors of each machine
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Seconds that all of them may take to come up
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    patience: u64,
}

/// A machine of the cluster.
#[derive(Clone, Debug, Serialize)]
struct Node {
    name: String,
    address: String,
    pid: u32,
    ssh_port: u16,
    etcd_port: u16,
    health_port: u16,
    ssh: Vec<String>,
    console: PathBuf,
}

/// What is printed when all are up.
#[derive(Serialize)]
struct Running<'a> {
    nodes: &'a [Node],
    directory: &'a Path,
}

/// What all machines have in common, and those that run. They end with it.
struct Cluster<'a> {
    args: &'a ClusterArgs,
    host: &'a Host,
    image: &'a Path,
    directory: &'a Path,
    key: &'a SshKey,
    accelerator: Accelerator,
    plan: Plan,
    own: Option<String>,
    segment: u16,
    ports: Vec<u16>,
    nodes: Vec<Node>,
    machines: Vec<Child>,
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for child in &mut self.machines {
            let _ = child.kill();
        }
        for child in &mut self.machines {
            let _ = child.wait();
        }
    }
}

/// Ports that nothing listens on now; held until all are chosen, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>().context("no free port")?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn plan_of(args: &ClusterArgs) -> Result<Plan> {
    let tls = match (&args.tls_ca, &args.tls_cert, &args.tls_key) {
        (Some(ca), Some(certificate), Some(key)) => Some(Tls { ca: read(ca)?, certificate: read(certificate)?, key: read(key)? }),
        _ => None,
    };
    let members = match &args.srv {
        Some(domain) => Members::Srv(domain.clone()),
        None if args.join => Members::Join,
        None => Members::Static,
    };
    Ok(Plan { nodes: args.nodes, members, tls })
}

pub(super) fn main(args: &ClusterArgs, report: &Report) -> Result<()> {
    let plan = plan_of(args)?;
    let own = args.cloud_config.as_deref().map(read).transpose()?;
    let host = Host::find()?;
    let image = image_of(&args.target, report)?;
    let directory = tempfile::Builder::new().prefix("garboard-cluster-").tempdir().context("cannot make a temporary directory")?;
    let key = SshKey::find()?;
    let mut ports = free_ports(3 * usize::from(args.nodes) + 1)?;
    let mut cluster = Cluster {
        accelerator: accelerator(&host, &image, directory.path())?,
        segment: ports.pop().context("no port")?,
        args,
        host: &host,
        image: &image,
        directory: directory.path(),
        key: &key,
        plan,
        own,
        ports,
        nodes: Vec::new(),
        machines: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut end = signal(SignalKind::terminate()).context("cannot listen to signals")?;
        tokio::select! {
            result = cluster.run(report) => result,
            _ = tokio::signal::ctrl_c() => Ok(()),
            _ = end.recv() => Ok(()),
        }
    })
}

impl Cluster<'_> {
    /// Starts the next machine.
    fn start(&mut self) -> Result<()> {
        let number = u8::try_from(self.nodes.len() + 1).context("too many machines")?;
        let at = self.ports.len().checked_sub(3).context("no port")?;
        let [ssh_port, etcd_port, health_port] = *self.ports.split_off(at) else { bail!("no port") };
        let place = self.directory.join(name(number));
        fs::create_dir(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let machine = self.machine(number, &place, vec![(ssh_port, 22), (etcd_port, CLIENT), (health_port, HEALTH)])?;
        let log = fs::File::create(place.join("qemu.log")).context("cannot make QEMU's log")?;
        let mut command = Command::new(&self.host.qemu);
        let child = command.args(machine.arguments(self.host)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.context("cannot start QEMU")?;
        self.nodes.push(Node {
            name: name(number),
            address: address(number),
            pid: child.id(),
            ssh_port,
            etcd_port,
            health_port,
            ssh: self.key.command(ssh_port),
            console: place.join("console.log"),
        });
        self.machines.push(child);
        Ok(())
    }

    fn machine(&self, number: u8, place: &Path, forward: Vec<(u16, u16)>) -> Result<Machine> {
        let disk = overlay(&place.join("disk.qcow2"), self.args.disk, self.image)?;
        let part = self.plan.user_data(number);
        let user_data = self.own.as_ref().map_or_else(|| part.clone(), |own| together(own, &part)).into_bytes();
        let instance_id = format!("garboard-cluster-{number}");
        let seed = Seed { instance_id, hostname: None, ssh_keys: self.key.public.clone(), user_data };
        let size = (self.args.memory, self.args.cpus);
        let mut machine = machine_in(place, self.host, self.accelerator, size, disk, &seed)?;
        machine.nics.extend([Nic::User { forward }, Nic::Segment { port: self.segment, mac: mac(number) }]);
        Ok(machine)
    }

    /// Tells the cluster of the machine that comes next, by way of the first.
    fn add_next(&self) -> Result<()> {
        let number = u8::try_from(self.nodes.len() + 1).context("too many machines")?;
        let first = self.nodes.first().context("no machine")?;
        let mut command = first.ssh.clone();
        command.extend(self.plan.etcdctl());
        command.extend(["member".to_owned(), "add".to_owned(), name(number), format!("--peer-urls={}", self.plan.peer_url(number))]);
        let [program, arguments @ ..] = command.as_slice() else { bail!("no command") };
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().context("cannot run ssh")?;
        if !output.status.success() {
            bail!("{} does not take {} into its cluster: {}", first.name, name(number), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Starts all, says how far they are, prints how to reach them, and stays until one ends.
    async fn run(&mut self, report: &Report) -> Result<()> {
        let started = Instant::now();
        let count = usize::from(self.args.nodes);
        report.event(Event::Begin { phase: Phase::Run, total: None });
        if !matches!(self.plan.members, Members::Join) {
            while self.nodes.len() < count {
                self.start()?;
            }
        }
        let (mut up, mut healthy) = (vec![false; count], vec![false; count]);
        let mut printed = false;
        loop {
            if self.nodes.len() < count && self.nodes.iter().zip(&healthy).all(|(_, healthy)| *healthy) {
                if !self.nodes.is_empty() {
                    self.add_next()?;
                }
                self.start()?;
            }
            let each = self.nodes.iter().zip(&mut self.machines).zip(up.iter_mut().zip(&mut healthy));
            for ((node, child), (up, healthy)) in each {
                if let Some(status) = child.try_wait().context("cannot look after QEMU")? {
                    let log = fs::read_to_string(node.console.with_file_name("qemu.log")).unwrap_or_default();
                    bail!("{} has ended ({status}) {}", node.name, log.trim());
                }
                if !*up && let Some(line) = boot_line(&node.console).with_context(|| node.name.clone())? {
                    *up = true;
                    let seconds = started.elapsed().as_secs_f64();
                    report.event(Event::Step { phase: Phase::Run, text: format!("{} is up after {seconds:.1} s: {line}", node.name) });
                }
                *healthy = *healthy || *up && etcd_is_healthy(node.health_port);
            }
            if !printed && healthy.iter().all(|healthy| *healthy) {
                printed = true;
                self.tell(started.elapsed(), report);
            }
            if !printed && started.elapsed().as_secs() > self.args.patience {
                let waiting: Vec<String> =
                    (1..=self.args.nodes).zip(&healthy).filter(|(_, healthy)| !**healthy).map(|(node, _)| name(node)).collect();
                let records = self.plan.records();
                let hint = if records.is_empty() { String::new() } else { format!("; the DNS needs: {}", records.join(", ")) };
                bail!("not in the cluster after {} s: {}{hint}", self.args.patience, waiting.join(" "));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn tell(&self, took: Duration, report: &Report) {
        let how = if self.accelerator == Accelerator::Kvm { "KVM" } else { "software emulation" };
        let summary = format!("{} machines with {how}, one etcd cluster, {:.1} s after power on", self.nodes.len(), took.as_secs_f64());
        report.event(Event::End { phase: Phase::Run, summary });
        let lines: Vec<String> = self.nodes.iter().map(|node| format!("{} {}: {}", node.name, node.address, node.ssh.join(" "))).collect();
        let text = format!("{}\nconsoles: {}/node*/console.log\nCtrl-C ends them all", lines.join("\n"), self.directory.display());
        report.result(&text, &Running { nodes: &self.nodes, directory: self.directory });
    }
}

/// Whether the member behind a forwarded port says that the cluster works.
fn etcd_is_healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let limit = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"health\":\"true\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ() {
        let mut ports = free_ports(7).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 7);
    }

    #[test]
    fn a_member_is_healthy_when_it_says_so() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for body in [r#"{"health":"false","reason":"RAFT NO LEADER"}"#, r#"{"health":"true","reason":""}"#] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 512]).unwrap();
                write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}").unwrap();
            }
        });
        assert!(!etcd_is_healthy(port));
        assert!(etcd_is_healthy(port));
        server.join().unwrap();
        assert!(!etcd_is_healthy(port), "nothing listens");
    }
}
