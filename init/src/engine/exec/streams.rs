//! stdin, stdout and stderr of a unit's process.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use unit_files::exec::{InputKind, OutputKind};

use super::spec::{Failure, Spec, exit};
use crate::sys::process::place_fd;

/// What the log daemon is told about a stream.
#[derive(serde::Serialize)]
struct Header<'a> {
    unit: &'a str,
    identifier: &'a str,
    priority: u8,
    level_prefix: bool,
    invocation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_interval_usec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_burst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_level: Option<u8>,
}

fn failure(code: i32, what: &str, why: impl std::fmt::Display) -> Failure {
    Failure { code, message: format!("{what}: {why}") }
}

/// Opens and places all three. `sockets` are the passed fds with their names.
pub fn set_up(spec: &Spec, sockets: &[(String, OwnedFd)]) -> Result<(), Failure> {
    let context = &spec.context;
    let named = |name: &str| sockets.iter().find(|(have, _)| have == name || name.is_empty()).map(|(_, fd)| fd);
    let input = open_input(spec, &named)?;
    let output_kind = match &context.standard_output {
        OutputKind::Inherit if matches!(context.standard_input, InputKind::Null | InputKind::Data | InputKind::File(_)) => &OutputKind::Log,
        other => other,
    };
    let output = open_output(spec, output_kind, &named, exit::STDOUT)?;
    let error = match &context.standard_error {
        OutputKind::Inherit => None,
        kind if kind == output_kind => None,
        kind => open_output(spec, kind, &named, exit::STDERR)?,
    };
    place_fd(input.as_fd(), 0).map_err(|why| failure(exit::STDIN, "cannot set up stdin", why))?;
    let output = output.as_ref().map_or(input.as_fd(), AsFd::as_fd);
    place_fd(output, 1).map_err(|why| failure(exit::STDOUT, "cannot set up stdout", why))?;
    let error = error.as_ref().map_or(output, AsFd::as_fd);
    place_fd(error, 2).map_err(|why| failure(exit::STDERR, "cannot set up stderr", why))?;
    Ok(())
}

fn null() -> std::io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
}

fn open_input<'a>(spec: &Spec, named: &dyn Fn(&str) -> Option<&'a OwnedFd>) -> Result<OwnedFd, Failure> {
    let fail = |why: std::io::Error| failure(exit::STDIN, "cannot open stdin", why);
    match &spec.context.standard_input {
        InputKind::Null => null().map_err(fail),
        InputKind::Tty | InputKind::TtyForce | InputKind::TtyFail => terminal(spec).map_err(fail),
        InputKind::File(path) => OpenOptions::new().read(true).open(path).map(Into::into).map_err(|why| failure(exit::STDIN, path, why)),
        InputKind::Socket | InputKind::Fd(_) => {
            let name = if let InputKind::Fd(name) = &spec.context.standard_input { name.as_str() } else { "" };
            let fd = named(name).ok_or_else(|| failure(exit::STDIN, "cannot set up stdin", "no socket was passed"))?;
            fd.try_clone().map_err(fail)
        }
        InputKind::Data => {
            let file = rustix::fs::memfd_create("stdin", rustix::fs::MemfdFlags::CLOEXEC).map_err(|why| fail(why.into()))?;
            let mut file = std::fs::File::from(file);
            file.write_all(&spec.context.standard_input_data).map_err(fail)?;
            std::io::Seek::rewind(&mut file).map_err(fail)?;
            Ok(file.into())
        }
    }
}

fn terminal(spec: &Spec) -> std::io::Result<OwnedFd> {
    let path = spec.context.tty_path.as_deref().unwrap_or("/dev/console");
    crate::sys::process::new_session();
    // As session leader, opening it makes it the controlling terminal.
    Ok(OpenOptions::new().read(true).write(true).open(path)?.into())
}

fn open_output<'a>(
    spec: &Spec,
    kind: &OutputKind,
    named: &dyn Fn(&str) -> Option<&'a OwnedFd>,
    code: i32,
) -> Result<Option<OwnedFd>, Failure> {
    let fail = |why: std::io::Error| failure(code, "cannot set up output", why);
    let file = |path: &str, options: &mut OpenOptions| -> Result<Option<OwnedFd>, Failure> {
        options.create(true).mode(0o644).open(path).map(|file| Some(file.into())).map_err(|why| failure(code, path, why))
    };
    match kind {
        OutputKind::Inherit => Ok(None),
        OutputKind::Null => null().map(Some).map_err(fail),
        OutputKind::Tty => terminal(spec).map(Some).map_err(fail),
        OutputKind::Log => Ok(Some(log_stream(spec).map_or_else(|| kmsg(spec), Ok).map_err(fail)?)),
        // The console shows the kernel log, so what has to be on both goes there.
        OutputKind::LogConsole | OutputKind::Kmsg | OutputKind::KmsgConsole => kmsg(spec).map(Some).map_err(fail),
        OutputKind::File(path) => file(path, OpenOptions::new().write(true)),
        OutputKind::Append(path) => file(path, OpenOptions::new().append(true)),
        OutputKind::Truncate(path) => file(path, OpenOptions::new().write(true).truncate(true)),
        OutputKind::Socket => named("").map(|fd| fd.try_clone()).transpose().map_err(fail),
        OutputKind::Fd(name) => named(name).map(|fd| fd.try_clone()).transpose().map_err(fail),
    }
}

/// A stream to the log daemon; `None` when nobody listens.
fn log_stream(spec: &Spec) -> Option<OwnedFd> {
    let address = SocketAddrUnix::new(spec.log_stream.as_str()).ok()?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).ok()?;
    // Its queue may be full in a storm of starts; it drains fast, and a lost log is better than a hanging start.
    for wait in [0, 10, 50, 200, 500] {
        std::thread::sleep(Duration::from_millis(wait));
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {
                let mut stream = UnixStream::from(socket);
                stream.set_nonblocking(false).ok()?;
                // The header does not go through a full buffer: this is a fresh socket.
                stream.write_all(header(spec).as_bytes()).ok()?;
                let _ = rustix::net::shutdown(&stream, rustix::net::Shutdown::Read);
                return Some(stream.into());
            }
            Err(rustix::io::Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
    None
}

fn header(spec: &Spec) -> String {
    let program = spec.command.path.rsplit('/').next().unwrap_or_default();
    let header = Header {
        unit: &spec.unit,
        identifier: spec.context.syslog_identifier.as_deref().unwrap_or(program),
        priority: spec.context.syslog_level,
        level_prefix: spec.context.syslog_level_prefix,
        invocation: &spec.invocation,
        rate_interval_usec: spec.context.log_rate_limit_interval.map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
        rate_burst: spec.context.log_rate_limit_burst,
        max_level: spec.context.log_level_max,
    };
    let mut line = serde_json::to_string(&header).unwrap_or_else(|_| "{}".to_owned());
    line.push('\n');
    line
}

fn kmsg(_spec: &Spec) -> std::io::Result<OwnedFd> {
    match OpenOptions::new().write(true).open("/dev/kmsg") {
        // A closed stdin has been seen to make /dev/kmsg fd 0; the number is checked by place_fd's caller.
        Ok(file) if file.as_raw_fd() > 2 => Ok(file.into()),
        _ => null(),
    }
}
