//! Unit files as people bring them, on a whole machine: every `Type=`, sockets, timers, paths, templates, sidekicks; what is logged when
//! the power fails; a unit that will not stop.

use std::time::{Duration, Instant};

use qemu_tests::{Guest, Setup};

const UNITS: [(&str, &str); 19] = [
    ("simple.service", "[Service]\nExecStart=/usr/bin/sleep 100000\n"),
    ("sidekick.service", "[Unit]\nBindsTo=simple.service\nAfter=simple.service\n[Service]\nExecStart=/usr/bin/sleep 100000\n"),
    ("exec.service", "[Service]\nType=exec\nExecStart=/usr/bin/sleep 100000\n"),
    ("idle.service", "[Service]\nType=idle\nExecStart=/usr/bin/sleep 100000\n"),
    (
        "oneshot.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/sh -c 'echo one >> /run/oneshot'\nExecStart=/usr/bin/sh -c 'echo two >> /run/oneshot'\n",
    ),
    (
        "forking.service",
        "[Service]\nType=forking\nPIDFile=/run/forking.pid\nExecStart=/usr/bin/sh -c 'sleep 100000 & echo $$! > /run/forking.pid'\n",
    ),
    (
        "notify.service",
        "[Service]\nType=notify\nNotifyAccess=all\n\
         ExecStart=/usr/bin/sh -c 'sleep 1; echo ready > /run/notified; /usr/lib/garboard/init notify READY=1; exec sleep 100000'\n",
    ),
    ("echo.socket", "[Socket]\nListenStream=127.0.0.1:7777\nAccept=yes\n"),
    ("echo@.service", "[Service]\nStandardInput=socket\nExecStart=/usr/bin/head -n 1\n"),
    ("lazy.socket", "[Socket]\nListenStream=127.0.0.1:7778\n"),
    ("lazy.service", "[Service]\nExecStart=/usr/bin/sh -c 'echo $$LISTEN_FDS > /run/lazy; exec sleep 100000'\n"),
    ("tick.timer", "[Timer]\nOnActiveSec=1s\nOnUnitActiveSec=1s\nAccuracySec=100ms\n"),
    ("tick.service", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=/usr/bin/sh -c 'echo tick >> /run/ticks'\n"),
    ("nightly.timer", "[Timer]\nOnCalendar=*-*-* 03:00:00 Europe/Berlin\nPersistent=yes\nUnit=tick.service\n"),
    ("watch.path", "[Path]\nPathChanged=/run/watched\nUnit=worker@watch.service\n"),
    ("worker@.service", "[Service]\nExecStart=/usr/bin/sh -c 'echo %i > /run/worker-%i; exec sleep 100000'\n"),
    (
        "talker.service",
        "[Service]\nLogRateLimitIntervalSec=0\nExecStart=/usr/bin/bash -c 'while :; do i=$$((i+1)); echo line $$i; sleep 0.02; done'\n",
    ),
    (
        "filtered.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nDynamicUser=yes\nSupplementaryGroups=disk\nStateDirectory=filtered\nDevicePolicy=closed\n\
         DeviceAllow=/dev/vda r\nIPAddressDeny=any\nIPAddressAllow=127.0.0.2\n\
         ExecStart=/usr/bin/bash -c 'exec >$$STATE_DIRECTORY/seen; \
         reads() { head -c 1 $$1; }; writes() { : >> $$1; }; talks() { timeout 20 bash -c \": <> /dev/tcp/$$1/22\"; }; \
         for what in \"reads /dev/vda\" \"writes /dev/vda\" \"reads /dev/vda1\" \"reads /dev/urandom\" \"talks 127.0.0.1\" \"talks 127.0.0.2\"; do \
         if $$what >/dev/null; then echo $$what; fi; done'\n",
    ),
    ("stuck.service", "[Service]\nTimeoutStopSec=3\nExecStart=/usr/bin/bash -c \"trap '' TERM INT HUP; while :; do sleep 1; done\"\n"),
];

/// One line to a port of the machine itself, and one back.
fn say(host: &Guest, port: u16, line: &str) -> String {
    host.ok(&format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; echo {line} >&3; read -t 20 answer <&3; echo \"$answer\"'"))
}

