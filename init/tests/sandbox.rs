//! What the exec helper does to a program, seen from inside: the real binary, real processes, real effects.
//!
//! Needs root. Each helper enters namespaces of its own, so nothing of the host changes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test helpers are not test functions to clippy")]

#[path = "support/engine.rs"]
mod engine;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use engine::{INIT, cgroup2};
use serde_json::json;
use unit_files::loader::Loader;
use unit_files::memory::MemorySource;
use unit_files::name::UnitName;
use unit_files::specifier::HostFacts;

/// A directory for one unit; `@` in its settings and script is that directory.
struct Unit {
    directory: tempfile::TempDir,
    settings: String,
}

/// How it went.
#[derive(Debug)]
struct Outcome {
    status: ExitStatus,
    /// stdout and stderr.
    text: String,
    /// What the helper said.
    error: String,
}

impl Unit {
    fn new(settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Reachable for the ordinary users of some tests.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let settings = settings.replace('@', directory.path().to_str().unwrap()).replace('§', "@");
        Self { directory, settings }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As random as the test's directory.
    fn invocation(&self) -> String {
        self.directory.path().file_name().unwrap().to_str().unwrap().bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Its private directories in `/tmp` and `/var/tmp`, which the engine would remove.
    fn private(&self) -> [PathBuf; 2] {
        ["/tmp", "/var/tmp"].map(|place| PathBuf::from(place).join(format!("garboard-private-{}-box.service", self.invocation())))
    }

    /// Runs a shell script in the sandbox.
    fn run(&self, script: &str) -> Outcome {
        self.start(script).wait()
    }

    /// Runs it with a prefix like `!` before the command.
    fn run_as(&self, privilege: &str, script: &str) -> Outcome {
        self.start_as(privilege, script).wait()
    }

    fn start(&self, script: &str) -> Running {
        self.start_as("unit", script)
    }

    /// Runs a script in the sandbox, the helper itself in a mount namespace in which another script ran before.
    fn run_in(&self, before: &str, script: &str) -> Outcome {
        self.start_with("unit", script, &format!("unshare --mount sh -e -c '{before}; exec {INIT} exec-helper'")).wait()
    }

    fn start_as(&self, privilege: &str, script: &str) -> Running {
        self.start_with(privilege, script, &format!("{INIT} exec-helper"))
    }

    fn start_with(&self, privilege: &str, script: &str, helper: &str) -> Running {
        let at = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let script = script.replace('@', self.directory.path().to_str().unwrap());
        let text = format!("[Service]\nType=oneshot\nExecStart=/bin/true\nStandardOutput=append:{}\n{}\n", at("out"), self.settings);
        let source = MemorySource::default().file("/usr/lib/systemd/system/box.service", text.into_bytes());
        let unit = Loader::new(source, HostFacts::default()).load(&"box.service".parse::<UnitName>().unwrap());
        assert!(unit.refusal().is_none() && unit.load_error.is_none(), "{:?}", unit.diagnostics);
        let context = &unit.service().unwrap().exec;
        let command = json!({
            "path": "/bin/sh", "argv": ["/bin/sh", "-c", script], "ignore_failure": false, "no_expansion": true,
            "privilege": privilege, "via_shell": false,
        });
        let spec = json!({
            "unit": "box.service", "command": command, "context": context, "environment": [["NOTIFY_SOCKET", "/run/garboard/notify"]],
            "fd_names": [], "listen": false, "non_blocking": false, "watchdog": null, "idle": false,
            "invocation": self.invocation(), "log_stream": at("no-log"),
            "roots": [at("run"), at("state"), at("cache"), at("logs"), at("etc")], "join_cgroup": null, "keep_identity": false,
        });
        std::fs::write(self.path("spec.json"), spec.to_string()).unwrap();
        let _ = std::fs::remove_file(self.path("out"));
        let line = format!("exec {helper} 3<{} 4>{}", at("spec.json"), at("error"));
        let child = Command::new("/bin/sh").args(["-c", &line]).stdin(Stdio::null()).spawn().unwrap();
        Running { child, out: self.path("out"), error: self.path("error") }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        for own in self.private() {
            let _ = std::fs::remove_dir_all(own);
        }
    }
}

struct Running {
    child: std::process::Child,
    out: PathBuf,
    error: PathBuf,
}

impl Running {
    fn wait(mut self) -> Outcome {
        let status = self.child.wait().unwrap();
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        Outcome { status, text: read(&self.out), error: read(&self.error) }
    }
}

/// Runs a script under settings and expects it to say these words, one a line.
fn says(settings: &str, script: &str, wanted: &str) {
    let outcome = Unit::new(settings).run(script);
    assert_eq!(outcome.text.trim(), wanted.trim(), "{settings}\n{script}\n{outcome:?}");
    assert!(outcome.status.success(), "{outcome:?}");
}

/// A perl line that makes a system call and prints the error, or 0.
fn call(name: &str, arguments: &str) -> String {
    let (x86_64, aarch64) = match name {
        "mmap" => (9, 222),
        "sched_setscheduler" => (144, 119),
        "personality" => (135, 92),
        "unshare" => (272, 97),
        "finit_module" => (313, 273),
        "syslog" => (103, 116),
        "clock_settime" => (227, 112),
        "acct" => (163, 89),
        other => panic!("{other}"),
    };
    let number = if cfg!(target_arch = "aarch64") { aarch64 } else { x86_64 };
    format!("perl -MPOSIX -e '$s = \"\"; $p = pack(\"q2\", 1, 0); $r = syscall({number}, {arguments}); print $r < 0 ? $!+0 : 0, \"\\n\"'")
}

#[test]
fn a_denied_call_fails_with_the_error_or_ends_the_process() {
    let acct = call("acct", "0");
    says("SystemCallFilter=~acct\nSystemCallErrorNumber=EUCLEAN", &acct, &libc::EUCLEAN.to_string());
    says("SystemCallFilter=~acct:EACCES", &acct, &libc::EACCES.to_string());
    says("SystemCallFilter=§system-service\nSystemCallErrorNumber=EPERM", &acct, "1");
    let outcome = Unit::new("SystemCallFilter=§system-service").run(&format!("exec {acct}"));
    assert_eq!(outcome.status.signal(), Some(libc::SIGSYS), "{outcome:?}");
    let outcome = Unit::new("SystemCallFilter=~§no-such-group").run("echo ran");
    assert_eq!((outcome.status.code(), outcome.text.as_str()), (Some(228), ""), "{outcome:?}");
    assert!(outcome.error.contains("no system call or group is called @no-such-group"), "{outcome:?}");
}

#[test]
fn ordinary_programs_run_under_the_filters_that_packages_ship() {
    // The union of what the packages of Debian that ship filters write.
    let settings = "SystemCallFilter=§system-service\nSystemCallFilter=~§privileged §resources\nSystemCallErrorNumber=EPERM\n\
        SystemCallArchitectures=native\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\nRestrictNamespaces=yes\nRestrictRealtime=yes\n\
        RestrictSUIDSGID=yes\nMemoryDenyWriteExecute=yes\nLockPersonality=yes\nProtectClock=yes\nProtectHostname=yes\nUser=nobody\n\
        ProtectKernelLogs=yes\nProtectKernelModules=yes\nProtectKernelTunables=yes\nProtectSystem=strict\nPrivateTmp=yes\nPrivateDevices=yes";
    let script = "ls / >/dev/null && echo a | sort && id -un && grep -e NoNewPrivs -e Seccomp: /proc/self/status | tr -d '\\t'";
    says(settings, script, "a\nnobody\nNoNewPrivs:1\nSeccomp:2");
    // Root keeps what it needs to filter itself, so its programs may still change users.
    says("SystemCallFilter=~acct", "grep NoNewPrivs /proc/self/status | tr -d '\\t'", "NoNewPrivs:0");
}

#[test]
fn argument_restrictions_hold_in_the_kernel() {
    let socket = "perl -MSocket -e 'print socket(S, $ARGV[0], SOCK_DGRAM, 0) ? 0 : $!+0, \"\\n\"' ";
    let families = format!("{socket} 1; {socket} 2; {socket} 16");
    let refused = libc::EAFNOSUPPORT;
    says("RestrictAddressFamilies=AF_UNIX", &families, &format!("0\n{refused}\n{refused}"));
    says("RestrictAddressFamilies=~AF_INET", &families, &format!("0\n{refused}\n0"));
    says("RestrictAddressFamilies=none", &format!("{socket} 1"), &refused.to_string());
    let map = call("mmap", "0, 4096, 7, 0x22, -1, 0");
    says("", &map.replace("? $!+0 : 0", "&& $r > -4096 ? $!+0 : 0"), "0");
    says("MemoryDenyWriteExecute=yes", &map, "1");
    says("RestrictRealtime=yes", &call("sched_setscheduler", "0, 1, $p"), "1");
    says("", &call("sched_setscheduler", "0, 1, $p"), "0");
    says("LockPersonality=yes", &call("personality", "8"), "1");
    says("RestrictNamespaces=yes", &call("unshare", "0x40000000"), "1");
    says("RestrictNamespaces=~net", &format!("{};{}", call("unshare", "0x40000000"), call("unshare", "0x8000000")), "1\n0");
    let bits =
        "touch @/f; chmod 4755 @/f 2>/dev/null; stat -c %a @/f; chmod 755 @/f && mkdir -m 2755 @/d 2>/dev/null; test -e @/d || echo none";
    let unit = Unit::new("RestrictSUIDSGID=yes");
    assert_eq!(unit.run(bits).text, "644\nnone\n");
}

#[test]
fn protections_of_the_kernel_deny_even_root() {
    says("ProtectClock=yes", &call("clock_settime", "0, $p"), "1");
    says("ProtectKernelModules=yes", &call("finit_module", "0, $s, 0"), "1");
    says("ProtectKernelLogs=yes", &call("syslog", "10, 0, 0"), "1");
    says("ProtectHostname=yes", "hostname changed 2>/dev/null || echo denied; readlink /proc/self/ns/uts | grep -c uts", "denied\n1");
}

#[test]
fn paths_are_bound_emptied_and_kept_from_being_written_or_executed() {
    let unit = Unit::new(
        "TemporaryFileSystem=/var:ro,size=1M\nBindReadOnlyPaths=@/source:/var/lib/bound\nBindPaths=@/open:@/deep/there -/nowhere\n\
         NoExecPaths=@\nExecPaths=@/open\nReadOnlyPaths=@\nReadWritePaths=@/work",
    );
    for name in ["source", "open", "work"] {
        std::fs::create_dir(unit.path(name)).unwrap();
    }
    std::fs::create_dir_all(unit.path("deep/there")).unwrap();
    std::fs::write(unit.path("source/file"), "bound").unwrap();
    for name in ["open", "work"] {
        std::fs::copy("/bin/true", unit.path(name).join("program")).unwrap();
    }
    let script = "ls /var; cat /var/lib/bound/file; echo; t() { touch $1 2>/dev/null && echo wrote ${1##*/} || echo kept ${1##*/}; }; \
        t /var/a; t /var/lib/bound/b; t @/deep/there/c; t @/d; t @/work/e; @/open/program && echo ran; \
        @/work/program 2>/dev/null || echo not executable";
    let outcome = unit.run(script);
    assert_eq!(outcome.text, "lib\nbound\nkept a\nkept b\nwrote c\nkept d\nwrote e\nran\nnot executable\n", "{outcome:?}");
    assert!(unit.path("open/c").exists() && !std::path::Path::new("/var/lib/bound").exists());
    let outcome = Unit::new("BindPaths=/no/such/source:/mnt").run("echo ran");
    assert_eq!((outcome.status.code(), outcome.text.as_str()), (Some(226), ""), "{outcome:?}");
}

#[test]
fn a_private_tmp_is_shared_by_the_processes_of_one_run_only() {
    let unit = Unit::new("PrivateTmp=yes\nUser=nobody");
    assert_eq!(unit.run("echo secret >/tmp/of-the-unit; echo more >/var/tmp/of-the-unit; stat -c %a /tmp").text, "1777\n");
    assert_eq!(unit.run("cat /tmp/of-the-unit /var/tmp/of-the-unit").text, "secret\nmore\n");
    assert!(!std::path::Path::new("/tmp/of-the-unit").exists());
    assert_eq!(Unit::new("PrivateTmp=disconnected").run("ls /tmp").text, "");
    for own in unit.private() {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&own).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700, "others cannot look into it");
    }
}

