//! `init`: PID 1 of a Garboard host, its initramfs stage, its daemons and its front-ends, in one static binary.
//!
//! Which program it is follows from how it was started: as PID 1 with `/etc/initrd-release` present it is the
//! initramfs stage, as PID 1 otherwise the init of the host, under the name of a front-end (`systemctl`, `modprobe`, ...)
//! that front-end, and as `init WORD` one of the daemons and helpers that units start. PID 1 itself is single-threaded
//! and never exits; whatever parses the outside world runs in a process of its own.

#![deny(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::print_stdout))]

use std::process::ExitCode;

use unit_files::glob;

mod accounts;
mod boot;
mod cmdline;
mod ctl;
mod devices;
mod disk;
mod dropin;
mod early;
mod engine;
mod initramfs;
mod kmsg;
mod logs;
mod modules;
mod network;
mod notify;
mod pstore;
mod rcu;
mod shutdown;
#[allow(unsafe_code)]
mod sys;
mod tmpfiles;
mod trial;
mod watchdog;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if std::process::id() == 1 {
        as_pid1();
    }
    let (name, rest) = match args.split_first() {
        Some((first, rest)) => (first.rsplit('/').next().unwrap_or_default(), rest),
        None => ("init", args.as_slice()),
    };
    match name {
        "systemctl" => ctl::systemctl(rest),
        "journalctl" => logs::journalctl(rest),
        "hostnamectl" => ctl::hostnamectl::hostnamectl(rest),
        "timedatectl" => ctl::timedatectl::timedatectl(rest),
        "shutdown" | "reboot" | "poweroff" | "halt" => shutdown::command::main(name, rest),
        "modprobe" => modules::command::main(rest),
        _ => helper(rest),
    }
}

/// The programs that units and PID 1 start as `init WORD`.
fn helper(args: &[String]) -> ExitCode {
    let Some((word, rest)) = args.split_first() else {
        eprintln!("init: not PID 1: name what to run, one of {HELPERS}");
        return ExitCode::from(2);
    };
    match word.as_str() {
        "systemctl" => ctl::systemctl(rest),
        "journalctl" => logs::journalctl(rest),
        "hostnamectl" => ctl::hostnamectl::hostnamectl(rest),
        "timedatectl" => ctl::timedatectl::timedatectl(rest),
        "shutdown" | "reboot" | "poweroff" | "halt" => shutdown::command::main(word, rest),
        "modprobe" => modules::command::main(rest),
        "log-daemon" => logs::daemon(rest),
        "network-daemon" => network::daemon(rest),
        "network-wait" => network::wait(rest),
        "exec-helper" => engine::exec_helper(rest),
        "map-ids" => engine::map_ids(rest),
        "notify" => engine::notify_command::main(rest),
        "unit-engine" => engine::unit_engine(rest),
        "coldplug" => devices::coldplug(rest),
        "tmpfiles" => tmpfiles::main(rest),
        "sysctl" => early::sysctl::main(rest),
        "modules-load" => modules::load::main(rest),
        "pstore" => pstore::main(rest),
        "watchdog" => watchdog::main(rest),
        "host-keys" => early::host_keys::main(rest),
        "trial" => trial::main(rest),
        "power-key" => shutdown::power_key::main(rest),
        "shutdown-wait" => shutdown::schedule::wait_main(rest),
        "health-checks" => trial::health_checks(rest),
        _ => {
            eprintln!("init: no program '{word}' in here, expected one of {HELPERS}");
            ExitCode::from(2)
        }
    }
}

const HELPERS: &str = "systemctl, journalctl, hostnamectl, timedatectl, shutdown, reboot, poweroff, halt, modprobe, log-daemon, network-daemon, network-wait, \
     exec-helper, map-ids, unit-engine, notify, coldplug, tmpfiles, sysctl, modules-load, pstore, watchdog, host-keys, trial, \
     health-checks, power-key, shutdown-wait";

/// PID 1 may not return: the kernel panics when it exits.
fn as_pid1() -> ! {
    if std::path::Path::new("/etc/initrd-release").exists() {
        initramfs::main()
    }
    let context = early::main();
    let kind = engine::run(context);
    shutdown::finish(kind)
}
