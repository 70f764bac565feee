//! `garboard run`: start an image in QEMU, reachable by SSH. The image itself is never written to: the machine gets
//! an overlay, a temporary one or the file named by `--state`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::Serialize;

use super::build::build_default;
use super::report::Report;
use crate::image::inspect;
use crate::progress::{Event, Phase, Progress};
use crate::qemu::{self, Accelerator, Disk, DiskFormat, Host, Machine, Nic, Seed};

/// Arguments of `garboard run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A recipe (.toml), which is built first, or an image (.raw, .qcow2)
    target: PathBuf,
    /// User data for the machine
    #[arg(long, value_name = "FILE")]
    cloud_config: Option<PathBuf>,
    /// Forward a port of this host to one of the machine; may be repeated
    #[arg(long, value_name = "HERE:THERE", value_parser = parse_forward)]
    forward: Vec<(u16, u16)>,
    /// Keep what the machine writes in this file, and go on from it next time
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Size of a new machine's disk in GiB
    #[arg(long, value_name = "GIB", default_value_t = 16)]
    disk: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,
    /// Virtual processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Return when the machine is up, and leave it running
    #[arg(long)]
    detach: bool,
}

/// What `--detach --json` prints.
#[derive(Serialize)]
struct Running {
    pid: u32,
    ssh_port: u16,
    ssh: Vec<String>,
    console: PathBuf,
    directory: PathBuf,
    boot_complete: String,
}

/// How long a detached machine may take to come up under emulation on a busy host.
const PATIENCE: Duration = Duration::from_secs(600);

fn parse_forward(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once(':').and_then(|(here, there)| Some((here.parse().ok()?, there.parse().ok()?)));
    parsed.ok_or_else(|| "write two port numbers, such as 8080:80".to_owned())
}

pub(super) fn main(args: &RunArgs, report: &Report) -> Result<()> {
    let host = Host::find()?;
    let image = image_of(&args.target, report)?;
    let directory = tempfile::Builder::new().prefix("garboard-run-").tempdir().context("cannot make a temporary directory")?;
    let key = SshKey::find()?;
    let port = free_port()?;
    let machine = machine(args, &host, &image, directory.path(), &key, port)?;
    let ssh = key.command(port);
    if args.detach {
        // The machine lives on in it.
        let directory = directory.keep();
        detached(&host, machine, &directory, port, &ssh, report)
    } else {
        eprintln!("{}", ssh.join(" "));
        let status = Command::new(&host.qemu).args(machine.arguments(&host)).status().context("cannot start QEMU")?;
        if status.success() { Ok(()) } else { Err(anyhow!("QEMU failed: {status}")) }
    }
}

pub(super) fn image_of(target: &Path, report: &Report) -> Result<PathBuf> {
    if target.extension().is_none_or(|extension| extension != "toml") {
        fs::metadata(target).with_context(|| format!("cannot read the image {}", target.display()))?;
        return Ok(target.to_owned());
    }
    let built = build_default(target.to_owned(), PathBuf::from("out"), report)?;
    built.files.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "raw")).context("the build made no raw image")
}

