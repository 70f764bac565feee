//! The unit engine at work: the real binary with real processes, over directories and a control group of its own.
//!
//! Needs root and a cgroup v2 hierarchy to make groups in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test helpers are not test functions to clippy")]

#[path = "support/engine.rs"]
mod engine;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::{Engine, TARGET, kill};
use serde_json::json;

#[test]
fn the_health_gate_waits_for_the_operators_checks() {
    let target = ("default.target", "[Unit]\nDescription=Default\n");
    let check = "[[check]]\ncommand = ['/usr/bin/test', '-e', '@/ready']\n";
    let engine = Engine::start(&[target, ("health.d/ready.toml", check)]);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!engine.log().contains("garboard: boot-"), "{}", engine.log());
    std::fs::write(engine.path("ready"), "").unwrap();
    engine.until("boot-complete", || engine.log().contains("garboard: boot-complete version=0.0.1 slot=a uptime="));
    // The deadline of these tests is 6 s.
    let engine = Engine::start(&[target, ("health.d/bad.toml", "[[check]]\nwish = 1\n")]);
    engine.until("boot-degraded", || engine.log().contains("garboard: boot-degraded version=0.0.1 slot=a reason="));
    assert!(engine.log().contains("bad.toml"), "{}", engine.log());
}

#[test]
fn a_boot_comes_up_in_order_and_is_called_complete_in_spite_of_a_broken_unit() {
    let mut engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=first.service second.service broken.service gone.service pulled.service\n"),
        (
            "first.service",
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'sleep 0.3; echo first >> @/order'\nExecStart=/bin/sh -c 'echo again >> @/order'\n",
        ),
        ("second.service", "[Unit]\nAfter=first.service\n[Service]\nExecStart=/bin/sh -c 'echo second >> @/order; exec sleep 1000'\n"),
        ("broken.service", "[Service]\nExecStart=\nRestart=perhaps\n"),
        ("pulled.service", "[Unit]\nRequires=fails.service\nAfter=fails.service\n[Service]\nExecStart=/bin/sleep 1000\n"),
        ("fails.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n"),
    ]);
    engine.until("boot-complete", || engine.log().contains("garboard: boot-complete version=0.0.1 slot=a uptime="));
    assert_eq!(engine.read("order"), "first\nagain\nsecond\n");
    assert_eq!(engine.show("broken.service", "LoadState"), "bad-setting");
    assert_eq!(engine.state("default.target"), "active/active");
    assert_eq!(engine.state("fails.service"), "failed/failed");
    assert_eq!(engine.state("pulled.service"), "inactive/dead", "what it requires has failed");
    let status = engine.ask(&json!({"request": "system-status"}));
    assert_eq!((status[0]["state"].as_str(), status[0]["failed"].to_string().as_str()), (Some("degraded"), "[\"fails.service\"]"));
    let pid = engine.pid("second.service");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    engine.end();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "everything was stopped");
}

