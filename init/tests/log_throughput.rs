//! The log daemon under load: the real binary, real sockets, a store in a directory of its own.
//!
//! `cargo test --workspace --test log_throughput -- --ignored --nocapture` prints the figures of a long run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test helpers are not test functions to clippy")]

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const INIT: &str = env!("CARGO_BIN_EXE_init");

struct Daemon {
    child: Child,
    root: tempfile::TempDir,
}

impl Daemon {
    fn start(settings: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/systemd")).unwrap();
        std::fs::write(root.path().join("etc/systemd/journald.conf"), format!("[Journal]\n{settings}\n")).unwrap();
        let listener = UnixListener::bind(root.path().join("stdout")).unwrap();
        // Socket activation wants its own pid named, which only the shell that becomes the program knows.
        let script = format!(
            "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=stdout; exec {INIT} log-daemon --root {} 3<&0",
            root.path().display()
        );
        let child = Command::new("sh").args(["-c", &script]).stdin(std::os::fd::OwnedFd::from(listener)).stderr(Stdio::inherit()).spawn();
        Self { child: child.unwrap(), root }
    }

    fn connect(&self, unit: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.root.path().join("stdout")).unwrap();
        writeln!(stream, "{{\"unit\":\"{unit}\",\"identifier\":\"load\",\"priority\":6,\"level_prefix\":true,\"invocation\":\"\"}}")
            .unwrap();
        stream
    }

    /// Seconds of processor time that the daemon has used.
    fn processor_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<f64> = stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2).map(|field| field.parse().unwrap()).collect();
        // In hundredths: the kernel's unit for programs.
        (fields[0] + fields[1]) / 100.0
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn store(&self) -> std::path::PathBuf {
        self.root.path().join("var/log/garboard")
    }

    fn bytes(&self) -> u64 {
        std::fs::read_dir(self.store()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    fn journal(&self, arguments: &[&str]) -> String {
        let output = Command::new(INIT).arg("journalctl").arg("-D").arg(self.store()).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes so many lines a second for a time; returns how many.
fn load(stream: &mut UnixStream, per_second: u64, seconds: u64) -> u64 {
    let begun = Instant::now();
    let (slices, mut sent) = (seconds * 100, 0_u64);
    for slice in 1..=slices {
        let mut text = String::new();
        while sent < per_second * slice / 100 {
            text.push_str(&format!("line {sent} of a service that says what it does at some length, as services do\n"));
            sent += 1;
        }
        stream.write_all(text.as_bytes()).unwrap();
        std::thread::sleep((begun + Duration::from_millis(slice * 10)).saturating_duration_since(Instant::now()));
    }
    sent
}

fn measure(per_second: u64, seconds: u64) {
    let daemon = Daemon::start("RateLimitBurst=0\nSystemMaxUse=1G");
    let mut stream = daemon.connect("load.service");
    let before = daemon.processor_seconds();
    let begun = Instant::now();
    let sent = load(&mut stream, per_second, seconds);
    let took = begun.elapsed();
    drop(stream);
    let mut quiet = daemon.connect("quiet.service");
    writeln!(quiet, "the end").unwrap();
    daemon.until("the last line", || daemon.journal(&["-u", "quiet", "-o", "cat", "-q"]) == "the end\n");
    let used = daemon.processor_seconds() - before;
    let stored = daemon.journal(&["-u", "load", "-o", "cat", "-q"]);
    assert_eq!(stored.lines().count() as u64, sent, "lines are lost");
    assert!(stored.lines().enumerate().all(|(at, line)| line.starts_with(&format!("line {at} "))), "lines are out of order");
    let each = used * 1e6 / sent as f64;
    println!("bench: {per_second} log lines a second for {seconds} s, none lost: processor time each | {each:.2} us | 20 us");
    println!("{:.0} lines a second, {} KiB resident", sent as f64 / took.as_secs_f64(), daemon.resident_kib());
    assert!(each < 20.0, "{each:.2} us a line");
}

#[test]
fn without_a_limit_nothing_is_lost_and_a_line_costs_little() {
    measure(100_000, 2);
}

#[test]
#[ignore = "ten seconds of full load; prints the figures"]
fn a_hundred_thousand_lines_a_second_for_ten_seconds() {
    measure(100_000, 10);
}

#[test]
fn a_flood_is_cut_and_counted_the_disk_stays_bounded_and_others_are_heard() {
    let daemon = Daemon::start("RateLimitBurst=300\nRateLimitIntervalSec=2s\nSystemMaxUse=2M");
    let mut flood = daemon.connect("flood.service");
    let mut quiet = daemon.connect("quiet.service");
    let line = format!("{}\n", "x".repeat(1000));
    for round in 0..20 {
        for _ in 0..1000 {
            flood.write_all(line.as_bytes()).unwrap();
        }
        writeln!(quiet, "round {round}").unwrap();
    }
    daemon.until("the quiet unit's lines", || daemon.journal(&["-u", "quiet", "-o", "cat", "-q"]).lines().count() == 20);
    assert!(daemon.bytes() <= 2 << 20, "{}", daemon.bytes());
    daemon.until("the count of what was cut", || {
        daemon.journal(&["-g", "messages from flood.service were suppressed"]).contains("suppressed")
    });
    // A stream that is closed in the middle of a line, one without a header, and one that is only noise cost nobody anything.
    drop(UnixStream::connect(daemon.root.path().join("stdout")).unwrap());
    let mut noise = UnixStream::connect(daemon.root.path().join("stdout")).unwrap();
    noise.write_all(&[0xff; 70_000]).unwrap();
    drop(noise);
    flood.write_all(b"half a line").unwrap();
    drop(flood);
    writeln!(quiet, "still here").unwrap();
    daemon.until("the last line", || daemon.journal(&["-u", "quiet", "-o", "cat", "-q", "-n", "1"]) == "still here\n");
}

#[test]
fn what_was_read_before_is_not_read_again_with_a_cursor() {
    let daemon = Daemon::start("");
    let mut stream = daemon.connect("a.service");
    writeln!(stream, "one\ntwo").unwrap();
    daemon.until("two lines", || daemon.journal(&["-q", "-o", "cat", "-u", "a"]).lines().count() == 2);
    let file = daemon.root.path().join("cursor");
    let cursor = format!("--cursor-file={}", file.display());
    let read = || daemon.journal(&["-q", "-o", "cat", "-u", "a", &cursor]);
    assert_eq!(read(), "one\ntwo\n");
    assert_eq!(read(), "");
    writeln!(stream, "three").unwrap();
    daemon.until("the third line", || daemon.journal(&["-q", "-o", "cat", "-u", "a"]).lines().count() == 3);
    let shown = daemon.journal(&["-o", "cat", "-u", "a", "--show-cursor", "-n", "1"]);
    let (last, cursor) = shown.trim_end().split_once("\n-- cursor: ").unwrap();
    assert_eq!(last, "three");
    assert_eq!(daemon.journal(&["-q", "-o", "cat", "-u", "a", "--cursor", cursor]), "three\n");
    assert_eq!(daemon.journal(&["-q", "-o", "cat", "-u", "a", "--after-cursor", cursor]), "");
    assert_eq!(read(), "three\n");
    assert_eq!(daemon.journal(&["-F", "_SYSTEMD_UNIT"]), "a.service\n");
    assert!(daemon.journal(&["-g", "^t(wo|hree)$", "-o", "cat", "-u", "a"]).starts_with("two\nthree"));
}
