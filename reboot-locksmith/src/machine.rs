//! The daemon's states as pure data: where it is, what it knows, and what follows.
//!
//! ```text
//! idle -> waiting -> locking -> locked -> draining -> drained -> rebooting
//!   ^        ^----------+----------+---------+-----------+----------+   whenever the policy says no: undo, give the lock back
//! ```
//! Level-triggered: [`step`] looks at the phase and the facts of this moment, never at what happened in between, so that a daemon that was
//! killed anywhere goes on where its journal says. A phase is in the journal before its actions are done; doing one twice does no harm.

use reboot_rules::inhibitors::{Inhibitor, Mode};
use reboot_rules::{Seconds, show_span, show_time};
use serde::{Deserialize, Serialize};

use crate::policy::{Decision, Facts, Gate, Judgement, LockFact, QuorumFact, judge};

/// Where the daemon is. The names are documented and stable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Phase {
    /// No reboot is wanted.
    #[default]
    Idle,
    /// Something on this host is against it.
    Waiting,
    /// The lock or the reservation is being asked for.
    Locking,
    /// Everything holds; users are warned and inhibitors of mode `delay` waited for.
    Locked {
        /// Since when, as [`Facts::uptime`]: nobody has less time for a clock that is set meanwhile.
        since: Seconds,
        /// By how many seconds users have put it off: what they were told holds although the daemon is killed.
        #[serde(default)]
        extended: Seconds,
    },
    /// Hooks run and containers stop.
    Draining {
        /// Since when, as [`Facts::uptime`].
        since: Seconds,
    },
    /// All is ready for the reboot.
    Drained,
    /// PID 1 has been told.
    Rebooting,
}

impl Phase {
    /// All names, for metrics.
    pub const NAMES: [&'static str; 7] = ["idle", "waiting", "locking", "locked", "draining", "drained", "rebooting"];

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Locking => "locking",
            Self::Locked { .. } => "locked",
            Self::Draining { .. } => "draining",
            Self::Drained => "drained",
            Self::Rebooting => "rebooting",
        }
    }

    /// Whether it may have left something with others: a lock, a place in a queue, a reservation.
    #[must_use]
    pub fn holds(self) -> bool {
        !matches!(self, Self::Idle | Self::Waiting)
    }

    /// Whether hooks may have run or containers been stopped.
    #[must_use]
    pub fn has_drained(self) -> bool {
        matches!(self, Self::Draining { .. } | Self::Drained | Self::Rebooting)
    }
}

/// How the work before the reboot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Not begun, or its daemon was killed.
    None,
    /// It goes on.
    Running,
    /// It is done.
    Done,
    /// It failed: the reboot is called off.
    Failed(String),
}

/// What [`step`] looks at beside the policy's facts.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Drain.
    pub work: Work,
    /// Why PID 1 did not reboot.
    pub reboot_failed: Option<String>,
    /// How many terminals people use; `None`: not known, which counts as some.
    pub users: Option<usize>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for the lock and the reservation, and move etcd's leadership away.
    Acquire,
    /// Give back the lock, the place in its queue and the reservation.
    Release(String),
    /// Tell people that the host reboots then.
    Warn(Seconds),
    /// Tell programs that hold inhibitors of mode `delay`.
    Announce,
    /// Begin the drain.
    Drain,
    /// Undo the drain.
    Undrain(String),
    /// Try nothing for a while.
    Pause(String),
    /// Judge once more, and tell PID 1.
    Reboot,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The next phase.
    pub phase: Phase,
    /// What to do on the way, in order.
    pub actions: Vec<Action>,
    /// The policy's answer.
    pub judgement: Judgement,
    /// When to look again, if nothing happens before.
    pub until: Option<Seconds>,
}

