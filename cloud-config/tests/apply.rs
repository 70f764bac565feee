//! Applying whole cloud-configs below a directory, with a machine that only notes what it is told.

#![allow(clippy::unwrap_used)] // helpers of tests are not tests to clippy

use cloud_config::apply::{Outcome, System};
use cloud_config::boot;
use cloud_config::status::Record;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Notes every call; `broken` units and scripts fail.
struct Noted {
    root: PathBuf,
    calls: Vec<String>,
    broken: Vec<&'static str>,
}

impl Noted {
    fn call(&mut self, call: String) -> Result<(), String> {
        let fails = self.broken.iter().any(|b| call.contains(b));
        self.calls.push(call);
        if fails { Err("it is broken".to_owned()) } else { Ok(()) }
    }
}

impl System for Noted {
    fn root(&self) -> &Path {
        &self.root
    }
    fn systemctl(&mut self, args: &[&str]) -> Result<(), String> {
        self.call(args.join(" "))
    }
    fn set_hostname(&mut self, name: &str) -> Result<(), String> {
        self.call(format!("hostname {name}"))
    }
    fn run(&mut self, program: &Path, environment: &[(&str, &str)]) -> Result<(), String> {
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let variables: Vec<String> = environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.call(format!("run {name} {}", variables.join(" ")))
    }
    fn now(&self) -> u64 {
        20_000 * 86_400
    }
}

struct Machine {
    dir: TempDir,
    system: Noted,
}

impl Machine {
    fn new() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let ids = format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let machine = Machine { system: Noted { root: dir.path().to_owned(), calls: vec![], broken: vec![] }, dir };
        machine.put("etc/passwd", &format!("root:x:0:0:root:/root:/bin/bash\ncore:x:{ids}::/home/core:/bin/bash\n"));
        machine.put("etc/group", "root:x:0:\ndocker:x:233:core\nshadow:x:42:\n");
        machine.put("etc/shadow", "root:*:1:0:99999:7:::\ncore:*:1:0:99999:7:::\n");
        machine.put("etc/gshadow", "root:*::\ndocker:!::core\nshadow:*::\n");
        machine.put("etc/machine-id", "0123\n");
        machine.put("etc/skel/.profile", "skeleton\n");
        machine.put("bin/bash", "");
        machine
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.dir.path().join(path)).unwrap().permissions().mode() & 0o7777
    }

    fn apply(&mut self, text: &str) -> Record {
        self.put("user-data", text);
        self.system.calls.clear();
        boot::apply_source(Some(self.dir.path().join("user-data")), &mut self.system)
    }

    fn outcome(record: &Record, what: &str) -> (Outcome, String) {
        let step =
            record.steps.iter().chain(&record.scripts).find(|s| s.what.contains(what)).unwrap_or_else(|| panic!("{what}: {record:?}"));
        (step.outcome.clone(), step.detail.clone().unwrap_or_default())
    }
}

const HOST: &str = "#cloud-config
hostname: harbour
ssh_authorized_keys: [ssh-ed25519 AAAA ada]
users:
  - default
  - name: ada
    groups: [docker]
    sudo: ALL=(ALL) NOPASSWD:ALL
    ssh_authorized_keys: [ssh-ed25519 BBBB ada]
