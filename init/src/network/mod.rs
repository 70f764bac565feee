//! The network daemon: links, addresses, DHCP, and what it writes for others below `/run/garboard`.

use std::process::ExitCode;

/// `init network-daemon`.
pub fn daemon(_args: &[String]) -> ExitCode {
    eprintln!("init network-daemon: not in this build");
    ExitCode::FAILURE
}

/// `init network-wait`: returns when the host has an address and a default route.
pub fn wait(_args: &[String]) -> ExitCode {
    eprintln!("init network-wait: not in this build");
    ExitCode::FAILURE
}
