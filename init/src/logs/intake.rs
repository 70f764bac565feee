//! From parsed input to stored entries: who sent it, is it too much, when was it.
//!
//! Relies on a [`Store`] that never blocks for long. Promises: a sender without privilege cannot speak for another unit,
//! and every line that is dropped is counted in a later line.

use super::format::{Entry, Source};
use super::inputs::{self, NativeMessage, StreamHeader};
use super::rate_limit::{RateLimit, RateLimiter, Verdict};
use super::store::Store;
use crate::sys::credentials::Credentials as Sender;
use std::collections::HashMap;
use std::path::PathBuf;

/// Both clocks, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Since 1970.
    pub realtime: u64,
    /// Since the kernel started.
    pub monotonic: u64,
}

impl Now {
    /// Reads the clocks.
    pub fn read() -> Now {
        let micros = |clock| {
            let time = rustix::time::clock_gettime(clock);
            u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
        };
        Now { realtime: micros(rustix::time::ClockId::Realtime), monotonic: micros(rustix::time::ClockId::Monotonic) }
    }
}

/// The unit that owns a process, by its cgroup: `0::/system.slice/docker.service` is `docker.service`.
pub fn unit_of_cgroup(cgroup: &str) -> Option<&str> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A delegated unit has cgroups of its own below: the outermost name that is a unit's counts.
    path.split('/').find(|part| [".service", ".socket", ".mount", ".swap", ".scope"].iter().any(|suffix| part.ends_with(suffix)))
}

/// Turns what was received into entries.
pub struct Intake {
    store: Option<Store>,
    lost_without_store: u64,
    limiter: RateLimiter,
    limit: RateLimit,
    proc: PathBuf,
    units: HashMap<u32, (u64, String)>,
    urgent: bool,
    last_kernel: Option<u64>,
}

impl Intake {
    /// Stores into `store`, limits by `limit`, looks processes up in `proc`.
    pub fn new(store: Option<Store>, limit: RateLimit, proc: PathBuf) -> Intake {
        let last_kernel = store.as_ref().and_then(Store::last_kernel_sequence);
        Intake {
            store,
            lost_without_store: 0,
            limiter: RateLimiter::default(),
            limit,
            proc,
            units: HashMap::new(),
            urgent: false,
            last_kernel,
        }
    }

    /// The store, when it could be opened.
    pub fn store(&mut self) -> Option<&mut Store> {
        self.store.as_mut()
    }

    /// Gives a store that could be opened only later.
    pub fn set_store(&mut self, store: Store, now: Now) {
        self.last_kernel = self.last_kernel.or(store.last_kernel_sequence());
        self.store = Some(store);
        let lost = std::mem::take(&mut self.lost_without_store);
        if lost > 0 {
            self.own_line(now, "garboard-log.service", &format!("{lost} messages were lost: the log store could not be opened"));
        }
    }

    /// Whether something of level `err` or worse came in since the last call.
    pub fn take_urgent(&mut self) -> bool {
        std::mem::take(&mut self.urgent)
    }

    /// A line of a service's output.
    pub fn stream_line(&mut self, header: &StreamHeader, sender: Sender, line: &[u8], now: Now) {
        let (priority, message) = match inputs::level_prefix(line) {
            Some((level, rest)) if header.level_prefix => (level, rest),
            _ => (header.priority & 7, line),
        };
        if header.max_level.is_some_and(|most| priority > most) {
            return;
        }
        let limit = RateLimit {
            interval: header.rate_interval_usec.unwrap_or(self.limit.interval),
            burst: header.rate_burst.unwrap_or(self.limit.burst),
        };
        let entry = Entry {
            realtime: now.realtime,
            monotonic: now.monotonic,
            pid: sender.pid,
            uid: sender.uid,
            priority,
            source: Source::Stdout,
            unit: &header.unit,
            identifier: &header.identifier,
            message,
            kernel_sequence: None,
            invocation: &header.invocation,
        };
        self.submit(&entry, Some(limit));
    }

    /// A native datagram. What is not in the format is logged as text.
    pub fn native(&mut self, datagram: &[u8], sender: Sender, now: Now) {
        let Ok(message) = serde_json::from_slice::<NativeMessage>(datagram) else {
            return self.syslog(datagram, sender, now);
        };
        let trusted = sender.uid == Some(0);
        let own_unit = if trusted && !message.unit.is_empty() { message.unit } else { self.unit_of(sender.pid, now) };
        let entry = Entry {
            realtime: now.realtime,
            monotonic: now.monotonic,
            pid: message.pid.filter(|_| trusted).unwrap_or(sender.pid),
            uid: sender.uid,
            priority: message.priority & 7,
            source: Source::Native,
            unit: &own_unit,
            identifier: &message.identifier,
            message: message.message.trim_end().as_bytes(),
            kernel_sequence: None,
            invocation: &message.invocation,
        };
        self.submit(&entry, Some(self.limit));
    }

