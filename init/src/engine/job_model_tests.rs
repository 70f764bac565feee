//! The job engine under random unit graphs: transactions and the queue as they are, units that obey, fail or crash.
//!
//! What must hold whatever the units say, also for requests that overtake each other: nothing hangs, no plan starts what conflicts or
//! leaves a requirement out, nothing starts before what it comes after, a stop takes along what needs the unit, and at rest nothing
//! outlives what it is bound to and what conflicts does not run side by side. While no request overtakes another, too: what requires
//! something and comes after it does not start without it, and every start that can be done is done.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers are not test functions to clippy")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::graph::{Dep, Graph, UnitId};
use super::jobs::{Finished, Queue};
use super::protocol::{ActiveState, JobMode, JobResult, Verb};
use super::transaction::{JobKind, Queued, Unloadable, World, plan};

/// Something that happens from outside.
#[derive(Debug, Clone)]
enum Act {
    Request(Verb, usize, JobMode),
    /// An active unit fails by itself.
    Crash(usize),
    /// So many steps of the engine.
    Steps(u8),
}

#[derive(Debug, Clone)]
struct Scene {
    units: usize,
    edges: Vec<(usize, Dep, usize)>,
    /// Whose start fails.
    fails: Vec<bool>,
    acts: Vec<Act>,
    /// Which of the possible steps is taken.
    choices: Vec<u8>,
}

struct Model {
    graph: Graph,
    units: Vec<UnitId>,
    states: BTreeMap<UnitId, ActiveState>,
    queue: Queue,
    fails: Vec<bool>,
    /// Units that failed by themselves after they had come up.
    crashed: BTreeSet<UnitId>,
    /// Some plan could not be made, or had to leave something out.
    left_out: bool,
    /// A request came while an earlier one was not done.
    overtaken: bool,
    choices: std::iter::Cycle<std::vec::IntoIter<u8>>,
}

impl World for Model {
    fn graph(&self) -> &Graph {
        &self.graph
    }
    fn active(&self, unit: UnitId) -> ActiveState {
        self.states.get(&unit).copied().unwrap_or(ActiveState::Inactive)
    }
    fn loadable(&self, _: UnitId) -> Result<(), Unloadable> {
        Ok(())
    }
    fn queued(&self, unit: UnitId) -> Option<Queued> {
        self.queue.queued(unit)
    }
    fn ignore_on_isolate(&self, _: UnitId) -> bool {
        false
    }
    fn can_reload(&self, unit: UnitId) -> bool {
        unit.0.is_multiple_of(2)
    }
}

impl Model {
    fn new(scene: &Scene) -> Self {
        let mut graph = Graph::default();
        let units: Vec<UnitId> = (0..scene.units).map(|number| graph.intern(&format!("u{number}"))).collect();
        for (a, dep, b) in &scene.edges {
            graph.add(units[a % units.len()], *dep, units[b % units.len()]);
        }
        let choices = scene.choices.clone().into_iter().cycle();
        Self {
            graph,
            units,
            states: BTreeMap::new(),
            queue: Queue::default(),
            fails: scene.fails.clone(),
            crashed: BTreeSet::new(),
            left_out: false,
            overtaken: false,
            choices,
        }
    }

    /// Whether there was a plan, and what it left out.
    fn request(&mut self, verb: Verb, unit: UnitId, mode: JobMode) -> Option<Vec<String>> {
        self.overtaken |= !self.queue.is_empty();
        let Ok(plan) = plan(&*self, verb, &[unit], mode) else {
            self.left_out = true;
            return None;
        };
        self.check_plan(verb, unit, &plan);
        self.left_out |= !plan.dropped.is_empty();
        let replaced = self.queue.install(&plan, mode == JobMode::ReplaceIrreversibly);
        self.ended(&replaced);
        Some(plan.dropped)
    }

