//! The health gate: says once, on every console, whether this boot is good, and carries out what follows for a trial.
//!
//! What could block runs beside PID 1: `init health-checks` looks at the network and the operator's checks, again and again until the
//! gate is decided, and `init trial` stores the verdict and renames the UKI.

use std::path::Path;

use super::manager::{Kind, Manager, now};
use super::protocol::ActiveState;
use super::restart::Usec;
use crate::shutdown::ShutdownKind;
use crate::sys::process;
use crate::trial::{self, Verdict};

/// How often the checks run.
const CHECK_EVERY: Usec = 1_000_000;
/// How long storing the verdict may take before the machine goes on without it.
const VERDICT_LIMIT: Usec = 60_000_000;

/// The verdict so far.
#[derive(Debug)]
pub(super) struct Health {
    settle: Usec,
    deadline: Usec,
    good_since: Option<Usec>,
    checks: Checks,
    /// The process that stores the verdict.
    storing: Option<Storing>,
    pub verdict: Option<&'static str>,
    pub complete_at: Option<Usec>,
}

/// The checks that run in a process of their own.
#[derive(Debug, Default)]
struct Checks {
    pid: Option<i32>,
    next_at: Usec,
    /// What the last run found, once there was one.
    last: Option<Result<(), String>>,
}

#[derive(Debug)]
struct Storing {
    pid: i32,
    until: Usec,
    then: Then,
}

/// What follows when the verdict is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Complete,
    Reboot,
}

impl Health {
    pub fn new(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let (settle, deadline) = parse(&text);
        Self { settle, deadline, good_since: None, checks: Checks::default(), storing: None, verdict: None, complete_at: None }
    }
}

/// `settle` and `deadline` of a TOML text, in seconds; 10 and 300 when they are not there.
fn parse(text: &str) -> (Usec, Usec) {
    let number = |key: &str, default: f64| {
        let value = text.lines().find_map(|line| {
            let (name, value) = line.split('#').next()?.split_once('=')?;
            (name.trim() == key).then(|| value.trim().parse::<f64>().ok()).flatten()
        });
        let seconds = value.filter(|value| value.is_finite() && *value >= 0.0).unwrap_or(default);
        super::restart::usec(std::time::Duration::try_from_secs_f64(seconds).unwrap_or(std::time::Duration::MAX))
    };
    (number("settle", 10.0), number("deadline", 300.0))
}

impl Manager {
    /// When the gate has to be looked at again.
    pub fn health_deadline(&self) -> Option<Usec> {
        if let Some(storing) = &self.health.storing {
            return Some(storing.until);
        }
        if self.health.verdict.is_some() || !self.power.is_none() {
            return None;
        }
        let late = self.started_at.saturating_add(self.health.deadline);
        let settled = self.health.good_since.map(|since| since.saturating_add(self.health.settle));
        let checks =
            (self.has_checks() && self.finished_at.is_some() && self.health.checks.pid.is_none()).then_some(self.health.checks.next_at);
        Some([settled, checks].into_iter().flatten().fold(late, Usec::min))
    }

    /// Looks at it.
    pub fn health_step(&mut self, now: Usec) {
        if let Some(Storing { pid, until, then }) = self.health.storing {
            if now >= until {
                self.reporter.warn("storing the verdict about this boot takes too long; going on without it");
                let _ = process::kill(pid, libc::SIGKILL);
                self.health.storing = None;
                self.verdict_stored(then);
            }
            return;
        }
        if self.health.verdict.is_some() || !self.power.is_none() {
            return;
        }
        if !self.record.rescue.is_empty() && self.finished_at.is_some() {
            let reason = format!("in rescue: {}", self.record.rescue);
            self.say("boot-degraded", Some(&reason));
            return;
        }
        let problem = self.health_problem().or_else(|| self.checks_problem(now));
        match problem {
            None => {
                let since = *self.health.good_since.get_or_insert(now);
                if now >= since.saturating_add(self.health.settle) {
                    self.pass(now);
                    return;
                }
            }
            Some(_) => self.health.good_since = None,
        }
        if now >= self.started_at.saturating_add(self.health.deadline) {
            let reason = problem.unwrap_or_else(|| "the checks did not hold long enough".to_owned());
            self.fail(&reason, now);
        }
    }

    fn pass(&mut self, now: Usec) {
        self.health.complete_at = Some(now);
        let known = !self.paths.machine || (Verdict::is_good_already(&self.record) && !trial::is_trial(&self.record.uki));
        if known || !self.store_verdict(&["trial", "good"], Then::Complete, now) {
            self.verdict_stored(Then::Complete);
        }
    }

    fn fail(&mut self, reason: &str, now: Usec) {
        if !trial::is_trial(&self.record.uki) {
            self.say("boot-degraded", Some(reason));
            return;
        }
        self.say("boot-failed", Some(reason));
        if !self.store_verdict(&["trial", "failed", reason], Then::Reboot, now) {
            self.verdict_stored(Then::Reboot);
        }
    }

    fn store_verdict(&mut self, args: &[&str], then: Then, now: Usec) -> bool {
        if !self.paths.machine {
            return false;
        }
        match self.spawn_self("trial", args) {
            Ok(pid) => {
                self.health.storing = Some(Storing { pid, until: now.saturating_add(VERDICT_LIMIT), then });
                true
            }
            Err(why) => {
                self.reporter.warn(&format!("cannot store the verdict about this boot: {why}"));
                false
            }
        }
    }

