//! A machine under test.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use image_builder::qemu::{Accelerator, Disk, DiskFormat, Host, Machine, Nic, Seed};
use tempfile::TempDir;

use crate::console::Console;
use crate::patience::Patience;
use crate::qmp;
use crate::ssh::{Reply, Ssh};
use crate::terminal::Terminal;

/// What a machine is made of, before it is started.
#[derive(Debug)]
pub struct Setup {
    directory: TempDir,
    image: PathBuf,
    disk_gib: u32,
    memory_mib: u32,
    seed: Option<Seed>,
    key: String,
    fw_cfg: Vec<(String, PathBuf)>,
    extra_disks: Vec<PathBuf>,
    devices: Vec<String>,
    write_log: Option<PathBuf>,
    expected_trouble: Vec<&'static str>,
}

impl Setup {
    /// A machine of the image that was built from `recipes/<recipe>.toml`.
    #[must_use]
    pub fn of(recipe: &str) -> Self {
        let images = std::env::var_os("GARBOARD_TEST_IMAGES").map_or_else(default_images, PathBuf::from);
        let image = images.join(format!("{recipe}-1.0.0-x86_64.raw"));
        assert!(image.exists(), "{} is not there: run `make test`, or build it as scripts/test does", image.display());
        let machine = Self::of_image(&image);
        if recipe == "docker" { machine.memory_mib(2048) } else { machine }
    }

    /// A machine of any image.
    #[must_use]
    pub fn of_image(image: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("garboard-test-").tempdir().expect("a temporary directory");
        let key = Ssh::make_key(&directory.path().join("key"));
        let seed =
            Seed { instance_id: "i-test".into(), hostname: None, ssh_keys: vec![key.clone()], user_data: b"#cloud-config\n".to_vec() };
        Self {
            directory,
            image: image.to_owned(),
            disk_gib: 8,
            memory_mib: 1024,
            seed: Some(seed),
            key,
            fw_cfg: Vec::new(),
            extra_disks: Vec::new(),
            devices: Vec::new(),
            write_log: None,
            expected_trouble: Vec::new(),
        }
    }

    /// The image that its disk begins as.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// User data on the NoCloud disk.
    #[must_use]
    pub fn user_data(mut self, text: &str) -> Self {
        self.seed.as_mut().expect("a NoCloud disk").user_data = text.as_bytes().to_vec();
        self
    }

    /// No NoCloud disk.
    #[must_use]
    pub fn without_seed(mut self) -> Self {
        self.seed = None;
        self
    }