/// Until when, as the clock is set now, users and inhibitors of mode `delay` are waited for, and what for.
#[must_use]
pub fn patience(facts: &Facts<'_>, progress: &Progress, (since, extended): (Seconds, Seconds)) -> Vec<(Seconds, Gate)> {
    let mut waits = Vec::new();
    let warned = facts.clock_at(since.saturating_add(facts.settings.warn).saturating_add(extended));
    // What somebody was told holds, also when he has left.
    if (progress.users != Some(0) || extended > 0) && warned > facts.now {
        let who = match progress.users {
            None => "it is not known who is logged in".to_owned(),
            Some(0) => "it was put off".to_owned(),
            Some(users) => format!("{users} terminal(s) are in use"),
        };
        let text = format!("{who}: the reboot is at {}; `locksmithctl extend 15m` puts it off", show_time(warned));
        waits.push((warned, Gate { kind: "users".to_owned(), open: false, text, until: Some(warned) }));
    }
    let delayed = facts.clock_at(since.saturating_add(facts.settings.inhibit_delay));
    let delaying = |inhibitor: &&Inhibitor| inhibitor.concerns_shutdown() && inhibitor.mode == Mode::Delay;
    for inhibitor in facts.inhibitors.iter().filter(delaying).filter(|_| delayed > facts.now) {
        waits.push((delayed, Gate { kind: "delay".to_owned(), open: false, text: inhibitor.describe(), until: Some(delayed) }));
    }
    waits
}

/// That the work before the reboot goes on: how long has it, and until when may it.
fn drain_gate(facts: &Facts<'_>, since: Seconds) -> Gate {
    let (begun, limit) = (facts.clock_at(since), facts.settings.drain.timeout);
    let text = format!("hooks run and containers stop since {}, for at most {}", show_time(begun), show_span(limit));
    Gate { kind: "drain".to_owned(), open: false, text, until: Some(begun.saturating_add(limit)) }
}

/// What follows from where the daemon is and what it knows.
#[must_use]
pub fn step(phase: Phase, facts: &Facts<'_>, progress: &Progress) -> Step {
    let mut judgement = judge(facts);
    let mut until = judgement.until;
    let mut actions = Vec::new();
    let give_up = |actions: &mut Vec<Action>, why: &str| {
        if phase.has_drained() {
            actions.push(Action::Undrain(why.to_owned()));
        }
        let holds = facts.lock == LockFact::Held || matches!(facts.quorum, QuorumFact::Reserved(_));
        if phase.holds() || holds {
            actions.push(Action::Release(why.to_owned()));
        }
    };
    let next = match (judgement.decision, phase) {
        // PID 1 does not stop once it has begun: what is said to others from here on would be wrong soon.
        (_, Phase::Rebooting) => match &progress.reboot_failed {
            None => Phase::Rebooting,
            Some(why) => {
                give_up(&mut actions, why);
                actions.push(Action::Pause(why.clone()));
                Phase::Waiting
            }
        },
        (Decision::Rest, _) => {
            give_up(&mut actions, "no reboot is wanted any more");
            Phase::Idle
        }
        (Decision::Wait, _) => {
            give_up(&mut actions, &judgement.against());
            Phase::Waiting
        }
        (Decision::Coordinate | Decision::Go, Phase::Idle | Phase::Waiting) => {
            actions.push(Action::Acquire);
            Phase::Locking
        }
        (Decision::Coordinate, Phase::Locking) => {
            actions.push(Action::Acquire);
            Phase::Locking
        }
        // What was held is held no more: nothing goes on as if it were.
        (Decision::Coordinate, _) => {
            give_up(&mut actions, &judgement.against());
            Phase::Waiting
        }
        (Decision::Go, Phase::Locking) => {
            if progress.users != Some(0) && facts.settings.warn > 0 {
                actions.push(Action::Warn(facts.now.saturating_add(facts.settings.warn)));
            }
            actions.push(Action::Announce);
            Phase::Locked { since: facts.uptime, extended: 0 }
        }
        (Decision::Go, Phase::Locked { since, extended }) => {
            let waits = patience(facts, progress, (since, extended));
            let next = waits.iter().map(|(at, _)| *at).min();
            until = [until, next].into_iter().flatten().min();
            judgement.gates.extend(waits.into_iter().map(|(_, gate)| gate));
            if next.is_some() {
                phase
            } else {
                actions.push(Action::Drain);
                Phase::Draining { since: facts.uptime }
            }
        }
        (Decision::Go, Phase::Draining { since }) => match &progress.work {
            Work::Running => {
                judgement.gates.push(drain_gate(facts, since));
                phase
            }
            Work::Done => Phase::Drained,
            Work::Failed(why) => {
                give_up(&mut actions, why);
                actions.push(Action::Pause(why.clone()));
                Phase::Waiting
            }
            // The daemon was killed over it: the hooks are made for being run again.
            Work::None => {
                actions.push(Action::Drain);
                Phase::Draining { since: facts.uptime }
            }
        },
        (Decision::Go, Phase::Drained) => {
            actions.push(Action::Reboot);
            Phase::Rebooting
        }
    };
    Step { phase: next, actions, judgement, until }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