fn machine(args: &RunArgs, host: &Host, image: &Path, directory: &Path, key: &SshKey, port: u16) -> Result<Machine> {
    let disk = overlay(&args.state.clone().unwrap_or_else(|| directory.join("disk.qcow2")), args.disk, image)?;
    let user_data = match &args.cloud_config {
        Some(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => b"#cloud-config\n".to_vec(),
    };
    let seed = Seed { instance_id: "garboard-run".to_owned(), hostname: None, ssh_keys: key.public.clone(), user_data };
    let mut forward = vec![(port, 22)];
    forward.extend(&args.forward);
    let size = (args.memory, args.cpus);
    let mut machine = machine_in(directory, host, accelerator(host, image, directory)?, size, disk, &seed)?;
    machine.nics.push(Nic::User { forward });
    if !args.detach {
        "mon:stdio".clone_into(&mut machine.serial);
    }
    Ok(machine)
}

/// A machine that keeps all but its first disk in a directory: its copy of the firmware's variables, its seed, its console and its monitor. It
/// has no network yet; `memory` is in MiB.
pub(super) fn machine_in(
    directory: &Path,
    host: &Host,
    accelerator: Accelerator,
    (memory, cpus): (u32, u32),
    disk: Disk,
    seed: &Seed,
) -> Result<Machine> {
    let firmware_vars = directory.join("firmware-vars.fd");
    fs::copy(&host.firmware_vars, &firmware_vars).context("cannot copy the firmware's variables")?;
    let path = directory.join("cidata.img");
    seed.write(&path)?;
    Ok(Machine {
        memory_mib: memory,
        cpus,
        accelerator,
        disks: vec![disk, Disk { path, format: DiskFormat::Raw, read_only: true }],
        firmware_vars,
        nics: Vec::new(),
        fw_cfg: Vec::new(),
        serial: format!("file:{}", directory.join("console.log").display()),
        qmp: Some(directory.join("qmp.sock")),
        extra: Vec::new(),
    })
}

/// KVM where it really works; `GARBOARD_ACCEL=tcg` or `kvm` decides without a try.
pub(super) fn accelerator(host: &Host, image: &Path, directory: &Path) -> Result<Accelerator> {
    match std::env::var("GARBOARD_ACCEL").as_deref() {
        Ok("tcg") => return Ok(Accelerator::Emulation),
        Ok("kvm") => return Ok(Accelerator::Kvm),
        Ok(other) => bail!("GARBOARD_ACCEL is '{other}': set it to 'kvm' or 'tcg', or not at all"),
        Err(_) => {}
    }
    match inspect::kernel(image) {
        Ok(kernel) => qemu::probe(host, &kernel, directory).context("cannot try KVM"),
        // Formats that we do not read, such as somebody's own qcow2 overlay, run the safe way.
        Err(_) => Ok(Accelerator::Emulation),
    }
}

/// A disk that begins as the image and is written to in a file of its own, which may be there already; its size is in GiB.
pub(super) fn overlay(path: &Path, size: u32, image: &Path) -> Result<Disk> {
    if !path.exists() {
        let image = image.canonicalize().with_context(|| format!("cannot read the image {}", image.display()))?;
        let format = if image.extension().is_some_and(|ending| ending == "qcow2") { DiskFormat::Qcow2 } else { DiskFormat::Raw };
        let status = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", format.name(), "-b"])
            .arg(&image)
            .arg(path)
            .arg(format!("{size}G"))
            .status()
            .context("cannot run qemu-img: install QEMU's tools (on Debian: apt-get install qemu-utils)")?;
        if !status.success() {
            bail!("qemu-img cannot make the disk {}", path.display());
        }
    }
    Ok(Disk { path: path.to_owned(), format: DiskFormat::Qcow2, read_only: false })
}

/// A port that nothing listens on now, the usual one if possible.
fn free_port() -> Result<u16> {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (2222..2300).find(free).context("no free port from 2222 to 2299 for SSH")
}

fn detached(host: &Host, mut machine: Machine, directory: &Path, port: u16, ssh: &[String], report: &Report) -> Result<()> {
    let pid_file = directory.join("pid");
    machine.extra.extend(["-daemonize".into(), "-pidfile".into(), pid_file.clone().into()]);
    let started = Instant::now();
    let status = Command::new(&host.qemu).args(machine.arguments(host)).stdin(Stdio::null()).status().context("cannot start QEMU")?;
    if !status.success() {
        bail!("QEMU does not start: {status}");
    }
    let pid: u32 = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok()).context("QEMU left no process id")?;
    let how = if machine.accelerator == Accelerator::Kvm { "KVM" } else { "software emulation" };
    report.event(Event::Begin { phase: Phase::Run, total: None });
    let console = directory.join("console.log");
    let line = wait_for_boot(&console, pid)?;
    let summary = format!("{line} ({:.1} s after power on, QEMU {} with {how}, pid {pid})", started.elapsed().as_secs_f64(), host.version);
    report.event(Event::End { phase: Phase::Run, summary });
    let running =
        Running { pid, ssh_port: port, ssh: ssh.to_vec(), console: console.clone(), directory: directory.to_owned(), boot_complete: line };
    let text = format!("console: {}\nstop it with: kill {pid}\n{}", console.display(), ssh.join(" "));
    report.result(&text, &running);
    Ok(())
}

/// The line that init prints when everything is up; an error for the one that says why not.
pub(super) fn boot_line(console: &Path) -> Result<Option<String>> {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // The last line may be half there.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line_of =
        |mark: &str| whole.lines().find_map(|line| line.find(mark).and_then(|at| line.get(at..))).map(|line| line.trim().to_owned());
    if let Some(line) = line_of("garboard: boot-complete") {
        return Ok(Some(line));
    }
    match line_of("garboard: boot-failed").or_else(|| line_of("garboard: boot-degraded")) {
        Some(line) => bail!("the machine is not healthy: {line} (console: {})", console.display()),
        None => Ok(None),
    }
}

/// Waits for the line that init prints when everything is up, or for the one that says why not.
fn wait_for_boot(console: &Path, pid: u32) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(line) = boot_line(console)? {
            return Ok(line);
        }
        if !Path::new(&format!("/proc/{pid}")).exists() {
            bail!("the machine ended before it was up: see {}", console.display());
        }
        if Instant::now() > end {
            bail!("the machine is not up after {} s: see {}", PATIENCE.as_secs(), console.display());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The keys that the machine will know.
pub(super) struct SshKey {
    pub(super) public: Vec<String>,
    /// Our own private key, where the user has none.
    private: Option<PathBuf>,
}

impl SshKey {
    /// The user's, or our own.
    pub(super) fn find() -> Result<Self> {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let read = |name: &str| fs::read_to_string(home.join(".ssh").join(name)).ok().map(|text| text.trim().to_owned());
        let public: Vec<String> = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"].into_iter().filter_map(read).collect();
        if public.is_empty() { Self::make(&home) } else { Ok(Self { public, private: None }) }
    }

    fn make(home: &Path) -> Result<Self> {
        let directory = home.join(".cache/garboard/ssh");
        let private = directory.join("id_ed25519");
        if !private.exists() {
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "garboard-run", "-f"])
                .arg(&private)
                .stdin(Stdio::null())
                .status();
            if !made.context("cannot run ssh-keygen: install an SSH client")?.success() {
                bail!("ssh-keygen cannot make {}", private.display());
            }
        }
        let public = fs::read_to_string(private.with_extension("pub")).context("cannot read the SSH key just made")?;
        Ok(Self { public: vec![public.trim().to_owned()], private: Some(private) })
    }

    /// The command to type. The machine's host key is new at every first boot, and the port is on the loopback.
    pub(super) fn command(&self, port: u16) -> Vec<String> {
        let mut command = vec!["ssh".to_owned(), "-p".to_owned(), port.to_string()];
        if let Some(private) = &self.private {
            command.extend(["-i".to_owned(), private.display().to_string()]);
        }
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"] {
            command.extend(["-o".to_owned(), option.to_owned()]);
        }
        command.push("core@localhost".to_owned());
        command
    }
}
