//! The host's own programs but PID 1, in one static binary that does what the name says under which it is called: they share most of their
//! code (HTTP, TLS, JSON, command lines), which an image has once so. The names are links of the recipes. Promises nothing
//! itself: each program is its crate's.

use std::process::ExitCode;

/// A program: the name, and what runs.
type Program = (&'static str, fn(&[String]) -> ExitCode);

const PROGRAMS: [Program; 5] = [
    ("cloud-config", |_| cloud_config::cli::main()),
    ("locksmithctl", reboot_locksmith::cli::locksmithctl),
    ("reboot-locksmith", reboot_locksmith::cli::main),
    ("systemd-inhibit", reboot_locksmith::cli::inhibit::main),
    ("update-agent", |_| update_agent::cli::main()),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let name = args.first().and_then(|first| first.rsplit('/').next()).unwrap_or_default();
    match PROGRAMS.iter().find(|(program, _)| *program == name) {
        Some((_, run)) => run(&args),
        None => {
            let names: Vec<&str> = PROGRAMS.iter().map(|(program, _)| *program).collect();
            eprintln!("host-programs: call it by a link whose name is one of: {}", names.join(", "));
            ExitCode::from(2)
        }
    }
}
