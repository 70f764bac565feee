//! What services say through the notify socket: readiness, reloads, the watchdog, stored fds, words of children that end at once.

use std::time::{Duration, Instant};

use crate::engine::{Engine, TARGET, kill};

#[test]
fn a_service_that_stops_reporting_is_killed_by_the_watchdog_and_restarted() {
    let engine = Engine::start(&[
        TARGET,
        (
            "watched.service",
            "[Service]\nType=notify\nNotifyAccess=all\nWatchdogSec=800ms\nRestart=on-watchdog\nRestartSec=100ms\n\
             ExecStopPost=/bin/sh -c 'echo $$SERVICE_RESULT $$EXIT_CODE $$EXIT_STATUS >> @/ends'\n\
             ExecStart=/bin/sh -c 'echo $$WATCHDOG_USEC >> @/starts; %init notify READY=1; \
             for i in 1 2 3 4; do sleep 0.4; %init notify WATCHDOG=1; done; echo silent >> @/starts; exec sleep 1000'\n",
        ),
        (
            "alarm.service",
            "[Service]\nType=notify\nNotifyAccess=all\nExecStart=/bin/sh -c '%init notify READY=1; exec %init notify WATCHDOG=trigger'\n",
        ),
    ]);
    let begun = Instant::now();
    assert_eq!(engine.job("start", "watched.service"), "done", "{}", engine.log());
    engine.until("the watchdog", || !engine.read("ends").is_empty());
    // Twice as long as one interval: what it said counted.
    assert!(begun.elapsed() > Duration::from_millis(1600), "{:?}", begun.elapsed());
    assert_eq!(engine.read("ends"), "watchdog killed 6\n");
    engine.until("the second run", || engine.read("starts").starts_with("800000\nsilent\n800000\n"));
    assert_eq!(engine.show("watched.service", "NRestarts"), "1");
    assert_eq!(engine.job("stop", "watched.service"), "done");
    assert_eq!(engine.job("start", "alarm.service"), "done");
    engine.until("the alarm", || engine.show("alarm.service", "Result") == "watchdog");
}

#[test]
fn a_reload_is_over_when_the_service_says_so() {
    let engine = Engine::start(&[
        TARGET,
        (
            "reloads.service",
            "[Service]\nType=notify-reload\nNotifyAccess=all\nReloadSignal=SIGUSR1\n\
             ExecStart=/bin/sh -c 'trap \"%init notify RELOADING=1; sleep 0.6; echo reloaded >> @/log.txt; %init notify READY=1\" USR1; \
             %init notify READY=1; while :; do sleep 0.05; done'\n",
        ),
        (
            "mute.service",
            "[Service]\nType=notify-reload\nNotifyAccess=all\nTimeoutStartSec=1\n\
             ExecStart=/bin/sh -c 'trap : HUP; %init notify READY=1; while :; do sleep 0.05; done'\n",
        ),
    ]);
    assert_eq!(engine.job("start", "reloads.service"), "done", "{}", engine.log());
    let pid = engine.pid("reloads.service");
    let begun = Instant::now();
    assert_eq!(engine.job("reload", "reloads.service"), "done");
    assert!(begun.elapsed() > Duration::from_millis(550), "{:?}", begun.elapsed());
    assert_eq!(engine.read("log.txt"), "reloaded\n");
    assert_eq!((engine.state("reloads.service").as_str(), engine.pid("reloads.service")), ("active/running", pid));
    // Nobody asked: it says by itself that it reads its configuration again.
    kill(pid, "USR1");
    engine.until("reloading", || engine.state("reloads.service") == "reloading/reload-notify");
    engine.until("running", || engine.state("reloads.service") == "active/running");
    // One that never answers fails its reload and runs on.
    assert_eq!(engine.job("start", "mute.service"), "done");
    assert_eq!(engine.job("reload", "mute.service"), "timeout", "{}", engine.log());
    assert_eq!(engine.state("mute.service"), "active/running");
}

