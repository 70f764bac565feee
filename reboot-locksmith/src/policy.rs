//! The policy: lock AND window AND no inhibitor AND quorum AND jitter. One pure function, [`judge`], asked again at every step until the
//! call that reboots; it answers what may be done now and why, gate by gate, in plain words.

use reboot_rules::inhibitors::{Inhibitor, Mode};
use reboot_rules::settings::{EtcdDown, Settings, Strategy};
use reboot_rules::windows::{Opening, spread};
use reboot_rules::{Seconds, show_span, show_time};
use serde::{Deserialize, Serialize};

/// Who wants a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// An update is in place.
    Update,
    /// `locksmithctl send-need-reboot`: as an update, without one.
    Request,
    /// `locksmithctl reboot`: somebody chose the moment, so windows and jitter do not count.
    Person,
}

/// A reboot that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Who wants it.
    pub origin: Origin,
    /// The version that the next boot starts, where it is another one.
    pub version: Option<String>,
    /// Why.
    pub reason: String,
    /// By whom.
    pub by: String,
    /// Since when.
    pub since: Seconds,
}

/// What is known about this boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// Its health gate has held.
    Healthy,
    /// Not yet decided.
    Starting,
    /// It has not held.
    Unhealthy(String),
}

/// What is known about the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockFact {
    /// Not asked yet.
    Unknown,
    /// We have it.
    Held,
    /// Others have it.
    Waiting(String),
    /// The version has failed on some host: nobody gets the lock for it.
    Quarantined(String),
    /// It cannot be asked, since when, and why.
    Down {
        /// Since when, as [`Facts::uptime`].
        since: Seconds,
        /// Why.
        why: String,
    },
    /// The answer was no, or is not understood: a mistake of somebody's, not an outage.
    Refused(String),
}

/// What is known about the etcd cluster that this host is a member of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuorumFact {
    /// Not asked yet.
    Unknown,
    /// It is a member of none.
    NotMember,
    /// The rest keeps quorum, and this host has the reservation; with a remark where the cluster is too small.
    Reserved(Option<String>),
    /// The rest would not, or it is another member's turn.
    Refused(String),
    /// The cluster cannot be asked.
    Down {
        /// Since when, as [`Facts::uptime`].
        since: Seconds,
        /// Why.
        why: String,
    },
}

/// Everything that the policy looks at.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The clock.
    pub now: Seconds,
    /// A clock that nobody sets: how long something has been so, or has to be, goes by this one.
    pub uptime: Seconds,
    /// The settings.
    pub settings: &'a Settings,
    /// The strategy.
    pub strategy: Strategy,
    /// Why the settings are not to be trusted, if so.
    pub doubt: Option<String>,
    /// The reboot that is wanted.
    pub wanted: Option<Wanted>,
    /// How the windows stand.
    pub opening: Opening,
    /// This host's number, for the jitter.
    pub number: u64,
    /// All inhibitors.
    pub inhibitors: Vec<Inhibitor>,
    /// This boot.
    pub boot: Boot,
    /// Until when, as [`Facts::uptime`], nothing is tried since the last attempt failed, and how.
    pub pause: Option<(Seconds, String)>,
    /// The lock.
    pub lock: LockFact,
    /// The quorum.
    pub quorum: QuorumFact,
}

impl Facts<'_> {
    /// What the clock showed or will show at an uptime, as it is set now.
    #[must_use]
    pub fn clock_at(&self, uptime: Seconds) -> Seconds {
        self.now.saturating_add(uptime).saturating_sub(self.uptime)
    }
}

/// What may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Nothing is wanted.
    Rest,
    /// Something on this host is against it: no lock may be held for it.
    Wait,
    /// Nothing on this host is against it: the lock and the reservation may be asked for.
    Coordinate,
    /// Everything holds.
    Go,
}

