//! The health gate: says once, on every console, whether this boot is good.

use std::path::Path;

use super::manager::{Kind, Manager, now};
use super::protocol::ActiveState;
use super::restart::Usec;

/// The verdict so far.
#[derive(Debug)]
pub(super) struct Health {
    settle: Usec,
    deadline: Usec,
    good_since: Option<Usec>,
    pub verdict: Option<&'static str>,
    pub complete_at: Option<Usec>,
}

impl Health {
    pub fn new(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let (settle, deadline) = parse(&text);
        Self { settle, deadline, good_since: None, verdict: None, complete_at: None }
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
        if self.health.verdict.is_some() || !self.power.is_none() {
            return None;
        }
        let late = self.started_at.saturating_add(self.health.deadline);
        Some(self.health.good_since.map_or(late, |since| since.saturating_add(self.health.settle).min(late)))
    }

    /// Looks at it.
    pub fn health_step(&mut self, now: Usec) {
        if self.health.verdict.is_some() || !self.power.is_none() {
            return;
        }
        let problem = self.health_problem();
        match problem {
            None => {
                let since = *self.health.good_since.get_or_insert(now);
                if now >= since.saturating_add(self.health.settle) {
                    self.health.complete_at = Some(now);
                    self.say("boot-complete", None);
                    if let Err(error) = crate::boot::mark_good() {
                        crate::kmsg::warn(&format!("cannot end the count of unfinished starts: {error}"));
                    }
                    return;
                }
            }
            Some(_) => self.health.good_since = None,
        }
        if now >= self.started_at.saturating_add(self.health.deadline) {
            let reason = problem.unwrap_or_else(|| "the checks did not hold long enough".to_owned());
            // A trial's UKI carries its tries in its name.
            let trial = self.record.uki.contains('+');
            self.say(if trial { "boot-failed" } else { "boot-degraded" }, Some(&reason));
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