    fn check_plan(&self, verb: Verb, anchor: UnitId, plan: &super::transaction::Plan) {
        let starts = |unit: UnitId| matches!(plan.jobs.get(&unit), Some(JobKind::Start | JobKind::Restart));
        let name = |unit: UnitId| self.graph.name(unit).to_owned();
        for (&unit, &kind) in &plan.jobs {
            if !starts(unit) {
                continue;
            }
            for dep in [Dep::Requires, Dep::BindsTo] {
                for needed in self.graph.of(unit, dep) {
                    let there = starts(needed)
                        || matches!(self.active(needed), ActiveState::Active | ActiveState::Reloading)
                        || matches!(plan.jobs.get(&needed), Some(JobKind::Reload));
                    assert!(there, "{kind:?} of {} without {}: {plan:?}", name(unit), name(needed));
                }
            }
            for enemy in self.graph.of(unit, Dep::Conflicts).chain(self.graph.of(unit, Dep::ConflictedBy)) {
                assert!(!starts(enemy), "{} and {} conflict and are both started: {plan:?}", name(unit), name(enemy));
            }
        }
        if verb == Verb::Stop {
            assert_eq!(plan.jobs.get(&anchor), Some(&JobKind::Stop), "{plan:?}");
            for dep in [Dep::RequiredBy, Dep::BoundBy, Dep::ConsistsOf, Dep::PropagatesStopTo] {
                for other in self.graph.of(anchor, dep) {
                    let stops = plan.jobs.get(&other) == Some(&JobKind::Stop);
                    let down = matches!(self.active(other), ActiveState::Inactive | ActiveState::Failed) && self.queue.get(other).is_none();
                    assert!(stops || down, "{} goes on without {}", name(other), name(anchor));
                }
            }
        }
    }

    fn set(&mut self, unit: UnitId, state: ActiveState) {
        let before = self.active(unit);
        self.states.insert(unit, state);
        self.complete(unit);
        let down = matches!(state, ActiveState::Inactive | ActiveState::Failed);
        let was = !matches!(before, ActiveState::Inactive | ActiveState::Failed);
        if state == ActiveState::Active {
            self.stop_unbound(unit);
        }
        if down && was && self.queue.get(unit).is_none_or(|job| job.kind != JobKind::Stop) {
            let bound: Vec<UnitId> = self
                .graph
                .of(unit, Dep::BoundBy)
                .filter(|other| matches!(self.active(*other), ActiveState::Active | ActiveState::Reloading | ActiveState::Activating))
                .filter(|other| self.queue.get(*other).is_none_or(|job| !matches!(job.kind, JobKind::Stop | JobKind::Start)))
                .collect();
            for other in bound {
                self.request(Verb::Stop, other, JobMode::Replace);
            }
        }
    }

    fn complete(&mut self, unit: UnitId) {
        let Some(job) = self.queue.get(unit).filter(|job| job.running) else { return };
        let result = match (job.kind, self.active(unit)) {
            (JobKind::Start | JobKind::VerifyActive, ActiveState::Active) => JobResult::Done,
            (JobKind::Start, ActiveState::Inactive | ActiveState::Failed) => JobResult::Failed,
            (JobKind::VerifyActive, ActiveState::Inactive | ActiveState::Failed) => JobResult::Failed,
            (JobKind::Stop, ActiveState::Inactive | ActiveState::Failed) => JobResult::Done,
            (JobKind::Restart, ActiveState::Inactive | ActiveState::Failed) => return self.queue.restart_to_start(unit),
            _ => return,
        };
        self.finish(unit, result);
    }

    fn finish(&mut self, unit: UnitId, result: JobResult) {
        let ended = self.queue.finish(&self.graph, unit, result);
        self.ended(&ended);
    }

    fn ended(&mut self, ended: &[Finished]) {
        for end in ended {
            self.stop_unbound(end.unit);
            if end.result != JobResult::Done {
                for other in self.graph.of(end.unit, Dep::BoundBy).collect::<Vec<_>>() {
                    self.stop_unbound(other);
                }
            }
        }
    }

    fn stop_unbound(&mut self, unit: UnitId) {
        let down = |unit: UnitId| matches!(self.active(unit), ActiveState::Inactive | ActiveState::Failed);
        let gone = self.graph.of(unit, Dep::BindsTo).any(|other| down(other) && !self.queue.brings_up(other));
        if gone && self.active(unit) == ActiveState::Active && self.queue.get(unit).is_none() {
            self.request(Verb::Stop, unit, JobMode::Replace);
        }
    }

