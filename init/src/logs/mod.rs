//! Logs: the daemon that collects them, the store that keeps them, and `journalctl` that shows them.
//!
//! - [`format`], [`segments`], [`store`]: what is on disk (specified in `docs/log-format.md`).
//! - [`inputs`], [`lines`], [`rate_limit`], [`intake`], [`daemon`]: from sockets and the kernel into the store.
//! - [`query`] reads back; [`journalctl`](mod@journalctl) is its command line.

use std::path::Path;
use std::process::ExitCode;

pub mod config;
pub mod daemon;
pub mod format;
pub mod inputs;
pub mod intake;
pub mod journalctl;
pub mod lines;
pub mod query;
pub mod rate_limit;
pub mod segments;
pub mod store;

/// `init log-daemon [--root DIRECTORY]`.
pub fn daemon(args: &[String]) -> ExitCode {
    let root = match args {
        [] => Path::new("/"),
        [option, root] if option == "--root" => Path::new(root),
        _ => {
            eprintln!("init log-daemon: nothing but --root DIRECTORY is understood");
            return ExitCode::from(2);
        }
    };
    daemon::main(root)
}

/// The front-end `journalctl`.
pub fn journalctl(args: &[String]) -> ExitCode {
    journalctl::main(args)
}

/// The id of a group of `/etc/group`.
fn group_id(root: &Path, name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string(root.join("etc/group")).ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}
