//! What a failure or an end leads to: isolating, ending the machine, other units, giving up; and what nobody may ask for.

use std::time::{Duration, Instant};

use crate::engine::{Engine, TARGET};

#[test]
fn a_failure_isolates_emergency_as_initrds_do() {
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=web.service kept.service\n"),
        ("web.service", "[Service]\nExecStart=/bin/sleep 1000\n"),
        ("kept.service", "[Unit]\nDefaultDependencies=no\nIgnoreOnIsolate=yes\n[Service]\nExecStart=/bin/sleep 1000\n"),
        ("setup.service", "[Unit]\nOnFailure=emergency.target\nOnFailureJobMode=isolate\n[Service]\nType=oneshot\nExecStart=/bin/false\n"),
        ("emergency.target", "[Unit]\nAllowIsolate=yes\nRequires=shell.service\nAfter=shell.service\n"),
        ("shell.service", "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep 1000\n"),
    ]);
    engine.until("the boot", || engine.state("web.service") == "active/running" && engine.state("kept.service") == "active/running");
    assert_eq!(engine.job("start", "setup.service"), "failed");
    engine.until("emergency.target", || engine.state("emergency.target") == "active/active");
    engine.until("the end of the rest", || engine.state("web.service") == "inactive/dead");
    assert_eq!(engine.state("shell.service"), "active/running");
    assert_eq!(engine.state("kept.service"), "active/running");
}

#[test]
fn who_may_not_be_isolated_started_or_stopped_by_hand_says_so() {
    let engine = Engine::start(&[
        TARGET,
        ("plain.target", "[Unit]\n"),
        ("other.target", "[Unit]\nAllowIsolate=yes\nWants=pulled.service\n"),
        ("pulled.service", "[Unit]\nRefuseManualStart=yes\nIgnoreOnIsolate=yes\n[Service]\nExecStart=/bin/sleep 1000\n"),
        ("held.service", "[Unit]\nRefuseManualStop=yes\nIgnoreOnIsolate=yes\n[Service]\nExecStart=/bin/sleep 1000\n"),
    ]);
    assert!(engine.job("isolate", "plain.target").starts_with("error: "), "{}", engine.job("isolate", "plain.target"));
    assert!(engine.job("start", "pulled.service").starts_with("error: "));
    assert_eq!(engine.state("pulled.service"), "inactive/dead");
    assert_eq!(engine.job("isolate", "other.target"), "done", "{}", engine.log());
    engine.until("what a target pulls in", || engine.state("pulled.service") == "active/running");
    assert_eq!(engine.job("start", "held.service"), "done");
    for verb in ["stop", "restart"] {
        assert!(engine.job(verb, "held.service").starts_with("error: "), "{verb}");
    }
    assert_eq!(engine.state("held.service"), "active/running");
}

#[test]
fn actions_end_the_machine_when_a_unit_fails_succeeds_or_starts_too_often() {
    let mut engines: Vec<(&str, &str, Engine)> = Vec::new();
    for (what, unit, text, end) in [
        (
            "failure",
            "a.service",
            "FailureAction=poweroff\n[Service]\nType=oneshot\nExecStart=/bin/false\n",
            "(poweroff): a.service asks for it",
        ),
        ("success", "b.service", "SuccessAction=reboot\n[Service]\nType=oneshot\nExecStart=/bin/true\n", "(reboot): b.service asks for it"),
        (
            "start limit",
            "c.service",
            "StartLimitBurst=2\nStartLimitAction=halt\n[Service]\nRestart=always\nRestartSec=10ms\nExecStart=/bin/false\n",
            "(halt): c.service asks for it",
        ),
        (
            "job timeout",
            "d.service",
            "JobTimeoutSec=500ms\nJobTimeoutAction=reboot\n[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n",
            "(reboot): d.service asks for it",
        ),
        (
            "at once",
            "e.service",
            "FailureAction=reboot-force\n[Service]\nType=oneshot\nTimeoutStopSec=1000\nExecStart=/bin/false\n",
            "going down at once (reboot): e.service asks for it",
        ),
    ] {
        let text = format!("[Unit]\n{text}");
        let engine = Engine::start(&[TARGET, ("stays.service", "[Service]\nExecStart=/bin/sleep 1000\n"), (unit, &text)]);
        assert_eq!(engine.job("start", "stays.service"), "done");
        let (text, _) = engine.systemctl(&format!("start --no-block {unit}"));
        assert_eq!(text, "", "{what}");
        engines.push((what, end, engine));
    }
    for (what, end, engine) in &engines {
        engine.until(what, || engine.has_ended());
        assert!(engine.log().contains(end), "{what}: {}", engine.log());
    }
}

