//! Who is at the other end of a unix socket, per connection and per message.
//!
//! `rustix` has both, but with a process id that may not be 0, and the kernel does report 0: for what was queued before
//! the receiver asked for credentials, and for senders of another pid namespace.

use std::os::fd::{AsFd, AsRawFd};

/// A process and its user, as the kernel says. A process id of 0 is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Process id, or 0.
    pub pid: u32,
    /// User, where known.
    pub uid: Option<u32>,
}

impl Credentials {
    fn from_raw(raw: libc::ucred) -> Credentials {
        let pid = u32::try_from(raw.pid).unwrap_or(0);
        Credentials { pid, uid: (pid != 0).then_some(raw.uid) }
    }
}

/// Who connected.
pub fn of_peer(fd: impl AsFd) -> std::io::Result<Credentials> {
    let mut raw = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the call, and the kernel writes at most `length` bytes, the size of `raw`.
    let result =
        unsafe { libc::getsockopt(fd.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut raw).cast(), &raw mut length) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(Credentials::from_raw(raw)) }
}

/// Reads one message (or what a stream has) without waiting, and who wrote it where `SO_PASSCRED` is set.
/// Descriptors that came along are not accepted: there is no room for them, so the kernel drops them.
pub fn receive(fd: impl AsFd, buffer: &mut [u8]) -> std::io::Result<(usize, Option<Credentials>)> {
    #[repr(C, align(8))]
    struct Control([u8; 32]);
    let mut control = Control([0; 32]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control.0).cast();
    // Exactly one credentials message fits: 16 bytes of header, 12 of content, padded.
    header.msg_controllen = 32;
    // SAFETY: `header` points to `part` and `control`, which live until after the call, with their true sizes.
    let length = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
    let Ok(length) = usize::try_from(length) else { return Err(std::io::Error::last_os_error()) };
    let mut sender = None;
    // SAFETY: `header` was filled in by `recvmsg`; CMSG_FIRSTHDR returns null or a header within `control`, and its data
    // is read only when its length says that a whole `ucred` is there.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        if !message.is_null()
            && (*message).cmsg_level == libc::SOL_SOCKET
            && (*message).cmsg_type == libc::SCM_CREDENTIALS
            && (*message).cmsg_len as usize >= libc::CMSG_LEN(size_of::<libc::ucred>() as u32) as usize
        {
            sender = Some(Credentials::from_raw(libc::CMSG_DATA(message).cast::<libc::ucred>().read_unaligned()));
        }
    }
    Ok((length, sender))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_writer_of_a_message_is_known_and_passed_descriptors_do_not_leak() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        rustix::net::sockopt::set_socket_passcred(&theirs, true).unwrap();
        ours.write_all(b"hello").unwrap();
        let mut buffer = [0; 16];
        let (length, sender) = receive(&theirs, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        assert_eq!(sender.unwrap().pid, std::process::id());
        assert_eq!(of_peer(&theirs).unwrap().pid, std::process::id());
        assert_eq!(receive(&theirs, &mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let file = std::fs::File::open("/dev/null").unwrap();
        let before = count();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        let fds = [file.as_fd()];
        control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
        rustix::net::sendmsg(&ours, &[std::io::IoSlice::new(b"fd")], &mut control, rustix::net::SendFlags::empty()).unwrap();
        assert_eq!(receive(&theirs, &mut buffer).unwrap().0, 2);
        assert_eq!(count(), before);
    }
}
