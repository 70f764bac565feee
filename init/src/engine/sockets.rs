//! `.socket` units: PID 1 listens, the first connection starts the service, which gets the sockets.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use unit_files::Config;
use unit_files::socket::{BindIpv6Only, Listen, SocketAddress, SocketConfig};

use super::exec::identity;
use super::graph::{Dep, UnitId};
use super::manager::{Kind, Manager, now};
use super::poller::Source;
use super::protocol::{ActiveState, JobMode, Verb};
use super::restart::{StartLimiter, Usec};
use crate::sys::sockopt::{set_bytes, set_number};

/// Where a socket unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum SocketState {
    #[default]
    Dead,
    /// Waiting for the first connection.
    Listening,
    /// The service has the sockets.
    Running,
    Failed,
}

impl SocketState {
    pub fn active(self) -> ActiveState {
        match self {
            Self::Dead => ActiveState::Inactive,
            Self::Listening | Self::Running => ActiveState::Active,
            Self::Failed => ActiveState::Failed,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Listening => "listening",
            Self::Running => "running",
            Self::Failed => "failed",
        }
    }
}

/// A socket unit at run time.
#[derive(Debug, Default)]
pub(super) struct SocketUnit {
    pub state: SocketState,
    pub fds: Vec<OwnedFd>,
    pub triggers: StartLimiter,
    /// Connections accepted so far, with `Accept=yes`.
    pub accepted: u64,
    /// When to listen again after too many triggers.
    pub resume_at: Option<Usec>,
}

impl Manager {
    pub fn socket(&mut self, unit: UnitId) -> Option<&mut SocketUnit> {
        match &mut self.units.get_mut(&unit)?.kind {
            Kind::Socket(socket) => Some(socket),
            _ => None,
        }
    }

    fn socket_config(&self, unit: UnitId) -> Option<Rc<unit_files::Unit>> {
        let def = Rc::clone(&self.units.get(&unit)?.def);
        matches!(def.config, Config::Socket(_)).then_some(def)
    }

    pub fn socket_start(&mut self, unit: UnitId) {
        let Some(def) = self.socket_config(unit) else { return };
        let Config::Socket(config) = &def.config else { return };
        let before = self.active_state(unit);
        let mut fds = Vec::new();
        let mut failure = None;
        for listen in &config.listen {
            match open(listen, config) {
                Ok(fd) => fds.push(fd),
                Err(why) => {
                    failure = Some(format!("cannot listen on {}: {why}", describe(listen)));
                    break;
                }
            }
        }
        let state = match failure {
            Some(why) => {
                let name = self.name(unit);
                self.reporter.problem(&name, &why);
                fds.clear();
                SocketState::Failed
            }
            None => {
                for link in &config.symlinks {
                    symlink(link, config);
                }
                SocketState::Listening
            }
        };
        if let Some(socket) = self.socket(unit) {
            socket.fds = fds;
            socket.state = state;
        }
        // The service may have been started by itself: it gets the sockets at its next start.
        self.socket_listen(unit);
        self.unit_changed(unit, before);
    }