    /// The key that [`Guest::run`] uses, for user data of other sources.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.key
    }

    /// A firmware configuration item.
    #[must_use]
    pub fn fw_cfg(mut self, name: &str, content: &str) -> Self {
        let path = self.directory.path().join(format!("fw-cfg-{}", self.fw_cfg.len()));
        fs::write(&path, content).expect("write the firmware item");
        self.fw_cfg.push((name.to_owned(), path));
        self
    }

    /// One more disk, read-only, made by `make` at the path it is given.
    #[must_use]
    pub fn disk(mut self, make: impl FnOnce(&Path)) -> Self {
        let path = self.directory.path().join(format!("extra-{}.img", self.extra_disks.len()));
        make(&path);
        self.extra_disks.push(path);
        self
    }

    /// Memory, in MiB.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// One more device, as QEMU's `-device` takes it.
    #[must_use]
    pub fn device(mut self, device: &str) -> Self {
        self.devices.push(device.to_owned());
        self
    }

    /// Logs what is written to the machine's disk from when it is switched on: see [`crate::write_log`].
    #[must_use]
    pub fn write_log(mut self, path: &Path) -> Self {
        self.write_log = Some(path.to_owned());
        self
    }

    /// Size of the machine's disk.
    #[must_use]
    pub fn disk_gib(mut self, size: u32) -> Self {
        self.disk_gib = size;
        self
    }

    /// A console line with this text is part of the test.
    #[must_use]
    pub fn expect_trouble(mut self, text: &'static str) -> Self {
        self.expected_trouble.push(text);
        self
    }

    /// Changes the image before the first start: `change` gets a writable copy.
    #[must_use]
    pub fn tamper(mut self, change: impl FnOnce(&File)) -> Self {
        let copy = self.directory.path().join("tampered.raw");
        let copied = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(&self.image).arg(&copy).status();
        assert!(copied.expect("cp").success(), "cp failed");
        change(&File::options().read(true).write(true).open(&copy).expect("open the copy"));
        self.image = copy;
        self
    }

    /// Starts the machine.
    #[must_use]
    pub fn start(self) -> Guest {
        let host = Host::find().expect("a sound QEMU");
        let directory = self.directory.path();
        let disk = directory.join("disk.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .args([&self.image, &disk])
            .arg(format!("{}G", self.disk_gib))
            .status();
        assert!(made.expect("qemu-img").success(), "qemu-img failed");
        let vars = directory.join("vars.fd");
        fs::copy(&host.firmware_vars, &vars).expect("copy the firmware's variables");
        let mut disks = vec![Disk { path: disk, format: DiskFormat::Qcow2, read_only: false }];
        if let Some(seed) = &self.seed {
            let path = directory.join("cidata.img");
            seed.write(&path).expect("write the NoCloud disk");
            disks.push(Disk { path, format: DiskFormat::Raw, read_only: true });
        }
        disks.extend(self.extra_disks.iter().map(|path| Disk { path: path.clone(), format: DiskFormat::Raw, read_only: true }));
        let port = free_port();
        let console = directory.join("console.log");
        let machine = Machine {
            memory_mib: self.memory_mib,
            // Two machines run at a time. And of two emulated processors the second's timer does not start once in some fifty boots:
            // the kernel stands still, with `rcu` complaining.
            cpus: 1,
            accelerator: Accelerator::Emulation,
            disks,
            firmware_vars: vars,
            nics: vec![Nic::User { forward: vec![(port, 22)] }],
            fw_cfg: self.fw_cfg.clone(),
            serial: format!("file:{}", console.display()),
            qmp: Some(directory.join("qmp.sock")),
            extra: self.devices.iter().flat_map(|device| ["-device".into(), device.into()]).collect(),
        };
        let ssh = Ssh { port, key: directory.join("key"), control: directory.join("ssh") };
        let mut guest = Guest {
            console: Console::new(console),
            qmp: directory.join("qmp.sock"),
            expected_trouble: self.expected_trouble,
            write_log: self.write_log,
            directory: self.directory,
            host,
            machine,
            ssh,
            child: None,
        };
        guest.power_on();
        guest
    }
}

/// A machine, running or off. Dropping it ends QEMU and checks the console.
#[derive(Debug)]
pub struct Guest {
    /// Its serial console, since it was last switched on.
    pub console: Console,
    qmp: PathBuf,
    expected_trouble: Vec<&'static str>,
    write_log: Option<PathBuf>,
    directory: TempDir,
    host: Host,
    machine: Machine,
    ssh: Ssh,
    child: Option<Child>,
}

impl Guest {
    /// Switches the machine on.
    pub fn power_on(&mut self) {
        assert!(self.child.is_none(), "the machine is on already");
        let errors = File::create(self.directory.path().join("qemu-errors")).expect("a file for QEMU's errors");
        let mut arguments = self.machine.arguments(&self.host);
        if let Some(log) = &self.write_log {
            File::create(log).expect("a file for the log");
            let disk = arguments.iter_mut().find(|argument| argument.to_string_lossy().starts_with("if=none,id=disk0,"));
            *disk.expect("the disk") = logged(&self.disk(), log).into();
        }
        let child = Command::new(&self.host.qemu)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("start QEMU");
        self.child = Some(child);
    }