#[test]
fn a_job_that_waits_too_long_is_given_up() {
    let engine = Engine::start(&[
        TARGET,
        ("slow.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n"),
        ("waits.service", "[Unit]\nAfter=slow.service\nJobTimeoutSec=500ms\n[Service]\nExecStart=/bin/sleep 1000\n"),
        ("runs.service", "[Unit]\nJobRunningTimeoutSec=500ms\n[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n"),
    ]);
    engine.systemctl("start --no-block slow.service");
    engine.until("the slow one", || engine.state("slow.service") == "activating/start");
    let begun = Instant::now();
    assert_eq!(engine.job("start", "waits.service"), "timeout");
    assert!(begun.elapsed() > Duration::from_millis(450), "{:?}", begun.elapsed());
    assert_eq!(engine.state("waits.service"), "inactive/dead");
    assert_eq!(engine.job("start", "runs.service"), "timeout");
}

#[test]
fn a_service_that_runs_too_long_is_ended_and_has_failed() {
    let engine = Engine::start(&[
        TARGET,
        ("long.service", "[Unit]\nOnFailure=hears.service\n[Service]\nRuntimeMaxSec=700ms\nExecStart=/bin/sleep 1000\n"),
        ("hears.service", "[Service]\nType=oneshot\nExecStart=/bin/touch @/heard\n"),
    ]);
    let begun = Instant::now();
    assert_eq!(engine.job("start", "long.service"), "done");
    engine.until("its end", || engine.state("long.service") == "failed/failed");
    assert!(begun.elapsed() > Duration::from_millis(650), "{:?}", begun.elapsed());
    assert_eq!(engine.show("long.service", "Result"), "timeout");
    engine.until("OnFailure=", || engine.path("heard").exists());
}

#[test]
fn a_wrapper_of_a_container_is_not_started_again_while_the_machine_goes_down() {
    // A docker whose daemon runs, whose `ps` names one container, and whose `stop` ends it and takes three seconds in all.
    let docker = "mount -t tmpfs none /usr/local/sbin\ncat > /usr/local/sbin/docker <<'END'\n#!/bin/sh\n\
        case $1 in ps) echo c1;; stop) echo \"$*\" >> @/stopped; kill $(cat @/container); sleep 3;; \
        run) echo run >> @/runs; echo $$ > @/container; exec sleep 1000;; esac\nEND\nchmod 755 /usr/local/sbin/docker";
    let mut engine = Engine::start_after(
        docker,
        &[
            ("default.target", "[Unit]\nWants=docker.service web.service\n"),
            ("docker.service", "[Service]\nExecStart=/bin/sleep 1000\n"),
            (
                "web.service",
                "[Unit]\nRequires=docker.service\nAfter=docker.service\n[Service]\nRestart=always\nRestartSec=1\n\
                 ExecStartPre=-docker rm -f web\nExecStart=docker run --name web image\nExecStop=-docker rm web\n",
            ),
            (
                "direct.service",
                "[Service]\nRestart=always\nRestartMode=direct\nRestartSec=1\nExecStart=/bin/sh -c 'echo run >> @/direct; sleep 2'\n",
            ),
        ],
    );
    engine.until("the container", || !engine.read("container").is_empty());
    engine.job("start", "direct.service");
    engine.end();
    assert_eq!(engine.read("stopped"), "stop -t 8 c1\n");
    assert_eq!(engine.read("runs"), "run\n", "{}", engine.log());
    assert_eq!(engine.read("direct"), "run\n", "{}", engine.log());
    assert!(engine.log().contains("web.service: not restarted: the machine is going down"), "{}", engine.log());
}
