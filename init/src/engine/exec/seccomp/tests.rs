//! Filters by what they answer, on both architectures; the kernel's own view is in `tests/sandbox.rs`.

use unit_files::exec::{AllowDenyList, ExecContext, RestrictNamespaces, SyscallRule};

use super::calls::{Architecture, Calls};
use super::filter::Action;
use super::{machine, programs};

const BOTH: [Architecture; 2] = [Architecture::X86_64, Architecture::Aarch64];

/// The strictest answer, as the kernel takes it.
fn ask(context: &ExecContext, architecture: Architecture, call: &str, arguments: &[u64]) -> u32 {
    let number = Calls::of(architecture).number(call).expect(call);
    ask_number(context, architecture, number, arguments)
}

fn ask_number(context: &ExecContext, architecture: Architecture, number: u32, arguments: &[u64]) -> u32 {
    let answers = programs(context, architecture).unwrap();
    let rank = |answer: &u32| (answer & 0xffff_0000).cast_signed();
    let audit = architecture.audit();
    answers.iter().map(|program| machine::run(program, audit, number, arguments)).min_by_key(rank).unwrap_or(libc::SECCOMP_RET_ALLOW)
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.cast_unsigned()
}

fn rules(lines: &[&str]) -> ExecContext {
    let rule = |line: &&str| {
        let (deny, names) = line.strip_prefix('~').map_or((false, *line), |rest| (true, rest));
        SyscallRule { deny, names: names.split_whitespace().map(str::to_owned).collect() }
    };
    ExecContext { system_call_filter: lines.iter().map(rule).collect(), ..ExecContext::default() }
}

#[test]
fn a_list_of_allowed_calls_lets_nothing_else_through() {
    for architecture in BOTH {
        let mut context = rules(&["@system-service", "~@resources", "mbind:EINVAL"]);
        assert_eq!(ask(&context, architecture, "openat", &[]), ALLOW);
        assert_eq!(ask(&context, architecture, "execve", &[]), ALLOW, "of @default, which is always allowed");
        assert_eq!(ask(&context, architecture, "mount", &[]), KILL);
        assert_eq!(ask(&context, architecture, "setpriority", &[]), KILL, "taken out again");
        assert_eq!(ask(&context, architecture, "mbind", &[]), errno(libc::EINVAL));
        assert_eq!(ask_number(&context, architecture, 900, &[]), errno(libc::ENOSYS), "newer than our table");
        context.system_call_error_number = Some("EACCES".into());
        assert_eq!(ask(&context, architecture, "mount", &[]), errno(libc::EACCES));
    }
}

#[test]
fn a_list_of_denied_calls_lets_everything_else_through() {
    for architecture in BOTH {
        let context = rules(&["~@mount ptrace:ENOSYS", "pivot_root"]);
        assert_eq!(ask(&context, architecture, "mount", &[]), KILL);
        assert_eq!(ask(&context, architecture, "ptrace", &[]), errno(libc::ENOSYS));
        assert_eq!(ask(&context, architecture, "pivot_root", &[]), ALLOW, "taken out again");
        assert_eq!(ask(&context, architecture, "reboot", &[]), ALLOW);
        assert_eq!(ask_number(&context, architecture, 900, &[]), ALLOW);
    }
}

#[test]
fn names_that_would_lose_a_restriction_are_refused_and_others_are_not() {
    for (lines, fine) in [
        (&["~no_such_call"][..], false),
        (&["~@no-such-group"], false),
        (&["@system-service no_such_call"], true),
        (&["~vm86 chown32"], true),
        (&["~mount:ENONSENSE"], false),
    ] {
        assert_eq!(programs(&rules(lines), Architecture::X86_64).is_ok(), fine, "{lines:?}");
    }
    let context = ExecContext { system_call_error_number: Some("EWHAT".into()), ..rules(&["~mount"]) };
    assert!(programs(&context, Architecture::X86_64).unwrap_err().contains("SystemCallErrorNumber=EWHAT"));
    let list = |allow, name: &str| Some(AllowDenyList { allow, names: vec![name.to_owned()] });
    let context = ExecContext { restrict_address_families: list(false, "AF_NOWHERE"), ..ExecContext::default() };
    assert!(programs(&context, Architecture::X86_64).is_err());
}

