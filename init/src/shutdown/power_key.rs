//! `init power-key VERB FILE`: asks inhibitors for PID 1 whether a key of the machine (the power button, Ctrl-Alt-Del) may end it. It is the
//! reading of files and the waiting that PID 1 leaves to it; going down is PID 1's.

use std::process::ExitCode;

use reboot_rules::sessions::wall;

use super::inhibit::{self, Inhibitors};

/// The exit code when an inhibitor forbids it; which one is in the file then. Any other end lets the key count.
pub const FORBIDDEN: u8 = 10;

/// Waits for those that ask for a moment, and tells who is logged in.
pub fn main(args: &[String]) -> ExitCode {
    let [verb, file] = args else { return ExitCode::from(2) };
    let say = |line: &str| {
        eprintln!("{line}");
        wall(line);
    };
    match inhibit::respect(verb, Inhibitors::of_host(), &mut |line| say(line)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            wall(&why);
            if let Err(error) = std::fs::write(file, &why) {
                eprintln!("{file}: {error}; {why}");
            }
            ExitCode::from(FORBIDDEN)
        }
    }
}