#[test]
fn every_type_is_up_when_it_says() {
    let engine = Engine::start(&[
        TARGET,
        ("exec.service", "[Service]\nType=exec\nExecStart=/bin/sleep 1000\n"),
        ("noexec.service", "[Service]\nType=exec\nExecStart=/nowhere/program\n"),
        (
            "notify.service",
            "[Service]\nType=notify\nNotifyAccess=all\nExecStart=/bin/sh -c 'sleep 0.2; echo ready > @/ready; %init notify READY=1 STATUS=fine; exec sleep 1000'\n",
        ),
        (
            "liar.service",
            "[Service]\nType=notify\nNotifyAccess=main\nTimeoutStartSec=1\nExecStart=/bin/sh -c '%init notify READY=1 MAINPID=1; exec sleep 1000'\n",
        ),
        (
            "fork.service",
            "[Service]\nType=forking\nPIDFile=@/fork.pid\nExecStart=/bin/sh -c 'sleep 1000 & (sleep 0.2; echo $$! > @/fork.pid) &'\n",
        ),
        (
            "env.service",
            "[Service]\nType=oneshot\nUser=nobody\nRuntimeDirectory=mine\nStateDirectory=mine/deep\nEnvironment=A=1 B=2\nEnvironmentFile=-@/missing\nEnvironmentFile=@/env\nStandardOutput=file:@/env.out\nExecStart=/bin/sh -c 'env; id -un; stat -c %%U $$RUNTIME_DIRECTORY'\n",
        ),
    ]);
    std::fs::write(engine.path("env"), "B='from file'\n").unwrap();
    assert_eq!(engine.job("start", "exec.service"), "done");
    assert_eq!(engine.job("start", "noexec.service"), "failed");
    assert!(engine.log().contains("cannot execute /nowhere/program"), "{}", engine.log());
    assert_eq!(engine.job("start", "notify.service"), "done");
    assert_eq!(engine.read("ready"), "ready\n");
    assert_eq!(engine.show("notify.service", "StatusText"), "fine");
    assert_eq!(engine.job("start", "liar.service"), "timeout", "{}", engine.log());
    assert_eq!(engine.job("start", "fork.service"), "done");
    assert_eq!(engine.pid("fork.service"), engine.read("fork.pid").trim().parse::<i32>().unwrap());
    std::fs::set_permissions(engine.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(engine.job("start", "env.service"), "done", "{}", engine.log());
    let out = engine.read("env.out");
    for line in ["A=1", "B=from file", "USER=nobody", "nobody"] {
        assert!(out.lines().any(|have| have == line), "{line} in {out}");
    }
    assert!(!engine.path("run/mine").exists(), "a runtime directory goes with its service");
    assert!(engine.path("state/mine/deep").is_dir());
}

#[test]
fn a_crash_loop_backs_off_and_gives_up() {
    let engine = Engine::start(&[
        TARGET,
        (
            "crash.service",
            "[Unit]\nStartLimitBurst=4\nStartLimitIntervalSec=30\nOnFailure=cleanup.service\n[Service]\nExecStart=/bin/sh -c 'date +%%s%%N >> @/starts; exit 3'\nRestart=always\nRestartSec=100ms\nRestartSteps=3\nRestartMaxDelaySec=800ms\n",
        ),
        ("cleanup.service", "[Service]\nType=oneshot\nExecStart=/bin/touch @/cleaned\n"),
    ]);
    engine.job("start", "crash.service");
    engine.until("the start limit", || engine.show("crash.service", "Result") == "start-limit-hit");
    let starts: Vec<u64> = engine.read("starts").lines().map(|line| line.parse::<u64>().unwrap() / 1_000_000).collect();
    assert_eq!(starts.len(), 4, "{starts:?}");
    let gaps: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] >= 95 && gaps[1] >= 190 && gaps[2] >= 390, "{gaps:?} should double");
    engine.until("OnFailure=", || engine.path("cleaned").exists());
    assert!(engine.job("start", "crash.service").contains("fail"), "still over the limit");
    engine.ask(&json!({"request": "reset-failed", "units": ["crash.service"]}));
    assert_eq!(engine.state("crash.service"), "inactive/dead");
}

