//! From "start this" to a consistent set of jobs.
//!
//! Pure: looks at a [`World`] and returns a [`Plan`]. The rules are systemd's: requirements pull in jobs, conflicts pull in stops,
//! jobs of one unit are merged, jobs that only something wanted asked for give way in a contradiction or an ordering cycle
//! (and are named), and what is already so is left out.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Dep, Graph, UnitId};
use super::protocol::{ActiveState, JobMode, Verb};

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
    let mut build = Build { world, jobs: BTreeSet::new(), links: BTreeSet::new(), anchors: Vec::new(), dropped: Vec::new() };
    let with_dependencies = mode != JobMode::IgnoreDependencies;
    for &unit in anchors {
        let Some(kind) = kind_of(world, verb, unit)? else { continue };
        build.add(unit, kind, with_dependencies)?;
        build.anchors.push((unit, kind));
    }
    if verb == Verb::Isolate {
        build.isolate();
    }
    build.drop_redundant();
    build.collect_garbage();
    build.break_cycles()?;
    build.merge()?;
    build.collect_garbage();
    build.drop_redundant();
    let plan = build.finish();
    check_queue(world, &plan, mode)?;
    Ok(plan)
}

/// What `verb` means for a unit in its present state; `None` when there is nothing to do.
fn kind_of<W: World>(world: &W, verb: Verb, unit: UnitId) -> Result<Option<JobKind>, TransactionError> {
    let up = is_up(world.active(unit)) || world.queued(unit).is_some_and(|job| matches!(job.kind, JobKind::Start | JobKind::Restart));
    let reload = world.can_reload(unit);
    Ok(match verb {
        Verb::Start | Verb::Isolate => Some(JobKind::Start),
        Verb::Stop => Some(JobKind::Stop),
        Verb::Restart => Some(JobKind::Restart),
        Verb::TryRestart => up.then_some(JobKind::Restart),
        Verb::Reload if !reload => return Err(TransactionError::CannotReload { unit: world.graph().name(unit).to_owned() }),
        Verb::Reload => Some(JobKind::Reload),
        Verb::ReloadOrRestart if !up => Some(JobKind::Start),
        Verb::TryReloadOrRestart if !up => None,
        Verb::ReloadOrRestart | Verb::TryReloadOrRestart => Some(if reload { JobKind::Reload } else { JobKind::Restart }),
    })
}

fn is_up(state: ActiveState) -> bool {
    matches!(state, ActiveState::Active | ActiveState::Activating | ActiveState::Reloading)
}

fn is_down(state: ActiveState) -> bool {
    matches!(state, ActiveState::Inactive | ActiveState::Failed)
}

type Key = (UnitId, JobKind);

struct Build<'w, W> {
    world: &'w W,
    jobs: BTreeSet<Key>,
    /// Subject, what it pulled in, and whether the subject fails without it.
    links: BTreeSet<(Key, Key, bool)>,
    anchors: Vec<Key>,
    dropped: Vec<String>,
}

