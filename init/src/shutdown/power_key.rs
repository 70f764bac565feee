//! `init power-key VERB FILE`: asks inhibitors for PID 1 whether a key of the machine (the power button, Ctrl-Alt-Del) may end it. It is the
//! reading of files and the waiting that PID 1 leaves to it; going down is PID 1's.

use std::path::Path;
use std::process::ExitCode;

use reboot_rules::sessions::wall;

use super::inhibit::{self, Inhibitors};

/// The exit code when an inhibitor forbids it; which one is in the file then. Any other end lets the key count.
pub const FORBIDDEN: u8 = 10;

/// What the file says while those that ask for a moment are waited for, before the seconds. PID 1 does not go by the file that tells everybody
/// of such a wait, which another request may have left.
const WAITS: &str = "waits ";

/// How many microseconds the process has said in `file` that it waits, if it has.
pub fn waits(file: &Path) -> Option<u64> {
    let seconds: u64 = std::fs::read_to_string(file).ok()?.strip_prefix(WAITS)?.parse().ok()?;
    Some(seconds.saturating_mul(1_000_000))
}

/// Waits for those that ask for a moment, and tells who is logged in.
pub fn main(args: &[String]) -> ExitCode {
    let [verb, file] = args else { return ExitCode::from(2) };
    let say = |line: &str| {
        eprintln!("{line}");
        wall(line);
    };
    let inhibitors = Inhibitors::of_host();
    let waits = format!("{WAITS}{}", inhibitors.delay().as_secs());
    let tell = &mut |line: &str| {
        if let Err(error) = std::fs::write(file, &waits) {
            eprintln!("{file}: {error}");
        }
        say(line);
    };
    match inhibit::respect(verb, inhibitors, tell) {
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
