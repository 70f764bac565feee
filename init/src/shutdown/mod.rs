//! Going down: the commands that ask for it, the power button, and what PID 1 does after the last unit has stopped.

use serde::{Deserialize, Serialize};

pub mod command;
pub mod power_button;

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

/// Ends every process, unmounts, syncs, and does what `kind` says.
pub fn finish(kind: ShutdownKind) -> ! {
    crate::kmsg::error(&format!("going down ({kind:?}) is not in this build"));
    loop {
        std::thread::park();
    }
}
