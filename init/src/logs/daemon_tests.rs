//! The log daemon with real sockets and a store of its own.

use super::*;
use crate::logs::query::{Filter, Line, backward};
use std::io::Write;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

struct Host {
    root: tempfile::TempDir,
    daemon: Daemon,
    stdout: PathBuf,
    native: PathBuf,
    syslog: PathBuf,
}

impl Host {
    fn new() -> Host {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let [stdout, native, syslog] = ["stdout", "socket", "dev/log"].map(|name| root.path().join(name));
        let mut daemon = Daemon::new(root.path()).unwrap();
        daemon.adopt("garboard-log.socket", UnixListener::bind(&stdout).unwrap().into()).unwrap();
        daemon.adopt("garboard-log.socket", UnixDatagram::bind(&native).unwrap().into()).unwrap();
        daemon.adopt("garboard-log.socket", UnixDatagram::bind(&syslog).unwrap().into()).unwrap();
        Host { root, daemon, stdout, native, syslog }
    }

    fn turns(&mut self, count: usize) -> Vec<Line> {
        for _ in 0..count {
            self.daemon.turn().unwrap();
        }
        let mut lines = backward(&self.root.path().join(STORE), &Filter::default(), usize::MAX, u64::MAX).unwrap();
        lines.reverse();
        lines
    }
}

fn texts(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8_lossy(&line.message).into_owned()).collect()
}

#[test]
fn a_service_s_output_a_native_message_and_syslog_are_stored_with_their_writer() {
    let mut host = Host::new();
    let mut stream = UnixStream::connect(&host.stdout).unwrap();
    stream.write_all(b"{\"unit\":\"a.service\",\"identifier\":\"a\",\"level_prefix\":true}\n<3>bad\nplain\nunfin").unwrap();
    let lines = host.turns(2);
    assert_eq!(texts(&lines), ["bad", "plain"]);
    assert_eq!((lines[0].priority, lines[1].priority, lines[0].pid), (3, 6, std::process::id()));
    // Only root may name a unit; the tests may run as anybody.
    let is_root = rustix::process::getuid().is_root();
    assert_eq!(lines[0].unit == "a.service", is_root);
    stream.write_all(b"ished\nlast").unwrap();
    drop(stream);
    UnixDatagram::unbound().unwrap().send_to(br#"{"unit":"b.service","priority":4,"message":"started"}"#, &host.native).unwrap();
    UnixDatagram::unbound().unwrap().send_to(b"<13>Nov 22 03:00:00 tool[1]: hello", &host.syslog).unwrap();
    let lines = host.turns(1);
    let mut found = texts(&lines);
    found.sort();
    assert_eq!(found, ["bad", "hello", "last", "plain", "started", "unfinished"]);
    let syslog = lines.iter().find(|line| line.message == b"hello").unwrap();
    assert_eq!((syslog.identifier.as_str(), syslog.pid, syslog.priority), ("tool", std::process::id(), 5));
    assert_eq!(host.daemon.streams, 0);
}

#[test]
fn a_stream_without_a_header_still_logs_its_first_line() {
    let mut host = Host::new();
    let mut stream = UnixStream::connect(&host.stdout).unwrap();
    stream.write_all(b"no header\nsecond\n").unwrap();
    assert_eq!(texts(&host.turns(2)), ["no header", "second"]);
}

#[test]
fn a_stored_stream_goes_on_after_a_restart_of_the_daemon() {
    let mut host = Host::new();
    let (mut service, ours) = UnixStream::pair().unwrap();
    let state = host.root.path().join(STREAM_STATE);
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("7"), br#"{"unit":"a.service","identifier":"before"}"#).unwrap();
    host.daemon.adopt("stream-7", ours.into()).unwrap();
    service.write_all(b"still here\n").unwrap();
    let lines = host.turns(1);
    assert_eq!(
        (lines[0].unit.as_str(), lines[0].identifier.as_str(), lines[0].message.as_slice()),
        ("a.service", "before", &b"still here"[..])
    );
    drop(service);
    host.turns(1);
    assert!(!state.join("7").exists());
}

#[test]
fn ten_thousand_lines_cost_little_and_more_are_suppressed_with_a_count() {
    let mut host = Host::new();
    let path = host.stdout.clone();
    let writer = std::thread::spawn(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"{\"unit\":\"a.service\"}\n").unwrap();
        for n in 0..12_000 {
            stream.write_all(format!("line number {n} with some text that a service may say\n").as_bytes()).unwrap();
        }
    });
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as u128 * 1_000_000_000 + time.tv_nsec as u128
    };
    let before = used();
    host.turns(2);
    while host.daemon.streams > 0 {
        host.daemon.turn().unwrap();
    }
    let per_line = (used() - before) / 12_000;
    writer.join().unwrap();
    assert_eq!(host.turns(0).len(), 10_000);
    assert!(host.daemon.intake.any_suppressed());
    println!("{per_line} ns of CPU per line");
    // Far above what is measured, far below what would hurt; the machine may be busy.
    assert!(per_line < 50_000, "{per_line} ns");
}