    pub fn socket_stop(&mut self, unit: UnitId) {
        let before = self.active_state(unit);
        self.socket_ignore(unit);
        let Some(def) = self.socket_config(unit) else { return };
        if let (Config::Socket(config), Some(socket)) = (&def.config, self.socket(unit)) {
            socket.fds.clear();
            socket.state = SocketState::Dead;
            socket.resume_at = None;
            if config.remove_on_stop {
                for path in config.listen.iter().filter_map(path_of).chain(config.symlinks.iter().map(String::as_str)) {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
        self.unit_changed(unit, before);
    }

    fn socket_listen(&mut self, unit: UnitId) {
        let Some(runtime) = self.units.get(&unit) else { return };
        let Kind::Socket(socket) = &runtime.kind else { return };
        if socket.state != SocketState::Listening {
            return;
        }
        for (index, fd) in (0..).zip(&socket.fds) {
            let source = Source::Socket(unit, index);
            if !self.poller.has(source)
                && let Err(why) = self.poller.add(fd, source)
            {
                self.reporter.warn(&format!("{}: cannot wait for connections: {why}", self.graph.name(unit)));
            }
        }
    }

    fn socket_ignore(&mut self, unit: UnitId) {
        let Some(runtime) = self.units.get(&unit) else { return };
        let Kind::Socket(socket) = &runtime.kind else { return };
        for (index, fd) in (0..).zip(&socket.fds) {
            self.poller.remove(fd, Source::Socket(unit, index));
        }
    }

    /// Somebody knocks.
    pub fn socket_ready(&mut self, unit: UnitId) {
        let Some(def) = self.socket_config(unit) else { return };
        let Config::Socket(config) = &def.config else { return };
        if config.accept {
            return self.socket_accept(unit, config);
        }
        self.socket_ignore(unit);
        let limit = (config.trigger_limit_interval.unwrap_or(Duration::from_secs(2)), config.trigger_limit_burst.unwrap_or(20));
        let now = now();
        let Some(socket) = self.socket(unit) else { return };
        if !socket.triggers.allow(now, limit.0, limit.1) {
            self.socket_failed(unit, "triggered too often, not listening any more");
            return;
        }
        if !self.power.is_none() {
            return;
        }
        let Some(service) = self.graph.of(unit, Dep::Triggers).next() else {
            self.socket_failed(unit, "there is no service to start");
            return;
        };
        if let Some(socket) = self.socket(unit) {
            socket.state = SocketState::Running;
        }
        if matches!(self.active_state(service), ActiveState::Active | ActiveState::Reloading | ActiveState::Activating) {
            return;
        }
        if let Err(why) = self.enqueue(Verb::Start, &[service], JobMode::Replace) {
            self.socket_failed(unit, &format!("cannot start {}: {why}", self.name(service)));
        }
    }

    pub fn socket_failed(&mut self, unit: UnitId, why: &str) {
        let before = self.active_state(unit);
        let name = self.name(unit);
        self.reporter.unit(&name, 3, why);
        self.socket_ignore(unit);
        if let Some(socket) = self.socket(unit) {
            socket.fds.clear();
            socket.state = SocketState::Failed;
        }
        self.unit_changed(unit, before);
    }

    /// The service that a socket (or timer) starts has changed.
    pub fn triggered_changed(&mut self, trigger: UnitId, service: UnitId) {
        let state = self.active_state(service);
        let limit = self.service(service).is_some_and(|service| service.result == super::restart::ServiceResult::StartLimitHit);
        self.timer_again(trigger, state);
        self.path_triggered_changed(trigger, state, limit);
        let Some(socket) = self.socket(trigger) else { return };
        match (socket.state, state) {
            (SocketState::Running, ActiveState::Failed) if limit => {
                self.socket_failed(trigger, "its service was started too often, not listening any more");
            }
            (SocketState::Running, ActiveState::Inactive | ActiveState::Failed) => {
                socket.state = SocketState::Listening;
                // A service that fails before it accepts would be started again at once, and for ever: take a breath.
                if state == ActiveState::Failed {
                    socket.resume_at = Some(now().saturating_add(200_000));
                } else {
                    self.socket_listen(trigger);
                }
            }
            (SocketState::Listening, ActiveState::Active | ActiveState::Activating) => {
                socket.state = SocketState::Running;
                self.socket_ignore(trigger);
            }
            _ => {}
        }
    }

    /// Listens again after a pause.
    pub fn socket_resume(&mut self, unit: UnitId) {
        if let Some(socket) = self.socket(unit) {
            socket.resume_at = None;
        }
        self.socket_listen(unit);
    }

    /// The sockets of a unit, with the name under which they are passed.
    pub fn socket_fds(&self, unit: UnitId) -> Vec<(String, OwnedFd)> {
        let Some(runtime) = self.units.get(&unit) else { return Vec::new() };
        let (Kind::Socket(socket), Config::Socket(config)) = (&runtime.kind, &runtime.def.config) else { return Vec::new() };
        let name = config.fd_name.clone().unwrap_or_else(|| self.graph.name(unit).to_owned());
        socket.fds.iter().filter_map(|fd| Some((name.clone(), fd.try_clone().ok()?))).collect()
    }
}

/// As `systemctl list-sockets` shows it.
pub(super) fn describe(listen: &Listen) -> String {
    let address = |address: &SocketAddress| match address {
        SocketAddress::Unix(path) => path.clone(),
        SocketAddress::Abstract(name) => format!("@{name}"),
        SocketAddress::Port(port) => format!("[::]:{port}"),
        SocketAddress::Inet(address, _) => address.to_string(),
        SocketAddress::Vsock(cid, port) => format!("vsock:{}:{port}", cid.map_or_else(String::new, |cid| cid.to_string())),
    };
    match listen {
        Listen::Stream(to) | Listen::Datagram(to) | Listen::SequentialPacket(to) => address(to),
        Listen::Fifo(path) | Listen::Special(path) | Listen::MessageQueue(path) | Listen::UsbFunction(path) => path.clone(),
        Listen::Netlink(family, group) => format!("{family} {group}"),
    }
}

fn path_of(listen: &Listen) -> Option<&str> {
    match listen {
        Listen::Stream(SocketAddress::Unix(path))
        | Listen::Datagram(SocketAddress::Unix(path))
        | Listen::SequentialPacket(SocketAddress::Unix(path))
        | Listen::Fifo(path) => Some(path),
        _ => None,
    }
}

fn open(listen: &Listen, config: &SocketConfig) -> std::io::Result<OwnedFd> {
    match listen {
        Listen::Stream(address) => socket(address, SocketType::STREAM, config),
        Listen::Datagram(address) => socket(address, SocketType::DGRAM, config),
        Listen::SequentialPacket(address) => socket(address, SocketType::SEQPACKET, config),
        Listen::Fifo(path) => fifo(path, config),
        Listen::Special(path) => {
            let access = if config.writable { rustix::fs::OFlags::RDWR } else { rustix::fs::OFlags::RDONLY };
            let flags = access | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOCTTY;
            Ok(rustix::fs::open(path.as_str(), flags, rustix::fs::Mode::empty())?)
        }
        _ => Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "this kind of socket is not supported")),
    }
}

fn fifo(path: &str, config: &SocketConfig) -> std::io::Result<OwnedFd> {
    make_parent(path, config)?;
    match rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(config.socket_mode), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(why) => return Err(why.into()),
    }
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != rustix::fs::FileType::Fifo {
        return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "there is something else than a FIFO"));
    }
    own(path, config)?;
    if let Some(size) = config.pipe_size.and_then(|size| usize::try_from(size).ok()) {
        let _ = rustix::pipe::fcntl_setpipe_size(&fd, size);
    }
    Ok(fd)
}

