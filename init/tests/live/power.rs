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
    // Signals that come faster than they are read are one.
    engine.until("the end", || {
        kill(engine.child.id(), "INT");
        engine.has_ended()
    });
    // In the ordinary way it would have said so.
    assert!(engine.log().contains("end of the engine: Reboot") && !engine.log().contains("going down"), "{}", engine.log());
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

#[test]
fn only_what_starts_the_target_of_an_end_is_that_end() {
    let units = [
        ("default.target", "[Unit]\nWants=web.service\n"),
        ("web.service", "[Service]\nExecStart=/bin/sleep 1000\n"),
        ("reboot.target", "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n"),
        ("last.service", "[Unit]\nWants=reboot.target\nBefore=reboot.target\n[Service]\nType=oneshot\nExecStart=/bin/touch @/last\n"),
    ];
    let mut engine = Engine::start(&units);
    std::os::unix::fs::symlink("/dev/null", engine.path("units/poweroff.target")).unwrap();
    engine.until("the boot", || engine.state("web.service") == "active/running");
    let masked = "error: Unit poweroff.target is masked.";
    let asked = [
        ("start", "poweroff.target", masked),
        ("restart", "poweroff.target", masked),
        ("try-restart", "reboot.target", "nothing"),
        ("try-reload-or-restart", "reboot.target", "nothing"),
        ("reload", "reboot.target", "error: reboot.target cannot be reloaded: it has no ExecReload="),
    ];
    for (verb, unit, answer) in asked {
        assert_eq!(engine.job(verb, unit), answer, "{verb} {unit}");
    }
    assert!(engine.state("web.service") == "active/running" && !engine.log().contains("going down"), "{}", engine.log());
    // What pulls it in comes first.
    engine.job("start", "last.service");
    engine.until("the end", || engine.has_ended());
    assert!(engine.child.wait().unwrap().success() && engine.path("last").exists());
    assert!(engine.log().contains("going down (reboot): its target was started"), "{}", engine.log());
}