#[test]
fn namespaces_hide_the_network_the_processes_and_the_users() {
    says("PrivateNetwork=yes", "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; ping -c1 127.0.0.1 >/dev/null 2>&1; true", "lo");
    says("ProtectProc=invisible\nUser=nobody", "test -e /proc/1 || echo hidden; test -e /proc/self && echo self", "hidden\nself");
    says("ProcSubset=pid", "test -e /proc/cpuinfo || echo hidden", "hidden");
    let map = "tr -s ' ' </proc/self/uid_map; grep -c 0000000000000000 /proc/self/status >/dev/null; mount -t tmpfs none /mnt 2>/dev/null || echo no mounts";
    says("PrivateUsers=yes\nUser=nobody", &format!("id -u; {map}"), "65534\n 0 0 1\n 65534 65534 1\nno mounts");
    says(
        "PrivateUsers=yes",
        "tr -s ' ' </proc/self/uid_map; hostname changed 2>/dev/null || echo root of nothing",
        " 0 0 1\nroot of nothing",
    );
    let private = |kind: &str| {
        format!("test \"$(readlink /proc/self/ns/{kind})\" = \"$(readlink /proc/{}/ns/{kind})\" || echo own {kind}", std::process::id())
    };
    says(
        "PrivateIPC=yes\nProtectHostname=yes\nPrivateMounts=yes",
        &[private("ipc"), private("uts"), private("mnt")].join(";"),
        "own ipc\nown uts\nown mnt",
    );
}

