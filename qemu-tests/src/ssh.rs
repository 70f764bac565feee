//! Commands on a machine over SSH, through one shared connection: a key exchange costs a second under emulation.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::patience::Patience;
use crate::terminal::Terminal;

/// What a command said.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Exit code; 255 is SSH's own.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Reply {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A way into a machine.
#[derive(Debug)]
pub(crate) struct Ssh {
    pub port: u16,
    pub key: PathBuf,
    pub control: PathBuf,
}

impl Ssh {
    /// Makes a key for one machine.
    pub fn make_key(path: &Path) -> String {
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path).status();
        assert!(made.expect("ssh-keygen").success(), "ssh-keygen failed");
        std::fs::read_to_string(path.with_extension("pub")).expect("public key").trim().to_owned()
    }

    fn base(&self) -> Command {
        let mut command = Command::new("ssh");
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
            "ConnectTimeout=20",
            "ControlMaster=auto",
            "ControlPersist=60",
        ] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("ControlPath={}", self.control.display()));
        command.args(["-p", &self.port.to_string(), "-i"]).arg(&self.key);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a shell command as a user. The bound is generous: a hang must end a test, not decide it.
    pub fn run(&self, user: &str, script: &str) -> Reply {
        let mut command = Command::new("timeout");
        let base = self.base();
        command.arg("300").arg(base.get_program()).args(base.get_args()).arg(format!("{user}@127.0.0.1")).arg("--").arg(script);
        command.stdin(Stdio::null()).output().expect("ssh").into()
    }

    /// Logs in at a terminal.
    pub fn terminal(&self, user: &str) -> Terminal {
        let mut command = self.base();
        command.arg("-tt").arg(format!("{user}@127.0.0.1"));
        Terminal::open(command)
    }

    /// Waits until somebody answers.
    pub fn wait(&self, user: &str, patience: &Patience) -> Result<(), Reply> {
        loop {
            let reply = self.run(user, "true");
            if reply.code == 0 {
                return Ok(());
            }
            if patience.is_over() {
                return Err(reply);
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Ends the shared connection, which would otherwise outlive the machine.
    pub fn close(&self) {
        let mut command = self.base();
        command.args(["-O", "exit", "core@127.0.0.1"]).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = command.status();
    }
}
