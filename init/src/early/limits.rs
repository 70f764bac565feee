//! Limits and settings of PID 1 and of the kernel that must hold before the first unit starts.

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{RebootCommand, reboot};

/// Open files: what PID 1 may use, and what units may ask for.
const FILES: u64 = 1_048_576;

/// What the kernel keeps free for its own urgent needs, KiB.
const RESERVE: &str = "/proc/sys/vm/min_free_kbytes";

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
    // Its oom_score_adj stays 0: the kernel never picks PID 1 (`oom_unkillable_task` in mm/oom_kill.c), and whatever is lowered here
    // every process of the host would inherit, until none is left that can be killed.
    let (path, value) = ("/proc/sys/kernel/core_pattern", "|/bin/false");
    if let Err(error) = fs::write(path, value) {
        notes.push(format!("cannot write {value} to {path}: {error}"));
    }
    if let Err(error) = shrink_reserve() {
        notes.push(format!("cannot set {RESERVE}: {error}"));
    }
    notes
}

/// Gives back memory that the kernel keeps free so that huge pages can be made at any time: 44 MiB of a host of 2 GiB. That
/// is for hosts that use them for everything (`transparent_hugepage=always`); without, the kernel's usual reserve is enough.
/// A `vm.min_free_kbytes` in sysctl.d comes later, and so wins.
fn shrink_reserve() -> std::io::Result<()> {
    let everything = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").is_ok_and(|modes| modes.contains("[always]"));
    let memory = fs::read_to_string("/proc/meminfo")?;
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    let (false, Some(total)) = (everything, total) else { return Ok(()) };
    let now: u64 = fs::read_to_string(RESERVE)?.trim().parse().unwrap_or(0);
    let usual = usual_reserve(total);
    if now > usual { fs::write(RESERVE, usual.to_string()) } else { Ok(()) }
}

/// The kernel's own rule, `calculate_min_free_kbytes` in `mm/page_alloc.c`: the root of sixteen times the memory, all in KiB.
fn usual_reserve(total: u64) -> u64 {
    total.saturating_mul(16).isqrt().clamp(128, 262_144)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_reserve_grows_with_the_root_of_memory() {
        assert_eq!(usual_reserve(2_014_432), 5_677);
        assert_eq!(usual_reserve(4 * 2_014_432), 11_354);
        assert_eq!(usual_reserve(0), 128);
        assert_eq!(usual_reserve(u64::MAX), 262_144);
    }
}
