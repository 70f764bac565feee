//! Executable tables for the transaction rules: a little world in words, a request, the jobs that come out.

use std::collections::HashMap;

use super::*;
use crate::engine::graph::Dep;

struct Toy {
    graph: Graph,
    states: HashMap<UnitId, ActiveState>,
    queue: HashMap<UnitId, Queued>,
    missing: Vec<UnitId>,
}

impl World for Toy {
    fn graph(&self) -> &Graph {
        &self.graph
    }
    fn active(&self, unit: UnitId) -> ActiveState {
        self.states.get(&unit).copied().unwrap_or(ActiveState::Inactive)
    }
    fn loadable(&self, unit: UnitId) -> Result<(), Unloadable> {
        if self.missing.contains(&unit) { Err(Unloadable::NotFound(self.graph.name(unit).to_owned())) } else { Ok(()) }
    }
    fn queued(&self, unit: UnitId) -> Option<Queued> {
        self.queue.get(&unit).copied()
    }
    fn ignore_on_isolate(&self, unit: UnitId) -> bool {
        self.graph.name(unit) == "keep"
    }
    fn can_reload(&self, unit: UnitId) -> bool {
        self.graph.name(unit).starts_with('r')
    }
}

/// `edges`: words "a requires b"; names with `*` in `up` are active.
fn world(edges: &str, up: &str, missing: &str) -> Toy {
    let mut graph = Graph::default();
    for line in edges.split(',').map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let dep = match words[1] {
            "requires" => Dep::Requires,
            "wants" => Dep::Wants,
            "after" => Dep::After,
            "conflicts" => Dep::Conflicts,
            "binds-to" => Dep::BindsTo,
            "part-of" => Dep::PartOf,
            "requisite" => Dep::Requisite,
            "triggers" => Dep::Triggers,
            "propagates-reload-to" => Dep::PropagatesReloadTo,
            other => unreachable!("{other}"),
        };
        let (a, b) = (graph.intern(words[0]), graph.intern(words[2]));
        graph.add(a, dep, b);
    }
    let ids = |graph: &mut Graph, words: &str| words.split_whitespace().map(|word| graph.intern(word)).collect::<Vec<_>>();
    let states = ids(&mut graph, up).into_iter().map(|unit| (unit, ActiveState::Active)).collect();
    let missing = ids(&mut graph, missing);
    Toy { graph, states, queue: HashMap::new(), missing }
}

fn jobs(world: &Toy, plan: &Plan) -> String {
    let mut words: Vec<String> = plan.jobs.iter().map(|(unit, kind)| format!("{}:{}", world.graph.name(*unit), kind.as_str())).collect();
    words.sort();
    words.join(" ")
}