fn socket(address: &SocketAddress, kind: SocketType, config: &SocketConfig) -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = match address {
        SocketAddress::Unix(path) => {
            make_parent(path, config)?;
            let fd = net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
            let address = SocketAddrUnix::new(path.as_str())?;
            // A socket file outlives its listener; nothing but a socket is ever taken away.
            if std::fs::symlink_metadata(path).is_ok_and(|data| std::os::unix::fs::FileTypeExt::is_socket(&data.file_type())) {
                let _ = std::fs::remove_file(path);
            }
            net::bind(&fd, &address)?;
            own(path, config)?;
            fd
        }
        SocketAddress::Abstract(name) => {
            let fd = net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
            net::bind(&fd, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
            fd
        }
        SocketAddress::Port(port) => {
            let v6 = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), *port);
            let v4 = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), *port);
            // A kernel without IPv6 still gets its port.
            inet(&v6, None, kind, config).or_else(|_| inet(&v4, None, kind, config))?
        }
        SocketAddress::Inet(address, interface) => inet(address, interface.as_deref(), kind, config)?,
        SocketAddress::Vsock(..) => return Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "vsock is not supported")),
    };
    options(&fd, config);
    if kind != SocketType::DGRAM {
        net::listen(&fd, i32::try_from(config.backlog).unwrap_or(i32::MAX))?;
    }
    Ok(fd)
}

fn inet(address: &SocketAddr, interface: Option<&str>, kind: SocketType, config: &SocketConfig) -> std::io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let fd = net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if config.reuse_port {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    if config.free_bind {
        if address.is_ipv6() {
            sockopt::set_ipv6_freebind(&fd, true)?;
        } else {
            sockopt::set_ip_freebind(&fd, true)?;
        }
    }
    let mut address = *address;
    if let SocketAddr::V6(v6) = &mut address {
        match config.bind_ipv6_only {
            BindIpv6Only::Default => {}
            only => sockopt::set_ipv6_v6only(&fd, only == BindIpv6Only::Ipv6Only)?,
        }
        if let Some(interface) = interface {
            let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?;
            v6.set_scope_id(index.trim().parse().unwrap_or(0));
        }
    }
    if config.transparent {
        let (level, option) =
            if address.is_ipv6() { (libc::SOL_IPV6, libc::IPV6_TRANSPARENT) } else { (libc::SOL_IP, libc::IP_TRANSPARENT) };
        set_number(&fd, level, option, 1)?;
    }
    // Without it more than was written could connect.
    if let Some(device) = &config.bind_to_device {
        set_bytes(&fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes())?;
    }
    net::bind(&fd, &address)?;
    Ok(fd)
}