write_files:
  - {path: /etc/app/conf, content: x, permissions: '0600'}
  - {path: /etc/list, content: \"b\\n\", append: true}
coreos:
  etcd2: {name: one, force-new-cluster: false}
  units:
    - {name: web.service, enable: true, command: start, content: \"[Service]\\nExecStart=/bin/true\\n\"}
    - {name: old.service, mask: true}
runcmd: [echo hello]
bootcmd: [echo early]
";

#[test]
fn a_host_is_set_up_and_the_next_boot_changes_nothing() {
    let mut machine = Machine::new();
    machine.put("etc/list", "a\n");
    let record = machine.apply(HOST);
    assert!(record.is_good(), "{record:#?}");
    assert_eq!(record.instance_id, "machine-0123");
    assert_eq!(machine.get("etc/hostname"), "harbour\n");
    assert_eq!(machine.get("home/core/.ssh/authorized_keys"), "ssh-ed25519 AAAA ada\n");
    assert_eq!((machine.mode("home/core/.ssh"), machine.mode("home/core/.ssh/authorized_keys")), (0o700, 0o600));
    assert_eq!(machine.get("home/ada/.profile"), "skeleton\n");
    assert_eq!(machine.mode("home/ada"), 0o700);
    assert!(machine.get("etc/passwd").ends_with("ada:x:1000:1000::/home/ada:/bin/bash\n"));
    assert!(machine.get("etc/shadow").ends_with("ada:*:20000:0:99999:7:::\n"));
    assert!(machine.get("etc/group").contains("docker:x:233:core,ada\n"));
    assert!(machine.get("etc/sudoers.d/90-cloud-config-users").contains("ada ALL=(ALL) NOPASSWD:ALL\n"));
    assert_eq!(machine.mode("etc/sudoers.d/90-cloud-config-users"), 0o440);
    assert_eq!((machine.get("etc/app/conf").as_str(), machine.mode("etc/app/conf")), ("x", 0o600));
    assert_eq!(machine.get("etc/list"), "a\nb\n");
    let drop_in = machine.get("run/garboard/units/etcd.service.d/20-cloudinit.conf");
    assert!(drop_in.contains("\"ETCD_FORCE_NEW_CLUSTER=false\""), "{drop_in}");
    assert_eq!(fs::read_link(machine.dir.path().join("etc/systemd/system/old.service")).unwrap(), Path::new("/dev/null"));
    assert_eq!(
        machine.system.calls,
        vec![
            "run bootcmd INSTANCE_ID=machine-0123",
            "hostname harbour",
            "daemon-reload",
            "enable web.service",
            "start --no-block web.service",
            "start --no-block cloud-config-final.service",
        ]
    );

    let passwd = machine.get("etc/shadow");
    let again = machine.apply(HOST);
    assert_eq!(machine.get("etc/shadow"), passwd);
    assert_eq!(machine.get("etc/list"), "a\nb\n");
    assert!(!machine.system.calls.contains(&"daemon-reload".to_owned()), "nothing changed: {:?}", machine.system.calls);
    let changed: Vec<_> = again.steps.iter().filter(|s| s.outcome == Outcome::Changed).map(|s| s.what.as_str()).collect();
    assert_eq!(changed, vec!["run bootcmd now", "systemctl enable web.service"]);
}

#[test]
fn scripts_of_an_instance_run_once_and_failures_are_remembered() {
    let mut machine = Machine::new();
    machine.apply("#cloud-config\nruncmd: [echo hello]\n");
    machine.system.calls.clear();
    machine.system.broken = vec!["run runcmd"];
    let done = boot::run_scripts(&mut machine.system);
    assert_eq!(machine.system.calls, vec!["run runcmd INSTANCE_ID=machine-0123"]);
    assert_eq!(done[0].outcome, Outcome::Failed);
    assert_eq!(machine.mode("var/lib/cloud-config/instances/machine-0123/scripts/runcmd"), 0o700);
    let record = boot::load_record(machine.dir.path()).unwrap();
    assert!(!record.is_good() && record.complaints().join("\n").contains("run runcmd: it is broken"));

    machine.apply("#cloud-config\nruncmd: [echo hello]\n");
    machine.system.calls.clear();
    assert_eq!(boot::run_scripts(&mut machine.system)[0].outcome, Outcome::Unchanged);
    assert_eq!(machine.system.calls, Vec::<String>::new());
}

#[test]
fn a_step_that_fails_does_not_stop_the_next() {
    let mut machine = Machine::new();
    machine.put("etc/systemd/system/mine.service", "[Service]\n");
    machine.put("etc/dir/x", "");
    machine.system.broken = vec!["start --no-block nothere.service", "hostname"];
    let record = machine.apply(
        "#cloud-config
hostname: h
coreos: {units: [{name: nothere.service, command: start}, {name: mine.service, mask: true}, {name: ok.service, command: start}]}
write_files: [{path: /etc/dir, content: x}, {path: /etc/a, owner: nobody-known, content: x}, {path: /etc/ok, content: y}, {path: no, content: z}]
chpasswd: {list: 'ghost:$6$a$b'}
",
    );
    assert!(!record.is_good());
    for what in [
        "start nothere.service",
        "mask /etc/systemd/system/mine.service",
        "write /etc/dir",
        "write /etc/a",
        "password of ghost",
        "set hostname",
    ] {
        assert_eq!(Machine::outcome(&record, what).0, Outcome::Failed, "{what}");
    }
    assert_eq!(machine.get("etc/systemd/system/mine.service"), "[Service]\n");
    assert_eq!(machine.get("etc/ok"), "y");
    assert!(machine.system.calls.contains(&"start --no-block ok.service".to_owned()));
    assert_eq!(record.faults(), 7);
}

#[test]
fn containerd_is_restarted_only_when_what_it_reads_has_changed() {
    let mut machine = Machine::new();
    let text = "#cloud-config\nwrite_files: [{path: /etc/containerd/config.toml, content: x}]\n";
    let restart = "try-restart --no-block containerd.service".to_owned();
    machine.apply(text);
    assert_eq!(machine.system.calls.last(), Some(&restart));
    machine.system.calls.clear();
    machine.apply(text);
    assert!(!machine.system.calls.contains(&restart), "{:?}", machine.system.calls);
    machine.apply("#cloud-config\nwrite_files: [{path: /etc/containerd.toml, content: x}]\n");
    assert!(!machine.system.calls.contains(&restart), "{:?}", machine.system.calls);
}

#[test]
fn keys_a_person_added_stay_and_links_are_not_followed() {
    let mut machine = Machine::new();
    machine.put("home/core/.ssh/authorized_keys", "ssh-rsa MINE me");
    let text = "#cloud-config\nssh_authorized_keys: [ssh-ed25519 AAAA ada, ssh-rsa MINE me]\n";
    machine.apply(text);
    assert_eq!(machine.get("home/core/.ssh/authorized_keys"), "ssh-rsa MINE me\nssh-ed25519 AAAA ada\n");

    let mut machine = Machine::new();
    machine.put("home/core/x", "");
    machine.put("root/.ssh/authorized_keys", "");
    symlink(machine.dir.path().join("root/.ssh"), machine.dir.path().join("home/core/.ssh")).unwrap();
    let record = machine.apply(text);
    assert_eq!(Machine::outcome(&record, "ssh keys for core").0, Outcome::Failed);
    assert_eq!(machine.get("root/.ssh/authorized_keys"), "");
}

#[test]
fn masks_come_and_go() {
    let mut machine = Machine::new();
    machine.apply("#cloud-config\ncoreos: {units: [{name: a.service, mask: true, runtime: true}]}\n");
    assert!(machine.dir.path().join("run/garboard/units/a.service").is_symlink());
    machine.apply("#cloud-config\ncoreos: {units: [{name: a.service, command: start}]}\n");
    assert!(!machine.dir.path().join("run/garboard/units/a.service").is_symlink());
    assert_eq!(machine.system.calls, vec!["daemon-reload", "start --no-block a.service"]);
}

#[test]
fn without_a_source_nothing_is_done_and_that_is_said() {
    let mut machine = Machine::new();
    let record = boot::apply_source(None, &mut machine.system);
    assert!(record.is_good() && record.source.is_none() && machine.system.calls.is_empty());
    assert!(boot::load_record(machine.dir.path()).unwrap().render().contains("none found"));
}

#[test]
fn a_file_on_the_state_partition_is_a_source() {
    let mut machine = Machine::new();
    machine.put("media/state/cloud-config.yml", "#cloud-config\nhostname: state\n");
    machine.put("sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/raw", "#cloud-config\nhostname: firmware\n");
    let record = boot::apply_source(None, &mut machine.system);
    assert_eq!((record.source.as_deref(), record.ignored), (Some("fw_cfg"), vec!["file".to_owned()]));
    assert_eq!(machine.get("etc/hostname"), "firmware\n");
}

#[test]
fn addresses_come_from_the_network_daemon() {
    let mut machine = Machine::new();
    machine.put("run/garboard/environment", "COREOS_PRIVATE_IPV4=10.1.2.3\n");
    machine.apply("#cloud-config\nwrite_files: [{path: /etc/a, content: $private_ipv4}]\n");
    assert_eq!(machine.get("etc/a"), "10.1.2.3");
}
