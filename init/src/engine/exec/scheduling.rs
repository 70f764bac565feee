//! How the kernel schedules a unit's process: processor, disk, memory pressure, and a few other things of the process itself.

use unit_files::exec::{CpuSchedulingPolicy, ExecContext, IoSchedulingClass, KeyringMode};

use super::fail;
use super::spec::{Failure, Spec, exit};
use crate::sys;

/// Sets all of it, while it is still allowed.
pub fn apply(spec: &Spec) -> Result<(), Failure> {
    let context = &spec.context;
    if let Some(score) = context.oom_score_adjust {
        std::fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(fail(exit::OOM_ADJUST, "cannot set OOMScoreAdjust="))?;
    }
    if let Some(nice) = context.nice {
        rustix::process::setpriority_process(None, nice).map_err(fail(exit::NICE, "cannot set Nice="))?;
    }
    processor(context)?;
    if context.io_scheduling_class.is_some() || context.io_scheduling_priority.is_some() {
        let class = match context.io_scheduling_class {
            Some(IoSchedulingClass::None) => 0,
            Some(IoSchedulingClass::Realtime) => 1,
            Some(IoSchedulingClass::BestEffort) | None => 2,
            Some(IoSchedulingClass::Idle) => 3,
        };
        let level = if matches!(class, 1 | 2) { context.io_scheduling_priority.unwrap_or(4) } else { 0 };
        sys::scheduling::set_io_priority(class, level).map_err(fail(exit::IOPRIO, "cannot set IOSchedulingClass="))?;
    }
    if let Some(slack) = context.timer_slack {
        let slack = std::num::NonZeroU64::new(u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX));
        let _ = rustix::thread::set_current_timer_slack(slack);
    }
    if let Some(filter) = &context.coredump_filter {
        let mask = coredump_mask(filter)
            .ok_or_else(|| Failure { code: exit::LIMITS, message: format!("CoredumpFilter={filter}: no such kinds of memory") })?;
        // A kernel without core dumps has no such file, and nothing to filter.
        let _ = std::fs::write("/proc/self/coredump_filter", format!("{mask:#x}"));
    }
    if let Some(name) = &context.personality {
        let number =
            personality(name).ok_or_else(|| Failure { code: exit::PERSONALITY, message: format!("Personality={name}: not here") })?;
        sys::scheduling::set_personality(number).map_err(fail(exit::PERSONALITY, "cannot set Personality="))?;
    }
    if context.keyring_mode != KeyringMode::Inherit {
        // Where there are no keyrings, or no room for one more, there is nothing to share either.
        let _ = sys::scheduling::new_session_keyring(context.keyring_mode == KeyringMode::Shared);
    }
    Ok(())
}

fn processor(context: &ExecContext) -> Result<(), Failure> {
    if !context.cpu_affinity.is_empty() {
        let mut set = rustix::thread::CpuSet::new();
        for cpu in context.cpu_affinity.iter().filter(|cpu| (**cpu as usize) < rustix::thread::CpuSet::MAX_CPU) {
            set.set(*cpu as usize);
        }
        rustix::thread::sched_setaffinity(None, &set).map_err(fail(exit::CPUAFFINITY, "cannot set CPUAffinity="))?;
    }
    if context.cpu_scheduling_policy.is_none() && !context.cpu_scheduling_reset_on_fork {
        return Ok(());
    }
    let (policy, realtime) = match context.cpu_scheduling_policy.unwrap_or(CpuSchedulingPolicy::Other) {
        CpuSchedulingPolicy::Other => (libc::SCHED_OTHER, false),
        CpuSchedulingPolicy::Batch => (libc::SCHED_BATCH, false),
        CpuSchedulingPolicy::Idle => (libc::SCHED_IDLE, false),
        CpuSchedulingPolicy::Fifo => (libc::SCHED_FIFO, true),
        CpuSchedulingPolicy::Rr => (libc::SCHED_RR, true),
    };
    let priority = if realtime { context.cpu_scheduling_priority.unwrap_or(1).max(1) } else { 0 };
    let policy = if context.cpu_scheduling_reset_on_fork { policy | libc::SCHED_RESET_ON_FORK } else { policy };
    sys::scheduling::set_policy(policy, priority).map_err(fail(exit::SETSCHEDULER, "cannot set CPUSchedulingPolicy="))
}

fn personality(name: &str) -> Option<u64> {
    match name {
        "x86-64" if cfg!(target_arch = "x86_64") => Some(0),
        "arm64" if cfg!(target_arch = "aarch64") => Some(0),
        // PER_LINUX32
        "x86" if cfg!(target_arch = "x86_64") => Some(8),
        "arm" if cfg!(target_arch = "aarch64") => Some(8),
        _ => None,
    }
}

/// Kinds of memory by name or number, or a mask in hexadecimal.
fn coredump_mask(text: &str) -> Option<u32> {
    const KINDS: [&str; 9] = [
        "private-anonymous",
        "shared-anonymous",
        "private-file-backed",
        "shared-file-backed",
        "elf-headers",
        "private-huge",
        "shared-huge",
        "private-dax",
        "shared-dax",
    ];
    let mut mask = 0;
    for word in text.split_whitespace() {
        mask |= match word {
            "default" => 0x33,
            "all" => 0x1ff,
            word => match KINDS.iter().position(|kind| *kind == word) {
                Some(bit) => 1 << bit,
                None => u32::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()?,
            },
        };
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_memory_are_names_or_a_mask() {
        assert_eq!(coredump_mask("default shared-dax"), Some(0x133));
        assert_eq!(coredump_mask("0x3"), Some(3));
        assert_eq!(coredump_mask("everything"), None);
    }
}
