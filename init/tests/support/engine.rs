//! A unit engine of its own for each test: the real binary, below a directory and a control group that go with the test.
//!
//! Needs root and a cgroup v2 hierarchy to make groups in.

#![allow(dead_code, reason = "each program of tests uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);
pub const INIT: &str = env!("CARGO_BIN_EXE_init");

/// A running engine.
pub struct Engine {
    pub child: Child,
    pub directory: tempfile::TempDir,
    pub group: PathBuf,
}

/// A unit to boot into that wants nothing.
pub const TARGET: (&str, &str) = ("default.target", "[Unit]\n");

/// Sends a process a signal: `KILL`.
pub fn kill(pid: impl std::fmt::Display, signal: &str) {
    assert!(Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap().success());
}

/// Where the cgroup v2 hierarchy is.
pub fn cgroup2() -> PathBuf {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = text.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[2] == "cgroup2");
    PathBuf::from(mount.expect("these tests need a cgroup v2 hierarchy")[1])
}

/// `@` in a text is the directory of the test, `%init` the binary.
impl Engine {
    pub fn start(units: &[(&str, &str)]) -> Self {
        Self::start_after("", units)
    }

    /// Starts it in a mount namespace of its own, in which this shell script has run before; `@` is the directory there, too.
    pub fn start_after(script: &str, units: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let group = cgroup2().join(format!("garboard-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(at("units")).unwrap();
        std::fs::create_dir(at("run")).unwrap();
        std::fs::write(at("health.toml"), "settle = 0.3\ndeadline = 6\n").unwrap();
        let paths = json!({
            "units": [at("units")], "runtime": at("run/garboard"), "cgroups": group, "log_stream": at("no-log"), "log_socket": at("no-log"),
            "directories": [at("run"), at("state"), at("cache"), at("logs"), at("etc")], "health": at("health.toml"),
            "default_unit": "default.target", "timer_stamps": at("stamps"), "health_checks": at("health.d"),
        });
        std::fs::write(at("paths.json"), paths.to_string()).unwrap();
        let engine = directory.path().to_owned();
        for (name, text) in units {
            if name.starts_with("health.d/") {
                std::fs::create_dir_all(at("health.d")).unwrap();
                std::fs::write(at(name), text.replace('@', engine.to_str().unwrap())).unwrap();
            } else {
                write_unit(&engine, name, text);
            }
        }
        let log = std::fs::File::create(at("log")).unwrap();
        let mut command = Command::new(if script.is_empty() { INIT } else { "unshare" });
        if !script.is_empty() {
            let script = script.replace('@', engine.to_str().unwrap());
            command.args(["--mount", "sh", "-e", "-c", &format!("{script}\nexec {INIT} \"$@\"\n"), "sh"]);
        }
        let child = command
            .args(["unit-engine", &at("paths.json")])
            .env("GARBOARD_TEST_PASSED", "passed on")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let engine = Self { child, directory, group };
        engine.until("the control socket", || UnixStream::connect(engine.path("run/garboard/control")).is_ok());
        engine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        self.read("log")
    }

    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "waited in vain for {what}; the log is:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn ask(&self, request: &Value) -> Vec<Value> {
        let mut stream = UnixStream::connect(self.path("run/garboard/control")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        writeln!(stream, "{request}").unwrap();
        BufReader::new(stream).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }

    /// The result of a job, or the error.
    pub fn job(&self, verb: &str, unit: &str) -> String {
        let replies = self.ask(&json!({"request": "job", "verb": verb, "units": [unit], "wait": true}));
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for reply in &replies {
            match reply["reply"].as_str() {
                Some("job-done") => return word(&reply["result"]),
                Some("error") => return format!("error: {}", word(&reply["message"])),
                _ => {}
            }
        }
        "nothing".to_owned()
    }

    pub fn show(&self, unit: &str, property: &str) -> String {
        let replies = self.ask(&json!({"request": "show", "units": [unit]}));
        replies[0]["properties"][property].as_str().unwrap_or_default().to_owned()
    }

    pub fn state(&self, unit: &str) -> String {
        format!("{}/{}", self.show(unit, "ActiveState"), self.show(unit, "SubState"))
    }

    pub fn pid(&self, unit: &str) -> i32 {
        self.show(unit, "MainPID").parse().unwrap()
    }

    pub fn unit(&self, name: &str, text: &str) {
        write_unit(self.directory.path(), name, text);
    }

    /// What `systemctl` says, and whether it was content, asking this engine as if it were PID 1.
    pub fn systemctl(&self, arguments: &str) -> (String, bool) {
        let ours = self.path("run/garboard");
        let script = format!(
            "mount -t tmpfs none /run && mkdir /run/garboard && mount --bind {} /run/garboard && \
             mount --bind {} /etc/systemd/system && exec {INIT} systemctl {arguments} 2>&1",
            ours.display(),
            self.path("units").display()
        );
        let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).env_remove("TERM").output().unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
    }

    /// Whether the engine has ended, which it does when it would end the machine.
    pub fn has_ended(&self) -> bool {
        !Path::new(&format!("/proc/{}/exe", self.child.id())).exists()
            || std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).is_ok_and(|stat| stat.contains(") Z "))
    }

    pub fn end(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        self.until("the end of the engine", || self.has_ended());
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }
}

fn write_unit(directory: &Path, name: &str, text: &str) {
    let text = text.replace('@', directory.to_str().unwrap()).replace("%init", INIT);
    let path = directory.join("units").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::write(self.group.join("cgroup.kill"), "1");
        for _ in 0..50 {
            let _ = Command::new("find").arg(&self.group).args(["-depth", "-type", "d", "-delete"]).stderr(Stdio::null()).status();
            if !self.group.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