/// Sends its words, with an fd of a file that has this text, and lives until they are read: nobody could tell whose they are otherwise.
const STORE: &str = "import os, socket, sys, time\n\
    fds = []\n\
    if len(sys.argv) > 2:\n    fd = os.memfd_create('x'); os.write(fd, sys.argv[2].encode()); os.lseek(fd, 0, 0); fds = [fd]\n\
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
    s.connect(os.environ['NOTIFY_SOCKET'])\n\
    socket.send_fds(s, [sys.argv[1].replace(' ', chr(10)).encode()], fds)\n\
    r, w = os.pipe()\n\
    socket.send_fds(s, [b'BARRIER=1'], [w])\n\
    os.close(w)\n\
    os.read(r, 1)\n";

#[test]
fn fds_are_stored_over_a_restart_and_given_back_by_name() {
    let script = "env | grep ^LISTEN_FD | sort; for fd in 3 4; do [ -e /proc/self/fd/$$fd ] && cat <&$$fd && echo; done; \
        python3 @/store.py \"FDSTORE=1 FDNAME=one\" first; python3 @/store.py \"FDSTORE=1 FDNAME=two\" second; \
        python3 @/store.py \"FDSTORE=1 FDNAME=three\" third; python3 @/store.py \"FDSTOREREMOVE=1 FDNAME=one\"; echo up; \
        %init notify READY=1; exec sleep 1000";
    let unit = |preserve: &str, max: u32| {
        format!(
            "[Service]\nType=notify\nNotifyAccess=all\nFileDescriptorStoreMax={max}\nFileDescriptorStorePreserve={preserve}\n\
             StandardOutput=append:@/out.{preserve}\nExecStart=/bin/sh -c '{script}'\n"
        )
    };
    let (restart, yes) = (unit("restart", 2), unit("yes", 9));
    let engine = Engine::start(&[TARGET, ("restart.service", &restart), ("yes.service", &yes)]);
    std::fs::write(engine.path("store.py"), STORE).unwrap();
    assert_eq!(engine.job("start", "restart.service"), "done", "{}", engine.log());
    assert_eq!(engine.read("out.restart"), "up\n", "nothing is stored yet");
    assert_eq!(engine.job("restart", "restart.service"), "done", "{}", engine.log());
    // Of three only two had room; the first was taken back.
    assert_eq!(engine.read("out.restart"), "up\nLISTEN_FDNAMES=two\nLISTEN_FDS=1\nsecond\nup\n");
    assert_eq!(engine.job("stop", "restart.service"), "done");
    assert_eq!(engine.job("start", "restart.service"), "done");
    assert_eq!(engine.read("out.restart"), "up\nLISTEN_FDNAMES=two\nLISTEN_FDS=1\nsecond\nup\nup\n", "a stop ends it");
    assert_eq!(engine.job("start", "yes.service"), "done", "{}", engine.log());
    assert_eq!(engine.job("stop", "yes.service"), "done");
    assert_eq!(engine.job("start", "yes.service"), "done", "{}", engine.log());
    assert_eq!(engine.read("out.yes"), "up\nLISTEN_FDNAMES=two:three\nLISTEN_FDS=2\nsecond\nthird\nup\n");
}

#[test]
fn the_last_word_of_a_child_that_ends_at_once_counts() {
    // It does not wait for PID 1 to have read the message, as `init notify` does, and nobody but PID 1 reaps it.
    let send = "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.sendto(b\"READY=1\", os.environ[\"NOTIFY_SOCKET\"]); os._exit(0)";
    let unit = format!(
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=15\nExecStart=/bin/sh -c \"(python3 -c '{}' &); exec sleep 1000\"\n",
        send.replace('"', "\\\"")
    );
    let engine = Engine::start(&[TARGET, ("child.service", &unit)]);
    for round in 0..20 {
        assert_eq!(engine.job("restart", "child.service"), "done", "{round}: {}", engine.log());
    }
}

#[test]
fn a_start_that_asks_for_more_time_gets_it() {
    let engine = Engine::start(&[
        TARGET,
        (
            "slow.service",
            "[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=1\n\
             ExecStart=/bin/sh -c 'for i in 1 2 3; do %init notify EXTEND_TIMEOUT_USEC=3000000; sleep 0.6; done; %init notify READY=1; exec sleep 1000'\n",
        ),
    ]);
    assert_eq!(engine.job("start", "slow.service"), "done", "{}", engine.log());
}
