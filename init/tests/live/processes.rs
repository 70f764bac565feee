//! What a process is started with: limits, environment, directories, its place in the control group, the signal of a restart.

use crate::engine::{Engine, TARGET};

#[test]
fn every_limit_reaches_the_process() {
    // These two are 0 at first, and only who has CAP_SYS_RESOURCE may raise them.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok()).unwrap();
    let (nice, realtime) = if capabilities >> 24 & 1 == 1 {
        (("LimitNICE=-5", "Max nice priority", "25 25"), ("LimitRTPRIO=5", "Max realtime priority", "5 5"))
    } else {
        eprintln!("without CAP_SYS_RESOURCE: LimitNICE= and LimitRTPRIO= are only lowered");
        (("LimitNICE=0", "Max nice priority", "0 0"), ("LimitRTPRIO=0", "Max realtime priority", "0 0"))
    };
    let limits = [
        ("LimitCPU=1h", "Max cpu time", "3600 3600"),
        ("LimitFSIZE=1G", "Max file size", "1073741824 1073741824"),
        ("LimitDATA=2G:infinity", "Max data size", "2147483648 unlimited"),
        ("LimitSTACK=16M", "Max stack size", "16777216 16777216"),
        ("LimitCORE=0:1M", "Max core file size", "0 1048576"),
        ("LimitRSS=3G", "Max resident set", "3221225472 3221225472"),
        ("LimitNPROC=20000", "Max processes", "20000 20000"),
        ("LimitNOFILE=1000:2000", "Max open files", "1000 2000"),
        ("LimitMEMLOCK=64K", "Max locked memory", "65536 65536"),
        ("LimitAS=8G", "Max address space", "8589934592 8589934592"),
        ("LimitLOCKS=77", "Max file locks", "77 77"),
        ("LimitSIGPENDING=88:99", "Max pending signals", "88 99"),
        ("LimitMSGQUEUE=4K", "Max msgqueue size", "4096 4096"),
        nice,
        realtime,
        ("LimitRTTIME=200ms", "Max realtime timeout", "200000 200000"),
    ];
    let settings: String = limits.iter().map(|(setting, ..)| format!("{setting}\n")).collect();
    let unit = format!("[Service]\nType=oneshot\n{settings}StandardOutput=file:@/limits\nExecStart=/bin/cat /proc/self/limits\n");
    let engine = Engine::start(&[
        TARGET,
        ("limited.service", &unit),
        ("plain.service", "[Service]\nType=oneshot\nStandardOutput=file:@/plain\nExecStart=/bin/cat /proc/self/limits\n"),
    ]);
    assert_eq!(engine.job("start", "limited.service"), "done", "{}", engine.log());
    let text = engine.read("limits");
    for (setting, name, values) in limits {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let words: Vec<&str> = line.split_whitespace().take(2).collect();
        assert_eq!(words.join(" "), values, "{setting}");
    }
    assert_eq!(engine.job("start", "plain.service"), "done", "{}", engine.log());
    let text = engine.read("plain");
    let files = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    if capabilities >> 24 & 1 == 1 {
        assert!(files.split_whitespace().any(|word| word == "1024"), "not PID 1's own: {files}");
    }
}

#[test]
fn variables_are_passed_on_taken_away_and_read_from_files() {
    let engine = Engine::start(&[
        TARGET,
        (
            "env.service",
            "[Service]\nType=oneshot\nStandardOutput=file:@/env\nPassEnvironment=GARBOARD_TEST_PASSED NOT_THERE\n\
             Environment=A=1 B=2 C=3 \"D=two words\"\nUnsetEnvironment=B C=other LANG\nEnvironmentFile=@/env.d/*.conf\nExecStart=/usr/bin/env\n",
        ),
        ("own.service", "[Service]\nType=oneshot\nStandardOutput=file:@/own\nExecStart=/usr/bin/env\n"),
        ("nofile.service", "[Service]\nType=oneshot\nEnvironmentFile=@/none.d/*.conf\nExecStart=/usr/bin/env\n"),
    ]);
    std::fs::create_dir(engine.path("env.d")).unwrap();
    std::fs::write(engine.path("env.d/20-b.conf"), "E=second\nF='quoted \"text\"'\n").unwrap();
    std::fs::write(engine.path("env.d/10-a.conf"), "# a comment\nE=first\nA=from file\n").unwrap();
    std::fs::write(engine.path("env.d/other"), "E=not this one\n").unwrap();
    assert_eq!(engine.job("start", "env.service"), "done", "{}", engine.log());
    let text = engine.read("env");
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    for (name, expected) in [
        ("GARBOARD_TEST_PASSED", Some("passed on")),
        ("NOT_THERE", None),
        ("A", Some("from file")),
        ("B", None),
        ("C", Some("3")),
        ("D", Some("two words")),
        ("E", Some("second")),
        ("F", Some("quoted \"text\"")),
        ("LANG", None),
    ] {
        assert_eq!(value(name), expected, "{name} in {text}");
    }
    assert_eq!(engine.job("start", "own.service"), "done", "{}", engine.log());
    assert!(!engine.read("own").contains("GARBOARD_TEST_PASSED"), "nothing is inherited");
    assert_eq!(engine.job("start", "nofile.service"), "failed", "no file matches");
}