#[test]
fn a_dynamic_user_has_a_number_of_its_own_and_keeps_its_state() {
    let unit = Unit::new("DynamicUser=yes\nStateDirectory=box");
    let script = "id -u; touch /etc/mark 2>/dev/null || echo not there; echo $USER";
    let first = unit.run(script).text;
    let uid: u32 = first.lines().next().unwrap().parse().unwrap();
    assert!((61_184..65_520).contains(&uid), "{first}");
    assert_eq!(first, format!("{uid}\nnot there\nbox\n"));
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(unit.path("state/box")).unwrap()), uid);
    assert_eq!(unit.run(script).text, first);
    assert_eq!(Unit::new("DynamicUser=yes\nUser=nobody").run("id -u").text, "65534\n", "there is such a user");
}

#[test]
fn a_program_that_keeps_its_identity_keeps_no_other_right() {
    let unit = Unit::new("User=nobody\nCapabilityBoundingSet=CAP_CHOWN CAP_SETUID");
    let outcome = unit.run_as("keep-identity", "id -u; grep CapBnd /proc/self/status | tr -d '\\t'");
    assert_eq!(outcome.text, "0\nCapBnd:0000000000000081\n", "{outcome:?}");
}

#[test]
fn credentials_are_files_for_the_units_user_alone() {
    let unit = Unit::new(
        "LoadCredential=key:@/secret\nSetCredential=word:a\\nb\nLoadCredential=gone:/no/such\nSetCredential=gone:instead\nUser=nobody",
    );
    std::fs::write(unit.path("secret"), "swordfish").unwrap();
    std::fs::set_permissions(unit.path("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let outcome = unit.run("cd $CREDENTIALS_DIRECTORY; cat key; echo; cat word; echo; cat gone; echo; stat -c '%a %U' . key; cat @/secret 2>/dev/null || echo not the file itself");
    assert_eq!(outcome.text, "swordfish\na\nb\ninstead\n500 nobody\n400 nobody\nnot the file itself\n", "{outcome:?}");
    let outcome = Unit::new("LoadCredential=key:/no/such").run("echo ran");
    assert_eq!((outcome.status.code(), outcome.text.as_str()), (Some(243), ""), "{outcome:?}");
    assert!(outcome.error.contains("credential key from /no/such"), "{outcome:?}");
}

#[test]
fn kernel_tunables_and_control_groups_cannot_be_written_even_by_root() {
    // Its own value again, and a group that is removed at once: without the protection both are done, and harm nobody.
    let tunable = "f=/proc/sys/vm/swappiness; v=$(cat $f); (echo $v > $f) 2>/dev/null && echo wrote || echo kept";
    let group = format!("d={}/garboard-probe-$$; mkdir $d 2>/dev/null && rmdir $d && echo wrote || echo kept", cgroup2().display());
    let hidden = "test -s /proc/kallsyms -o -n \"$(head -c 1 /proc/kallsyms 2>/dev/null)\" && echo seen || echo hidden";
    for (settings, script, wanted) in [
        ("", tunable, "wrote"),
        ("ProtectKernelTunables=yes", tunable, "kept"),
        ("", group.as_str(), "wrote"),
        ("ProtectControlGroups=yes", group.as_str(), "kept"),
        ("", hidden, "seen"),
        ("ProtectKernelTunables=yes", hidden, "hidden"),
        ("ProtectKernelTunables=yes", "cat /proc/sys/kernel/ostype", "Linux"),
    ] {
        says(settings, script, wanted);
    }
}

#[test]
fn inaccessible_paths_have_nothing_in_them() {
    let unit = Unit::new("InaccessiblePaths=@/secrets @/key -/no/such/path");
    std::fs::create_dir(unit.path("secrets")).unwrap();
    std::fs::write(unit.path("secrets/one"), "swordfish").unwrap();
    std::fs::write(unit.path("key"), "swordfish").unwrap();
    let script = "cat @/secrets/one @/key 2>/dev/null; ls @/secrets 2>/dev/null | wc -l; (echo x > @/key) 2>/dev/null || echo not written; \
        stat -c %a @/secrets @/key";
    let outcome = unit.run(script);
    assert_eq!(outcome.text, "0\nnot written\n0\n0\n", "{outcome:?}");
    assert_eq!(std::fs::read_to_string(unit.path("key")).unwrap(), "swordfish");
    let outcome = Unit::new("InaccessiblePaths=/no/such/path").run("echo ran");
    assert_eq!((outcome.status.code(), outcome.text.as_str()), (Some(226), ""), "{outcome:?}");
}

#[test]
fn ambient_capabilities_stay_with_an_ordinary_user_and_no_others() {
    let sets = "grep -e CapPrm -e CapEff -e CapAmb -e CapBnd /proc/self/status | tr -d '\\t'";
    let one = "0000000000000400";
    says(
        "User=nobody\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_CHOWN",
        sets,
        &format!("CapPrm:{one}\nCapEff:{one}\nCapBnd:0000000000000401\nCapAmb:{one}"),
    );
    // What the bounding set does not have is not given either.
    let none = "0000000000000000";
    says(
        "User=nobody\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_CHOWN",
        sets,
        &format!("CapPrm:{none}\nCapEff:{none}\nCapBnd:0000000000000001\nCapAmb:{none}"),
    );
    let bind =
        "perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); print bind(S, sockaddr_in($ARGV[0], INADDR_LOOPBACK)) ? 0 : $!+0, \"\\n\"' ";
    says("PrivateNetwork=yes\nUser=nobody", &format!("{bind} 77"), "13");
    says("PrivateNetwork=yes\nUser=nobody\nAmbientCapabilities=CAP_NET_BIND_SERVICE", &format!("{bind} 77"), "0");
}

#[test]
fn masks_niceness_scores_and_processors_are_as_the_unit_says() {
    says("UMask=0027", "umask", "0027");
    says("", "umask", "0022");
    says("Nice=7", "nice", "7");
    says("Nice=-3\nUser=nobody", "nice", "-3");
    says("OOMScoreAdjust=321", "cat /proc/self/oom_score_adj", "321");
    says("CPUAffinity=0", "grep Cpus_allowed_list /proc/self/status | tr -d '\\t'", "Cpus_allowed_list:0");
}

#[test]
fn directories_are_made_for_the_user_and_named_in_the_environment() {
    let unit = Unit::new(
        "User=nobody\nCacheDirectory=app app/deep\nCacheDirectoryMode=0700\nLogsDirectory=app\nLogsDirectoryMode=0750\nConfigurationDirectory=app\nStateDirectory=app:link",
    );
    let script = "for d in $(echo $CACHE_DIRECTORY:$LOGS_DIRECTORY | tr : ' '); do echo ${d#@/} $(stat -c '%a %U' $d); touch $d/x; done; \
        echo ${CONFIGURATION_DIRECTORY#@/} $(stat -c %a $CONFIGURATION_DIRECTORY); basename $(readlink @/state/link)";
    let outcome = unit.run(script);
    let wanted = "cache/app 700 nobody\ncache/app/deep 700 nobody\nlogs/app 750 nobody\netc/app 755\napp\n";
    assert_eq!(outcome.text, wanted, "{outcome:?}");
    for file in ["cache/app/x", "cache/app/deep/x", "logs/app/x"] {
        assert!(unit.path(file).exists(), "{file}");
    }
    let outcome = Unit::new("CacheDirectory=app").run("ls -d $CACHE_DIRECTORY >/dev/null && echo made");
    assert_eq!(outcome.text, "made\n");
}

#[test]
fn credentials_of_the_host_are_imported_by_pattern() {
    // The store is where systemd has it; in a mount namespace of the test's own.
    let unit = Unit::new("ImportCredential=app.*\nImportCredential=none.*\nUser=nobody");
    let text = unit.run_in("mount -t tmpfs none /run && mkdir -p /run/credstore && echo one > /run/credstore/app.one && echo two > /run/credstore/app.two && echo no > /run/credstore/other", "cd $CREDENTIALS_DIRECTORY && cat *; ls");
    assert_eq!(text.text, "one\ntwo\napp.one\napp.two\n", "{text:?}");
}

#[test]
fn the_kernel_schedules_as_the_unit_says() {
    says("CPUSchedulingPolicy=batch", "chrt -p $$ | grep -o SCHED_BATCH", "SCHED_BATCH");
    says("CPUSchedulingPolicy=fifo\nCPUSchedulingPriority=7", "chrt -p $$ | grep -o -e SCHED_FIFO -e ' 7$' | tr -d ' '", "SCHED_FIFO\n7");
    says("IOSchedulingClass=idle", "ionice -p $$", "idle");
    says("IOSchedulingClass=best-effort\nIOSchedulingPriority=6", "ionice -p $$", "best-effort: prio 6");
    says("CoredumpFilter=private-anonymous", "cat /proc/self/coredump_filter", "00000001");
}