/// One part of the policy, and how it stands. The field names and kinds are documented and stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// `wanted`, `strategy`, `settings`, `boot`, `pause`, `window`, `jitter`, `inhibitor`, `quarantine`, `lock`, `quorum`; of a phase: `users`, `delay`,
    /// `drain`.
    pub kind: String,
    /// Whether it lets the reboot pass.
    pub open: bool,
    /// In plain words.
    pub text: String,
    /// When that may change by itself.
    #[serde(default)]
    pub until: Option<Seconds>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What may be done.
    pub decision: Decision,
    /// Why, gate by gate.
    pub gates: Vec<Gate>,
    /// When to ask again, if nothing else happens.
    pub until: Option<Seconds>,
}

impl Judgement {
    /// What is against it, in one line.
    #[must_use]
    pub fn against(&self) -> String {
        let closed: Vec<&str> = self.gates.iter().filter(|gate| !gate.open).map(|gate| gate.text.as_str()).collect();
        closed.join("; ")
    }
}

fn gate(kind: &str, open: bool, text: impl Into<String>, until: Option<Seconds>) -> Gate {
    Gate { kind: kind.to_owned(), open, text: text.into(), until }
}

/// Judges.
#[must_use]
pub fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(wanted) = &facts.wanted else {
        let gates = vec![gate("wanted", false, "no reboot is wanted", None)];
        return Judgement { decision: Decision::Rest, gates, until: None };
    };
    let mut gates = vec![gate("wanted", true, format!("a reboot is wanted by {}: {}", wanted.by, wanted.reason), None)];
    local(facts, wanted, &mut gates);
    let clear = gates.iter().all(|gate| gate.open);
    let mut decision = if clear { Decision::Coordinate } else { Decision::Wait };
    // A closed window may close for good while we ask others, so these come last, and count only with all others.
    lock(facts, &mut gates);
    quorum(facts, &mut gates);
    if gates.iter().all(|gate| gate.open) {
        decision = Decision::Go;
    }
    // Open gates with a time close then; closed ones open.
    let until = gates.iter().filter_map(|gate| gate.until).filter(|at| *at > facts.now).min();
    Judgement { decision, gates, until }
}

/// What this host knows by itself.
fn local(facts: &Facts<'_>, wanted: &Wanted, gates: &mut Vec<Gate>) {
    let person = wanted.origin == Origin::Person;
    if let Some(doubt) = &facts.doubt {
        gates.push(gate("settings", false, format!("the settings are not understood, and no reboot follows doubtful ones: {doubt}"), None));
    }
    if facts.strategy == Strategy::Off && !person {
        gates.push(gate("strategy", false, "the strategy is off: somebody else reboots, `locksmithctl reboot` for one", None));
    }
    match &facts.boot {
        Boot::Healthy => {}
        Boot::Starting if person => {}
        Boot::Starting => gates.push(gate("boot", false, "this boot is not yet found healthy", None)),
        Boot::Unhealthy(_) if person => {}
        Boot::Unhealthy(why) => {
            gates.push(gate("boot", false, format!("this boot is not healthy, and a reboot would not tell why: {why}"), None));
        }
    }
    if let Some((until, why)) = facts.pause.as_ref().filter(|(until, _)| *until > facts.uptime) {
        let at = facts.clock_at(*until);
        gates.push(gate("pause", false, format!("the last attempt failed: {why}; the next is at {}", show_time(at)), Some(at)));
    }
    if person {
        gates.push(gate("window", true, "somebody chose the moment: windows and jitter do not count", None));
    } else {
        window(facts, wanted, gates);
    }
    let blocking: Vec<&Inhibitor> =
        facts.inhibitors.iter().filter(|inhibitor| inhibitor.concerns_shutdown() && inhibitor.mode == Mode::Block).collect();
    for inhibitor in &blocking {
        gates.push(gate("inhibitor", false, inhibitor.describe(), inhibitor.until));
    }
    if blocking.is_empty() {
        gates.push(gate("inhibitor", true, "no inhibitor forbids it", None));
    }
}

