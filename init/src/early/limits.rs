//! Limits and settings of PID 1 and of the kernel that must hold before the first unit starts.

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{RebootCommand, reboot};

/// Open files: what PID 1 may use, and what units may ask for.
const FILES: u64 = 1_048_576;

/// Applies them; what units inherit is set by the engine for each.
pub(super) fn set() -> Vec<String> {
    let mut notes = Vec::new();
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum: Some(FILES) }) {
        notes.push(format!("cannot raise the limit of open files: {error}"));
    }
    let core = Rlimit { current: Some(0), maximum: None };
    if let Err(error) = setrlimit(Resource::Core, core) {
        notes.push(format!("cannot set the limit of core files: {error}"));
    }
    // The key combination becomes SIGINT for PID 1, which shuts down in order.
    if let Err(error) = reboot(RebootCommand::CadOff) {
        notes.push(format!("cannot take over Ctrl-Alt-Del: {error}"));
    }
    for (path, value) in [("/proc/self/oom_score_adj", "-1000"), ("/proc/sys/kernel/core_pattern", "|/bin/false")] {
        if let Err(error) = fs::write(path, value) {
            notes.push(format!("cannot write {value} to {path}: {error}"));
        }
    }
    notes
}
