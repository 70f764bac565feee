//! The queue of jobs: at most one for a unit, which may run now, and what the end of one means for the others.
//!
//! Pure data; the manager runs what [`Queue::runnable`] returns and reports ends with [`Queue::finish`].

use std::collections::BTreeMap;

use super::graph::{Dep, Graph, UnitId};
use super::protocol::JobResult;
use super::transaction::{JobKind, Plan, Queued};

/// A job in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Its number, never used again.
    pub id: u32,
    /// What it does; a running `Restart` becomes `Start` once the unit is down.
    pub kind: JobKind,
    /// Whether it has begun.
    pub running: bool,
    /// Whether another request may replace it.
    pub irreversible: bool,
}

/// A job that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Its unit.
    pub unit: UnitId,
    /// The job as it was.
    pub job: Job,
    /// How it ended.
    pub result: JobResult,
}

/// All jobs.
#[derive(Debug, Default)]
pub struct Queue {
    jobs: BTreeMap<UnitId, Job>,
    last_id: u32,
}

impl Queue {
    /// The job of a unit.
    #[must_use]
    pub fn get(&self, unit: UnitId) -> Option<Job> {
        self.jobs.get(&unit).copied()
    }

    /// The same, as a transaction sees it.
    #[must_use]
    pub fn queued(&self, unit: UnitId) -> Option<Queued> {
        self.get(unit).map(|job| Queued { kind: job.kind, irreversible: job.irreversible })
    }

    /// Whether a job is to bring the unit up.
    #[must_use]
    pub fn brings_up(&self, unit: UnitId) -> bool {
        self.get(unit).is_some_and(|job| matches!(job.kind, JobKind::Start | JobKind::Restart))
    }

    /// All jobs, by unit.
    pub fn iter(&self) -> impl Iterator<Item = (UnitId, Job)> + '_ {
        self.jobs.iter().map(|(unit, job)| (*unit, *job))
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Number of jobs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Puts a plan into the queue, and returns the jobs that it replaced.
    pub fn install(&mut self, plan: &Plan, irreversible: bool) -> Vec<Finished> {
        let mut replaced = Vec::new();
        for (&unit, &kind) in &plan.jobs {
            match self.jobs.get(&unit).copied() {
                // The same again, or less than what is being done: one job serves both.
                Some(old) if old.kind == kind || (old.running && old.kind == JobKind::Restart && kind != JobKind::Stop) => {
                    if let Some(job) = self.jobs.get_mut(&unit) {
                        job.irreversible |= irreversible;
                    }
                }
                Some(old) if !old.running && kind.merge(old.kind, false).is_some() => {
                    if let (Some(job), Some(merged)) = (self.jobs.get_mut(&unit), kind.merge(old.kind, false)) {
                        job.kind = merged;
                        job.irreversible |= irreversible;
                    }
                }
                Some(old) => {
                    self.jobs.remove(&unit);
                    replaced.push(Finished { unit, job: old, result: JobResult::Canceled });
                    self.push(unit, kind, irreversible);
                }
                None => self.push(unit, kind, irreversible),
            }
        }
        replaced
    }

    fn push(&mut self, unit: UnitId, kind: JobKind, irreversible: bool) {
        self.last_id = self.last_id.wrapping_add(1).max(1);
        self.jobs.insert(unit, Job { id: self.last_id, kind, running: false, irreversible });
    }

    /// Units whose waiting job nothing in the queue comes before.
    #[must_use]
    pub fn runnable(&self, graph: &Graph) -> Vec<UnitId> {
        self.jobs.iter().filter(|(unit, job)| !job.running && self.may_run(graph, **unit, **job)).map(|(unit, _)| *unit).collect()
    }

    fn may_run(&self, graph: &Graph, unit: UnitId, job: Job) -> bool {
        self.in_the_way(graph, unit, job).next().is_none()
    }

    /// Units whose jobs come before the waiting job of this one.
    pub fn waits_for(&self, graph: &Graph, unit: UnitId) -> Vec<UnitId> {
        match self.get(unit) {
            Some(job) if !job.running => self.in_the_way(graph, unit, job).collect(),
            _ => Vec::new(),
        }
    }

    fn in_the_way<'a>(&'a self, graph: &'a Graph, unit: UnitId, job: Job) -> impl Iterator<Item = UnitId> + 'a {
        let stops = |kind: JobKind| matches!(kind, JobKind::Stop | JobKind::Restart);
        // Starts in order, stops in reverse, and stops before starts: of two ordered jobs the later unit's goes first if it stops.
        let earlier = graph.of(unit, Dep::After).filter(move |other| self.jobs.contains_key(other) && !stops(job.kind));
        let later = graph.of(unit, Dep::Before).filter(move |other| self.jobs.get(other).is_some_and(|other| stops(other.kind)));
        earlier.chain(later)
    }

    /// Notes that a job has begun.
    pub fn begin(&mut self, unit: UnitId) -> Option<Job> {
        let job = self.jobs.get_mut(&unit)?;
        job.running = true;
        Some(*job)
    }