impl<W: World> Build<'_, W> {
    fn add(&mut self, unit: UnitId, kind: JobKind, with_dependencies: bool) -> Result<(), TransactionError> {
        if matches!(kind, JobKind::Start | JobKind::Restart | JobKind::Reload) {
            self.world.loadable(unit)?;
        }
        // An explicit stack: dependency chains are as deep as unit files make them, PID 1's stack is not.
        let mut todo: Vec<Key> = Vec::new();
        let key = (unit, kind);
        if self.jobs.insert(key) {
            todo.push(key);
        }
        let mut unmet: Vec<(Key, Unloadable)> = Vec::new();
        while let Some(subject) = todo.pop() {
            if !with_dependencies {
                continue;
            }
            for (other, kind, matters) in self.pulled(subject) {
                if kind == JobKind::Start
                    && let Err(problem) = self.world.loadable(other)
                {
                    if matters {
                        unmet.push((subject, problem));
                    }
                    continue;
                }
                let object = (other, kind);
                self.links.insert((subject, object, matters));
                if self.jobs.insert(object) {
                    todo.push(object);
                }
            }
        }
        for (subject, problem) in unmet {
            if self.needs(key, subject) {
                return Err(problem.into());
            }
            if self.jobs.contains(&subject) {
                self.dropped.push(format!("{} is not started: {problem}", self.world.graph().name(subject.0)));
                self.delete(subject);
            }
        }
        Ok(())
    }

    /// The jobs that one job asks for: unit, kind, and whether it fails without.
    fn pulled(&self, (unit, kind): Key) -> Vec<(UnitId, JobKind, bool)> {
        let graph = self.world.graph();
        let mut out = Vec::new();
        if matches!(kind, JobKind::Start | JobKind::Restart) {
            out.extend(graph.of(unit, Dep::Requires).map(|other| (other, JobKind::Start, true)));
            out.extend(graph.of(unit, Dep::BindsTo).map(|other| (other, JobKind::Start, true)));
            out.extend(graph.of(unit, Dep::Wants).map(|other| (other, JobKind::Start, false)));
            out.extend(graph.of(unit, Dep::Upholds).map(|other| (other, JobKind::Start, false)));
            out.extend(graph.of(unit, Dep::Requisite).map(|other| (other, JobKind::VerifyActive, true)));
            out.extend(graph.of(unit, Dep::Conflicts).map(|other| (other, JobKind::Stop, true)));
            out.extend(graph.of(unit, Dep::ConflictedBy).map(|other| (other, JobKind::Stop, false)));
        }
        if matches!(kind, JobKind::Stop | JobKind::Restart) {
            for dep in [Dep::RequiredBy, Dep::BoundBy, Dep::ConsistsOf, Dep::PropagatesStopTo] {
                for other in graph.of(unit, dep) {
                    let up = !is_down(self.world.active(other)) || self.world.queued(other).is_some();
                    match kind {
                        JobKind::Stop => out.push((other, JobKind::Stop, true)),
                        // A restart takes along only what runs.
                        _ if up => out.push((other, JobKind::Restart, true)),
                        _ => {}
                    }
                }
            }
        }
        if kind == JobKind::Reload {
            for other in graph.of(unit, Dep::PropagatesReloadTo) {
                if is_up(self.world.active(other)) && self.world.can_reload(other) {
                    out.push((other, JobKind::Reload, false));
                }
            }
        }
        out
    }

    fn isolate(&mut self) {
        let graph = self.world.graph();
        for unit in graph.units() {
            if self.jobs.iter().any(|(other, _)| *other == unit) || self.world.ignore_on_isolate(unit) {
                continue;
            }
            if is_down(self.world.active(unit)) && self.world.queued(unit).is_none() {
                continue;
            }
            let triggered = graph.of(unit, Dep::TriggeredBy).any(|by| self.jobs.contains(&(by, JobKind::Start)));
            if triggered {
                continue;
            }
            let key = (unit, JobKind::Stop);
            self.jobs.insert(key);
            self.anchors.push(key);
        }
    }

    /// Whether `from` cannot be done without `to`.
    fn needs(&self, from: Key, to: Key) -> bool {
        let mut seen = BTreeSet::from([from]);
        let mut todo = vec![from];
        while let Some(key) = todo.pop() {
            if key == to {
                return true;
            }
            for (subject, object, matters) in &self.links {
                if *subject == key && *matters && seen.insert(*object) {
                    todo.push(*object);
                }
            }
        }
        false
    }

    /// Everything that what was asked for cannot be done without.
    fn needed(&self) -> BTreeSet<Key> {
        self.reach(true)
    }

    fn reach(&self, only_needed: bool) -> BTreeSet<Key> {
        let mut by_subject: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
        for (subject, object, matters) in &self.links {
            if *matters || !only_needed {
                by_subject.entry(*subject).or_default().push(*object);
            }
        }
        let mut seen: BTreeSet<Key> = self.anchors.iter().copied().filter(|key| self.jobs.contains(key)).collect();
        let mut todo: Vec<Key> = seen.iter().copied().collect();
        while let Some(key) = todo.pop() {
            for object in by_subject.get(&key).into_iter().flatten() {
                if self.jobs.contains(object) && seen.insert(*object) {
                    todo.push(*object);
                }
            }
        }
        seen
    }

    /// Takes a job out, and those that cannot do without it.
    fn delete(&mut self, key: Key) {
        let mut todo = vec![key];
        while let Some(key) = todo.pop() {
            if !self.jobs.remove(&key) {
                continue;
            }
            todo.extend(self.links.iter().filter(|(_, object, matters)| *object == key && *matters).map(|(subject, ..)| *subject));
            self.links.retain(|(subject, object, _)| *subject != key && *object != key);
        }
    }

    fn collect_garbage(&mut self) {
        let keep = self.reach(false);
        self.jobs.retain(|key| keep.contains(key));
        self.links.retain(|(subject, object, _)| keep.contains(subject) && keep.contains(object));
    }

    /// Leaves out what is so already, except what was asked for itself.
    fn drop_redundant(&mut self) {
        let redundant: Vec<Key> = self
            .jobs
            .iter()
            .copied()
            .filter(|key| !self.anchors.contains(key))
            .filter(|(unit, kind)| {
                let state = self.world.active(*unit);
                let so = match kind {
                    JobKind::Start | JobKind::VerifyActive => matches!(state, ActiveState::Active | ActiveState::Reloading),
                    JobKind::Stop => is_down(state),
                    JobKind::Reload | JobKind::Restart => false,
                };
                let alone = self.jobs.iter().filter(|(other, _)| other == unit).count() == 1;
                so && alone && self.world.queued(*unit).is_none()
            })
            .collect();
        for key in redundant {
            self.jobs.remove(&key);
            self.links.retain(|(subject, object, _)| *subject != key && *object != key);
        }
    }

    fn merge(&mut self) -> Result<(), TransactionError> {
        loop {
            let Some((unit, a, b)) = self.unmerged() else { return Ok(()) };
            let active = is_up(self.world.active(unit));
            if let Some(kind) = a.merge(b, active) {
                self.rename((unit, a), (unit, kind));
                self.rename((unit, b), (unit, kind));
                continue;
            }
            let needed = self.needed();
            let (needs_a, needs_b) = (needed.contains(&(unit, a)), needed.contains(&(unit, b)));
            let graph = self.world.graph();
            let name = graph.name(unit).to_owned();
            let stop = |kind: JobKind| kind == JobKind::Stop;
            let conflicted = graph.of(unit, Dep::ConflictedBy).next().is_some();
            let victim = match (needs_a, needs_b) {
                (true, true) => return Err(TransactionError::Contradiction { unit: name }),
                (true, false) => b,
                (false, true) => a,
                // Neither is needed: something that conflicts with the unit wins, else it may run.
                (false, false) if stop(a) == conflicted => b,
                (false, false) => a,
            };
            self.dropped.push(format!("{name}: its {} job contradicts another one and is left out", victim.as_str()));
            self.delete((unit, victim));
            self.collect_garbage();
        }
    }

    fn unmerged(&self) -> Option<(UnitId, JobKind, JobKind)> {
        let mut previous: Option<Key> = None;
        for &(unit, kind) in &self.jobs {
            if let Some((before, first)) = previous
                && before == unit
            {
                return Some((unit, first, kind));
            }
            previous = Some((unit, kind));
        }
        None
    }

    fn rename(&mut self, old: Key, new: Key) {
        if old == new {
            return;
        }
        self.jobs.remove(&old);
        self.jobs.insert(new);
        let change = |key: Key| if key == old { new } else { key };
        self.links = self.links.iter().map(|(subject, object, matters)| (change(*subject), change(*object), *matters)).collect();
        for anchor in &mut self.anchors {
            *anchor = change(*anchor);
        }
    }

    fn break_cycles(&mut self) -> Result<(), TransactionError> {
        while let Some(cycle) = self.find_cycle() {
            let graph = self.world.graph();
            let mut names: Vec<String> = cycle.iter().map(|unit| graph.name(*unit).to_owned()).collect();
            if let Some(first) = names.first().cloned() {
                names.push(first);
            }
            let needed = self.needed();
            let victim = cycle.iter().rev().copied().find(|unit| {
                let mut kinds = self.jobs.iter().filter(|(other, _)| other == unit).peekable();
                kinds.peek().is_some() && kinds.all(|key| !needed.contains(key))
            });
            let Some(victim) = victim else { return Err(TransactionError::Cycle { units: names }) };
            self.dropped.push(format!(
                "ordering cycle {}: the job of {} is left out to break it",
                names.join(" after "),
                graph.name(victim)
            ));
            let keys: Vec<Key> = self.jobs.iter().copied().filter(|(unit, _)| *unit == victim).collect();
            for key in keys {
                self.delete(key);
            }
            self.collect_garbage();
        }
        Ok(())
    }

    /// Units with jobs, each ordered after the next and the last after the first.
    fn find_cycle(&self) -> Option<Vec<UnitId>> {
        let graph = self.world.graph();
        let units: BTreeSet<UnitId> = self.jobs.iter().map(|(unit, _)| *unit).collect();
        let involved = |unit: UnitId| units.contains(&unit) || self.world.queued(unit).is_some();
        let mut done: BTreeSet<UnitId> = BTreeSet::new();
        for &start in &units {
            let mut path: Vec<(UnitId, Vec<UnitId>)> = Vec::new();
            let enter =
                |unit: UnitId| -> (UnitId, Vec<UnitId>) { (unit, graph.of(unit, Dep::After).filter(|other| involved(*other)).collect()) };
            if done.contains(&start) {
                continue;
            }
            path.push(enter(start));
            while let Some((unit, rest)) = path.last_mut() {
                let unit = *unit;
                match rest.pop() {
                    None => {
                        done.insert(unit);
                        path.pop();
                    }
                    Some(next) if done.contains(&next) => {}
                    Some(next) => {
                        if let Some(at) = path.iter().position(|(on_path, _)| *on_path == next) {
                            return Some(path.iter().skip(at).map(|(unit, _)| *unit).collect());
                        }
                        path.push(enter(next));
                    }
                }
            }
        }
        None
    }

    fn finish(self) -> Plan {
        let anchors = self.anchors.iter().filter(|key| self.jobs.contains(key)).map(|(unit, _)| *unit).collect();
        Plan { jobs: self.jobs.into_iter().collect(), anchors, dropped: self.dropped }
    }
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
