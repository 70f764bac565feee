//! Keys and targets that end the machine: what inhibitors have to say about them, and what they have not.

use reboot_rules::inhibitors::{Inhibitor, Mode, hold};

use crate::engine::{Engine, TARGET, kill};

/// Inhibitors of the engine are in the directory `held` of the test.
const RUN: &str = "mount -t tmpfs none /run && mkdir -p /run/garboard/inhibitors @/held && mount --bind @/held /run/garboard/inhibitors";

fn inhibitor(mode: Mode) -> Inhibitor {
    Inhibitor { what: "shutdown".into(), who: "db".into(), why: "failing over".into(), mode, pid: 5, ..Inhibitor::default() }
}

#[test]
fn a_key_minds_inhibitors_and_says_which() {
    let mut engine = Engine::start_after(RUN, &[TARGET]);
    let block = hold(&engine.path("held"), &inhibitor(Mode::Block)).unwrap();
    let refusal = "ctrl-alt-del was pressed: this host does not reboot now: db forbids it: failing over";
    for times in 1..=2 {
        kill(engine.child.id(), "INT");
        engine.until("a refusal", || engine.log().matches(&format!("garboard: {refusal}")).count() == times);
    }
    assert!(!engine.has_ended() && !engine.log().contains("going down"));
    drop(block);
    // Who asks for a moment gets it, and pressing again meanwhile is nothing new.
    let delay = hold(&engine.path("held"), &inhibitor(Mode::Delay)).unwrap();
    let pending = format!("/proc/{}/root/run/garboard/shutdown-pending", engine.child.id());
    for _ in 0..2 {
        kill(engine.child.id(), "INT");
        engine.until("the wait", || std::path::Path::new(&pending).exists());
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!engine.has_ended() && !engine.log().contains("going down"));
    drop(delay);
    engine.until("the end", || engine.has_ended());
    assert!(engine.child.wait().unwrap().success());
    assert_eq!(engine.log().matches("garboard: going down (reboot): ctrl-alt-del was pressed").count(), 1, "{}", engine.log());
}

#[test]
fn seven_times_in_two_seconds_is_no_question() {
    let engine = Engine::start_after(RUN, &[TARGET]);
    let _block = hold(&engine.path("held"), &inhibitor(Mode::Block)).unwrap();
    for _ in 0..8 {
        kill(engine.child.id(), "INT");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    engine.until("the end", || engine.has_ended());
}

#[test]
fn starting_the_target_of_an_end_is_that_end() {
    let units = [
        ("default.target", "[Unit]\nWants=web.service\n"),
        ("web.service", "[Service]\nExecStart=/bin/sleep 1000\nExecStop=/bin/touch @/stopped\n"),
        ("reboot.target", "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n"),
    ];
    for verb in ["start", "isolate"] {
        let mut engine = Engine::start(&units);
        engine.until("the boot", || engine.state("web.service") == "active/running");
        assert_eq!(engine.job(verb, "reboot.target"), "nothing");
        engine.until("the end", || engine.has_ended());
        assert!(engine.child.wait().unwrap().success() && engine.path("stopped").exists());
        assert!(engine.log().contains("going down (reboot): its target was started"), "{}", engine.log());
    }
}
