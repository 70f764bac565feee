//! `systemctl`: what people type, turned into requests to PID 1 and into links of unit files.
//!
//! [`args`] reads the command line, [`pid1`] asks over the control socket; every other module is one group of verbs, with what is
//! printed made by functions of data, so that it can be tested without a machine. Messages and exit codes are those of systemd's
//! `systemctl`: 3 for a unit that does not run, 4 for one that does not exist. A verb that is not here says so by its name.

use std::process::ExitCode;

mod analyze;
mod args;
mod files;
pub mod hostnamectl;
mod human;
mod jobs;
mod list;
mod list_files;
mod pid1;
mod power;
mod show;
mod status;
mod table;
pub mod timedatectl;

use args::Command;

/// A verb that failed: one line for people, and the exit code.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }
}

/// The exit code of a verb that did its work.
type Outcome = Result<u8, Failure>;

/// The front-end `systemctl`.
pub fn systemctl(args: &[String]) -> ExitCode {
    let command = match args::parse(args) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("systemctl: {message}");
            return ExitCode::from(2);
        }
    };
    match run(&command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: &Command) -> Outcome {
    let Command { verb, operands, options } = command;
    match verb.as_str() {
        "help" => {
            plain_output::print(args::HELP);
            Ok(0)
        }
        "version" => {
            plain_output::print(concat!("systemctl of garboard init ", env!("CARGO_PKG_VERSION"), "\n"));
            Ok(0)
        }
        "list-units" => list::units(options, operands),
        "list-unit-files" => list_files::unit_files(options, operands),
        "list-sockets" => list::sockets(options, operands),
        "list-timers" => list::timers(options, operands),
        "list-jobs" => list::jobs(options),
        "list-dependencies" => list::dependencies(options, operands),
        "status" => status::status(options, operands),
        "show" => show::show(options, operands),
        "is-active" => show::is_active(options, operands),
        "is-failed" => show::is_failed(options, operands),
        "is-system-running" => show::is_system_running(options),
        "show-environment" => show::environment(),
        "set-environment" | "unset-environment" => jobs::environment(verb, operands),
        "cat" => files::cat(options, operands),
        "verify" => files::verify(options, operands),
        "is-enabled" => files::is_enabled(options, operands),
        "enable" | "disable" | "reenable" | "preset" | "mask" | "unmask" | "link" | "add-wants" | "add-requires" => {
            files::change(verb, options, operands)
        }
        "get-default" => files::get_default(options),
        "set-default" => files::set_default(options, operands),
        "analyze" => analyze::analyze(options, operands),
        "poweroff" | "reboot" | "halt" | "kexec" => power::power(verb, options),
        "rescue" | "emergency" | "default" => jobs::isolate(verb, options),
        "daemon-reload" | "daemon-reexec" => jobs::reload_files(verb),
        "reset-failed" => jobs::reset_failed(operands),
        "kill" => jobs::kill(options, operands),
        "cancel" => jobs::cancel(operands),
        verb => jobs::change(verb, options, operands),
    }
}
