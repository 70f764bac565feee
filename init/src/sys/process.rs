//! Making processes, hearing of their ends, becoming another program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Signal;

/// The first fd that [`spawn`] hands to a child; the others follow.
pub const FIRST_PASSED_FD: RawFd = 3;

/// libc's constant of this name is too narrow for its value.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process that has ended and was not reaped yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its pid.
    pub pid: i32,
    /// `CLD_EXITED`, `CLD_KILLED` or `CLD_DUMPED`.
    pub code: i32,
    /// Exit code or signal.
    pub status: i32,
}

/// Some child that has ended, left as a zombie so that its `/proc` entry can still be read.
#[must_use]
pub fn peek_ended() -> Option<Ended> {
    wait(libc::P_ALL, 0, libc::WNOWAIT)
}

/// Takes a zombie away.
pub fn reap(pid: i32) -> Option<Ended> {
    wait(libc::P_PID, libc::id_t::try_from(pid).ok()?, 0)
}

fn wait(kind: libc::idtype_t, id: libc::id_t, flags: libc::c_int) -> Option<Ended> {
    loop {
        // SAFETY: siginfo_t is plain data for which all zeroes is valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` lives through the call and is what the kernel writes to.
        let result = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | libc::WNOHANG | flags) };
        if result < 0 {
            if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return None;
        }
        // SAFETY: waitid filled the SIGCHLD fields in, or left the zeroes.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        return (pid > 0).then_some(Ended { pid, code: info.si_code, status });
    }
}

/// Starts `program` with `fds` as 3, 4, ... in it, in the control group `cgroup` from its first instruction on.
///
/// Only for a single-threaded caller: the child shares nothing with it but inherits its memory.
///
/// # Errors
/// As `clone3` says. That the program could not be executed is seen as exit code 203.
pub fn spawn(
    program: &CString,
    args: &[CString],
    environment: &[CString],
    fds: &[BorrowedFd<'_>],
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<i32> {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(args), pointers(environment));
    let sources: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut moved = sources.clone();
    let count = RawFd::try_from(sources.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;

    // SAFETY: clone_args is plain data for which all zeroes is valid.
    let mut request: libc::clone_args = unsafe { std::mem::zeroed() };
    request.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        request.flags |= CLONE_INTO_CGROUP;
        request.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    }
    // SAFETY: without CLONE_VM this is a fork: the child goes on with a copy of everything. The caller has one thread, so no
    // lock is held by a thread that the child does not have, and the child only makes system calls until it executes or exits.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut request, size_of::<libc::clone_args>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid > 0 {
        return i32::try_from(pid).map_err(io::Error::other);
    }
    // The child. First out of the way of the target numbers, then to them; dup2 takes the close-on-exec flag off.
    for (to, from) in moved.iter_mut().zip(&sources) {
        // SAFETY: fcntl on a number; a failure is seen as -1.
        *to = unsafe { libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, FIRST_PASSED_FD + count) };
    }
    for (target, from) in (FIRST_PASSED_FD..).zip(&moved) {
        // SAFETY: dup2 on numbers that belong to this process.
        let result = unsafe { libc::dup2(*from, target) };
        if result < 0 {
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(203) };
        }
    }
    // SAFETY: the three pointers are to null-terminated texts and lists that live in this process' memory.
    unsafe {
        libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
        libc::_exit(203)
    }
}

/// Becomes another program; returns only why not.
#[must_use]
pub fn execute(program: &CString, args: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(args), pointers(environment));
    // SAFETY: the pointers are to null-terminated texts and lists that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Takes the fd that a parent passed under a number; it is closed on exec from now on.
///
/// # Errors
/// When there is no such fd.
pub fn take_passed_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: setting a flag of a number; fails when it is not open.
    if number < FIRST_PASSED_FD || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and by the contract of `spawn` nobody else in this fresh process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Puts `fd` at `number`, to be inherited by the next program.
///
/// # Errors
/// As `dup2` says.
pub fn place_fd(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 on numbers; whoever owned `number` before is the caller's responsibility, who is about to execute.
    let result = if fd.as_raw_fd() == number {
        // SAFETY: clears the close-on-exec flag of an open fd.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) }
    } else {
        // SAFETY: as above.
        unsafe { libc::dup2(fd.as_raw_fd(), number) }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Blocks signals and returns an fd from which they are read.
///
/// # Errors
/// As `signalfd` says.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data that sigemptyset initialises.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours; the signal numbers are checked by sigaddset.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: `set` is initialised; -1 asks for a new fd.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives every signal its default meaning and lets all through, as a new program expects it.
pub fn reset_signals(ignore_sigpipe: bool) {
    for signal in 1..=64 {
        // SAFETY: changing dispositions to the default; the two that cannot be changed fail harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    if ignore_sigpipe {
        // SAFETY: ignoring is always allowed.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    }
    // SAFETY: `set` is plain data initialised by sigemptyset.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Sends a signal by number, real-time signals included; 0 only asks whether the process is there.
///
/// # Errors
/// As `kill` says.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // Never 0 or -1: those mean "everybody".
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: no memory is involved.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends SIGCONT, so that a stopped process hears of its end.
pub fn wake(pid: i32) {
    let _ = kill(pid, Signal::CONT.as_raw());
}

/// Enters new namespaces (`CLONE_NEW...`), for a process with one thread.
///
/// # Errors
/// As `unshare` says.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no memory is involved; the caller is a single-threaded helper about to execute.
    if unsafe { libc::unshare(flags) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets a resource limit by its number; `None` is infinity.
///
/// # Errors
/// As `setrlimit` says.
pub fn set_limit(resource: u32, soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft.unwrap_or(libc::RLIM_INFINITY), rlim_max: hard.unwrap_or(libc::RLIM_INFINITY) };
    // SAFETY: `limit` lives through the call; an unknown resource is refused.
    if unsafe { libc::setrlimit(resource as _, &raw const limit) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts a new session.
pub fn new_session() {
    // SAFETY: no memory is involved; fails harmlessly for a session leader.
    unsafe { libc::setsid() };
}
