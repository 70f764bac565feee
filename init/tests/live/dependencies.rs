//! Dependencies at work: asserts, what is held up or stopped when nobody needs it, what follows a success, cycles, sidekicks.

use crate::engine::{Engine, TARGET, kill};

const SLEEP: &str = "[Service]\nExecStart=/bin/sleep 1000\n";

#[test]
fn a_failed_assert_fails_the_job_and_what_requires_it_and_a_failed_condition_does_not() {
    let with = |line: &str| format!("[Unit]\n{line}\n{SLEEP}");
    let [assert, fine, condition, after_assert, after_condition] = [
        "AssertPathExists=/nowhere",
        "AssertPathExists=/proc\nAssertPathIsDirectory=|/nowhere\nAssertPathIsDirectory=|/proc",
        "ConditionPathExists=/nowhere",
        "Requires=assert.service\nAfter=assert.service",
        "Requires=condition.service\nAfter=condition.service",
    ]
    .map(with);
    let engine = Engine::start(&[
        TARGET,
        ("assert.service", &assert),
        ("fine.service", &fine),
        ("condition.service", &condition),
        ("after-assert.service", &after_assert),
        ("after-condition.service", &after_condition),
    ]);
    assert_eq!(engine.job("start", "assert.service"), "assert");
    assert!(engine.log().contains("AssertPathExists=/nowhere does not hold"), "{}", engine.log());
    assert_eq!(engine.state("assert.service"), "inactive/dead");
    assert_eq!(engine.job("start", "fine.service"), "done");
    assert_eq!(engine.job("start", "after-assert.service"), "dependency");
    assert_eq!(engine.job("start", "after-condition.service"), "done");
    assert_eq!(engine.state("after-condition.service"), "active/running");
}

#[test]
fn what_is_upheld_comes_back_and_what_nobody_needs_goes() {
    let unneeded = format!("[Unit]\nStopWhenUnneeded=yes\n{SLEEP}");
    let holder = format!("[Unit]\nUpholds=held.service\nWants=helper.service\n{SLEEP}");
    let user = format!("[Unit]\nRequires=helper.service\n{SLEEP}");
    let engine = Engine::start(&[
        TARGET,
        ("holder.service", &holder),
        ("user.service", &user),
        ("held.service", SLEEP),
        ("helper.service", &unneeded),
    ]);
    assert_eq!(engine.job("start", "holder.service"), "done");
    assert_eq!(engine.job("start", "user.service"), "done");
    engine.until("what it holds", || engine.pid("held.service") > 0);
    let first = engine.pid("held.service");
    kill(first, "KILL");
    engine.until("that it comes back", || !["0", &first.to_string()].contains(&engine.show("held.service", "MainPID").as_str()));
    assert_eq!(engine.job("stop", "holder.service"), "done");
    assert_eq!(engine.state("helper.service"), "active/running", "user.service needs it");
    assert_eq!(engine.job("stop", "user.service"), "done");
    engine.until("that it goes", || engine.state("helper.service") == "inactive/dead");
    kill(engine.pid("held.service"), "KILL");
    engine.until("that it stays down", || engine.state("held.service").starts_with("failed"));
}

#[test]
fn a_success_starts_what_it_names() {
    let engine = Engine::start(&[
        TARGET,
        ("backup.service", "[Unit]\nOnSuccess=well.service\nOnFailure=badly.service\n[Service]\nType=oneshot\nExecStart=/bin/true\n"),
        ("well.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo well >> @/told'\n"),
        ("badly.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo badly >> @/told'\n"),
    ]);
    assert_eq!(engine.job("start", "backup.service"), "done");
    engine.until("OnSuccess=", || engine.read("told") == "well\n");
}

#[test]
fn a_cycle_is_broken_where_it_hurts_least_and_named() {
    let unit = |line: &str| format!("[Unit]\n{line}\n{SLEEP}");
    let (a, b, c) = (unit("After=b.service"), unit("After=c.service"), unit("After=a.service"));
    let (x, y) = (unit("Requires=y.service\nAfter=y.service"), unit("After=x.service"));
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nRequires=a.service b.service\nWants=c.service\n"),
        ("a.service", &a),
        ("b.service", &b),
        ("c.service", &c),
        ("x.service", &x),
        ("y.service", &y),
    ]);
    engine.until("boot-complete", || engine.log().contains("garboard: boot-complete"));
    assert_eq!((engine.state("a.service"), engine.state("b.service")), ("active/running".into(), "active/running".into()));
    assert_eq!(engine.state("c.service"), "inactive/dead", "only wanted");
    assert!(engine.log().contains("c.service") && engine.log().contains("cycle"), "{}", engine.log());
    let refused = engine.job("start", "x.service");
    assert!(refused.starts_with("error: ") && refused.contains("x.service after y.service"), "{refused}");
}

#[test]
fn sidekicks_follow_their_service_through_stop_restart_and_crash() {
    let sidekick = format!("[Unit]\nBindsTo=main.service\nAfter=main.service\n{SLEEP}");
    let engine = Engine::start(&[TARGET, ("main.service", SLEEP), ("side.service", &sidekick)]);
    let both = || (engine.state("main.service"), engine.state("side.service"));
    let up = || ("active/running".to_owned(), "active/running".to_owned());
    assert_eq!(engine.job("start", "side.service"), "done");
    assert_eq!(both(), up());
    let first = engine.pid("side.service");
    assert_eq!(engine.job("restart", "main.service"), "done");
    engine.until("both", || both() == up() && engine.pid("side.service") != first);
    // Requests that overtake each other: whatever wins, neither runs without the other.
    for _ in 0..15 {
        for arguments in ["stop main.service", "start side.service", "restart main.service", "stop main.service", "restart side.service"] {
            engine.ask(&serde_json::json!({
                "request": "job", "verb": arguments.split(' ').next().unwrap(), "units": [arguments.split(' ').nth(1).unwrap()], "wait": false,
            }));
        }
        engine.until("rest", || engine.ask(&serde_json::json!({"request": "list-jobs"})).len() == 1);
        let (main, side) = both();
        assert!(main == "active/running" || side != "active/running", "side.service outlives main.service: {main} {side}");
    }
}