    fn verdict_stored(&mut self, then: Then) {
        match then {
            Then::Complete => {
                self.say("boot-complete", None);
                if trial::is_trial(&self.record.uki) && self.paths.machine {
                    trial::panic_on_hangs(false);
                }
                if let Err(error) = crate::boot::mark_good() {
                    crate::kmsg::warn(&format!("cannot end the count of unfinished starts: {error}"));
                }
            }
            Then::Reboot => self.begin_power(ShutdownKind::Reboot, "this version has failed its trial"),
        }
    }

    /// Takes note of the end of one of the gate's own processes.
    pub fn health_process_ended(&mut self, pid: i32, success: bool) -> bool {
        if self.health.checks.pid == Some(pid) {
            self.health.checks.pid = None;
            self.health.checks.next_at = now().saturating_add(CHECK_EVERY);
            let text = std::fs::read_to_string(self.checks_result()).unwrap_or_default();
            let problem = if text.is_empty() { "the checks could not be run".to_owned() } else { text };
            self.health.checks.last = Some(if success { Ok(()) } else { Err(problem) });
            return true;
        }
        match self.health.storing {
            Some(Storing { pid: of, then, .. }) if of == pid => {
                self.health.storing = None;
                if !success {
                    self.reporter.warn("the verdict about this boot could not be stored; see the kernel's log");
                }
                self.verdict_stored(then);
                true
            }
            _ => false,
        }
    }

    fn has_checks(&self) -> bool {
        self.paths.machine || self.paths.health_checks.is_dir()
    }

    fn checks_result(&self) -> std::path::PathBuf {
        self.paths.runtime.join("health-checks")
    }

    /// What the checks have found; starts them when it is time to.
    fn checks_problem(&mut self, now: Usec) -> Option<String> {
        if !self.has_checks() {
            return None;
        }
        if self.health.checks.pid.is_none() && now >= self.health.checks.next_at {
            let (directory, result) = (self.paths.health_checks.display().to_string(), self.checks_result().display().to_string());
            let mut args = vec!["health-checks", &directory, &result];
            if self.paths.machine {
                args.push("network");
            }
            let _ = std::fs::remove_file(&result);
            match self.spawn_self("health-checks", &args) {
                Ok(pid) => self.health.checks.pid = Some(pid),
                Err(why) => {
                    self.health.checks.next_at = now.saturating_add(CHECK_EVERY);
                    self.health.checks.last = Some(Err(format!("the checks cannot be run: {why}")));
                }
            }
        }
        match &self.health.checks.last {
            None => Some("the checks have not ended yet".to_owned()),
            Some(result) => result.clone().err(),
        }
    }

    fn health_problem(&self) -> Option<String> {
        if self.finished_at.is_none() {
            let mut waiting: Vec<String> =
                self.queue.iter().filter(|(_, job)| self.startup.contains(&job.id)).map(|(unit, _)| self.name(unit)).collect();
            waiting.truncate(5);
            return Some(format!("start-up jobs are not done: {}", waiting.join(" ")));
        }
        let bad: Vec<String> = self
            .units
            .iter()
            .filter(|(_, runtime)| runtime.def.health == unit_files::unit::Health::Required)
            .filter(|(unit, runtime)| self.was_wanted(**unit) && runtime.condition_failed.is_none())
            .filter(|(_, runtime)| !is_healthy(runtime.active(), &runtime.kind))
            .map(|(unit, runtime)| format!("{} is {}", self.name(*unit), runtime.active().as_str()))
            .collect();
        (!bad.is_empty()).then(|| bad.join(", "))
    }

    /// Whether something pulls it in: an installed but disabled unit is nobody's business.
    fn was_wanted(&self, unit: super::graph::UnitId) -> bool {
        use super::graph::Dep;
        [Dep::WantedBy, Dep::RequiredBy, Dep::BoundBy, Dep::UpheldBy].into_iter().any(|dep| self.graph.of(unit, dep).next().is_some())
    }

    fn say(&mut self, verdict: &'static str, reason: Option<&str>) {
        self.health.verdict = Some(verdict);
        let uptime = crate::sys::time::uptime();
        let (version, slot) = (&self.record.version, &self.record.slot);
        let line = match reason {
            None => format!("garboard: {verdict} version={version} slot={slot} uptime={uptime:.3}"),
            Some(reason) => format!("garboard: {verdict} version={version} slot={slot} reason={}", reason.replace('\n', " ")),
        };
        self.reporter.announce(&line);
        self.reporter.unit("", 5, &line);
        self.record.phase(verdict);
        self.store_record();
    }

    /// Writes `boot.json`.
    pub fn store_record(&mut self) {
        if self.paths.machine
            && let Err(why) = self.record.store()
        {
            self.reporter.warn(&why.to_string());
        }
        let _ = now();
    }
}

fn is_healthy(state: ActiveState, kind: &Kind) -> bool {
    match state {
        ActiveState::Active | ActiveState::Reloading => true,
        // A oneshot that has done its work.
        ActiveState::Inactive => matches!(kind, Kind::Service(service) if service.main_exit == Some(super::restart::Exit::Code(0))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn settings_have_defaults_and_tests_may_shorten_them() {
        assert_eq!(parse(""), (10_000_000, 300_000_000));
        assert_eq!(parse("# gate\nsettle = 0.5 # short\ndeadline=20\n"), (500_000, 20_000_000));
        assert_eq!(parse("settle = soon\ndeadline = -3\n"), (10_000_000, 300_000_000));
    }
}
