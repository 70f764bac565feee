//! `init notify WORD...`: says something to PID 1 for a service that is a shell script, as `systemd-notify` does.
//!
//! Ends only after PID 1 has read it: PID 1 finds out whose message it is by the sender's `/proc` entry.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendmsg_addr, sendto,
};

/// Sends each argument (`READY=1`, `STATUS=...`) as a line.
pub fn main(args: &[String]) -> ExitCode {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else {
        eprintln!("init notify: NOTIFY_SOCKET is not set: this is no service, or it has NotifyAccess=none");
        return ExitCode::FAILURE;
    };
    match send(&path, &args.join("\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("init notify: {path}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn send(path: &str, text: &str) -> std::io::Result<()> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sendto(&socket, text.as_bytes(), SendFlags::NOSIGNAL, &address)?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    barrier(&socket, &address, writer)?;
    // PID 1 closes its copy when it has come to the barrier.
    let mut fds = [PollFd::new(&reader, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 }))?;
    Ok(())
}

fn barrier(socket: &OwnedFd, address: &SocketAddrUnix, writer: OwnedFd) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [writer.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg_addr(socket, address, &[IoSlice::new(b"BARRIER=1")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