#[test]
fn what_ignores_sigterm_is_killed_with_its_children() {
    let engine = Engine::start(&[
        TARGET,
        (
            "stubborn.service",
            "[Service]\nTimeoutStopSec=1\nExecStopPost=/bin/sh -c 'echo $$SERVICE_RESULT $$EXIT_STATUS > @/post'\nExecStart=/bin/sh -c 'trap \"\" TERM; (trap \"\" TERM; while :; do sleep 1; done) & while :; do sleep 1; done'\n",
        ),
        ("leaver.service", "[Service]\nKillMode=process\nExecStart=/bin/sh -c 'sleep 1000 & echo $! > @/child; exec sleep 1000'\n"),
    ]);
    assert_eq!(engine.job("start", "stubborn.service"), "done");
    std::thread::sleep(Duration::from_millis(300));
    let before = Instant::now();
    assert_eq!(engine.job("stop", "stubborn.service"), "done");
    assert!(before.elapsed() >= Duration::from_secs(1) && before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    assert_eq!(engine.state("stubborn.service"), "failed/failed");
    assert_eq!(engine.read("post"), "timeout 9\n");
    assert!(!engine.group.join("system.slice/stubborn.service").exists(), "nobody is left");

    assert_eq!(engine.job("start", "leaver.service"), "done");
    engine.until("the child", || !engine.read("child").is_empty());
    assert_eq!(engine.job("stop", "leaver.service"), "done");
    let child = engine.read("child").trim().to_owned();
    assert!(Path::new(&format!("/proc/{child}")).exists(), "KillMode=process leaves children alone");
    assert_eq!(engine.job("start", "leaver.service"), "done");
    assert!(engine.log().contains("of an earlier run are still there"), "{}", engine.log());
}

#[test]
fn five_hundred_orphans_are_reaped() {
    let engine = Engine::start(&[
        TARGET,
        (
            "orphans.service",
            "[Service]\nType=oneshot\nTasksMax=infinity\nKillMode=process\nExecStart=/bin/sh -c 'i=0; while [ $$i -lt 500 ]; do (sleep 0.5 &) ; i=$$((i+1)); done'\n",
        ),
    ]);
    assert_eq!(engine.job("start", "orphans.service"), "done");
    std::thread::sleep(Duration::from_millis(800));
    engine.until("no zombies", || {
        let text = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", engine.child.id())).unwrap_or_default();
        text.split_whitespace().count() == 0
    });
    assert_eq!(engine.ask(&json!({"request": "list-jobs"})).len(), 1, "and it still answers");
}

/// Every round starts `units` oneshots, each of which leaves an orphan behind and ends with a status of its own.
fn short_lives(units: usize, rounds: usize) {
    let names: Vec<String> = (0..units).map(|number| format!("short{number}.service")).collect();
    let texts: Vec<String> = (0..units)
        .map(|number| {
            format!(
                "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nKillMode=process\n\
                 ExecStart=/bin/sh -c 'read r < @/round; : & exit $$((({number} + r) %% 150 + 1))'\n"
            )
        })
        .collect();
    let mut all: Vec<(&str, &str)> = names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    all.push(TARGET);
    let engine = Engine::start(&all);
    let begun = Instant::now();
    for round in 0..rounds {
        std::fs::write(engine.path("round"), format!("{round}\n")).unwrap();
        engine.ask(&json!({"request": "job", "verb": "start", "units": names, "wait": true}));
        for (number, reply) in (0..units).zip(&engine.ask(&json!({"request": "show", "units": names}))) {
            assert_eq!(reply["properties"]["ExecMainStatus"], ((number + round) % 150 + 1).to_string(), "{number} in round {round}");
        }
    }
    let took = begun.elapsed();
    engine.until("no zombies", || {
        let text = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", engine.child.id())).unwrap_or_default();
        text.split_whitespace().count() == 0
    });
    println!(
        "bench: {} processes and as many orphans: no zombie, every exit status right | {:.1} s | none lost",
        units * rounds,
        took.as_secs_f64()
    );
}

#[test]
fn no_exit_status_is_lost_and_no_zombie_stays() {
    short_lives(300, 2);
}

#[test]
#[ignore = "a measurement"]
fn ten_thousand_short_lives() {
    short_lives(1000, 10);
}

#[test]
fn a_reload_keeps_what_runs_and_masks_what_is_masked() {
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=web.service\n"),
        (
            "web.service",
            "[Unit]\nDescription=One\n[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/sh -c 'echo $MAINPID > @/reloaded'\n",
        ),
    ]);
    engine.until("web", || engine.state("web.service") == "active/running");
    let pid = engine.pid("web.service");
    engine.unit(
        "web.service",
        "[Unit]\nDescription=Two\n[Service]\nExecStart=/bin/sleep 2000\nExecReload=/bin/sh -c 'echo $MAINPID > @/reloaded'\n",
    );
    engine.unit("new.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    engine.ask(&json!({"request": "daemon-reload"}));
    assert_eq!(engine.show("web.service", "Description"), "Two");
    assert_eq!((engine.state("web.service").as_str(), engine.pid("web.service")), ("active/running", pid));
    assert_eq!(engine.job("reload", "web.service"), "done");
    assert_eq!(engine.read("reloaded").trim(), pid.to_string());
    assert_eq!(engine.job("restart", "web.service"), "done");
    assert_ne!(engine.pid("web.service"), pid);
    assert_eq!(engine.job("start", "new.service"), "done");
    std::fs::remove_file(engine.path("units/new.service")).unwrap();
    std::os::unix::fs::symlink("/dev/null", engine.path("units/new.service")).unwrap();
    engine.ask(&json!({"request": "daemon-reload"}));
    assert_eq!(engine.state("new.service"), "active/running", "masking does not stop");
    assert_eq!(engine.job("stop", "new.service"), "done");
    assert_eq!(engine.job("start", "new.service"), "error: Unit new.service is masked.");
    assert_eq!(engine.job("start", "never.service"), "error: Unit never.service not found.");
}

