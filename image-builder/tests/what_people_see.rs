//! The programs of the host as they are built for images and as people run them: into a pipe that its reader has closed, and as somebody who is not
//! root. Not tests of their own crate: for those cargo would build the program anew with the features of tests, and other bytes.
//!
//! Needs root, for a `/run` of its own in which daemons have left what the programs show.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is test code")]

use std::process::{Command, Output, Stdio};

/// Runs a program by its name where `before` was done in a `/run` of its own; `by` is what starts it.
fn run(before: &str, by: &str, program: &str, words: &str, output: Stdio) -> Output {
    let script = format!(
        "mount -t tmpfs -o mode=755 none /run && umask 022 && mkdir -p /run/garboard/update /run/garboard/reboot && {before} && \
         exec {by} bash -c 'exec -a {program} \"$0\" {words}' {}",
        std::env::var("GARBOARD_PROGRAMS").expect("scripts/test runs these tests") + "/host-programs"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-e", "-c", &script]).stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

const STATUS: &str =
    "echo {} | tee /run/garboard/update/status.json >/run/garboard/reboot/status.json && echo '#cloud-config' >/run/user-data";

#[test]
#[ignore = "run by scripts/test after its builds"]
fn a_reader_that_goes_away_is_no_failure() {
    for (program, words) in [
        ("cloud-config", "validate /run/user-data"),
        ("cloud-config", "render --json --file /run/user-data"),
        ("cloud-config", "--help"),
        ("locksmithctl", "why"),
        ("locksmithctl", "why --json"),
        ("locksmithctl", "inhibitors"),
        ("locksmithctl", "--version"),
        ("systemd-inhibit", "--list"),
        ("systemd-inhibit", "--help"),
        ("systemd-inhibit", "--version"),
        ("update-agent", "status"),
        ("update-agent", "status --json"),
        ("update-agent", "why"),
        ("update-agent", "--help"),
    ] {
        // That it says something when somebody listens: else the rest shows nothing.
        let heard = run(STATUS, "", program, words, Stdio::piped());
        let complaint = String::from_utf8_lossy(&heard.stderr);
        assert!(heard.status.success() && !heard.stdout.is_empty(), "{program} {words}: {complaint}");
        let unheard = run(STATUS, "", program, words, closed());
        assert_eq!((unheard.status.code(), String::from_utf8_lossy(&unheard.stderr)), (Some(0), complaint), "{program} {words}");
    }
    // The lock is asked for over the network, which is not there: what is said of the host is cut off, the failure stays one.
    let status = run(STATUS, "", "locksmithctl", "--endpoint http://127.0.0.1:1 status", closed());
    let complaint = String::from_utf8_lossy(&status.stderr);
    assert!(!complaint.contains("panicked") && status.status.code().is_some_and(|code| code < 2), "{complaint}");
}

#[test]
#[ignore = "run by scripts/test after its builds"]
fn who_is_not_root_sees_what_a_daemon_has_left_and_else_hears_to_use_sudo() {
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let status = run(STATUS, nobody, "update-agent", "status", Stdio::piped());
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    for words in ["status", "why", "check", "history", "rollback"] {
        let refused = run("true", nobody, "update-agent", words, Stdio::piped());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!((refused.status.code(), &*said), (Some(1), "update-agent: only root may do that: use sudo\n"), "{words}");
    }
}

#[test]
#[ignore = "run by scripts/test after its builds"]
fn what_went_wrong_is_said_once() {
    let said = run("echo '{' >/run/garboard/boot.json", "", "update-agent", "status", Stdio::piped());
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!((said.status.code(), text.lines().count(), text.matches("EOF").count()), (Some(1), 1, 1), "{text}");
    let disk = r#"{"version": "1.0", "slot": "a", "disk": "/dev/no-disk", "root_hash": "@"}"#.replace('@', &"0".repeat(64));
    let said = run(&format!("echo '{disk}' >/run/garboard/boot.json"), "", "update-agent", "status", Stdio::piped());
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(1) && text.lines().count() == 1, "{text}");
}
