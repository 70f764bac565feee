//! Somebody at a terminal of a machine: a login over SSH with a pseudo-terminal, which is typed to and read.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::patience::Patience;

/// A login; dropping it hangs up.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
    /// Up to where what was shown has been waited for.
    read: usize,
}

impl Terminal {
    /// Logs in with this command, an `ssh -tt`.
    pub(crate) fn open(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh");
        let (keys, mut screen) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let more = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                more.lock().expect("what was shown").extend_from_slice(bytes.get(..count).unwrap_or_default());
            }
        });
        Self { child, keys, shown, read: 0 }
    }

    /// Types a line.
    ///
    /// # Panics
    /// When nobody listens any more.
    pub fn enter(&mut self, line: &str) {
        self.keys.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.keys.flush()).expect("somebody who listens");
    }

    /// Waits for a text beyond what was waited for before, and returns its line from there on.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for(&mut self, mark: &str) -> String {
        let patience = Patience::with(None);
        loop {
            let bytes = self.shown.lock().expect("what was shown").clone();
            let text = String::from_utf8_lossy(bytes.get(self.read..).unwrap_or_default()).into_owned();
            // The last line may be half there.
            let line = text.find(mark).and_then(|at| text.get(at..)?.split_once('\n').map(|(line, _)| (at, line)));
            if let Some((at, line)) = line {
                self.read += at + line.len();
                return line.trim_end_matches('\r').to_owned();
            }
            assert!(!patience.is_over(), "no '{mark}' on the terminal {patience}:\n{text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the other end hangs up.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for_end(&mut self) {
        let patience = Patience::with(None);
        while self.child.try_wait().expect("ssh's state").is_none() {
            assert!(!patience.is_over(), "the terminal is not closed {patience}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
