//! Going down: containers first, then every unit in reverse order, then `shutdown::finish`; all bounded.

use unit_files::exec::{ExecCommand, ExecContext};

use super::graph::UnitId;
use super::manager::{Kind, Manager, now};
use super::protocol::{ActiveState, JobMode, Verb};
use super::restart::{Exit, Usec};
use super::spawn::Process;
use crate::shutdown::{ShutdownKind, power_key};
use crate::sys::process;

/// How long containers get.
const CONTAINERS: Usec = 12_000_000;
/// How long all units get together, whatever their own timeouts say.
const UNITS: Usec = 120_000_000;
/// Under which name the log has what follows from a key.
const POWER_KEY: &str = "power-key.service";
/// How long inhibitors may take to be read: from a disk that has died they never come.
const ASKING: Usec = 20_000_000;
/// Why it goes down when a unit of [`of_target`] was started.
pub(super) const TARGET_STARTED: &str = "its target was started";

/// How far the way down is.
#[derive(Debug, Default)]
pub(super) struct PowerState {
    kind: Option<ShutdownKind>,
    phase: Phase,
    helper: Option<i32>,
    deadline: Option<Usec>,
    asking: Option<Asking>,
}

/// Inhibitors are being asked whether a key may end it.
#[derive(Debug, Clone, Copy)]
struct Asking {
    pid: i32,
    kind: ShutdownKind,
    why: &'static str,
    since: Usec,
    deadline: Usec,
}

/// Until when inhibitors may be asked for that were asked for from `since` on: what the asking process has said that it waits for those that
/// want a moment, if it has, and what reading takes. It says so once, so nothing that hangs holds a key up for ever.
fn asked_until(since: Usec, waits: Option<Usec>) -> Usec {
    since.saturating_add(waits.unwrap_or(0)).saturating_add(ASKING)
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Up,
    Containers,
    Units,
    Now,
}

impl PowerState {
    /// Whether nobody has asked for it.
    pub fn is_none(&self) -> bool {
        self.kind.is_none()
    }

    /// Skips stopping units.
    pub fn immediate(&mut self, kind: ShutdownKind) {
        self.kind = Some(kind);
        self.phase = Phase::Now;
    }

    pub fn next_deadline(&self) -> Option<Usec> {
        [self.deadline, self.asking.map(|asking| asking.deadline)].into_iter().flatten().min()
    }

    /// Notes that the process that stops containers has ended.
    pub fn helper_ended(&mut self, pid: i32) -> bool {
        if self.helper != Some(pid) {
            return false;
        }
        self.helper = None;
        true
    }
}

impl Manager {
    /// Begins the way down; the first request wins.
    pub fn begin_power(&mut self, kind: ShutdownKind, why: &str) {
        if !self.power.is_none() {
            return;
        }
        self.power.kind = Some(kind);
        self.reporter.announce(&format!("garboard: going down ({}): {why}", word(kind)));
        self.record.phase("shutdown");
        self.weigh_units(true);
        if self.stop_containers() {
            self.power.phase = Phase::Containers;
            self.power.deadline = Some(now().saturating_add(CONTAINERS));
        } else {
            self.stop_everything();
        }
    }

    /// A key of the machine asks for it, as a person does with a command: inhibitors are minded, by a process of its own, since that reads files
    /// and waits. Where they cannot be asked the key counts all the same.
    pub fn power_key(&mut self, kind: ShutdownKind, why: &'static str) {
        if !self.power.is_none() || self.power.asking.is_some() {
            return;
        }
        let _ = std::fs::remove_file(self.paths.power_key());
        let answer = self.paths.power_key().display().to_string();
        match self.spawn_self(POWER_KEY, &["power-key", word(kind), &answer]) {
            Ok(pid) => {
                let since = now();
                self.power.asking = Some(Asking { pid, kind, why, since, deadline: asked_until(since, None) });
            }
            Err(error) => {
                self.reporter.warn(&format!("inhibitors cannot be asked: {error}"));
                self.begin_power(kind, why);
            }
        }
    }

    /// Takes note of the end of the process that asks inhibitors. Only its clear refusal counts as one.
    pub fn power_key_answered(&mut self, pid: i32, exit: Exit) -> bool {
        let Some(asking) = self.power.asking.take_if(|asking| asking.pid == pid) else { return false };
        if exit == Exit::Code(power_key::FORBIDDEN.into()) {
            let line = format!("{}: {}", asking.why, std::fs::read_to_string(self.paths.power_key()).unwrap_or_default());
            self.reporter.unit(POWER_KEY, 5, &line);
            self.reporter.announce(&format!("garboard: {line}"));
        } else {
            self.begin_power(asking.kind, asking.why);
        }
        true
    }

    /// Waits no longer for inhibitors that cannot be read; those that asked for a moment have theirs.
    fn power_key_step(&mut self) {
        let now = now();
        let Some(asking) = self.power.asking.as_mut().filter(|asking| asking.deadline <= now) else { return };
        asking.deadline = asked_until(asking.since, power_key::waits(&self.paths.power_key()));
        if asking.deadline > now {
            return;
        }
        let asking = *asking;
        self.power.asking = None;
        let _ = process::kill(asking.pid, libc::SIGKILL);
        self.reporter.warn("inhibitors cannot be read; not waiting for them any longer");
        self.begin_power(asking.kind, asking.why);
    }