#[test]
fn calls_of_another_architecture_end_the_process() {
    let context = rules(&["~mount"]);
    for architecture in BOTH {
        let program = programs(&context, architecture).unwrap().remove(0);
        assert_eq!(machine::run(&program, 0x4000_0003, 4, &[]), KILL, "int 0x80");
    }
    assert_eq!(ask_number(&context, Architecture::X86_64, 0x4000_0001, &[]), KILL, "x32");
    let native = ExecContext { system_call_architectures: vec!["native".into()], ..ExecContext::default() };
    assert_eq!(ask(&native, Architecture::Aarch64, "mount", &[]), ALLOW);
    let other = ExecContext { system_call_architectures: vec!["arm64".into()], ..ExecContext::default() };
    assert!(programs(&other, Architecture::X86_64).is_err());
}

#[test]
fn arguments_decide_where_the_setting_is_about_arguments() {
    let none = errno(libc::EAFNOSUPPORT);
    for architecture in BOTH {
        let list = |allow| AllowDenyList { allow, names: vec!["AF_UNIX".into(), "AF_INET6".into()] };
        let context = ExecContext { restrict_address_families: Some(list(true)), ..ExecContext::default() };
        assert_eq!(ask(&context, architecture, "socket", &[1, 1]), ALLOW);
        assert_eq!(ask(&context, architecture, "socket", &[10, 1]), ALLOW);
        assert_eq!(ask(&context, architecture, "socket", &[2, 1]), none);
        assert_eq!(ask(&context, architecture, "socket", &[99, 1]), none);
        assert_eq!(ask(&context, architecture, "io_uring_setup", &[]), errno(libc::EPERM), "it could make any socket");
        let context = ExecContext { restrict_address_families: Some(list(false)), ..ExecContext::default() };
        assert_eq!(ask(&context, architecture, "socket", &[1]), none);
        assert_eq!(ask(&context, architecture, "socket", &[2]), ALLOW);
        let context = ExecContext {
            restrict_address_families: Some(AllowDenyList { allow: true, names: vec!["none".into()] }),
            ..ExecContext::default()
        };
        assert_eq!(ask(&context, architecture, "socket", &[1]), none);

        let context = ExecContext { memory_deny_write_execute: true, ..ExecContext::default() };
        assert_eq!(ask(&context, architecture, "mmap", &[0, 4096, 7]), errno(libc::EPERM));
        assert_eq!(ask(&context, architecture, "mmap", &[0, 4096, 5]), ALLOW);
        assert_eq!(ask(&context, architecture, "mprotect", &[0, 4096, 4]), errno(libc::EPERM));
        assert_eq!(ask(&context, architecture, "mprotect", &[0, 4096, 3]), ALLOW);

        let context = ExecContext { restrict_realtime: true, ..ExecContext::default() };
        assert_eq!(ask(&context, architecture, "sched_setscheduler", &[0, 1]), errno(libc::EPERM));
        assert_eq!(ask(&context, architecture, "sched_setscheduler", &[0, 0x4000_0002]), errno(libc::EPERM));
        assert_eq!(ask(&context, architecture, "sched_setscheduler", &[0, 3]), ALLOW);

        let context = ExecContext { restrict_suid_sgid: true, ..ExecContext::default() };
        assert_eq!(ask(&context, architecture, "fchmodat", &[0, 0, 0o4755]), errno(libc::EPERM));
        assert_eq!(ask(&context, architecture, "fchmodat", &[0, 0, 0o1777]), ALLOW);
        assert_eq!(ask(&context, architecture, "openat", &[0, 0, 0o100, 0o2755]), errno(libc::EPERM));
        assert_eq!(ask(&context, architecture, "openat", &[0, 0, 0, 0o2755]), ALLOW, "no file is made");

        let context = ExecContext { restrict_namespaces: Some(RestrictNamespaces::All), ..ExecContext::default() };
        assert_eq!(ask(&context, architecture, "unshare", &[0x1000_0000]), errno(libc::EPERM));
        assert_eq!(ask(&context, architecture, "unshare", &[0x400]), ALLOW, "shares no files any more, but no namespace");
        assert_eq!(ask(&context, architecture, "clone", &[0x2000_0011]), errno(libc::EPERM));
        assert_eq!(ask(&context, architecture, "clone", &[0x11]), ALLOW);
        assert_eq!(ask(&context, architecture, "setns", &[3, 0]), errno(libc::EPERM));
        assert_eq!(ask(&context, architecture, "clone3", &[]), errno(libc::ENOSYS));
        let only = RestrictNamespaces::List(AllowDenyList { allow: true, names: vec!["net".into()] });
        let context = ExecContext { restrict_namespaces: Some(only), ..ExecContext::default() };
        assert_eq!(ask(&context, architecture, "unshare", &[0x4000_0000]), ALLOW);
        assert_eq!(ask(&context, architecture, "unshare", &[0x0002_0000]), errno(libc::EPERM));

        let context = ExecContext { lock_personality: true, ..ExecContext::default() };
        assert_eq!(ask(&context, architecture, "personality", &[0xffff_ffff]), ALLOW);
        assert_eq!(ask(&context, architecture, "personality", &[8]), errno(libc::EPERM));
    }
}

