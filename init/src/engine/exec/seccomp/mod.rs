//! System call filters: what a unit's settings say, compiled into programs that the kernel runs before every call.
//!
//! [`plan`] turns settings into a [`Filter`] of calls and actions, [`Filter::compile`] that into instructions; neither touches
//! anything, so both are tested for every architecture. Promises to refuse what it does not understand where leaving it out
//! would allow more than is written: an unknown name in a list of denied calls, an unknown error number.

mod arguments;
mod calls;
mod errno;
mod filter;
mod program;

#[cfg(test)]
mod machine;
#[cfg(test)]
mod tests;

use unit_files::exec::ExecContext;

pub use self::calls::Architecture;
use self::filter::{Action, Filter};
pub use self::program::Instruction;

/// Whether a unit's settings need a filter at all.
#[must_use]
pub fn needed(context: &ExecContext) -> bool {
    !context.system_call_filter.is_empty()
        || !context.system_call_architectures.is_empty()
        || !context.system_call_log.is_empty()
        || context.restrict_address_families.is_some()
        || context.restrict_namespaces.is_some()
        || context.memory_deny_write_execute
        || context.restrict_realtime
        || context.restrict_suid_sgid
        || context.lock_personality
        || context.private_devices
        || context.protect_kernel_modules
        || context.protect_kernel_logs
        || context.protect_clock
        || context.protect_hostname
}

/// The programs to install for a unit, in this order; the strictest answer counts.
///
/// # Errors
/// One line that says which setting cannot be done.
pub fn programs(context: &ExecContext, architecture: Architecture) -> Result<Vec<Vec<Instruction>>, String> {
    let mut out = Vec::new();
    if !needed(context) {
        return Ok(out);
    }
    check_architectures(&context.system_call_architectures, architecture)?;
    if !context.system_call_log.is_empty() {
        out.push(Filter::log(&context.system_call_log, architecture)?.compile()?);
    }
    let mut filter = Filter::of_calls(&context.system_call_filter, context.system_call_error_number.as_deref(), architecture)?;
    let implied = [
        (context.private_devices, "@raw-io"),
        (context.protect_kernel_modules, "@module"),
        (context.protect_kernel_logs, "syslog"),
        (context.protect_clock, "@clock"),
        (context.protect_hostname, "sethostname"),
        (context.protect_hostname, "setdomainname"),
    ];
    for name in implied.into_iter().filter(|(on, _)| *on).map(|(_, name)| name) {
        filter.deny_also(name, Action::Errno(libc::EPERM as u16))?;
    }
    arguments::restrict(&mut filter, context)?;
    out.push(filter.compile()?);
    Ok(out)
}

/// Calls of other architectures are always refused, so this only has to know that our own is among the allowed.
fn check_architectures(names: &[String], architecture: Architecture) -> Result<(), String> {
    const KNOWN: [&str; 8] = ["native", "x86", "x86-64", "x32", "arm", "arm64", "mips", "ppc"];
    if let Some(unknown) = names.iter().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(format!("SystemCallArchitectures={unknown}: no such architecture here"));
    }
    if names.is_empty() || names.iter().any(|name| name == "native" || name == architecture.name()) {
        return Ok(());
    }
    Err(format!("SystemCallArchitectures=: {} is not among them, so no program can run", architecture.name()))
}