    /// Begins a job as the manager does; false when it has to wait.
    fn begin(&mut self, unit: UnitId) -> bool {
        let Some(job) = self.queue.get(unit) else { return false };
        let state = self.active(unit);
        match job.kind {
            JobKind::Start => match state {
                ActiveState::Active | ActiveState::Reloading => self.finish(unit, JobResult::Done),
                ActiveState::Activating => {
                    self.queue.begin(unit);
                }
                ActiveState::Deactivating => return false,
                ActiveState::Inactive | ActiveState::Failed => {
                    let unbound = self
                        .graph
                        .of(unit, Dep::BindsTo)
                        .any(|other| self.graph.has(unit, Dep::After, other) && self.active(other) != ActiveState::Active);
                    if unbound {
                        self.finish(unit, JobResult::Dependency);
                        return true;
                    }
                    self.check_start(unit);
                    self.queue.begin(unit);
                    self.states.insert(unit, ActiveState::Activating);
                }
            },
            JobKind::VerifyActive => match state {
                ActiveState::Active | ActiveState::Reloading => self.finish(unit, JobResult::Done),
                ActiveState::Activating => return false,
                _ => self.finish(unit, JobResult::Failed),
            },
            JobKind::Stop => {
                for later in self.graph.of(unit, Dep::Before).collect::<Vec<_>>() {
                    let waits = self.queue.get(later).is_some_and(|job| matches!(job.kind, JobKind::Stop | JobKind::Restart));
                    assert!(!waits, "{} stops before {}", self.graph.name(unit), self.graph.name(later));
                }
                self.queue.begin(unit);
                match state {
                    ActiveState::Inactive | ActiveState::Failed => self.finish(unit, JobResult::Done),
                    ActiveState::Deactivating => {}
                    _ => {
                        self.states.insert(unit, ActiveState::Deactivating);
                    }
                }
            }
            JobKind::Restart => {
                if matches!(state, ActiveState::Inactive | ActiveState::Failed) {
                    self.queue.restart_to_start(unit);
                    return true;
                }
                self.queue.begin(unit);
                self.states.insert(unit, ActiveState::Deactivating);
            }
            JobKind::Reload => match state {
                ActiveState::Active => self.finish(unit, JobResult::Done),
                ActiveState::Reloading | ActiveState::Activating => return false,
                _ => self.finish(unit, JobResult::Failed),
            },
        }
        true
    }

    fn check_start(&self, unit: UnitId) {
        let name = |unit| self.graph.name(unit).to_owned();
        for earlier in self.graph.of(unit, Dep::After) {
            assert!(self.queue.get(earlier).is_none(), "{} starts before the job of {} is over", name(unit), name(earlier));
            for dep in [Dep::Requires, Dep::BindsTo] {
                // `Requires=` asks how the start went, not what became of the unit later.
                let crashed = dep == Dep::Requires && self.crashed.contains(&earlier);
                let needed = self.graph.has(unit, dep, earlier) && !crashed && !self.overtaken;
                assert!(!needed || self.active(earlier) == ActiveState::Active, "{} starts without {}", name(unit), name(earlier));
            }
        }
    }

    /// One thing that may happen happens; false when nothing may.
    fn step(&mut self) -> bool {
        let mut ready: Vec<(bool, UnitId)> = self.queue.runnable(&self.graph).into_iter().map(|unit| (true, unit)).collect();
        let moving = |state: ActiveState| matches!(state, ActiveState::Activating | ActiveState::Deactivating);
        ready.extend(self.states.iter().filter(|(_, state)| moving(**state)).map(|(unit, _)| (false, *unit)));
        let skip = usize::from(self.choices.next().unwrap_or(0)) % ready.len().max(1);
        ready.rotate_left(skip);
        for (begin, unit) in ready {
            if begin {
                if self.begin(unit) {
                    return true;
                }
                continue;
            }
            let next = match self.active(unit) {
                ActiveState::Deactivating => ActiveState::Inactive,
                _ if self.fails[unit.0 as usize % self.fails.len()] => ActiveState::Failed,
                _ => ActiveState::Active,
            };
            self.set(unit, next);
            return true;
        }
        false
    }

