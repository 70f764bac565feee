//! `init log-daemon`: one thread that waits on all inputs and feeds them to the [`Intake`], and one that syncs.
//!
//! Relies on its sockets being passed by PID 1, and on `FDSTORE=1` for a restart that services do not notice.
//! Promises: a sender is never blocked for longer than a write to the page cache takes.

use super::config::LogConfig;
use super::inputs::StreamHeader;
use super::intake::{Intake, Now};
use super::lines::LineSplitter;
use super::segments::STORE;
use super::store::{Limits, Store};
use crate::kmsg;
use crate::sys::credentials::{self, Credentials as Sender};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

/// The largest datagram that is taken; the kernel's default socket buffer holds no larger.
const BUFFER: usize = 256 * 1024;
/// Reads of one input before the others have their turn.
const READS_PER_TURN: usize = 64;
/// Connections beyond this are refused: a leak of one service must not eat our descriptors.
const MAX_STREAMS: usize = 4096;
/// Where headers of stored streams are kept for the next daemon.
const STREAM_STATE: &str = "run/garboard/log/streams";

struct Stream {
    fd: OwnedFd,
    splitter: LineSplitter,
    header: Option<StreamHeader>,
    peer: Sender,
    last_writer: Sender,
}

enum Input {
    Listener(OwnedFd),
    Native(OwnedFd),
    Syslog(OwnedFd),
    Kernel(OwnedFd),
    Stream(Box<Stream>),
}

/// The daemon with everything that it holds open.
pub struct Daemon {
    root: PathBuf,
    epoll: OwnedFd,
    inputs: HashMap<u64, Input>,
    next_token: u64,
    intake: Intake,
    config: LogConfig,
    buffer: Vec<u8>,
    sync: SyncSender<Arc<File>>,
    dirty_since: Option<u64>,
    last_sync: u64,
    last_attempt: u64,
    streams: usize,
    events: Vec<epoll::Event>,
}