    /// A syslog datagram.
    pub fn syslog(&mut self, datagram: &[u8], sender: Sender, now: Now) {
        let parsed = inputs::syslog(datagram);
        let unit = self.unit_of(sender.pid, now);
        let entry = Entry {
            realtime: now.realtime,
            monotonic: now.monotonic,
            // The kernel knows better than the sender, unless it cannot see it.
            pid: if sender.pid == 0 { parsed.pid.unwrap_or(0) } else { sender.pid },
            uid: sender.uid,
            priority: parsed.priority,
            source: Source::Syslog,
            unit: &unit,
            identifier: parsed.identifier,
            message: parsed.message,
            kernel_sequence: None,
            invocation: "",
        };
        self.submit(&entry, Some(self.limit));
    }

    /// A record of the kernel's buffer; those stored before a restart of the daemon are skipped.
    pub fn kernel(&mut self, record: &[u8], now: Now) {
        let Some(record) = inputs::kernel(record) else { return };
        if self.last_kernel.is_some_and(|last| record.sequence <= last) {
            return;
        }
        self.last_kernel = Some(record.sequence);
        let tagged = if record.facility == 0 { None } else { inputs::kernel_tag(&record.message) };
        let (identifier, pid, message) = match (record.facility, tagged) {
            (0, _) => ("kernel", None, &*record.message),
            (_, Some(tagged)) => tagged,
            (_, None) => ("", None, &*record.message),
        };
        let entry = Entry {
            // It was written when it says, which may be long before we read it.
            realtime: now.realtime.saturating_sub(now.monotonic.saturating_sub(record.monotonic)),
            monotonic: record.monotonic,
            pid: pid.unwrap_or(0),
            uid: None,
            priority: record.priority,
            source: Source::Kernel,
            unit: "",
            identifier,
            message,
            kernel_sequence: Some(record.sequence),
            invocation: "",
        };
        self.submit(&entry, None);
    }

    /// The name of the unit that a process belongs to, or nothing.
    pub fn unit_of(&mut self, pid: u32, now: Now) -> String {
        if pid == 0 {
            return String::new();
        }
        // A pid may be another process's soon: remembered for a second, which is what a noisy sender needs.
        if let Some((read, unit)) = self.units.get(&pid)
            && now.monotonic < read + 1_000_000
        {
            return unit.clone();
        }
        if self.units.len() > 512 {
            self.units.clear();
        }
        let cgroup = std::fs::read_to_string(self.proc.join(format!("{pid}/cgroup"))).unwrap_or_default();
        let unit = unit_of_cgroup(&cgroup).unwrap_or_default().to_owned();
        self.units.insert(pid, (now.monotonic, unit.clone()));
        unit
    }

    /// Reports units that were cut short and have fallen silent since.
    pub fn report_suppressed(&mut self, now: Now) {
        for (unit, count) in self.limiter.expired(self.limit, now.monotonic) {
            self.own_line(now, &unit, &suppressed_text(&unit, count));
        }
    }

    /// Whether [`Intake::report_suppressed`] will have something to report.
    pub fn any_suppressed(&self) -> bool {
        self.limiter.any_suppressed()
    }

    fn submit(&mut self, entry: &Entry<'_>, limit: Option<RateLimit>) {
        if let Some(limit) = limit {
            let who = if entry.unit.is_empty() { entry.identifier } else { entry.unit };
            match self.limiter.check(who, limit, entry.monotonic) {
                Verdict::Suppress => return,
                Verdict::Store { suppressed: 0 } => {}
                Verdict::Store { suppressed } => {
                    let now = Now { realtime: entry.realtime, monotonic: entry.monotonic };
                    self.own_line(now, entry.unit, &suppressed_text(who, suppressed));
                }
            }
        }
        self.urgent |= entry.priority <= 3;
        match &mut self.store {
            Some(store) => store.append(entry),
            None => self.lost_without_store += 1,
        }
    }

    fn own_line(&mut self, now: Now, unit: &str, text: &str) {
        let entry = Entry {
            realtime: now.realtime,
            monotonic: now.monotonic,
            pid: std::process::id(),
            uid: Some(0),
            priority: 4,
            source: Source::Daemon,
            unit,
            identifier: "log-daemon",
            message: text.as_bytes(),
            kernel_sequence: None,
            invocation: "",
        };
        self.submit(&entry, None);
    }
}

fn suppressed_text(who: &str, count: u64) -> String {
    format!(
        "{count} messages from {who} were suppressed: over the rate limit (RateLimitBurst= in journald.conf, LogRateLimitBurst= of the unit)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_unit_of_a_cgroup_path_counts() {
        assert_eq!(unit_of_cgroup("0::/system.slice/docker.service\n"), Some("docker.service"));
        assert_eq!(unit_of_cgroup("0::/system.slice/foo.service/inner.scope\n"), Some("foo.service"));
        assert_eq!(unit_of_cgroup("0::/init.scope\n"), Some("init.scope"));
        assert_eq!(unit_of_cgroup("0::/docker/0123abcd\n"), None);
        assert_eq!(unit_of_cgroup(""), None);
    }
}
