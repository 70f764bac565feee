//! Going down: the commands that ask for it, the power button, and what PID 1 does after the last unit has stopped.

use std::time::Duration;

use rustix::system::{RebootCommand, reboot};
use serde::{Deserialize, Serialize};

use crate::kmsg;

pub mod command;
pub mod inhibit;
mod mount_table;
pub mod power_button;
pub mod power_key;
mod processes;
pub mod schedule;
mod unmount;

/// What the machine does at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownKind {
    /// Switch off.
    Poweroff,
    /// Start again through the firmware.
    Reboot,
    /// Stop the processor and leave the power on.
    Halt,
    /// Start the kernel that was loaded with kexec; a normal reboot when none was.
    Kexec,
}

/// Nothing that hangs may keep the machine from going down: a dead disk, a dead server.
const LIMIT: Duration = Duration::from_secs(40);

/// Ends every process, unmounts, syncs, and does what `kind` says. All units have been stopped before.
pub fn finish(kind: ShutdownKind) -> ! {
    let last_resort = std::thread::Builder::new().name("last-resort".to_owned()).stack_size(64 * 1024).spawn(move || {
        std::thread::sleep(LIMIT);
        kmsg::error(&format!("going down took more than {} s; not waiting any longer", LIMIT.as_secs()));
        end(kind);
    });
    if let Err(error) = last_resort {
        kmsg::warn(&format!("going down is not bounded in time: {error}"));
    }
    let _ = std::fs::write("/proc/sys/kernel/core_pattern", "|/bin/false");
    crate::early::before_unmounting();
    processes::end_all();
    // Logs and sockets of PID 1 itself hold state busy.
    crate::sys::power::close_all_descriptors();
    unmount::everything();
    rustix::fs::sync();
    end(kind)
}

/// The last system call. Also what `-ff` asks for, without anything before it.
pub fn end(kind: ShutdownKind) -> ! {
    let command = match kind {
        ShutdownKind::Poweroff => RebootCommand::PowerOff,
        ShutdownKind::Reboot => RebootCommand::Restart,
        ShutdownKind::Halt => RebootCommand::Halt,
        ShutdownKind::Kexec => RebootCommand::Kexec,
    };
    if let Err(error) = reboot(command) {
        kmsg::error(&format!("the kernel refused to {kind:?}: {error}"));
        if kind == ShutdownKind::Kexec {
            let _ = reboot(RebootCommand::Restart);
        }
    }
    loop {
        std::thread::park();
    }
}