/// Runs until killed.
pub fn main(root: &Path) -> ExitCode {
    match run(root) {
        Ok(never) => match never {},
        Err(error) => {
            kmsg::error(&format!("log-daemon: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path) -> rustix::io::Result<std::convert::Infallible> {
    let mut daemon = Daemon::new(root)?;
    for (name, fd) in crate::sys::activation::take_listen_fds() {
        daemon.adopt(&name, fd)?;
    }
    match rustix::fs::open(
        "/dev/kmsg",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    ) {
        Ok(fd) => daemon.add(Input::Kernel(fd)).map(drop)?,
        Err(error) => kmsg::warn(&format!("log-daemon: kernel messages are not stored: cannot open /dev/kmsg: {error}")),
    }
    let _ = crate::notify::notify("READY=1", None);
    loop {
        daemon.turn()?;
    }
}

impl Daemon {
    /// Opens the store and reads the settings below `root`.
    pub fn new(root: &Path) -> rustix::io::Result<Daemon> {
        let config = LogConfig::load(root);
        for complaint in &config.complaints {
            kmsg::warn(&format!("log-daemon: {complaint}"));
        }
        let now = Now::read();
        let store = open_store(root, &config);
        Ok(Daemon {
            root: root.into(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            inputs: HashMap::new(),
            next_token: 1,
            intake: Intake::new(store, config.rate_limit, root.join("proc")),
            buffer: vec![0; BUFFER],
            sync: sync_thread(),
            dirty_since: None,
            last_sync: 0,
            last_attempt: now.monotonic,
            streams: 0,
            events: Vec::with_capacity(64),
            config,
        })
    }

    /// Takes over a descriptor that PID 1 passed: one of our sockets, or a stream stored by the daemon before us.
    pub fn adopt(&mut self, name: &str, fd: OwnedFd) -> rustix::io::Result<()> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        if let Some(token) = name.strip_prefix("stream-").and_then(|token| token.parse::<u64>().ok()) {
            return self.adopt_stream(token, fd);
        }
        net::sockopt::set_socket_passcred(&fd, true)?;
        let local = net::getsockname(&fd)?;
        let path = net::SocketAddrUnix::try_from(local).ok().and_then(|unix| unix.path_bytes().map(<[u8]>::to_vec)).unwrap_or_default();
        let input = match net::sockopt::socket_type(&fd)? {
            net::SocketType::STREAM => Input::Listener(fd),
            _ if path.ends_with(b"/dev/log") || path.ends_with(b"/dev-log") => Input::Syslog(fd),
            _ => Input::Native(fd),
        };
        self.add(input).map(drop)
    }

    /// Waits for input and handles what there is; syncs when it is time.
    pub fn turn(&mut self) -> rustix::io::Result<()> {
        let timeout = self
            .timeout(Now::read())
            .map(|micros| rustix::event::Timespec { tv_sec: (micros / 1_000_000) as i64, tv_nsec: (micros % 1_000_000 * 1000) as i64 });
        let mut events = std::mem::take(&mut self.events);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        for event in events.drain(..) {
            self.handle(event.data.u64());
        }
        self.events = events;
        self.finish_turn();
        Ok(())
    }

    fn finish_turn(&mut self) {
        let now = Now::read();
        self.intake.report_suppressed(now);
        let urgent = self.intake.take_urgent();
        let Some(store) = self.intake.store() else {
            if now.monotonic > self.last_attempt + 5_000_000 {
                self.last_attempt = now.monotonic;
                if let Some(store) = open_store(&self.root, &self.config) {
                    self.intake.set_store(store, now);
                }
            }
            return;
        };
        store.flush();
        if self.dirty_since.is_none() && store.is_dirty() {
            self.dirty_since = Some(now.monotonic);
        }
        if urgent && self.dirty_since.is_some() {
            // An error is worth a sync soon, but not each of many.
            let due = (self.last_sync + 1_000_000).max(now.monotonic);
            self.dirty_since = self.dirty_since.map(|since| since.min(due.saturating_sub(self.config.sync_interval)));
        }
        if self.dirty_since.is_some_and(|since| now.monotonic >= since + self.config.sync_interval) {
            // A full channel means that a sync is running: this one waits for its turn.
            if let Some(file) = store.dirty_file()
                && self.sync.try_send(file).is_ok()
            {
                store.clean();
                self.dirty_since = None;
                self.last_sync = now.monotonic;
            } else {
                self.dirty_since = Some((now.monotonic + 1_000_000).saturating_sub(self.config.sync_interval));
            }
        }
    }

    /// Microseconds until something must be done without input.
    fn timeout(&mut self, now: Now) -> Option<u64> {
        let sync = self.dirty_since.map(|since| (since + self.config.sync_interval).saturating_sub(now.monotonic));
        let suppressed = self.intake.any_suppressed().then_some(1_000_000);
        let reopen = self.intake.store().is_none().then_some(5_000_000);
        [sync, suppressed, reopen].into_iter().flatten().min()
    }

    fn add(&mut self, input: Input) -> rustix::io::Result<u64> {
        let token = self.next_token;
        self.next_token += 1;
        self.add_as(token, input)
    }

    fn add_as(&mut self, token: u64, input: Input) -> rustix::io::Result<u64> {
        let fd = match &input {
            Input::Listener(fd) | Input::Native(fd) | Input::Syslog(fd) | Input::Kernel(fd) => fd,
            Input::Stream(stream) => &stream.fd,
        };
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?;
        self.inputs.insert(token, input);
        Ok(token)
    }

    fn handle(&mut self, token: u64) {
        // Taken out while it is worked on, so that the rest of the daemon can be changed meanwhile.
        let Some(mut input) = self.inputs.remove(&token) else { return };
        let keep = match &mut input {
            Input::Listener(fd) => {
                self.accept(fd);
                true
            }
            Input::Native(fd) => {
                self.datagrams(fd, Intake::native);
                true
            }
            Input::Syslog(fd) => {
                self.datagrams(fd, Intake::syslog);
                true
            }
            Input::Kernel(fd) => self.kernel(fd),
            Input::Stream(stream) => self.stream(token, stream),
        };
        if keep {
            self.inputs.insert(token, input);
            return;
        }
        match input {
            Input::Stream(stream) => self.close_stream(token, &stream),
            Input::Kernel(fd) => drop(epoll::delete(&self.epoll, fd)),
            _ => {}
        }
    }

    fn accept(&mut self, listener: &OwnedFd) {
        for _ in 0..READS_PER_TURN {
            let Ok(fd) = net::accept_with(listener, net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK) else { return };
            if self.streams >= MAX_STREAMS {
                kmsg::warn("log-daemon: too many open streams, a service's output is refused");
                continue;
            }
            let _ = net::sockopt::set_socket_passcred(&fd, true);
            let peer = peer_of(&fd);
            let stream = Stream { fd, splitter: LineSplitter::default(), header: None, peer, last_writer: peer };
            if self.add(Input::Stream(Box::new(stream))).is_ok() {
                self.streams += 1;
            }
        }
    }

    fn datagrams(&mut self, fd: &OwnedFd, take: fn(&mut Intake, &[u8], Sender, Now)) {
        for _ in 0..READS_PER_TURN {
            let Some((length, sender)) = receive(fd, &mut self.buffer) else { return };
            take(&mut self.intake, self.buffer.get(..length).unwrap_or_default(), sender.unwrap_or_default(), Now::read());
        }
    }

    fn kernel(&mut self, fd: &OwnedFd) -> bool {
        for _ in 0..READS_PER_TURN {
            match rustix::io::read(fd, &mut self.buffer) {
                Ok(0) => return false,
                Ok(length) => self.intake.kernel(self.buffer.get(..length).unwrap_or_default(), Now::read()),
                // Records were overwritten before we read them; the next read goes on with the oldest left.
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn stream(&mut self, token: u64, stream: &mut Stream) -> bool {
        for _ in 0..READS_PER_TURN {
            let (length, writer) = match receive(&stream.fd, &mut self.buffer) {
                Some(received) => received,
                None => return true,
            };
            if length == 0 {
                self.finish_stream(stream);
                return false;
            }
            if let Some(writer) = writer.filter(|writer| writer.pid != 0) {
                // What another process left unfinished is a line of its own.
                if writer.pid != stream.last_writer.pid && stream.header.is_some() {
                    self.finish_stream(stream);
                }
                stream.last_writer = writer;
            }
            let now = Now::read();
            let had_header = stream.header.is_some();
            let Stream { splitter, header, peer, last_writer, .. } = stream;
            let intake = &mut self.intake;
            splitter.push(self.buffer.get(..length).unwrap_or_default(), |line| match header {
                Some(header) => intake.stream_line(header, *last_writer, line, now),
                None => *header = Some(begin_stream(intake, *peer, line, now)),
            });
            if let (false, Some(header)) = (had_header, &stream.header) {
                self.remember_stream(token, &stream.fd, header);
            }
        }
        true
    }

    fn finish_stream(&mut self, stream: &mut Stream) {
        let now = Now::read();
        let Stream { splitter, header, last_writer, .. } = stream;
        if let Some(header) = header {
            splitter.finish(|line| self.intake.stream_line(header, *last_writer, line, now));
        }
    }

    /// Asks PID 1 to keep the stream open while we restart, and leaves a note of whose it is.
    fn remember_stream(&self, token: u64, fd: &OwnedFd, header: &StreamHeader) {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return;
        }
        let path = self.stream_state(token);
        let written = serde_json::to_vec(header).map_err(std::io::Error::other).and_then(|json| {
            std::fs::create_dir_all(self.root.join(STREAM_STATE))?;
            std::fs::write(&path, json)
        });
        if written.is_ok() {
            let _ = crate::notify::notify(&format!("FDSTORE=1\nFDNAME=stream-{token}"), Some(fd.as_fd()));
        }
    }

    fn close_stream(&mut self, token: u64, stream: &Stream) {
        self.streams = self.streams.saturating_sub(1);
        // PID 1 may hold a second descriptor of it, so closing ours would not take it out of epoll.
        let _ = epoll::delete(&self.epoll, &stream.fd);
        if std::fs::remove_file(self.stream_state(token)).is_ok() {
            let _ = crate::notify::notify(&format!("FDSTOREREMOVE=1\nFDNAME=stream-{token}"), None);
        }
    }

    fn adopt_stream(&mut self, token: u64, fd: OwnedFd) -> rustix::io::Result<()> {
        let header = std::fs::read(self.stream_state(token)).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let peer = peer_of(&fd);
        let header = header.or_else(|| {
            let unit = self.intake.unit_of(peer.pid, Now::read());
            Some(anonymous_header(unit))
        });
        self.next_token = self.next_token.max(token + 1);
        self.streams += 1;
        let stream = Stream { fd, splitter: LineSplitter::default(), header, peer, last_writer: peer };
        self.add_as(token, Input::Stream(Box::new(stream))).map(drop)
    }

    fn stream_state(&self, token: u64) -> PathBuf {
        self.root.join(STREAM_STATE).join(token.to_string())
    }
}

/// The first line of a stream is its header; only root may say whose output it is.
fn begin_stream(intake: &mut Intake, peer: Sender, line: &[u8], now: Now) -> StreamHeader {
    match serde_json::from_slice::<StreamHeader>(line) {
        Ok(header) if peer.uid == Some(0) => header,
        Ok(header) => StreamHeader { unit: intake.unit_of(peer.pid, now), ..header },
        Err(_) => {
            let header = anonymous_header(intake.unit_of(peer.pid, now));
            intake.stream_line(&header, peer, line, now);
            header
        }
    }
}

fn anonymous_header(unit: String) -> StreamHeader {
    StreamHeader {
        unit,
        identifier: String::new(),
        priority: super::inputs::INFO,
        level_prefix: true,
        invocation: String::new(),
        rate_interval_usec: None,
        rate_burst: None,
        max_level: None,
    }
}

fn peer_of(fd: &OwnedFd) -> Sender {
    credentials::of_peer(fd).unwrap_or_default()
}

/// One read with the writer's credentials; `None` when there is nothing (more) to read.
fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> Option<(usize, Option<Sender>)> {
    loop {
        match credentials::receive(fd, buffer) {
            Ok(received) => return Some(received),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Some((0, None)),
            Err(_) => return None,
        }
    }
}

fn open_store(root: &Path, config: &LogConfig) -> Option<Store> {
    let directory = root.join(STORE);
    let boot =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().and_then(|text| parse_boot_id(text.trim())).unwrap_or_default();
    let file_system = directory.ancestors().find_map(|path| rustix::fs::statvfs(path).ok()).map(|stat| stat.f_blocks * stat.f_frsize);
    let total = config.total(file_system);
    let limits = Limits { total, segment: config.segment(total), group: super::group_id(root, "adm") };
    Store::open(&directory, limits, boot).map_err(|error| kmsg::error(&format!("log-daemon: {error}"))).ok()
}

/// A boot id as the kernel prints it, with or without dashes.
pub fn parse_boot_id(text: &str) -> Option<super::format::BootId> {
    uuid::Uuid::try_parse(text).ok().map(uuid::Uuid::into_bytes)
}

/// A thread that syncs the files sent to it, since a slow disk must not hold up who logs.
fn sync_thread() -> SyncSender<Arc<File>> {
    let (sender, receiver) = sync_channel::<Arc<File>>(1);
    std::thread::spawn(move || {
        while let Ok(file) = receiver.recv() {
            let _ = file.sync_data();
        }
    });
    sender
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
