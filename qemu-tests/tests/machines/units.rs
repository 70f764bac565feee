//! Unit files as people bring them, on a whole machine: every `Type=`, sockets, timers, paths, templates, sidekicks; what is logged when
//! the power fails; a unit that will not stop.

use std::time::{Duration, Instant};

use qemu_tests::{Guest, Setup};

const UNITS: [(&str, &str); 25] = [
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
    (
        "reloads.service",
        "[Service]\nType=notify-reload\nNotifyAccess=all\n\
         ExecStart=/usr/bin/bash -c 'say=\"/usr/lib/garboard/init notify\"; \
         trap \"$$say RELOADING=1; sleep 1; echo reloaded >> /run/reloaded; $$say READY=1\" HUP; $$say READY=1; while :; do sleep 0.1; done'\n",
    ),
    (
        "knobs.service",
        "[Service]\nCPUWeight=50\nCPUQuota=150%\nAllowedCPUs=0\nMemoryMin=1M\nMemoryLow=2M\nMemoryHigh=30M\nMemoryMax=40M\n\
         TasksMax=77\nIOWeight=300\nIOReadBandwidthMax=/dev/vda 50M\nExecStart=/usr/bin/sleep 100000\n",
    ),
    (
        "weighed.service",
        "[Unit]\nDescription=Has a weight of its own at boot\n[Service]\nCPUWeight=50\nStartupCPUWeight=900\n\
         ExecStartPre=/usr/bin/sh -c 'cat /sys/fs/cgroup/system.slice/weighed.service/cpu.weight > /run/weighed'\n\
         ExecStart=/usr/bin/sleep 100000\n[Install]\nWantedBy=multi-user.target\n",
    ),
    (
        "bomb.service",
        "[Service]\nTasksMax=200\nTimeoutStopSec=2\nExecStart=/usr/bin/bash -c 'trap \"\" TERM; b() { b | b & b; }; while :; do b; sleep 0.1; done' \n\
         StandardError=null\n",
    ),
    (
        "greedy.service",
        "[Service]\nMemoryMax=20M\nMemorySwapMax=0\nOOMPolicy=stop\nExecStart=/usr/bin/sh -c 'dd if=/dev/zero of=/dev/null bs=100M; sleep 100000'\n",
    ),
    (
        "loop.service",
        "[Unit]\nStartLimitBurst=6\nStartLimitIntervalSec=60\n[Service]\nRestart=always\nRestartSec=200ms\nRestartSteps=4\n\
         RestartMaxDelaySec=3200ms\nExecStart=/usr/bin/sh -c 'cut -d. -f1,2 /proc/uptime | cut -d\" \" -f1 >> /run/starts; exit 1'\n",
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
    let mut host = Setup::of("tiny")
        .expect_trouble("stuck.service")
        .expect_trouble("exec.service")
        .expect_trouble("greedy.service")
        .expect_trouble("loop.service")
        .expect_trouble("noise.service")
        .start();
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

    // A reload is over when the service says so.
    host.ok("sudo systemctl start reloads && sudo systemctl reload reloads");
    assert_eq!(host.ok("cat /run/reloaded"), "reloaded");

    // Every knob is in the kernel.
    host.ok("sudo systemctl start knobs");
    let disk = host.ok("cat /sys/block/vda/dev");
    for (file, value) in [
        ("cpu.weight", "50"),
        ("cpu.max", "150000 100000"),
        ("cpuset.cpus", "0"),
        ("memory.min", "1048576"),
        ("memory.low", "2097152"),
        ("memory.high", "31457280"),
        ("memory.max", "41943040"),
        ("pids.max", "77"),
    ] {
        assert_eq!(host.ok(&format!("cat /sys/fs/cgroup/system.slice/knobs.service/{file}")), value, "{file}");
    }
    let limit = host.ok("cat /sys/fs/cgroup/system.slice/knobs.service/io.max");
    assert!(limit.starts_with(&format!("{disk} rbps=50000000")), "{limit}");

    // What forks without end and what eats memory hurt themselves only.
    host.ok("sudo systemctl start bomb");
    host.eventually("grep -qv '^max 0$' /sys/fs/cgroup/system.slice/bomb.service/pids.events");
    host.ok("systemctl is-active knobs >/dev/null && systemctl is-active ssh >/dev/null");
    let begun = Instant::now();
    host.ok("sudo systemctl stop bomb");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    host.ok("test ! -e /sys/fs/cgroup/system.slice/bomb.service");
    host.ok("sudo systemctl start greedy");
    host.eventually("test $(systemctl show -p Result --value greedy) = oom-kill");
    host.ok("systemctl is-active knobs >/dev/null && sudo systemctl reset-failed greedy bomb");

    // It backs off, and is given up: five delays of 0.2 s that double.
    host.ok("sudo systemctl start --no-block loop");
    host.eventually("test $(systemctl show -p Result --value loop) = start-limit-hit");
    let starts: Vec<f64> = host.ok("cat /run/starts").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(starts.len(), 6, "{starts:?}");
    for (pair, delay) in starts.windows(2).zip([0.2, 0.4, 0.8, 1.6, 3.2]) {
        assert!(pair[1] - pair[0] > delay - 0.02, "{starts:?} should double");
    }
    host.ok("sudo systemctl reset-failed loop");

    // Links to the disks, names and zones, a VLAN made by the kernel.
    for link in ["by-partlabel/state", "by-label/state", "by-partlabel/root-a"] {
        host.ok(&format!("test -b /dev/disk/{link} || ls -R /dev/disk"));
    }
    host.ok("readlink -f /dev/disk/by-partuuid/* | grep -qx /dev/vda1");
    host.ok("sudo hostnamectl set-hostname rack7 && test $(cat /etc/hostname) = rack7 && test $(uname -n) = rack7");
    host.ok("sudo timedatectl set-timezone Europe/Berlin && date +%Z | grep -q CE && readlink /etc/localtime | grep -q Europe/Berlin");
    assert!(host.ok("timedatectl").contains("Europe/Berlin"));
    host.ok("printf '[NetDev]\\nName=v7\\nKind=vlan\\n[VLAN]\\nId=7\\n' | sudo tee /etc/systemd/network/10-v7.netdev >/dev/null");
    host.ok("printf '[Match]\\nName=e*\\n[Network]\\nDHCP=ipv4\\nVLAN=v7\\n' | sudo tee /etc/systemd/network/05-nic.network >/dev/null");
    host.ok("printf '[Match]\\nName=v7\\n[Network]\\nAddress=10.7.0.2/24\\n' | sudo tee /etc/systemd/network/06-v7.network >/dev/null");
    host.eventually("sudo grep -q 'VID: 7' /proc/net/vlan/v7");
    host.eventually("ip -4 addr show dev v7 | grep -q 10.7.0.2/24");

    // For the next boots: a weight that holds only during them, a unit of any bytes that they want, firmware of the operator's.
    host.ok("sudo mkdir -p /media/state/firmware /etc/systemd/system/multi-user.target.wants");
    host.ok("head -c 20000 /dev/urandom | sudo tee /media/state/units/noise.service >/dev/null");
    host.ok("sudo ln -s /media/state/units/noise.service /etc/systemd/system/multi-user.target.wants/noise.service; sync");

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
    assert_eq!(host.ok("cat /run/weighed"), "900", "while the machine came up");
    assert_eq!(host.ok("cat /sys/fs/cgroup/system.slice/weighed.service/cpu.weight"), "50", "afterwards");
    assert_eq!(host.ok("systemctl show -p LoadState --value noise.service"), "bad-setting", "it was wanted, and stopped nothing");
    assert_eq!(host.ok("cat /sys/module/firmware_class/parameters/path"), "/media/state/firmware");
    assert_eq!(host.ok("uname -n"), "rack7");
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
