//! The network: links, addresses, DHCP, and what is written for others below `/run/garboard`.
//!
//! - [`frame`], [`dhcp_message`], [`dhcp_state`], [`dhcp_transport`]: the DHCPv4 client, from bytes to state machine to sockets.
//! - [`router_advertisement`], [`dhcp6_message`], [`dhcp6_state`], [`dhcp6_transport`]: what routers say, and the DHCPv6 client; `ipv6` joins them.
//! - [`netlink`], [`netlink_links`], [`netlink_socket`]: the kernel.
//! - [`network_file`], [`netdev_file`], [`link_file`], [`settings`]: what people ask for; [`plan`]: what follows from it.
//! - [`daemon`] does it, [`status`] sums it up; [`published`] and [`time_sources`] tell others; [`wait`](mod@wait) waits for it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub mod daemon;
pub mod dhcp6_message;
pub mod dhcp6_state;
pub mod dhcp6_transport;
pub mod dhcp_message;
pub mod dhcp_state;
pub mod dhcp_transport;
pub mod file_syntax;
pub mod frame;
pub mod host_facts;
mod ipv6;
pub mod link_file;
pub mod link_match;
pub mod netdev_file;
pub mod netlink;
pub mod netlink_links;
pub mod netlink_socket;
pub mod network_file;
pub mod plan;
pub mod published;
pub mod router_advertisement;
pub mod settings;
pub mod status;
pub mod time_sources;
mod virtual_links;
pub mod wait;

#[cfg(test)]
mod dnsmasq_tests;
#[cfg(test)]
mod ipv6_tests;
#[cfg(test)]
mod lab;

/// `init network-daemon`.
pub fn daemon(args: &[String]) -> ExitCode {
    if let Some(arg) = args.first() {
        eprintln!(
            "init network-daemon: unknown argument '{arg}'; it takes none: files are read from /etc/systemd/network, and again when they change"
        );
        return ExitCode::from(2);
    }
    let paths = daemon::Paths { root: PathBuf::from("/"), manage_hardware: true };
    let result = daemon::Daemon::start(paths).and_then(|daemon| {
        let _ = crate::notify::notify("READY=1", None);
        daemon.run()
    });
    match result {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("<3>init network-daemon: cannot speak with the kernel's routing: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `init network-wait [--timeout=SECONDS]`: returns when the host has an address and a default route.
pub fn wait(args: &[String]) -> ExitCode {
    let seconds = match args.first().map(|arg| arg.strip_prefix("--timeout=").and_then(|text| text.parse().ok())) {
        None => 120,
        Some(Some(seconds)) => seconds,
        Some(None) => {
            eprintln!("init network-wait: the only argument is --timeout=SECONDS");
            return ExitCode::from(2);
        }
    };
    match wait::until_online(Path::new("/run/garboard"), Duration::from_secs(seconds)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!(
                "init network-wait: not online after {seconds} s; see /run/garboard/network.json and 'journalctl -u garboard-network'"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("init network-wait: cannot watch /run/garboard: {error}");
            ExitCode::FAILURE
        }
    }
}