#[test]
fn dependencies_pull_bind_and_propagate() {
    let engine = Engine::start(&[
        TARGET,
        ("app.service", "[Unit]\nRequires=db.service\nAfter=db.service\nConflicts=other.service\n[Service]\nExecStart=/bin/sleep 1000\n"),
        ("db.service", "[Service]\nExecStart=/bin/sleep 1000\n"),
        ("bound.service", "[Unit]\nBindsTo=db.service\nAfter=db.service\n[Service]\nExecStart=/bin/sleep 1000\n"),
        ("part.service", "[Unit]\nPartOf=db.service\n[Service]\nExecStart=/bin/sleep 1000\n"),
        ("other.service", "[Service]\nExecStart=/bin/sleep 1000\n"),
        ("skip.service", "[Unit]\nConditionPathExists=/nowhere\n[Service]\nExecStart=/bin/sleep 1000\n"),
    ]);
    for unit in ["other.service", "app.service", "bound.service", "part.service"] {
        assert_eq!(engine.job("start", unit), "done");
    }
    assert_eq!(engine.state("db.service"), "active/running");
    engine.until("the conflict", || engine.state("other.service") == "inactive/dead");
    let part = engine.pid("part.service");
    assert_eq!(engine.job("restart", "db.service"), "done");
    engine.until("PartOf=", || engine.state("part.service") == "active/running" && engine.pid("part.service") != part);
    assert_eq!(engine.state("app.service"), "active/running", "a restart takes along what requires it");
    kill(engine.pid("db.service"), "KILL");
    engine.until("BindsTo=", || engine.state("bound.service") == "inactive/dead");
    assert_eq!(engine.state("app.service"), "active/running", "Requires= does not care about an end by itself");
    assert_eq!(engine.job("start", "skip.service"), "skipped");
    assert_eq!(engine.show("skip.service", "ConditionResult"), "no");
}

#[test]
fn garbage_on_the_sockets_hurts_nobody() {
    let engine = Engine::start(&[("default.target", "[Unit]\nWants=x.service\n"), ("x.service", "[Service]\nExecStart=/bin/sleep 1000\n")]);
    let control = engine.path("run/garboard/control");
    for bytes in
        [b"\n".to_vec(), b"{}\n".to_vec(), vec![0xff; 200_000], b"{\"request\":\"job\",\"verb\":\"start\",\"units\":[\"../x\"]}\n".to_vec()]
    {
        let mut stream = UnixStream::connect(&control).unwrap();
        let _ = stream.write_all(&bytes);
    }
    let idle: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(&control).unwrap()).collect();
    let notify = std::os::unix::net::UnixDatagram::unbound().unwrap();
    for _ in 0..200 {
        let _ = notify.send_to(b"READY=1\nMAINPID=1\nFDSTORE=1", engine.path("run/garboard/notify"));
    }
    assert_eq!(engine.job("restart", "x.service"), "done");
    assert_eq!(engine.state("x.service"), "active/running");
    drop(idle);
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.child.id())).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap();
    assert!(kib < 4096, "PID 1 holds {kib} KiB");
}

#[test]
fn a_service_that_closes_its_streams_or_lies_about_its_processes_hurts_itself_only() {
    let lie = "%init notify MAINPID=$$(cat @/honest.pid) READY=1 STATUS=$$(seq -s- 2000); exec sleep 1000";
    let engine = Engine::start(&[
        TARGET,
        ("honest.service", "[Service]\nExecStart=/bin/sh -c 'echo $$$$ >@/honest.pid; exec sleep 1000'\n"),
        ("closed.service", "[Service]\nExecStart=/bin/sh -c 'exec sleep 1000 <&- >&- 2>&-'\n"),
        ("liar.service", &format!("[Service]\nType=notify\nNotifyAccess=all\nExecStart=/bin/sh -c '{lie}'\n")),
    ]);
    for unit in ["honest.service", "closed.service"] {
        assert_eq!(engine.job("start", unit), "done", "{}", engine.log());
    }
    engine.until("the honest one's number", || !engine.read("honest.pid").trim().is_empty());
    let honest = engine.pid("honest.service");
    assert_eq!(engine.read("honest.pid").trim(), honest.to_string());
    assert_eq!(engine.job("start", "liar.service"), "done", "{}", engine.log());
    assert_ne!(engine.pid("liar.service"), honest);
    assert!(engine.log().contains("which is no process of it: ignored"), "{}", engine.log());
    for unit in ["liar.service", "closed.service"] {
        assert_eq!(engine.job("stop", unit), "done", "{}", engine.log());
    }
    assert_eq!((engine.state("honest.service").as_str(), engine.pid("honest.service")), ("active/running", honest));
}