#[test]
fn units_of_every_kind_a_power_cut_while_logging_and_a_unit_that_will_not_stop() {
    let mut host = Setup::of("tiny").expect_trouble("stuck.service").expect_trouble("exec.service").start();
    host.wait_for_boot();
    host.wait_for_ssh();
    for (name, text) in UNITS {
        host.ok(&format!("sudo tee /media/state/units/{name} >/dev/null <<'END'\n{text}END"));
    }
    host.ok("sudo systemctl daemon-reload");

    // When `start` returns, each is up by its own rule.
    host.ok("sudo systemctl start simple exec idle oneshot forking notify sidekick");
    assert_eq!(host.ok("cat /run/notified /run/oneshot"), "ready\none\ntwo");
    assert_eq!(host.ok("systemctl show -p MainPID --value forking"), host.ok("cat /run/forking.pid"));
    assert_eq!(host.ok("systemctl is-active simple exec idle oneshot forking notify sidekick | sort -u"), "active");
    host.ok("sudo systemctl stop simple");
    assert_eq!(host.ok("systemctl is-active sidekick || true"), "inactive", "it is bound to simple.service");
    host.ok("sudo systemctl kill -s KILL exec");
    host.eventually("systemctl is-failed exec");

    // The kernel asks our filters for every device and every packet; the user has a number and no name.
    host.ok("sudo systemctl start filtered");
    assert_eq!(host.ok("sudo cat /var/lib/filtered/seen"), "reads /dev/vda\nreads /dev/urandom\ntalks 127.0.0.2");
    let uid: u32 = host.ok("stat -c %u /var/lib/filtered/seen").parse().unwrap();
    assert!((61184..65520).contains(&uid), "{uid}");

    host.ok("sudo systemctl start echo.socket lazy.socket tick.timer nightly.timer watch.path worker@one");
    assert_eq!(host.ok("cat /run/worker-one"), "one");
    assert_eq!(say(&host, 7777, "hello"), "hello");
    assert_eq!(say(&host, 7777, "again"), "again");
    assert_eq!(host.ok("systemctl is-active lazy.service || true"), "inactive", "nobody has asked for it");
    host.ok("bash -c 'exec 3<>/dev/tcp/127.0.0.1/7778'");
    host.eventually("test \"$(cat /run/lazy)\" = 1");
    host.eventually("test $(wc -l < /run/ticks) -ge 3");
    host.ok("sudo sh -c 'echo changed > /run/watched'");
    host.eventually("test \"$(cat /run/worker-watch)\" = watch");
    assert!(host.ok("systemctl list-timers --all --no-pager").contains("nightly.timer"));
    assert!(host.ok("systemctl list-sockets --no-pager").contains("127.0.0.1:7777"));
    assert_eq!(host.ok("systemctl --failed --no-legend | grep -o '[a-z]*\\.service' | sort -u"), "exec.service");

    // Logs are synced every five seconds: what was there seven seconds before the power failed, is there afterwards, in order.
    host.ok("sudo systemctl start talker stuck");
    host.eventually("journalctl -u talker -o cat -q --no-pager | grep -qx 'line 100'");
    let seen: usize = host.ok("journalctl -u talker -n 1 -o cat -q --no-pager").trim_start_matches("line ").parse().unwrap();
    host.ok("sleep 7");
    host.cut_power();
    host.power_on();
    host.wait_for_boot();
    host.wait_for_ssh();
    let lines = host.ok("journalctl -u talker -b -1 -o cat -q --no-pager");
    // PID 1 says something of the unit, too.
    let lines: Vec<&str> = lines.lines().filter(|line| line.starts_with("line ")).collect();
    assert!(lines.len() >= seen, "{} of at least {seen} lines", lines.len());
    let wrong = lines.iter().enumerate().find(|(at, line)| **line != format!("line {}", at + 1));
    assert!(wrong.is_none(), "lines are lost or out of order: {wrong:?} of {}, {seen} were seen", lines.len());

    // It ignores SIGTERM; its three seconds bound what it costs.
    host.ok("sudo systemctl start stuck");
    let begun = Instant::now();
    host.press_power_button();
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    host.power_on();
    host.wait_for_boot();
    host.wait_for_ssh();
    assert_eq!(host.ok("journalctl -b -k --no-pager -o cat | grep -c 'recovery complete' || true"), "0", "state was unmounted clean");
}
