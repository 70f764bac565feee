//! What PID 1 says about units: to the log daemon, and what needs a person's eyes to the console.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use plain_output::say;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// Where reports go.
#[derive(Debug)]
pub struct Reporter {
    socket: Option<OwnedFd>,
    path: String,
    consoles: Vec<PathBuf>,
    machine: bool,
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    unit: &'a str,
    identifier: &'static str,
    priority: u8,
    pid: u32,
    message: &'a str,
}

impl Reporter {
    /// `consoles` get [`Reporter::announce`]; not `machine`: everything goes to stdout instead.
    #[must_use]
    pub fn new(path: &str, consoles: Vec<PathBuf>, machine: bool) -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok();
        Self { socket, path: path.to_owned(), consoles, machine }
    }

    /// Something to know about a unit. Never waits: a full or missing log daemon costs the line, which then goes to the kernel log.
    pub fn unit(&self, unit: &str, priority: u8, message: &str) {
        if !self.machine {
            say!("{unit}: {message}");
        }
        let entry = Entry { unit, identifier: "init", priority, pid: std::process::id(), message };
        let sent = match (&self.socket, SocketAddrUnix::new(self.path.as_str()), serde_json::to_vec(&entry)) {
            (Some(socket), Ok(address), Ok(text)) => {
                rustix::net::sendto(socket, &text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &address).is_ok()
            }
            _ => false,
        };
        if !sent && self.machine {
            crate::kmsg::info(&format!("{unit}: {message}"));
        }
    }

    /// Something went wrong with a unit: also one line on the console.
    pub fn problem(&self, unit: &str, message: &str) {
        self.unit(unit, 3, message);
        if self.machine {
            self.to_consoles(&format!("{unit}: {message}"));
        }
    }

    /// Something went wrong with PID 1 itself.
    pub fn warn(&self, message: &str) {
        if self.machine {
            crate::kmsg::warn(message);
        } else {
            say!("init: {message}");
        }
    }

    /// A line that people and tests wait for.
    pub fn announce(&self, line: &str) {
        if self.machine {
            self.to_consoles(line);
        } else {
            say!("{line}");
        }
    }

    fn to_consoles(&self, line: &str) {
        for console in &self.consoles {
            // A console that nobody drains must not stop PID 1.
            let flags =
                rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
            if let Ok(fd) = rustix::fs::open(console, flags, rustix::fs::Mode::empty()) {
                let _ = rustix::io::write(&fd, format!("{line}\r\n").as_bytes());
            }
        }
    }
}

/// The active consoles, the kernel's main one last.
#[must_use]
pub fn consoles() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let found: Vec<PathBuf> = text.split_whitespace().map(|name| PathBuf::from("/dev").join(name)).filter(|path| path.exists()).collect();
    if found.is_empty() { vec!["/dev/console".into()] } else { found }
}
