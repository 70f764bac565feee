//! The end of a boot that cannot go on: the cause on every console, then a reboot, so that the loader's tries run out
//! and the other slot gets its turn; or no reboot, where that would only go round in circles. A shell is given only to somebody who may edit the command line anyway.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::damaged_root::Next;
use super::failure::Failure;
use crate::cmdline::CommandLine;
use crate::kmsg;

/// How often a machine that has stopped for good says so: whoever attaches a console later must see it too.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Says why, waits as long as `panic=` asks (10 s without), reboots; or stops for good.
pub(super) fn stop(failure: &Failure, next: impl FnOnce() -> Next) -> ! {
    let cmdline = CommandLine::of_kernel();
    kmsg::log(kmsg::Level::Emergency, &format!("the boot stops here: {failure}"));
    if cmdline.flag("garboard.rescue") {
        shell();
    }
    match next() {
        Next::Reboot => {}
        Next::RebootInto(why) => kmsg::log(kmsg::Level::Emergency, &why),
        Next::Stop(why) => loop {
            kmsg::log(kmsg::Level::Emergency, &format!("stopped: {why}"));
            std::thread::sleep(SAY_AGAIN);
        },
    }
    let seconds = cmdline.value("panic").and_then(|text| text.parse::<u64>().ok()).unwrap_or(10);
    kmsg::log(kmsg::Level::Emergency, &format!("rebooting in {seconds} seconds (boot with garboard.rescue for a shell)"));
    std::thread::sleep(Duration::from_secs(seconds));
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    loop {
        std::thread::park();
    }
}

/// Runs a shell on the console as long as somebody uses it.
fn shell() {
    kmsg::log(kmsg::Level::Notice, "rescue shell on the console; leave it to reboot");
    let open = || OpenOptions::new().read(true).write(true).open("/dev/console").map(Stdio::from);
    let (Ok(stdin), Ok(stdout), Ok(stderr)) = (open(), open(), open()) else { return };
    let shell =
        Command::new("/bin/sh").stdin(stdin).stdout(stdout).stderr(stderr).process_group(0).spawn().and_then(|mut child| child.wait());
    if let Err(error) = shell {
        kmsg::error(&format!("cannot run /bin/sh: {error}: the root is not mounted"));
    }
}
