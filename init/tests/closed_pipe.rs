//! What people pipe into `head -1`: a reader that goes away is no failure of the program's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is test code")]

use std::process::{Command, Stdio};

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for words in [
        "systemctl help",
        "systemctl --version",
        "systemctl list-unit-files",
        "systemctl get-default",
        "journalctl --help",
        "hostnamectl",
        "timedatectl",
        "shutdown --help",
        "shutdown -k now",
        "reboot -w",
        "modprobe --help",
    ] {
        let run = |output: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_init"));
            command.args(words.split(' ')).stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
            command.spawn().unwrap().wait_with_output().unwrap()
        };
        let heard = run(Stdio::piped());
        let (_, closed) = std::io::pipe().unwrap();
        let unheard = run(closed.into());
        let complaint = String::from_utf8_lossy(&unheard.stderr);
        assert_eq!((unheard.status.code(), &*complaint), (heard.status.code(), &*String::from_utf8_lossy(&heard.stderr)), "{words}");
        assert!(!complaint.contains("panicked") && unheard.status.code().is_some(), "{words}: {complaint}");
    }
}
