//! Ending it: `poweroff`, `reboot`, `halt`, `kexec`.

use super::args::Options;
use super::{Outcome, pid1};
use crate::engine::protocol::{PowerAction, Request};

/// `--force` once skips stopping units, twice skips everything.
pub(super) fn power(verb: &str, options: &Options) -> Outcome {
    let action = match verb {
        "poweroff" => PowerAction::Poweroff,
        "reboot" => PowerAction::Reboot,
        "halt" => PowerAction::Halt,
        _ => PowerAction::Kexec,
    };
    let force = options.force.min(2);
    match pid1::ask(&Request::Power { action, force }, false) {
        Ok(_) => Ok(0),
        // PID 1 may be what is broken: the command of the same name knows other ways.
        Err(_) if verb != "kexec" => {
            let flags = vec!["--force".to_owned(); usize::from(force)];
            let code = crate::shutdown::command::main(verb, &flags);
            Ok(u8::from(code != std::process::ExitCode::SUCCESS))
        }
        Err(failure) => Err(failure),
    }
}