    /// Until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                let left: Vec<String> = self.queue.iter().map(|(unit, job)| format!("{}:{:?}", self.graph.name(unit), job.kind)).collect();
                assert!(left.is_empty(), "these jobs wait for each other for ever: {left:?}");
                return;
            }
        }
        unreachable!("the engine never comes to rest");
    }

    /// What must be so whenever the engine is at rest, unless requests contradicted themselves or ran in circles, which is said.
    fn check_rest(&self) {
        let up = |unit: UnitId| self.active(unit) == ActiveState::Active;
        for &unit in self.units.iter().filter(|unit| up(**unit)) {
            for other in self.graph.of(unit, Dep::BindsTo) {
                assert!(self.left_out || up(other), "{} outlives {}, which it is bound to", self.graph.name(unit), self.graph.name(other));
            }
            for enemy in self.graph.of(unit, Dep::Conflicts) {
                assert!(self.left_out || !up(enemy), "{} and {} run side by side", self.graph.name(unit), self.graph.name(enemy));
            }
        }
    }

    /// Everything that a unit cannot do without.
    fn closure(&self, unit: UnitId) -> BTreeSet<UnitId> {
        let mut seen = BTreeSet::from([unit]);
        let mut todo = vec![unit];
        while let Some(unit) = todo.pop() {
            for dep in [Dep::Requires, Dep::BindsTo] {
                todo.extend(self.graph.of(unit, dep).filter(|other| seen.insert(*other)));
            }
        }
        seen
    }
}

fn dep() -> impl Strategy<Value = Dep> {
    prop_oneof![
        5 => Just(Dep::After),
        3 => Just(Dep::Requires),
        3 => Just(Dep::Wants),
        2 => Just(Dep::BindsTo),
        1 => Just(Dep::Requisite),
        1 => Just(Dep::PartOf),
        1 => Just(Dep::Conflicts),
        1 => Just(Dep::PropagatesStopTo),
        1 => Just(Dep::PropagatesReloadTo),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let verb = prop_oneof![
        6 => Just(Verb::Start),
        3 => Just(Verb::Stop),
        2 => Just(Verb::Restart),
        1 => Just(Verb::TryRestart),
        1 => Just(Verb::ReloadOrRestart),
        1 => Just(Verb::Isolate),
    ];
    let mode = prop_oneof![4 => Just(JobMode::Replace), 1 => Just(JobMode::Fail)];
    prop_oneof![
        4 => (verb, 0..8_usize, mode).prop_map(|(verb, unit, mode)| Act::Request(verb, unit, mode)),
        1 => (0..8_usize).prop_map(Act::Crash),
        3 => (0..12_u8).prop_map(Act::Steps),
    ]
}

fn scene() -> impl Strategy<Value = Scene> {
    (
        2..8_usize,
        proptest::collection::vec((0..8_usize, dep(), 0..8_usize), 0..16),
        proptest::collection::vec(proptest::bool::weighted(0.15), 1..8),
        proptest::collection::vec(act(), 1..12),
        proptest::collection::vec(any::<u8>(), 1..40),
    )
        .prop_map(|(units, edges, fails, acts, choices)| Scene { units, edges, fails, acts, choices })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_units_say_the_engine_keeps_its_promises(scene in scene()) {
        let mut model = Model::new(&scene);
        for act in &scene.acts {
            match act {
                Act::Request(verb, unit, mode) => {
                    let unit = model.units[unit % model.units.len()];
                    model.request(*verb, unit, *mode);
                }
                Act::Crash(unit) => {
                    let unit = model.units[unit % model.units.len()];
                    if model.active(unit) == ActiveState::Active {
                        model.crashed.insert(unit);
                        model.set(unit, ActiveState::Failed);
                    }
                }
                Act::Steps(count) => {
                    for _ in 0..*count {
                        model.step();
                    }
                }
            }
        }
        model.settle();
        model.check_rest();
    }

    #[test]
    fn a_start_that_can_be_done_is_done(scene in scene(), unit in 0..8_usize) {
        let mut model = Model::new(&scene);
        model.fails = vec![false];
        let unit = model.units[unit % model.units.len()];
        let needed = model.closure(unit);
        // What only has to be there already is not.
        let impossible = scene.edges.iter().any(|(_, dep, _)| *dep == Dep::Requisite);
        if let Some(dropped) = model.request(Verb::Start, unit, JobMode::Replace) {
            model.settle();
            model.check_rest();
            if !impossible && dropped.is_empty() {
                for unit in needed {
                    prop_assert_eq!(model.active(unit), ActiveState::Active, "{}", model.graph.name(unit));
                }
            }
            // And a stop of it takes everything along that needs it.
            model.request(Verb::Stop, unit, JobMode::Replace);
            model.settle();
            prop_assert_ne!(model.active(unit), ActiveState::Active);
            model.check_rest();
        }
    }
}
