//! Other programs, run for a bounded time.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Of what a program says, so many bytes are read.
const MAX_SAID: u64 = 4 << 10;

/// A process that does not outlive who waits for it.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program for so long at most; what it has written.
///
/// # Errors
/// In words, with the last line that it has written there, when it cannot be run, fails, or takes longer.
pub async fn run(command: &mut Command, limit: Duration) -> Result<String, String> {
    let name = command.get_program().display().to_string();
    let failed = |what: &dyn std::fmt::Display| format!("{name}: {what}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Killed(child.map_err(|error| failed(&error))?);
    let end = Instant::now() + limit;
    let status = loop {
        match child.0.try_wait().map_err(|error| failed(&error))? {
            Some(status) => break status,
            None if Instant::now() >= end => return Err(failed(&format!("not done after {} s", limit.as_secs()))),
            None => sleep(Duration::from_millis(50)).await,
        }
    };
    // It has ended, but a process that it has left behind may hold the pipe, which then has no end: no more is read than is there.
    let said = |pipe: Option<OwnedFd>| {
        let mut text = Vec::new();
        if let Some(pipe) = pipe.map(File::from)
            && rustix::io::ioctl_fionbio(&pipe, true).is_ok()
        {
            let _ = pipe.take(MAX_SAID).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    if status.success() {
        return Ok(said(child.0.stdout.take().map(OwnedFd::from)));
    }
    let words = said(child.0.stderr.take().map(OwnedFd::from));
    Err(failed(&format!("{status}: {}", words.lines().last().unwrap_or_default())))
}
