//! `garboard cluster` as a person types it: from the recipe, by what it prints.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use qemu_tests::{Console, program};
use serde_json::Value;
use tempfile::TempDir;

/// The command, which runs, and what it has printed.
struct Typed {
    child: Child,
    /// Name, address and SSH command of each machine.
    machines: Vec<(String, String, String)>,
    /// Where their files are.
    files: PathBuf,
    /// Where it was typed.
    directory: TempDir,
}

impl Typed {
    /// Types it, and reads what it prints until all are there.
    fn start(user_data: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("garboard-typed-").tempdir_in("/var/tmp").unwrap();
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/docker.toml").canonicalize().unwrap();
        std::fs::write(directory.path().join("my.yml"), user_data).unwrap();
        let progress = File::create(directory.path().join("progress")).unwrap();
        let mut command = Command::new(program());
        command.arg("cluster").arg(recipe).args(["--nodes", "3", "--cloud-config", "my.yml"]).current_dir(directory.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(progress).spawn().unwrap();
        let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).take(5).collect();
        eprintln!("{}\n{}", std::fs::read_to_string(directory.path().join("progress")).unwrap(), lines.join("\n"));
        let [machines @ .., consoles, end] = lines.as_slice() else { panic!("no cluster: {:?}", child.wait()) };
        assert_eq!(end, "Ctrl-C ends them all");
        let machine = |line: &String| {
            let (name, rest) = line.split_once(' ').unwrap();
            let (address, ssh) = rest.split_once(": ").unwrap();
            (name.to_owned(), address.to_owned(), ssh.to_owned())
        };
        let files = consoles.strip_prefix("consoles: ").and_then(|text| text.strip_suffix("/node*/console.log")).unwrap();
        Self { child, machines: machines.iter().map(machine).collect(), files: files.into(), directory }
    }

    /// Runs a command on a machine, counted from 0, with the SSH command that was printed.
    fn run(&self, machine: usize, script: &str) -> (bool, String) {
        let mut command = Command::new("timeout");
        let typed = format!("exec {} -o BatchMode=yes -- \"$0\"", self.machines[machine].2);
        let output = command.args(["120", "sh", "-c", &typed, script]).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        (output.status.success(), said + &String::from_utf8_lossy(&output.stderr))
    }

    fn ok(&self, machine: usize, script: &str) -> String {
        let (done, said) = self.run(machine, script);
        assert!(done, "{}: {script}: {said}", self.machines[machine].0);
        said
    }

    /// Presses Ctrl-C, which leaves nothing behind.
    fn interrupt(mut self) {
        for (name, ..) in &self.machines {
            let trouble = Console::new(self.files.join(name).join("console.log")).trouble(&[]);
            assert!(trouble.is_empty(), "{name}: {trouble:#?}");
        }
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success() && !self.files.exists(), "{status}, {}", self.files.display());
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// Docker on each, one etcd, and one lock for FleetLock's clients whichever member they ask.
#[test]
#[ignore = "three machines: scripts/test-long"]
fn a_recipe_becomes_a_cluster_by_one_command_that_any_fleet_lock_client_may_ask() {
    let typed = Typed::start("#cloud-config\ngarboard:\n  reboot:\n    fleet_lock_server: {listen: \"0.0.0.0:9090\"}\n");
    let mut progress = String::new();
    File::open(typed.directory.path().join("progress")).unwrap().read_to_string(&mut progress).unwrap();
    for text in ["node1 is up after", "node2 is up after", "node3 is up after", "3 machines with"] {
        assert!(progress.contains(text), "{progress}");
    }
    for (machine, (name, address, _)) in typed.machines.iter().enumerate() {
        assert_eq!((typed.ok(machine, "cat /etc/hostname"), format!("10.99.0.{}", 11 + machine)), (name.clone(), address.clone()));
        assert!(typed.ok(machine, "docker version -f '{{.Server.Version}}'").contains('.'), "{name}");
        let members: Value = serde_json::from_str(&typed.ok(machine, "etcdctl endpoint health --cluster -w json 2>/dev/null")).unwrap();
        let members = members.as_array().unwrap();
        assert!(members.len() == 3 && members.iter().all(|member| member["health"] == true), "{members:?}");
    }

    // A client asks one member, and all know.
    let ask = |member: usize, act: &str, id: &str| {
        let body = format!("{{\"client_params\":{{\"id\":\"{id}\",\"group\":\"default\"}}}}");
        let options = "-sS -m 60 -w ' %{http_code}' -X POST -H 'fleet-lock-protocol: true'";
        let answer = typed.ok(0, &format!("curl {options} -d '{body}' http://{}:9090/v1/{act}", typed.machines[member].1));
        eprintln!("{act} of {id} at {}: {answer}", typed.machines[member].0);
        answer
    };
    let everywhere = |text: &str| {
        for machine in 0..3 {
            let status = typed.ok(machine, "sudo locksmithctl status");
            assert!(status.contains(text), "{}: {status}", typed.machines[machine].0);
        }
    };
    everywhere("Available: 1");
    assert!(ask(0, "pre-reboot", "zincati-1").ends_with(" 200"));
    everywhere("zincati-1");
    everywhere("Available: 0");
    let refused = ask(1, "pre-reboot", "zincati-2");
    assert!(refused.contains("failed_lock_semaphore_full") && refused.ends_with(" 409"), "{refused}");
    assert!(ask(2, "steady-state", "zincati-1").ends_with(" 200"));
    everywhere("Available: 1");
    assert!(ask(1, "pre-reboot", "zincati-2").ends_with(" 200") && ask(0, "steady-state", "zincati-2").ends_with(" 200"));
    typed.interrupt();
}
