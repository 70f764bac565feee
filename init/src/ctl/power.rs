//! Ending it: `poweroff`, `reboot`, `halt`, `kexec`.

use super::args::Options;
use super::{Failure, Outcome, pid1};
use crate::engine::protocol::{PowerAction, Request};
use crate::shutdown::inhibit;

/// Inhibitors are minded, unless `-i` or `--force` says not to. `--force` once skips stopping units, twice skips everything.
pub(super) fn power(verb: &str, options: &Options) -> Outcome {
    let action = match verb {
        "poweroff" => PowerAction::Poweroff,
        "reboot" => PowerAction::Reboot,
        "halt" => PowerAction::Halt,
        _ => PowerAction::Kexec,
    };
    let force = options.force.min(2);
    if force == 0 && !options.ignore_inhibitors {
        inhibit::mind(verb).map_err(Failure::new)?;
    }
    match pid1::ask(&Request::Power { action, force }, false) {
        Ok(_) => Ok(0),
        // PID 1 may be what is broken: the command of the same name knows other ways.
        Err(_) if verb != "kexec" => {
            // Inhibitors have been minded.
            let mut flags = vec!["--force".to_owned(); usize::from(force)];
            flags.push("-i".to_owned());
            let code = crate::shutdown::command::main(verb, &flags);
            Ok(u8::from(code != std::process::ExitCode::SUCCESS))
        }
        Err(failure) => Err(failure),
    }
}