#[test]
fn a_runtime_directory_goes_or_stays_as_it_says() {
    let service = |preserve: &str| {
        format!(
            "[Service]\nRuntimeDirectory={preserve}\nRuntimeDirectoryPreserve={preserve}\nRuntimeDirectoryMode=0710\n\
             ExecStart=/bin/sh -c 'echo run >> $$RUNTIME_DIRECTORY/runs; exec sleep 1000'\n"
        )
    };
    let (no, restart, yes) = (service("no"), service("restart"), service("yes"));
    let engine = Engine::start(&[TARGET, ("no.service", &no), ("restart.service", &restart), ("yes.service", &yes)]);
    for (unit, after_restart, after_stop) in [("no", "run\n", false), ("restart", "run\nrun\n", false), ("yes", "run\nrun\n", true)] {
        let (name, runs) = (format!("{unit}.service"), format!("run/{unit}/runs"));
        assert_eq!(engine.job("start", &name), "done");
        engine.until("the first run", || engine.read(&runs) == "run\n");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(engine.path(&format!("run/{unit}"))).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o710);
        assert_eq!(engine.job("restart", &name), "done");
        engine.until("the second run", || engine.read(&runs) == after_restart && engine.pid(&name) > 0);
        assert_eq!(engine.job("stop", &name), "done");
        assert_eq!(engine.path(&runs).exists(), after_stop, "{unit}");
    }
}

#[test]
fn a_restart_sends_its_own_signal_and_a_stop_the_other() {
    let engine = Engine::start(&[
        TARGET,
        (
            "signals.service",
            "[Service]\nRestartKillSignal=SIGUSR2\nKillMode=mixed\n\
             ExecStart=/bin/sh -c 'trap \"echo USR2 >> @/signals; exit 0\" USR2; trap \"echo TERM >> @/signals; exit 0\" TERM; touch @/up; \
             while :; do sleep 0.05; done'\n",
        ),
    ]);
    let up = || {
        engine.until("the trap", || engine.path("up").exists());
        std::fs::remove_file(engine.path("up")).unwrap();
    };
    assert_eq!(engine.job("start", "signals.service"), "done");
    up();
    assert_eq!(engine.job("restart", "signals.service"), "done");
    assert_eq!(engine.read("signals"), "USR2\n");
    up();
    assert_eq!(engine.job("stop", "signals.service"), "done");
    assert_eq!(engine.read("signals"), "USR2\nTERM\n");
}

#[test]
fn a_delegated_group_belongs_to_the_services_user_who_lives_below_it() {
    let engine = Engine::start(&[
        TARGET,
        (
            "manager.service",
            "[Service]\nType=oneshot\nUser=nobody\nDelegate=yes\nDelegateSubgroup=inner\nStandardOutput=append:@/group\n\
             ExecStart=/bin/sh -c 'sed -n s/^0:://p /proc/self/cgroup'\n\
             ExecStart=/bin/sh -c 'here=#/system.slice/manager.service; mkdir $$here/workers && echo $$$$ > $$here/workers/cgroup.procs && \
             sed -n s/^0:://p /proc/self/cgroup'\n",
        ),
    ]);
    std::fs::set_permissions(engine.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = engine.path("units/manager.service");
    let text = std::fs::read_to_string(&path).unwrap().replace('#', engine.group.to_str().unwrap());
    std::fs::write(path, text).unwrap();
    assert_eq!(engine.job("start", "manager.service"), "done", "{}", engine.log());
    let text = engine.read("group");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("/system.slice/manager.service/inner"), "{text}");
    assert!(lines[1].ends_with("/system.slice/manager.service/workers"), "{text}");
    engine.until("the end of its groups", || !engine.group.join("system.slice/manager.service").exists());
}
