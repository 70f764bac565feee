//! How long a test waits for a machine. Under emulation a machine is as fast as the host lets it be: on a host that is
//! busy otherwise, a sound boot of half a minute takes several, and a fixed limit cannot tell that from a machine that
//! hangs. The time that QEMU's threads were ready to run and had no processor, which the kernel counts
//! (`/proc/PID/task/TID/schedstat`, second number, see `Documentation/scheduler/sched-stats.rst`), is therefore not held
//! against the machine.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// What a machine with processors of its own needs at most.
const LIMIT: Duration = Duration::from_secs(180);
/// The end of all patience.
const MOST: Duration = Duration::from_secs(900);

/// A wait that has begun.
#[derive(Debug)]
pub(crate) struct Patience {
    start: Instant,
    process: Option<u32>,
    starved: Duration,
}

impl Patience {
    /// Begins to wait for a machine, which is this process.
    pub fn with(process: Option<u32>) -> Self {
        Self { start: Instant::now(), process, starved: process.map(starved).unwrap_or_default() }
    }

    /// Whether it has lasted long enough.
    pub fn is_over(&self) -> bool {
        let waited = self.start.elapsed();
        waited > LIMIT && waited > (LIMIT + self.starved_since()).min(MOST)
    }

    fn starved_since(&self) -> Duration {
        self.process.map(starved).unwrap_or_default().saturating_sub(self.starved)
    }
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} s, in which it waited {} s for a processor", self.start.elapsed().as_secs(), self.starved_since().as_secs())
    }
}

/// How long the thread of a process that had it worst has waited for a processor.
fn starved(process: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Duration::ZERO };
    let waited = |text: String| text.split(' ').nth(1)?.parse().ok();
    let most = threads.flatten().filter_map(|thread| waited(fs::read_to_string(thread.path().join("schedstat")).ok()?)).max();
    Duration::from_nanos(most.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_processor_is_counted_and_does_not_end_patience() {
        // More threads than processors, all busy: some of them have to wait.
        let count = std::thread::available_parallelism().unwrap().get() * 3;
        let end = Instant::now() + Duration::from_millis(300);
        let patience = Patience::with(Some(std::process::id()));
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| while Instant::now() < end {})).collect();
            std::thread::sleep(Duration::from_millis(200));
            assert!(patience.starved_since() > Duration::from_millis(20), "{patience}");
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert!(!patience.is_over());
        let long_ago = Instant::now().checked_sub(LIMIT + Duration::from_secs(1)).unwrap();
        assert!(Patience { start: long_ago, process: None, starved: Duration::ZERO }.is_over());
    }
}
