//! From "start this" to a consistent set of jobs.
//!
//! Pure: looks at a [`World`] and returns a [`Plan`]. The rules are systemd's: requirements pull in jobs, conflicts pull in stops,
//! jobs of one unit are merged, jobs that only something wanted asked for give way in a contradiction or an ordering cycle
//! (and are named), and what is already so is left out.

use std::collections::BTreeMap;

use super::graph::{Graph, UnitId};
use super::protocol::{ActiveState, JobMode, Verb};
use super::transaction_build::Build;

/// What a job does to its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobKind {
    /// Start it.
    Start,
    /// Succeeds only if it is active already.
    VerifyActive,
    /// Stop it.
    Stop,
    /// Let it read its configuration again.
    Reload,
    /// Stop, then start.
    Restart,
}

impl JobKind {
    /// The word of `systemctl list-jobs`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::VerifyActive => "verify-active",
            Self::Stop => "stop",
            Self::Reload => "reload",
            Self::Restart => "restart",
        }
    }

    /// One job that does the work of both, if there is one.
    #[must_use]
    pub fn merge(self, other: Self, active: bool) -> Option<Self> {
        use JobKind::{Reload, Restart, Start, Stop, VerifyActive};
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Stop, _) | (_, Stop) => None,
            (Restart, _) | (_, Restart) => Some(Restart),
            (Start, Reload) | (Reload, Start) => Some(if active { Reload } else { Start }),
            (Start, VerifyActive) | (VerifyActive, Start) => Some(Start),
            _ => Some(Reload),
        }
    }
}

/// A job in the queue, as far as a transaction has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Its kind.
    pub kind: JobKind,
    /// Whether it may be replaced.
    pub irreversible: bool,
}

/// Why a unit cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unloadable {
    /// There is no such file.
    #[error("Unit {0} not found.")]
    NotFound(String),
    /// It is a link to `/dev/null`.
    #[error("Unit {0} is masked.")]
    Masked(String),
    /// Its file is unusable.
    #[error("Unit {0} has a bad unit file setting: {1}")]
    BadSetting(String, String),
}

/// What a transaction looks at.
pub trait World {
    /// Names and dependencies.
    fn graph(&self) -> &Graph;
    /// The unit's state.
    fn active(&self, unit: UnitId) -> ActiveState;
    /// Whether it can be started at all.
    fn loadable(&self, unit: UnitId) -> Result<(), Unloadable>;
    /// Its job in the queue.
    fn queued(&self, unit: UnitId) -> Option<Queued>;
    /// `IgnoreOnIsolate=`.
    fn ignore_on_isolate(&self, unit: UnitId) -> bool;
    /// Whether it knows how to reload.
    fn can_reload(&self, unit: UnitId) -> bool;
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Something that has to be started cannot be.
    #[error(transparent)]
    Unloadable(#[from] Unloadable),
    /// Two jobs for one unit, both needed.
    #[error("{unit} would have to be both started and stopped: its requirements and conflicts contradict each other")]
    Contradiction {
        /// The unit.
        unit: String,
    },
    /// An ordering cycle of jobs that are all needed.
    #[error("ordering cycle that cannot be broken: {}", units.join(" after "))]
    Cycle {
        /// Each is ordered after the next; the last is the first again.
        units: Vec<String>,
    },
    /// The queue holds something else and the mode forbids replacing it.
    #[error("the queued {kind} job of {unit} is in the way")]
    Destructive {
        /// The unit.
        unit: String,
        /// What is queued.
        kind: &'static str,
    },
    /// `reload` of something that cannot.
    #[error("{unit} cannot be reloaded: it has no ExecReload=")]
    CannotReload {
        /// The unit.
        unit: String,
    },
}

/// The outcome.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Jobs to put into the queue, at most one for a unit.
    pub jobs: BTreeMap<UnitId, JobKind>,
    /// What was asked for itself, as it is after merging.
    pub anchors: Vec<UnitId>,
    /// What was left out to make the rest possible: one line each.
    pub dropped: Vec<String>,
}

/// Expands `verb` on `anchors` into jobs.
///
/// # Errors
/// When what was asked for cannot be done; nothing is half planned.
pub fn plan<W: World>(world: &W, verb: Verb, anchors: &[UnitId], mode: JobMode) -> Result<Plan, TransactionError> {
    let mut build = Build::new(world);
    let with_dependencies = mode != JobMode::IgnoreDependencies;
    for &unit in anchors {
        let Some(kind) = kind_of(world, verb, unit)? else { continue };
        build.add(unit, kind, with_dependencies)?;
        build.anchor(unit, kind);
    }
    if verb == Verb::Isolate {
        build.isolate()?;
    }
    build.drop_redundant();
    build.collect_garbage();
    build.break_cycles()?;
    build.merge()?;
    build.give_way_to_stops()?;
    build.collect_garbage();
    build.drop_redundant();
    let plan = build.finish();
    check_queue(world, &plan, mode)?;
    Ok(plan)
}

/// What `verb` means for a unit in its present state; `None` when there is nothing to do.
fn kind_of<W: World>(world: &W, verb: Verb, unit: UnitId) -> Result<Option<JobKind>, TransactionError> {
    // Of what is down only the start is left, which fails with what it requires; if it is queued already, nothing is.
    let down = is_down(world.active(unit));
    let reload = world.can_reload(unit);
    Ok(match verb {
        Verb::Start | Verb::Isolate => Some(JobKind::Start),
        Verb::Stop => Some(JobKind::Stop),
        Verb::Restart => Some(if down { JobKind::Start } else { JobKind::Restart }),
        Verb::TryRestart => (!down).then_some(JobKind::Restart),
        Verb::Reload if !reload => return Err(TransactionError::CannotReload { unit: world.graph().name(unit).to_owned() }),
        Verb::Reload => Some(JobKind::Reload),
        Verb::ReloadOrRestart if down => Some(JobKind::Start),
        Verb::TryReloadOrRestart if down => None,
        Verb::ReloadOrRestart | Verb::TryReloadOrRestart => Some(if reload { JobKind::Reload } else { JobKind::Restart }),
    })
}

pub(super) fn is_up(state: ActiveState) -> bool {
    matches!(state, ActiveState::Active | ActiveState::Activating | ActiveState::Reloading)
}

pub(super) fn is_down(state: ActiveState) -> bool {
    matches!(state, ActiveState::Inactive | ActiveState::Failed)
}

fn check_queue<W: World>(world: &W, plan: &Plan, mode: JobMode) -> Result<(), TransactionError> {
    for (&unit, &kind) in &plan.jobs {
        let Some(queued) = world.queued(unit) else { continue };
        let conflict = kind.merge(queued.kind, false).is_none();
        if conflict && (queued.irreversible || mode == JobMode::Fail) {
            return Err(TransactionError::Destructive { unit: world.graph().name(unit).to_owned(), kind: queued.kind.as_str() });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