/// What makes no difference between working and not working is set as well as it can be.
pub(super) fn options(fd: &OwnedFd, config: &SocketConfig) {
    let number = |level: i32, option: i32, value: Option<i32>| {
        if let Some(value) = value {
            let _ = set_number(fd, level, option, value);
        }
    };
    let seconds = |span: Option<Duration>| span.map(|span| i32::try_from(span.as_secs().max(1)).unwrap_or(i32::MAX));
    let small = |value: Option<u32>| value.map(|value| i32::try_from(value).unwrap_or(i32::MAX));
    number(libc::SOL_TCP, libc::TCP_KEEPIDLE, seconds(config.keep_alive_time));
    number(libc::SOL_TCP, libc::TCP_KEEPINTVL, seconds(config.keep_alive_interval));
    number(libc::SOL_TCP, libc::TCP_KEEPCNT, small(config.keep_alive_probes));
    number(libc::SOL_TCP, libc::TCP_DEFER_ACCEPT, seconds(config.defer_accept));
    number(libc::SOL_SOCKET, libc::SO_PRIORITY, config.priority);
    number(libc::SOL_SOCKET, libc::SO_MARK, config.mark.map(u32::cast_signed));
    number(libc::SOL_IP, libc::IP_TOS, config.ip_tos);
    number(libc::SOL_IP, libc::IP_TTL, config.ip_ttl);
    number(libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS, config.ip_ttl);
    number(libc::SOL_SOCKET, libc::SO_PASSSEC, config.pass_security.then_some(1));
    number(libc::SOL_IP, libc::IP_PKTINFO, config.pass_packet_info.then_some(1));
    number(libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, config.pass_packet_info.then_some(1));
    if let Some(name) = &config.tcp_congestion {
        let _ = set_bytes(fd, libc::SOL_TCP, libc::TCP_CONGESTION, name.as_bytes());
    }
    if config.keep_alive {
        let _ = sockopt::set_socket_keepalive(fd, true);
    }
    if config.no_delay {
        let _ = sockopt::set_tcp_nodelay(fd, true);
    }
    if config.broadcast {
        let _ = sockopt::set_socket_broadcast(fd, true);
    }
    if config.pass_credentials {
        let _ = sockopt::set_socket_passcred(fd, true);
    }
    if let Some(size) = config.receive_buffer.and_then(|size| usize::try_from(size).ok()) {
        let _ = sockopt::set_socket_recv_buffer_size_force(fd, size).or_else(|_| sockopt::set_socket_recv_buffer_size(fd, size));
    }
    if let Some(size) = config.send_buffer.and_then(|size| usize::try_from(size).ok()) {
        let _ = sockopt::set_socket_send_buffer_size_force(fd, size).or_else(|_| sockopt::set_socket_send_buffer_size(fd, size));
    }
}

fn make_parent(path: &str, config: &SocketConfig) -> std::io::Result<()> {
    match Path::new(path).parent() {
        Some(parent) if !parent.exists() => std::fs::DirBuilder::new().recursive(true).mode(config.directory_mode).create(parent),
        _ => Ok(()),
    }
}

fn own(path: &str, config: &SocketConfig) -> std::io::Result<()> {
    let etc = Path::new("/etc");
    let missing = |kind: &str, name: &str| std::io::Error::new(std::io::ErrorKind::NotFound, format!("there is no {kind} {name}"));
    let user = config.socket_user.as_deref().map(|name| identity::user(etc, name).ok_or_else(|| missing("user", name))).transpose()?;
    let group = config.socket_group.as_deref().map(|name| identity::group(etc, name).ok_or_else(|| missing("group", name))).transpose()?;
    if user.is_some() || group.is_some() {
        let gid = group.or(user.as_ref().map(|user| user.gid));
        std::os::unix::fs::chown(path, user.as_ref().map(|user| user.uid), gid)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(config.socket_mode))
}

fn symlink(link: &str, config: &SocketConfig) {
    let Some(target) = config.listen.iter().find_map(path_of) else { return };
    let _ = make_parent(link, config);
    if std::fs::symlink_metadata(link).is_ok_and(|data| data.is_symlink()) {
        let _ = std::fs::remove_file(link);
    }
    let _ = std::os::unix::fs::symlink(target, link);
}
