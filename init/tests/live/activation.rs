//! What starts units: sockets, connections, timers, paths.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::engine::{Engine, TARGET};

#[test]
fn a_socket_starts_its_service_and_hands_itself_over() {
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=echo.socket\n"),
        (
            "echo.socket",
            "[Socket]\nListenStream=@/run/deep/echo.sock\nListenFIFO=@/run/fifo\nSocketMode=0600\nFileDescriptorName=conn\nRemoveOnStop=yes\nSymlinks=@/run/link\n",
        ),
        ("echo.service", "[Service]\nExecStart=/bin/sh -c 'env > @/env; exec sleep 1000'\n"),
    ]);
    engine.until("listening", || engine.state("echo.socket") == "active/listening");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(engine.path("run/deep/echo.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let _connection = UnixStream::connect(engine.path("run/link")).unwrap();
    engine.until("the service", || engine.read("env").contains("LISTEN_FDNAMES=conn:conn"));
    assert!(engine.read("env").contains("LISTEN_FDS=2"));
    assert!(engine.read("env").contains(&format!("LISTEN_PID={}\n", engine.pid("echo.service"))));
    assert_eq!(engine.state("echo.socket"), "active/running");
    drop(_connection);
    assert_eq!(engine.job("stop", "echo.socket"), "done");
    assert!(!engine.path("run/deep/echo.sock").exists() && !engine.path("run/link").exists());
}

#[test]
fn a_socket_whose_service_is_skipped_gives_up_instead_of_spinning() {
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=never.socket\n"),
        ("never.socket", "[Socket]\nListenStream=@/run/never.sock\n"),
        ("never.service", "[Unit]\nConditionPathExists=/nowhere\n[Service]\nExecStart=/bin/true\n"),
    ]);
    engine.until("listening", || engine.state("never.socket") == "active/listening");
    let _connection = UnixStream::connect(engine.path("run/never.sock")).unwrap();
    engine.until("the trigger limit", || engine.state("never.socket") == "failed/failed");
    assert!(engine.log().contains("triggered too often"), "{}", engine.log());
}

#[test]
fn timers_and_idle_services_run_in_their_time() {
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=tick.timer late.service slow.service\n"),
        ("tick.timer", "[Timer]\nOnActiveSec=200ms\nOnUnitActiveSec=300ms\nAccuracySec=1ms\n"),
        ("tick.service", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo tick >> @/ticks'\n"),
        ("late.service", "[Service]\nType=idle\nExecStart=/bin/sh -c 'echo late >> @/order; exec sleep 1000'\n"),
        ("slow.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'sleep 0.5; echo slow >> @/order'\n"),
    ]);
    engine.until("three ticks", || engine.read("ticks").lines().count() >= 3);
    engine.until("both", || engine.read("order").lines().count() == 2);
    assert_eq!(engine.read("order"), "slow\nlate\n");
}

