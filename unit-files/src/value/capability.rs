//! Names of capabilities.

use super::{ValueError, expected};

/// Capabilities by number.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Every capability that has a name.
pub const ALL_CAPABILITIES: u64 = (1 << CAPABILITIES.len()) - 1;

/// A capability's number, by name in any case, with or without `CAP_`.
///
/// # Errors
/// When there is none such.
pub fn parse_capability(text: &str) -> Result<u8, ValueError> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_prefix("cap_").unwrap_or(&lower);
    let found = CAPABILITIES.iter().position(|known| *known == name).and_then(|number| u8::try_from(number).ok());
    found.ok_or_else(|| expected(text, "a capability (such as CAP_NET_ADMIN)"))
}

/// A capability's name, `CAP_NET_ADMIN` for instance.
#[must_use]
pub fn capability_name(number: u8) -> Option<String> {
    CAPABILITIES.get(usize::from(number)).map(|name| format!("CAP_{}", name.to_ascii_uppercase()))
}
