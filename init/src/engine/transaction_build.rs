//! A transaction while it is put together: jobs, who asked for each, and what has to give way.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Dep, UnitId};
use super::protocol::ActiveState;
use super::transaction::{JobKind, Plan, TransactionError, Unloadable, World, is_down, is_up};

pub(super) type Key = (UnitId, JobKind);

pub(super) struct Build<'w, W> {
    world: &'w W,
    jobs: BTreeSet<Key>,
    /// Subject, what it pulled in, and whether the subject fails without it.
    links: BTreeSet<(Key, Key, bool)>,
    anchors: Vec<Key>,
    dropped: Vec<String>,
}

impl<'w, W: World> Build<'w, W> {
    pub fn new(world: &'w W) -> Self {
        Self { world, jobs: BTreeSet::new(), links: BTreeSet::new(), anchors: Vec::new(), dropped: Vec::new() }
    }

    /// Notes that a job was asked for itself.
    pub fn anchor(&mut self, unit: UnitId, kind: JobKind) {
        self.anchors.push((unit, kind));
    }

    pub fn add(&mut self, unit: UnitId, kind: JobKind, with_dependencies: bool) -> Result<(), TransactionError> {
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
                    match kind {
                        JobKind::Stop => out.push((other, JobKind::Stop, true)),
                        // A restart takes along only what runs; what waits to be started is started after it.
                        _ if !is_down(self.world.active(other)) => out.push((other, JobKind::Restart, true)),
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

    /// Stops everything that is not part of the transaction, and with each what needs it.
    pub fn isolate(&mut self) -> Result<(), TransactionError> {
        let world = self.world;
        let graph = world.graph();
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
            self.add(unit, JobKind::Stop, true)?;
            self.anchors.push((unit, JobKind::Stop));
        }
        Ok(())
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

    pub fn collect_garbage(&mut self) {
        let keep = self.reach(false);
        self.jobs.retain(|key| keep.contains(key));
        self.links.retain(|(subject, object, _)| keep.contains(subject) && keep.contains(object));
    }

    /// Leaves out what is so already, except what was asked for itself.
    pub fn drop_redundant(&mut self) {
        let mut count: BTreeMap<UnitId, usize> = BTreeMap::new();
        for (unit, _) in &self.jobs {
            *count.entry(*unit).or_default() += 1;
        }
        let anchors: BTreeSet<Key> = self.anchors.iter().copied().collect();
        let redundant: BTreeSet<Key> = self
            .jobs
            .iter()
            .copied()
            .filter(|key| !anchors.contains(key))
            .filter(|(unit, kind)| {
                let state = self.world.active(*unit);
                let so = match kind {
                    JobKind::Start | JobKind::VerifyActive => matches!(state, ActiveState::Active | ActiveState::Reloading),
                    JobKind::Stop => is_down(state),
                    JobKind::Reload | JobKind::Restart => false,
                };
                let alone = count.get(unit) == Some(&1);
                so && alone && self.world.queued(*unit).is_none()
            })
            .collect();
        self.jobs.retain(|key| !redundant.contains(key));
        self.links.retain(|(subject, object, _)| !redundant.contains(subject) && !redundant.contains(object));
    }

    pub fn merge(&mut self) -> Result<(), TransactionError> {
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

    /// Leaves out what asks a unit only to be up, or to reload, while it waits to be stopped.
    ///
    /// Such a job in the queue's one place for the unit would undo the stop, and what conflicts with the unit would be started beside it:
    /// unlike a start, it brings no stop of its enemies along.
    pub fn give_way_to_stops(&mut self) -> Result<(), TransactionError> {
        let stops = |unit: UnitId| self.world.queued(unit).is_some_and(|job| job.kind == JobKind::Stop);
        let weak = |kind: JobKind| matches!(kind, JobKind::VerifyActive | JobKind::Reload);
        let victims: Vec<Key> = self.jobs.iter().copied().filter(|(unit, kind)| weak(*kind) && stops(*unit)).collect();
        for key in victims {
            let name = self.world.graph().name(key.0).to_owned();
            if self.needed().contains(&key) {
                return Err(TransactionError::Destructive { unit: name, kind: JobKind::Stop.as_str() });
            }
            self.dropped.push(format!("{name}: its {} job is left out, since it waits to be stopped", key.1.as_str()));
            self.delete(key);
        }
        Ok(())
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

    pub fn break_cycles(&mut self) -> Result<(), TransactionError> {
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

    pub fn finish(self) -> Plan {
        let anchors = self.anchors.iter().filter(|key| self.jobs.contains(key)).map(|(unit, _)| *unit).collect();
        Plan { jobs: self.jobs.into_iter().collect(), anchors, dropped: self.dropped }
    }
}