fn run(edges: &str, up: &str, missing: &str, verb: Verb, unit: &str) -> String {
    let mut world = world(edges, up, missing);
    let unit = world.graph.intern(unit);
    match plan(&world, verb, &[unit], JobMode::Replace) {
        Ok(plan) => jobs(&world, &plan),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn requests_expand_to_jobs() {
    let table = [
        // edges, active, missing, verb, unit, jobs
        ("a requires b, b wants c", "", "", Verb::Start, "a", "a:start b:start c:start"),
        ("a requires b, b wants c", "b", "", Verb::Start, "a", "a:start"),
        ("a wants gone, a wants c", "", "gone", Verb::Start, "a", "a:start c:start"),
        ("a requires gone", "", "gone", Verb::Start, "a", "error: Unit gone not found."),
        ("a wants b, b requires gone, b requires c", "", "gone", Verb::Start, "a", "a:start"),
        ("a conflicts b", "b", "", Verb::Start, "a", "a:start b:stop"),
        ("b conflicts a", "b", "", Verb::Start, "a", "a:start b:stop"),
        ("a conflicts b", "", "", Verb::Start, "a", "a:start"),
        ("a requires b", "a b", "", Verb::Stop, "b", "a:stop b:stop"),
        ("a wants b", "a b", "", Verb::Stop, "b", "b:stop"),
        ("a requires b", "a b", "", Verb::Stop, "a", "a:stop"),
        ("a part-of b", "a b", "", Verb::Restart, "b", "a:restart b:restart"),
        ("a part-of b", "b", "", Verb::Restart, "b", "b:restart"),
        ("a requires b, c requires a", "a b", "", Verb::Restart, "b", "a:restart b:restart"),
        ("a requires b", "", "", Verb::TryRestart, "b", ""),
        ("a requisite b", "", "", Verb::Start, "a", "a:start b:verify-active"),
        ("r wants b", "r", "", Verb::ReloadOrRestart, "r", "r:reload"),
        ("a wants b", "a b", "", Verb::ReloadOrRestart, "a", "a:restart"),
        ("a wants b", "a", "", Verb::Reload, "a", "error: a cannot be reloaded: it has no ExecReload="),
        ("t requires a", "b c keep", "", Verb::Isolate, "t", "a:start b:stop c:stop t:start"),
        ("t requires s, s triggers b", "b", "", Verb::Isolate, "t", "s:start t:start"),
        (
            "a requires b, a conflicts b",
            "",
            "",
            Verb::Start,
            "a",
            "error: a would have to be both started and stopped: its requirements and conflicts contradict each other",
        ),
        ("a wants b, a wants c, b conflicts c", "", "", Verb::Start, "a", "a:start b:start"),
    ];
    for (edges, up, missing, verb, unit, expected) in table {
        assert_eq!(run(edges, up, missing, verb, unit), expected, "{verb:?} {unit} in ({edges}) with ({up}) up");
    }
}

#[test]
fn a_cycle_loses_a_wanted_job_and_names_it() {
    let mut world = world("t wants a, t wants b, t wants c, a after b, b after c, c after a", "", "");
    let t = world.graph.intern("t");
    let plan = plan(&world, Verb::Start, &[t], JobMode::Replace).unwrap();
    assert_eq!(plan.jobs.len(), 3, "{}", jobs(&world, &plan));
    assert_eq!(plan.dropped.len(), 1);
    assert!(plan.dropped[0].contains("ordering cycle") && plan.dropped[0].contains("is left out"), "{}", plan.dropped[0]);
}

#[test]
fn a_cycle_of_required_jobs_is_an_error() {
    let result = run("a requires b, a after b, b after a", "", "", Verb::Start, "a");
    assert!(result.starts_with("error: ordering cycle that cannot be broken"), "{result}");
}

#[test]
fn a_cycle_with_a_queued_job_is_seen() {
    let mut world = world("t wants a, a after b, b after a", "", "");
    let (t, b) = (world.graph.intern("t"), world.graph.intern("b"));
    world.queue.insert(b, Queued { kind: JobKind::Start, irreversible: false });
    let plan = plan(&world, Verb::Start, &[t], JobMode::Replace).unwrap();
    assert_eq!(jobs(&world, &plan), "t:start");
}

#[test]
fn the_queue_is_replaced_only_when_it_may_be() {
    let mut world = world("", "a", "");
    let a = world.graph.intern("a");
    world.queue.insert(a, Queued { kind: JobKind::Stop, irreversible: false });
    assert!(plan(&world, Verb::Start, &[a], JobMode::Replace).is_ok());
    assert!(matches!(plan(&world, Verb::Start, &[a], JobMode::Fail), Err(TransactionError::Destructive { .. })));
    world.queue.insert(a, Queued { kind: JobKind::Stop, irreversible: true });
    assert!(matches!(plan(&world, Verb::Start, &[a], JobMode::Replace), Err(TransactionError::Destructive { .. })));
}

#[test]
fn what_only_asks_a_unit_to_be_up_or_to_reload_does_not_undo_its_stop() {
    let mut world = world("b requisite r, t wants b, rr propagates-reload-to r", "r rr", "");
    let [r, b, rr, t] = ["r", "b", "rr", "t"].map(|name| world.graph.intern(name));
    world.queue.insert(r, Queued { kind: JobKind::Stop, irreversible: false });
    let of = |verb: Verb, unit: UnitId| plan(&world, verb, &[unit], JobMode::Replace);
    assert_eq!(of(Verb::Start, b).unwrap_err().to_string(), "the queued stop job of r is in the way");
    assert!(matches!(of(Verb::Reload, r), Err(TransactionError::Destructive { .. })));
    let start = of(Verb::Start, t).unwrap();
    assert_eq!(jobs(&world, &start), "t:start");
    assert_eq!(start.dropped, ["r: its verify-active job is left out, since it waits to be stopped"]);
    assert_eq!(jobs(&world, &of(Verb::Reload, rr).unwrap()), "rr:reload");
}

#[test]
fn a_deep_chain_does_not_recurse() {
    let mut graph = Graph::default();
    for n in 0..2000 {
        let (a, b) = (graph.intern(&n.to_string()), graph.intern(&(n + 1).to_string()));
        graph.add(a, Dep::Requires, b);
        graph.add(a, Dep::After, b);
    }
    let world = Toy { graph, states: HashMap::new(), queue: HashMap::new(), missing: Vec::new() };
    let plan = plan(&world, Verb::Start, &[UnitId(0)], JobMode::Replace).unwrap();
    assert_eq!(plan.jobs.len(), 2001);
}

proptest::proptest! {
    #[test]
    fn any_world_gives_a_plan_or_an_error_and_never_a_cycle(
        edges in proptest::collection::vec((0u32..8, 0usize..6, 0u32..8), 0..30),
        up in 0u32..256,
        verb in 0usize..3,
    ) {
        let mut graph = Graph::default();
        for n in 0..8 {
            graph.intern(&n.to_string());
        }
        let deps = [Dep::Requires, Dep::Wants, Dep::After, Dep::Conflicts, Dep::BindsTo, Dep::PartOf];
        for (a, dep, b) in edges {
            graph.add(UnitId(a), deps[dep], UnitId(b));
        }
        let states = (0..8).filter(|n| up & (1 << n) != 0).map(|n| (UnitId(n), ActiveState::Active)).collect();
        let world = Toy { graph, states, queue: HashMap::new(), missing: Vec::new() };
        if let Ok(plan) = plan(&world, [Verb::Start, Verb::Stop, Verb::Restart][verb], &[UnitId(0)], JobMode::Replace) {
            // A topological order of the jobs exists.
            let mut left: Vec<UnitId> = plan.jobs.keys().copied().collect();
            while !left.is_empty() {
                let before = left.len();
                let now = left.clone();
                left.retain(|unit| now.iter().any(|other| world.graph.has(*unit, Dep::After, *other)));
                assert!(left.len() < before, "cycle among {left:?}");
            }
        }
    }
}