    /// Waits for a text on the console and returns its line from there on.
    ///
    /// # Panics
    /// When it does not come, or the machine ends before.
    pub fn wait_for(&mut self, mark: &str) -> String {
        let patience = self.patience();
        loop {
            if let Some(line) = self.console.line_with(mark) {
                return line;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("QEMU's state"));
            assert!(ended.is_none(), "the machine ended without '{mark}' on the console:\n{}", self.console.tail());
            assert!(!patience.is_over(), "no '{mark}' on the console {patience}:\n{}\n{}", self.console.tail(), self.inside());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the firmware has started something so many times since the machine was switched on.
    ///
    /// # Panics
    /// When it does not, or the machine ends before.
    pub fn wait_for_starts(&mut self, times: usize) {
        let patience = self.patience();
        while self.starts() < times {
            assert!(!patience.is_over(), "not started {times} times {patience}:\n{}", self.console.tail());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How often the firmware started something since the power was switched on.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.console.text().matches("BdsDxe: starting").count()
    }

    /// Begins to wait for something of this machine.
    fn patience(&self) -> Patience {
        Patience::with(self.child.as_ref().map(Child::id))
    }

    /// What a machine that does not come up is doing: its processors, and whatever it still answers.
    fn inside(&self) -> String {
        let first = qmp::registers(&self.qmp);
        let reply = self
            .ssh
            .run("core", "systemctl list-jobs; systemctl --failed; systemctl status; cat /run/garboard/boot.json; sudo dmesg | tail -n 30");
        format!("processors:\n{first}\nand again:\n{}\nover SSH: {}{}", qmp::registers(&self.qmp), reply.out, reply.err)
    }

    /// Waits for the boot to be complete and returns the line that says so.
    pub fn wait_for_boot(&mut self) -> String {
        self.wait_for("garboard: boot-complete")
    }

    /// Waits until SSH answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for_ssh(&mut self) {
        if let Err(reply) = self.ssh.wait("core", &self.patience()) {
            panic!("no SSH: {}\n{}", reply.err, self.console.tail());
        }
    }

    /// Logs in as `core` at a terminal.
    #[must_use]
    pub fn terminal(&self) -> Terminal {
        self.ssh.terminal("core")
    }

    /// Runs a shell command as `core`.
    #[must_use]
    pub fn run(&self, script: &str) -> Reply {
        self.run_as("core", script)
    }

    /// Runs a shell command as somebody.
    #[must_use]
    pub fn run_as(&self, user: &str, script: &str) -> Reply {
        self.ssh.run(user, script)
    }

    /// Runs a shell command as `core` that must succeed, and returns its output without the last line's end.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, script: &str) -> String {
        let reply = self.run(script);
        assert_eq!(reply.code, 0, "'{script}' failed: {}{}\nconsole:\n{}", reply.out, reply.err, self.console.tail());
        reply.out.trim_end().to_owned()
    }

    /// Repeats a command until it succeeds.
    ///
    /// # Panics
    /// When it never does.
    pub fn eventually(&self, script: &str) -> String {
        let patience = self.patience();
        loop {
            let reply = self.run(script);
            if reply.code == 0 {
                return reply.out.trim_end().to_owned();
            }
            let tail = || self.console.tail();
            assert!(!patience.is_over(), "'{script}' never succeeded {patience}: {}{}\nconsole:\n{}", reply.out, reply.err, tail());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Cuts the power: what was not flushed is lost.
    pub fn cut_power(&mut self) {
        self.ssh.close();
        if let Some(mut child) = self.child.take() {
            child.kill().expect("end QEMU");
            child.wait().expect("QEMU's end");
        }
        self.check_console();
    }

    /// Presses the power button.
    pub fn tap_power_button(&self) {
        qmp::command(&self.qmp, "system_powerdown");
    }

    /// Presses the power button and waits until the machine is off.
    pub fn press_power_button(&mut self) {
        self.tap_power_button();
        self.wait_until_off();
    }

    /// Waits until the machine has switched itself off.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_until_off(&mut self) {
        self.ssh.close();
        let patience = self.patience();
        let child = self.child.as_mut().expect("a running machine");
        while child.try_wait().expect("QEMU's state").is_none() {
            assert!(!patience.is_over(), "the machine does not switch off {patience}:\n{}", self.console.tail());
            std::thread::sleep(Duration::from_millis(100));
        }
        self.child = None;
        self.check_console();
    }

    /// The disk as the machine sees it, while it is off: QEMU's file with its overlay.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.directory.path().join("disk.qcow2")
    }

    fn check_console(&self) {
        let trouble = self.console.trouble(&self.expected_trouble);
        if !std::thread::panicking() {
            assert!(trouble.is_empty(), "trouble on the console: {trouble:#?}\n{}", self.console.tail());
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.cut_power();
        }
    }
}

/// The value of `-drive` for a disk in QEMU's own format, with a log.
fn logged(disk: &Path, log: &Path) -> String {
    let file = |of: &str, path: &Path| format!("{of}.driver=file,{of}.filename={}", path.display());
    let (disk, log) = (file("file.file", disk), file("log.file", log));
    format!(
        "if=none,id=disk0,driver=blklogwrites,cache=writeback,discard=unmap,file.driver=qcow2,file.discard=unmap,{disk},log.driver=raw,{log}"
    )
}

fn default_images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/test")
}

/// A port that was free a moment ago. Machines of one test run take different ones because each keeps its own.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}
