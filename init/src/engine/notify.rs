//! The notify socket: what services say of themselves.
//!
//! A datagram counts for the process that the kernel says sent it. The engine empties the socket before it reaps anyone, so that
//! a message of a process that has just ended is still attributed to it.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg};

use super::service_state::Notice;

/// A message with what the kernel says of its sender.
#[derive(Debug)]
pub struct Message {
    /// The sender.
    pub pid: i32,
    /// What it said.
    pub words: Words,
    /// fds that came along.
    pub fds: Vec<OwnedFd>,
}

/// A parsed message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// What is for the state machine.
    pub notice: Notice,
    /// `FDSTORE=1`.
    pub store: bool,
    /// `FDSTOREREMOVE=1`.
    pub remove: bool,
    /// `FDNAME=`.
    pub name: Option<String>,
    /// `BARRIER=1`: its fd is closed once everything before it is done, which dropping it does.
    pub barrier: bool,
}

/// Parses a message; what is not understood is left out, as any program may write anything.
#[must_use]
pub fn parse(text: &[u8]) -> Words {
    let mut words = Words::default();
    for line in String::from_utf8_lossy(text).lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let notice = &mut words.notice;
        match (key, value) {
            ("READY", "1") => notice.ready = true,
            ("RELOADING", "1") => notice.reloading = true,
            ("MONOTONIC_USEC", number) => notice.monotonic_usec = number.parse().ok(),
            ("STOPPING", "1") => notice.stopping = true,
            ("STATUS", text) => notice.status = Some(text.chars().filter(|c| !c.is_control()).take(1024).collect()),
            ("ERRNO", number) => notice.errno = number.parse().ok(),
            ("MAINPID", number) => notice.main_pid = number.parse().ok().filter(|pid| *pid > 1),
            ("WATCHDOG", "1") => notice.watchdog = true,
            ("WATCHDOG", "trigger") => notice.watchdog_trigger = true,
            ("WATCHDOG_USEC", number) => notice.watchdog_usec = number.parse().ok(),
            ("EXTEND_TIMEOUT_USEC", number) => notice.extend_timeout = number.parse().ok(),
            ("FDSTORE", "1") => words.store = true,
            ("FDSTOREREMOVE", "1") => words.remove = true,
            ("FDNAME", name) if name.len() <= 255 && !name.is_empty() => {
                words.name = name.chars().all(|c| c.is_ascii_graphic() && c != ':').then(|| name.to_owned());
            }
            ("BARRIER", "1") => words.barrier = true,
            _ => {}
        }
    }
    words
}

/// Opens the socket; everybody may write to it.
///
/// # Errors
/// When it cannot be bound.
pub fn listen(path: &Path) -> std::io::Result<OwnedFd> {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::remove_file(path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1024 * 1024);
    Ok(socket)
}

/// The next message, if there is one.
#[must_use]
pub fn receive(socket: impl AsFd) -> Option<Message> {
    let mut text = [0_u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    loop {
        let received = match recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags) {
            Ok(received) => received,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        };
        let mut pid = 0;
        let mut fds = Vec::new();
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmCredentials(who) => pid = who.pid.as_raw_nonzero().get(),
                RecvAncillaryMessage::ScmRights(list) => fds.extend(list),
                _ => {}
            }
        }
        return Some(Message { pid, words: parse(text.get(..received.bytes).unwrap_or_default()), fds });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_words_and_lies_are_dropped() {
        let words = parse(b"READY=1\nSTATUS=Serving \x1b[31mred\nMAINPID=1\nWATCHDOG_USEC=x\nFDNAME=a:b\nnonsense\n=\nBARRIER=1");
        assert!(words.notice.ready && words.barrier);
        assert_eq!(words.notice.status.as_deref(), Some("Serving [31mred"));
        assert_eq!(words.notice.main_pid, None, "PID 1 is nobody's main process");
        assert_eq!((words.notice.watchdog_usec, words.name), (None, None));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_message(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