#[test]
fn a_sandbox_hides_and_protects_and_the_unsupported_is_refused() {
    let script = "for path in /usr/x /etc/x @/work/ok; do touch $$path && echo wrote $$path; done; ls /root && echo root; ls /dev | wc -l; grep CapBnd /proc/self/status";
    let engine = Engine::start(&[
        TARGET,
        (
            "boxed.service",
            &format!(
                "[Service]\nType=oneshot\nProtectSystem=strict\nProtectHome=yes\nPrivateDevices=yes\nNoNewPrivileges=yes\nCapabilityBoundingSet=CAP_CHOWN CAP_MKNOD\nReadWritePaths=@/work\nStandardOutput=file:@/out\nStandardError=null\nExecStart=/bin/sh -c '{script}'\n"
            ),
        ),
        ("wish.service", "[Service]\nRestrictFileSystems=ext4\nExecStart=/bin/sleep 1000\n"),
        ("anyway.service", "[Unit]\nX-Init-Allow-Unsupported=yes\n[Service]\nRestrictFileSystems=ext4\nExecStart=/bin/sleep 1000\n"),
    ]);
    std::fs::create_dir(engine.path("work")).unwrap();
    assert_eq!(engine.job("start", "boxed.service"), "done", "{}", engine.log());
    let out = engine.read("out");
    assert!(out.contains(&format!("wrote {}/work/ok", engine.directory.path().display())), "{out}");
    assert!(!out.contains("wrote /usr") && !out.contains("wrote /etc") && !out.contains("root"), "{out}");
    assert!(out.contains("CapBnd:\t0000000000000001"), "PrivateDevices= takes CAP_MKNOD away: {out}");
    assert!(engine.job("start", "wish.service").starts_with("error: Unit wish.service has a bad unit file setting"), "{}", engine.log());
    assert_eq!(engine.job("start", "anyway.service"), "done");
}

#[test]
fn a_direct_restart_is_hidden_from_what_is_bound_to_it() {
    let engine = Engine::start(&[
        TARGET,
        (
            "flaky.service",
            "[Service]\nRestart=always\nRestartSec=100ms\nRestartMode=direct\nExecStart=/bin/sh -c 'echo up >> @/ups; exec sleep 1000'\n",
        ),
        ("bound.service", "[Unit]\nBindsTo=flaky.service\nAfter=flaky.service\n[Service]\nExecStart=/bin/sleep 1000\n"),
    ]);
    assert_eq!(engine.job("start", "bound.service"), "done");
    let pid = engine.pid("bound.service");
    engine.until("the first start", || engine.read("ups").lines().count() == 1);
    kill(engine.pid("flaky.service"), "KILL");
    engine.until("the second start", || engine.read("ups").lines().count() == 2);
    engine.until("up", || engine.state("flaky.service") == "active/running");
    assert_eq!((engine.state("bound.service").as_str(), engine.pid("bound.service")), ("active/running", pid));
}

#[test]
#[ignore = "a measurement: cargo test --workspace --test unit_engine -- --ignored --nocapture memory"]
fn memory_of_the_engine_with_a_thousand_units() {
    let names: Vec<String> = (0..1000).map(|number| format!("unit{number}.service")).collect();
    let default = format!("[Unit]\nAfter={}\n", names.join(" "));
    let text = "[Unit]\nDescription=One of many\nAfter=basic.target\n[Service]\nType=notify\nExecStartPre=-/usr/bin/docker rm -f %N\n\
                ExecStart=/usr/bin/docker run --name %N -p 80:80 example.org/image:latest\nRestart=always\nRestartSec=5\nLimitNOFILE=65536\n";
    let mut units: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), text)).collect();
    units.push(("default.target", &default));
    let engine = Engine::start(&units);
    engine.until("boot-complete", || engine.log().contains("garboard: boot-complete"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u32 = line.trim().trim_end_matches(" kB").parse().unwrap();
    println!("bench: PID 1 with 1,000 units, resident | {:.2} MiB | 8 MiB", f64::from(kib) / 1024.0);
    assert!(kib < 8 * 1024, "{status}");
}