#[test]
fn calendar_timers_fire_and_missed_runs_are_made_up_for() {
    let engine = Engine::start(&[
        TARGET,
        ("often.timer", "[Timer]\nOnCalendar=*:*:0/0.2\nAccuracySec=1us\n"),
        ("often.service", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo tick >> @/ticks'\n"),
        ("daily.timer", "[Timer]\nOnCalendar=daily\nPersistent=yes\nAccuracySec=1us\n"),
        ("daily.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo run >> @/daily'\n"),
        ("nowhere.timer", "[Timer]\nOnCalendar=daily Nowhere/City\n"),
        ("nowhere.service", "[Service]\nExecStart=/bin/true\n"),
    ]);
    assert_eq!(engine.job("start", "often.timer"), "done");
    engine.until("three ticks", || engine.read("ticks").lines().count() >= 3);
    assert_eq!(engine.job("start", "daily.timer"), "done");
    assert_eq!(engine.state("daily.timer"), "active/waiting");
    let stamp = engine.path("stamps/daily.timer");
    assert!(stamp.exists(), "a first start notes the time");
    assert_eq!(engine.read("daily"), "");
    assert_eq!(engine.job("stop", "daily.timer"), "done");
    assert!(Command::new("touch").args(["-d", "3 days ago"]).arg(&stamp).status().unwrap().success());
    assert_eq!(engine.job("start", "daily.timer"), "done");
    engine.until("the missed run", || engine.read("daily") == "run\n");
    engine.until("waiting again", || engine.state("daily.timer") == "active/waiting");
    let timers = engine.ask(&json!({"request": "list-timers"}));
    let daily = timers.iter().find(|timer| timer["unit"] == "daily.timer").unwrap();
    assert!(daily["next_usec"].as_u64().unwrap() > daily["last_usec"].as_u64().unwrap(), "{daily}");
    assert_eq!(engine.job("start", "nowhere.timer"), "done");
    assert_eq!(engine.state("nowhere.timer"), "active/elapsed");
    assert!(engine.log().contains("there is no time zone Nowhere/City"), "{}", engine.log());
}

#[test]
fn paths_start_their_units_when_something_changes_there() {
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=changed.path spool.path exists.path\n"),
        ("changed.path", "[Path]\nPathChanged=@/watched/deep/file\n"),
        (
            "changed.service",
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo changed >> @/changes; sleep 0.2'\n",
        ),
        ("spool.path", "[Path]\nDirectoryNotEmpty=@/spool\nMakeDirectory=yes\nDirectoryMode=0700\nUnit=worker.service\n"),
        (
            "worker.service",
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'for f in @/spool/*; do cat $$f >> @/work; rm $$f; break; done'\n",
        ),
        ("exists.path", "[Path]\nPathExists=@/flag\nTriggerLimitBurst=5\nTriggerLimitIntervalSec=60s\n"),
        ("exists.service", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=/bin/true\n"),
    ]);
    engine.until("watching", || engine.state("spool.path") == "active/waiting" && engine.state("changed.path") == "active/waiting");
    assert!(engine.path("spool").is_dir());
    std::fs::create_dir_all(engine.path("watched/deep")).unwrap();
    std::fs::write(engine.path("watched/deep/file"), "1").unwrap();
    engine.until("the first change", || engine.read("changes").lines().count() == 1);
    // While the service runs: not lost.
    std::fs::write(engine.path("watched/deep/file"), "2").unwrap();
    engine.until("the second change", || engine.read("changes").lines().count() == 2);
    for name in ["a", "b", "c"] {
        std::fs::write(engine.path(&format!("in-{name}")), format!("{name}\n")).unwrap();
        std::fs::rename(engine.path(&format!("in-{name}")), engine.path(&format!("spool/{name}"))).unwrap();
    }
    engine.until("an empty spool", || engine.read("work").lines().count() == 3);
    engine.until("waiting", || engine.state("spool.path") == "active/waiting");
    // What is always so is not started for ever.
    std::fs::write(engine.path("flag"), "").unwrap();
    engine.until("the trigger limit", || engine.state("exists.path") == "failed/failed");
    assert!(engine.log().contains("triggered too often"), "{}", engine.log());
    assert_eq!(engine.job("stop", "changed.path"), "done");
    std::fs::write(engine.path("watched/deep/file"), "3").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(engine.read("changes").lines().count(), 2, "a stopped path unit sees nothing");
}

#[test]
fn each_connection_gets_a_service_of_its_own_that_is_forgotten() {
    use std::io::Read;
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=echo.socket\n"),
        ("echo.socket", "[Socket]\nListenStream=@/run/echo.sock\nAccept=yes\nMaxConnections=2\n"),
        ("echo@.service", "[Service]\nStandardInput=socket\nStandardOutput=socket\nStandardError=null\nExecStart=-/bin/cat\n"),
    ]);
    engine.until("listening", || engine.state("echo.socket") == "active/listening");
    let connect = || UnixStream::connect(engine.path("run/echo.sock")).unwrap();
    let echo = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        if stream.write_all(b"hello\n").is_err() {
            return false;
        }
        let mut answer = [0_u8; 6];
        stream.read_exact(&mut answer).map(|()| answer == *b"hello\n").unwrap_or(false)
    };
    let (mut first, mut second) = (connect(), connect());
    assert!(echo(&mut first) && echo(&mut second));
    assert_eq!(engine.show("echo.socket", "StatusText"), "Accepted: 2; Connected: 2");
    let mut third = connect();
    assert!(!echo(&mut third), "MaxConnections=");
    drop((first, second));
    engine.until("the end of both", || engine.show("echo.socket", "StatusText") == "Accepted: 3; Connected: 0");
    for _ in 0..20 {
        assert!(echo(&mut connect()));
        engine.until("its end", || engine.show("echo.socket", "StatusText").ends_with("Connected: 0"));
    }
    let all = || engine.ask(&json!({"request": "list-units", "all": true, "patterns": ["echo@*"]}));
    engine.until("that nothing is left of them", || all().len() == 1);
    assert_eq!(engine.state("echo.socket"), "active/listening");
}