#[test]
fn protections_deny_the_calls_behind_them_without_overruling_a_stricter_filter() {
    let context = ExecContext { protect_kernel_modules: true, protect_clock: true, ..rules(&["~init_module"]) };
    assert_eq!(ask(&context, Architecture::X86_64, "init_module", &[]), KILL);
    assert_eq!(ask(&context, Architecture::X86_64, "finit_module", &[]), errno(libc::EPERM));
    assert_eq!(ask(&context, Architecture::X86_64, "clock_settime", &[]), errno(libc::EPERM));
    assert_eq!(ask(&context, Architecture::X86_64, "clock_gettime", &[]), ALLOW);
}

#[test]
fn calls_to_be_logged_are_made() {
    let mut context = ExecContext::default();
    context.system_call_log.push(SyscallRule { deny: false, names: vec!["@mount".into()] });
    assert_eq!(ask(&context, Architecture::X86_64, "mount", &[]), Action::Log.answer());
    assert_eq!(ask(&context, Architecture::X86_64, "read", &[]), ALLOW);
}

#[test]
fn every_member_of_a_group_is_a_known_name() {
    let calls = Calls::of(Architecture::X86_64);
    for (group, members) in calls.groups() {
        for member in members {
            assert!(calls.resolve(member).is_some(), "{group} {member}");
        }
    }
    assert_eq!(calls.number("read"), Some(0));
    assert_eq!(Calls::of(Architecture::Aarch64).number("read"), Some(63));
    assert_eq!(Calls::of(Architecture::Aarch64).number("open"), None);
}

/// systemd's own list, from Debian's package: each of its members is in ours, so that no list of denied calls is shorter here.
#[test]
fn groups_hold_what_systemd_says() {
    let output = std::process::Command::new("systemd-analyze").args(["--no-pager", "syscall-filter"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let calls = Calls::of(Architecture::X86_64);
    let (mut group, mut compared) = ("", 0);
    for line in text.lines() {
        if line.starts_with('@') {
            group = line;
        } else if line.starts_with('#') {
            group = "";
        } else if let Some(member) = line.strip_prefix("    ").filter(|member| !member.starts_with('#') && !group.is_empty()) {
            let (ours, theirs) = (calls.resolve(group).expect(group), calls.resolve(member).expect(member));
            assert!(theirs.iter().all(|number| ours.contains(number)), "{group} {member}");
            compared += 1;
        }
    }
    assert!(compared > 900, "{compared}");
}
