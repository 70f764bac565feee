//! The unit engine: jobs, processes, sockets, timers, the control socket and the health gate.
//!
//! `transaction`, `jobs`, `service_state`, `restart` decide and touch nothing; `manager` and its siblings do what they say, on one
//! thread that waits in one place. What could hang or fail for a unit's sake happens in the exec helper, a process of the unit's own.
//! Promises never to panic, never to block, and that no unit file keeps the others from running.

#![deny(clippy::panic, clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;

use plain_output::say;
use unit_files::glob as pattern;

use crate::boot::BootContext;
use crate::shutdown::ShutdownKind;

mod answers;
mod cgroup_filters;
mod cgroups;
pub mod client;
mod conditions;
mod connections;
mod consequences;
mod control;
mod exec;
mod graph;
mod health;
#[cfg(test)]
mod job_model_tests;
mod job_timeouts;
mod jobs;
mod loading;
#[cfg(test)]
mod loading_bench;
mod manager;
mod mounts;
mod notify;
pub mod notify_command;
mod path_units;
mod paths;
mod poller;
mod power;
pub mod protocol;
mod report;
mod restart;
mod running;
mod service_events;
mod service_state;
mod service_step;
mod services;
mod sockets;
mod spawn;
mod status;
mod timer_schedule;
mod timers;
mod transaction;
mod transaction_build;

/// The kind of virtual machine or container that this runs in, `none` on real hardware.
pub fn virtualization() -> String {
    conditions::virtualization()
}

/// The rules of a time zone as this host has them.
pub fn time_zone(zone: &unit_files::calendar::CalendarZone) -> Option<unit_files::calendar::Zone> {
    timers::zone(zone)
}

/// Starts the default target and runs until the machine is to go down; by then every unit is stopped.
pub fn run(context: BootContext) -> ShutdownKind {
    // Without its few fds the engine cannot do anything; the only cure is that whatever was missing comes.
    loop {
        match manager::Manager::new(context.clone(), paths::Paths::default()) {
            Ok(mut manager) => return manager.run(),
            Err(why) => {
                crate::kmsg::error(&format!("the unit engine cannot start: {why}; trying again in a second"));
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        }
    }
}

/// `init exec-helper`: becomes the program of a unit.
pub fn exec_helper(args: &[String]) -> ExitCode {
    exec::main(args)
}

/// `init map-ids PID UIDS GIDS`: writes the maps of a unit's user namespace.
pub fn map_ids(args: &[String]) -> ExitCode {
    exec::map_ids(args)
}

/// `init unit-engine PATHS.json`: the engine as an ordinary process over directories of its own, for tests. Orphans of its
/// services come to it as they come to PID 1.
pub fn unit_engine(args: &[String]) -> ExitCode {
    let text = args.first().map(std::fs::read).and_then(Result::ok);
    let Some(paths) = text.and_then(|text| serde_json::from_slice::<paths::Paths>(&text).ok()) else {
        eprintln!("init unit-engine: name a file with its paths as JSON");
        return ExitCode::from(2);
    };
    let paths = paths::Paths { machine: false, ..paths };
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let context = BootContext {
        record: crate::boot::BootRecord { version: "0.0.1".into(), slot: "a".into(), ..Default::default() },
        cmdline: crate::cmdline::CommandLine::parse(""),
        boot_id: String::new(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        consoles: Vec::new(),
        power_button: None,
    };
    match manager::Manager::new(context, paths) {
        Ok(mut manager) => {
            let kind = manager.run();
            say!("init: end of the engine: {kind:?}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("init unit-engine: {why}");
            ExitCode::FAILURE
        }
    }
}