    /// The stopping half of a restart is done.
    pub fn restart_to_start(&mut self, unit: UnitId) {
        if let Some(job) = self.jobs.get_mut(&unit) {
            job.kind = JobKind::Start;
            job.running = false;
        }
    }

    /// Ends a job, and the start jobs that cannot succeed any more because of it.
    pub fn finish(&mut self, graph: &Graph, unit: UnitId, result: JobResult) -> Vec<Finished> {
        let mut out = Vec::new();
        let mut todo = vec![(unit, result)];
        while let Some((unit, result)) = todo.pop() {
            let Some(job) = self.jobs.remove(&unit) else { continue };
            out.push(Finished { unit, job, result });
            let failed = !matches!(result, JobResult::Done | JobResult::Skipped);
            if !failed {
                continue;
            }
            let dependents: &[Dep] = match job.kind {
                JobKind::Start | JobKind::VerifyActive => &[Dep::RequiredBy, Dep::BoundBy, Dep::RequisiteOf],
                JobKind::Stop | JobKind::Restart => &[Dep::ConflictedBy],
                JobKind::Reload => &[],
            };
            if result == JobResult::Canceled && !matches!(job.kind, JobKind::Start | JobKind::VerifyActive) {
                continue;
            }
            for dep in dependents {
                for other in graph.of(unit, *dep) {
                    let starts = self.jobs.get(&other).is_some_and(|job| matches!(job.kind, JobKind::Start | JobKind::VerifyActive));
                    if starts {
                        todo.push((other, JobResult::Dependency));
                    }
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(edges: &[(&str, Dep, &str)], jobs: &[(&str, JobKind)]) -> (Graph, Queue) {
        let mut graph = Graph::default();
        for (a, dep, b) in edges {
            let (a, b) = (graph.intern(a), graph.intern(b));
            graph.add(a, *dep, b);
        }
        let mut queue = Queue::default();
        let plan = Plan { jobs: jobs.iter().map(|(name, kind)| (graph.intern(name), *kind)).collect(), ..Plan::default() };
        queue.install(&plan, false);
        (graph, queue)
    }

    fn names(graph: &Graph, units: &[UnitId]) -> String {
        units.iter().map(|unit| graph.name(*unit)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn starts_run_in_order_stops_in_reverse_and_stops_first() {
        use JobKind::{Restart, Start, Stop};
        let table = [
            (vec![("a", Start), ("b", Start)], "b"),
            (vec![("a", Stop), ("b", Stop)], "a"),
            (vec![("a", Start), ("b", Stop)], "b"),
            (vec![("a", Stop), ("b", Start)], "a"),
            (vec![("a", Restart), ("b", Restart)], "a"),
            (vec![("a", Start), ("c", Start)], "a c"),
        ];
        for (jobs, expected) in table {
            let (graph, queue) = setup(&[("a", Dep::After, "b")], &jobs);
            assert_eq!(names(&graph, &queue.runnable(&graph)), expected, "{jobs:?}");
        }
    }

    #[test]
    fn a_failed_start_fails_what_requires_it_but_not_what_wants_it() {
        let edges = [("a", Dep::Requires, "b"), ("c", Dep::Wants, "b"), ("d", Dep::BindsTo, "a")];
        let starts = ["a", "b", "c", "d"].map(|name| (name, JobKind::Start));
        let (graph, mut queue) = setup(&edges, &starts);
        let b = graph.find("b").unwrap();
        let ended = queue.finish(&graph, b, JobResult::Failed);
        assert_eq!(names(&graph, &ended.iter().map(|end| end.unit).collect::<Vec<_>>()), "b a d");
        assert_eq!(ended[1].result, JobResult::Dependency);
        assert!(queue.get(graph.find("c").unwrap()).is_some());
    }

    #[test]
    fn a_skipped_start_lets_dependents_go_on() {
        let (graph, mut queue) = setup(&[("a", Dep::Requires, "b")], &[("a", JobKind::Start), ("b", JobKind::Start)]);
        queue.finish(&graph, graph.find("b").unwrap(), JobResult::Skipped);
        assert!(queue.get(graph.find("a").unwrap()).is_some());
    }

    #[test]
    fn a_stop_replaces_a_start_and_a_restart_absorbs_it() {
        let (mut graph, mut queue) = setup(&[], &[("a", JobKind::Start)]);
        let a = graph.intern("a");
        let first = queue.get(a).unwrap();
        let restart = Plan { jobs: [(a, JobKind::Restart)].into(), ..Plan::default() };
        assert!(queue.install(&restart, false).is_empty());
        assert_eq!(queue.get(a).unwrap().id, first.id);
        assert_eq!(queue.get(a).unwrap().kind, JobKind::Restart);
        let stop = Plan { jobs: [(a, JobKind::Stop)].into(), ..Plan::default() };
        let replaced = queue.install(&stop, false);
        assert_eq!(replaced[0].result, JobResult::Canceled);
        assert_ne!(queue.get(a).unwrap().id, first.id);
    }
}
