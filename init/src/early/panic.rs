//! What happens when PID 1 itself fails: its exit would be a kernel panic without a word, so it says why and reboots
//! in order to use up one of the loader's tries.

use std::time::Duration;

use crate::kmsg;

/// Installs the hook. With `panic=0` on the command line the machine stays as it is, to be looked at.
pub(super) fn install_hook() {
    std::panic::set_hook(Box::new(|panic| {
        kmsg::log(kmsg::Level::Emergency, &format!("PID 1 has failed: {panic}"));
        rustix::fs::sync();
        let stay = crate::cmdline::CommandLine::of_kernel().value("panic") == Some("0");
        loop {
            std::thread::sleep(Duration::from_secs(10));
            if !stay {
                crate::shutdown::end(crate::shutdown::ShutdownKind::Reboot);
            }
        }
    }));
}