fn window(facts: &Facts<'_>, wanted: &Wanted, gates: &mut Vec<Gate>) {
    match facts.opening {
        Opening::Always => gates.push(gate("window", true, "there are no windows: any time will do", None)),
        Opening::Open { until, .. } => {
            gates.push(gate("window", true, format!("a window is open until {}", show_time(until)), Some(until)));
        }
        Opening::Closed { next: Some(next) } => {
            gates.push(gate("window", false, format!("no window is open; the next opens at {}", show_time(next)), Some(next)));
        }
        Opening::Closed { next: None } => gates.push(gate("window", false, "no window is open, and none opens ever again", None)),
    }
    // Nobody waits for a clock that was set back to catch up. A small step leaves hosts spread as they are.
    let since = if wanted.since > facts.now.saturating_add(facts.settings.jitter) { 0 } else { wanted.since };
    let Some(from) = spread(facts.opening, since, facts.settings.jitter, facts.number) else { return };
    if from > facts.now {
        let text = format!("hosts are spread over {}: this one's turn is at {}", show_span(facts.settings.jitter), show_time(from));
        gates.push(gate("jitter", false, text, Some(from)));
    } else if facts.settings.jitter > 0 {
        gates.push(gate("jitter", true, format!("this host's turn came at {}", show_time(from)), None));
    }
}

/// Whether an outage of etcd since then is long enough to go on without it; if not, when it is.
fn proceeds(facts: &Facts<'_>, since: Seconds) -> Result<(), Option<Seconds>> {
    match facts.settings.etcd_down {
        _ if facts.strategy == Strategy::BestEffort => Ok(()),
        EtcdDown::Wait => Err(None),
        EtcdDown::ProceedAfter(span) if facts.uptime >= since.saturating_add(span) => Ok(()),
        EtcdDown::ProceedAfter(span) => Err(Some(facts.clock_at(since.saturating_add(span)))),
    }
}

fn outage(facts: &Facts<'_>, kind: &str, who: &str, since: Seconds, why: &str) -> Gate {
    let said = format!("{who} cannot be asked since {}: {why}", show_time(facts.clock_at(since)));
    match proceeds(facts, since) {
        Ok(()) => gate(kind, true, format!("{said}; going on without, as the settings say"), None),
        Err(None) => gate(kind, false, format!("{said}; waiting for it, as the settings say"), None),
        Err(Some(at)) => gate(kind, false, format!("{said}; going on without at {}, as the settings say", show_time(at)), Some(at)),
    }
}

fn lock(facts: &Facts<'_>, gates: &mut Vec<Gate>) {
    let who = match facts.strategy {
        Strategy::Off | Strategy::Reboot => return,
        Strategy::FleetLock => "the FleetLock server",
        Strategy::EtcdLock | Strategy::BestEffort => "etcd",
    };
    let group = &facts.settings.group;
    gates.push(match &facts.lock {
        LockFact::Unknown => gate("lock", false, format!("the lock of group {group} is not asked for yet"), None),
        LockFact::Held => gate("lock", true, format!("this host has the lock of group {group}"), None),
        LockFact::Waiting(holders) => gate("lock", false, format!("waiting for the lock of group {group}: {holders}"), None),
        LockFact::Quarantined(why) => gate("quarantine", false, why.clone(), None),
        LockFact::Refused(why) => gate("lock", false, format!("the lock of group {group} was refused: {why}"), None),
        // A server that others run has no outage that the settings know: without its word nothing goes.
        LockFact::Down { since, why } if facts.strategy == Strategy::FleetLock => {
            gate("lock", false, format!("{who} cannot be asked since {}: {why}", show_time(facts.clock_at(*since))), None)
        }
        LockFact::Down { since, why } => outage(facts, "lock", who, *since, why),
    });
}

fn quorum(facts: &Facts<'_>, gates: &mut Vec<Gate>) {
    if !facts.settings.quorum {
        return;
    }
    gates.push(match &facts.quorum {
        QuorumFact::NotMember => return,
        QuorumFact::Unknown => gate("quorum", false, "the etcd cluster is not asked for its quorum yet", None),
        QuorumFact::Reserved(None) => gate("quorum", true, "the rest of the etcd cluster keeps its quorum", None),
        QuorumFact::Reserved(Some(remark)) => gate("quorum", true, remark.clone(), None),
        QuorumFact::Refused(why) => gate("quorum", false, why.clone(), None),
        QuorumFact::Down { since, why } => outage(facts, "quorum", "the etcd cluster", *since, why),
    });
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
