//! What a process may set of itself before it becomes another program.

use std::io;

fn done(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the scheduling policy and its real-time priority (0 for the ordinary ones).
///
/// # Errors
/// As `sched_setscheduler` says.
pub fn set_policy(policy: i32, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads one `sched_param`, which lives through the call.
    done(unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) })
}

/// Sets class and level of disk requests.
///
/// # Errors
/// As `ioprio_set` says.
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    // SAFETY: plain numbers: "a process", "this one", class in the upper bits.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, (class << 13) | level) })
}

/// Sets the execution domain.
///
/// # Errors
/// As `personality` says.
pub fn set_personality(number: u64) -> io::Result<()> {
    // SAFETY: a plain number.
    done(unsafe { libc::syscall(libc::SYS_personality, number) })
}

/// Leaves the session keyring for a new one, with the user's linked into it if it is to be shared.
///
/// # Errors
/// As `keyctl` says.
pub fn new_session_keyring(shared: bool) -> io::Result<()> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    const LINK: i32 = 8;
    const SESSION: i32 = -3;
    const USER: i32 = -4;
    // SAFETY: a null name asks for a new keyring without one.
    done(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) })?;
    if shared {
        // SAFETY: plain numbers.
        done(unsafe { libc::syscall(libc::SYS_keyctl, LINK, USER, SESSION) })?;
    }
    Ok(())
}
