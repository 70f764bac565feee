//! The programs as they are shipped, each as a process of its own whose root is a host's directory: there is no other `/run/garboard/control` for them than
//! the PID 1 that only counts, and no other system to reboot.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::host::Host;

/// The static program that `cargo build --workspace --bins` makes: where `GARBOARD_PROGRAMS` says, else beside the tests.
fn program() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let path = std::env::var_os("GARBOARD_PROGRAMS").map_or_else(beside, PathBuf::from).join("host-programs");
    assert!(path.exists(), "{}: cargo build --workspace --bins", path.display());
    path
}

/// A process that ends with this.
pub struct Process(Child);

impl Process {
    /// kill -9.
    pub fn kill(self) {}

    /// A line of its `/proc/PID/status`.
    pub fn status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Host {
    /// Puts the programs into the host's directory, with a shell for hooks.
    pub fn has_programs(&self) {
        let root = self.directory.path();
        for path in ["usr/bin", "dev", "etc/garboard/pre-reboot.d"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("dev/null"), "").unwrap();
        fs::copy(program(), root.join("usr/bin/host-programs")).unwrap();
        for name in ["reboot-locksmith", "locksmithctl"] {
            symlink("host-programs", root.join("usr/bin").join(name)).unwrap();
        }
        for tool in ["/bin/sh", "/bin/sleep"] {
            let needs = Command::new("ldd").arg(tool).output().unwrap();
            let needs = String::from_utf8(needs.stdout).unwrap();
            for file in needs.split_whitespace().filter(|word| word.starts_with('/')).chain([tool]) {
                let to = root.join(file.trim_start_matches('/'));
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(file, to).unwrap();
            }
        }
    }

    /// A program with the host's directory as its root.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.directory.path()).arg(Path::new("/usr/bin").join(program));
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").stdin(Stdio::null());
        command
    }

    /// Starts the daemon.
    pub fn starts(&self) -> Process {
        let log = fs::File::options().append(true).create(true).open(self.directory.path().join("log")).unwrap();
        Process(self.command("reboot-locksmith").arg("daemon").stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// What the daemons have said, the end of it.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Runs `locksmithctl`.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.command("locksmithctl").args(arguments).output().unwrap()
    }

    /// What it says; it has to succeed.
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same as JSON.
    pub fn tells(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.says(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Its one line about what went wrong.
    pub fn refuses(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }
}