    /// Goes down without stopping units.
    pub fn power_at_once(&mut self, kind: ShutdownKind, why: &str) {
        self.reporter.announce(&format!("garboard: going down at once ({}): {why}", word(kind)));
        self.power.immediate(kind);
    }

    /// Containers are told to stop while the network and everything else that they may need is still there.
    fn stop_containers(&mut self) -> bool {
        let Some(docker) = self.graph.find("docker.service") else { return false };
        if self.active_state(docker) != ActiveState::Active {
            return false;
        }
        // Docker takes a container that was told to stop for one that somebody wants stopped: those of the policy `unless-stopped` would
        // stay down at the next boot. `docker-unless-stopped.service` starts what is noted here.
        let script = "ids=$(docker ps -q) && [ -n \"$ids\" ] || exit\n\
                      running=/var/lib/garboard/containers\n\
                      docker inspect -f '{{.HostConfig.RestartPolicy.Name}} {{.Id}}' $ids | sed -n 's/^unless-stopped //p' >>$running && sync $running\n\
                      exec docker stop -t 8 $ids";
        let command = ExecCommand {
            path: "/bin/sh".to_owned(),
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            no_expansion: true,
            ..ExecCommand::default()
        };
        let context = ExecContext::default();
        match self.spawn_in("stop-containers", "system.slice/stop-containers", "", &Process::new(&command, &context)) {
            Ok(pid) => {
                self.power.helper = Some(pid);
                true
            }
            Err(why) => {
                self.reporter.warn(&format!("cannot stop containers: {why}"));
                false
            }
        }
    }

    fn stop_everything(&mut self) {
        self.power.phase = Phase::Units;
        self.power.deadline = Some(now().saturating_add(UNITS));
        // Mounts are undone by the final phase, which can cope with what is still in use.
        let units: Vec<UnitId> = self
            .units
            .iter()
            .filter(|(unit, runtime)| {
                let up = !matches!(runtime.active(), ActiveState::Inactive | ActiveState::Failed) || self.queue.get(**unit).is_some();
                up && !matches!(runtime.kind, Kind::Mount(_))
            })
            .map(|(unit, _)| *unit)
            .collect();
        let jobs: Vec<u32> = self.queue.iter().filter(|(_, job)| !job.running).map(|(_, job)| job.id).collect();
        self.cancel_jobs(&jobs);
        if let Err(why) = self.enqueue(Verb::Stop, &units, JobMode::ReplaceIrreversibly) {
            self.reporter.warn(&format!("cannot stop all units together: {why}"));
            for unit in units {
                let _ = self.enqueue(Verb::Stop, &[unit], JobMode::IgnoreDependencies);
            }
        }
    }

    /// Goes on with the way down; what to do at its end.
    pub fn power_step(&mut self) -> Option<ShutdownKind> {
        self.power_key_step();
        let kind = self.power.kind?;
        let late = self.power.deadline.is_some_and(|deadline| deadline <= now());
        match self.power.phase {
            Phase::Up => None,
            Phase::Now => Some(kind),
            Phase::Containers => {
                if self.power.helper.is_none() || late {
                    if let Some(pid) = self.power.helper.take() {
                        let _ = process::kill(pid, libc::SIGKILL);
                    }
                    self.stop_everything();
                    self.run_jobs();
                }
                None
            }
            Phase::Units => {
                let running = self
                    .units
                    .values()
                    .filter(|runtime| matches!(runtime.kind, Kind::Service(_)))
                    .any(|runtime| !matches!(runtime.active(), ActiveState::Inactive | ActiveState::Failed));
                if (self.queue.is_empty() && !running) || late {
                    if late {
                        let left: Vec<String> = self.queue.iter().map(|(unit, _)| self.name(unit)).collect();
                        self.reporter.announce(&format!("garboard: not stopped in time: {}", left.join(" ")));
                    }
                    return Some(kind);
                }
                None
            }
        }
    }
}

/// What a target is that stands for the end of the machine: its job is the end itself, with all that belongs to one.
pub(super) fn of_target(name: &str) -> Option<ShutdownKind> {
    Some(match name {
        "poweroff.target" => ShutdownKind::Poweroff,
        "reboot.target" | "ctrl-alt-del.target" => ShutdownKind::Reboot,
        "halt.target" => ShutdownKind::Halt,
        "kexec.target" => ShutdownKind::Kexec,
        _ => return None,
    })
}

fn word(kind: ShutdownKind) -> &'static str {
    match kind {
        ShutdownKind::Poweroff => "poweroff",
        ShutdownKind::Reboot => "reboot",
        ShutdownKind::Halt => "halt",
        ShutdownKind::Kexec => "kexec",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inhibitors_are_asked_for_as_long_as_they_wait_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("power-key");
        // Nothing said, or nonsense: they cannot be read.
        assert_eq!(asked_until(7, power_key::waits(&file)), 7 + ASKING);
        std::fs::write(&file, "this host does not reboot now").unwrap();
        assert_eq!(asked_until(7, power_key::waits(&file)), 7 + ASKING);
        // What they wait counts from the beginning, however often it is looked at.
        std::fs::write(&file, "waits 30").unwrap();
        assert_eq!(asked_until(7, power_key::waits(&file)), 7 + 30_000_000 + ASKING);
        std::fs::write(&file, format!("waits {}", u64::MAX)).unwrap();
        assert_eq!(asked_until(7, power_key::waits(&file)), Usec::MAX);
    }
}
