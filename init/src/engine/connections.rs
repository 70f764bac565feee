//! `Accept=yes`: PID 1 accepts, and each connection gets an instance of the service template for itself.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{self, SocketAddrAny, SocketFlags, sockopt};
use unit_files::socket::SocketConfig;
use unit_files::{Config, LoadState, UnitName};

use super::graph::UnitId;
use super::manager::{Kind, Manager, now};
use super::protocol::{ActiveState, JobMode, Verb};

/// How many connections are taken at one go, so that a flood of them does not starve the rest.
const AT_ONCE: usize = 16;

/// What the service of one connection has.
#[derive(Debug)]
pub(super) struct Connection {
    /// The socket unit that it came in by.
    socket: UnitId,
    /// Until the service has it.
    fd: Option<OwnedFd>,
    /// `FileDescriptorName=`.
    name: String,
    peer: Option<SocketAddr>,
}

/// IPv4 as such, also where it comes in by an IPv6 socket.
fn plain(address: SocketAddrAny) -> Option<SocketAddr> {
    let address = SocketAddr::try_from(address).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// The part of the instance's name that tells connections apart: `7-10.0.0.1:22-10.0.0.9:40000`, or pid and uid of the peer.
fn instance_name(number: u64, fd: &OwnedFd, peer: Option<SocketAddr>) -> String {
    let local = net::getsockname(fd).ok().and_then(plain);
    match (local, peer) {
        (Some(local), Some(peer)) => {
            format!("{number}-{}:{}-{}:{}", local.ip(), local.port(), peer.ip(), peer.port())
        }
        _ => match sockopt::socket_peercred(fd) {
            Ok(who) => format!("{number}-{}-{}", who.pid.as_raw_nonzero(), who.uid.as_raw()),
            Err(_) => number.to_string(),
        },
    }
}

/// `ssh@.service` for `ssh.socket`, with an instance.
fn service_name(socket: &str, instance: &str) -> Option<UnitName> {
    let stem = socket.strip_suffix(".socket")?;
    let prefix = stem.split_once('@').map_or(stem, |(prefix, _)| prefix);
    UnitName::parse(&format!("{prefix}@{instance}.service")).ok()
}

impl Manager {
    fn connections_of(&self, socket: UnitId) -> impl Iterator<Item = &Connection> {
        self.units.values().filter_map(|runtime| runtime.connection.as_deref()).filter(move |connection| connection.socket == socket)
    }

    /// How many connections of a socket unit are served now.
    pub fn connection_count(&self, socket: UnitId) -> usize {
        self.connections_of(socket).count()
    }

    /// Somebody wants to connect to a socket with `Accept=yes`.
    pub fn socket_accept(&mut self, unit: UnitId, config: &SocketConfig) {
        for _ in 0..AT_ONCE {
            let Some(Kind::Socket(socket)) = self.units.get(&unit).map(|runtime| &runtime.kind) else { return };
            let accepted = socket.fds.iter().find_map(|fd| net::acceptfrom_with(fd, SocketFlags::CLOEXEC).ok());
            let Some((fd, peer)) = accepted else { return };
            let limit = (config.trigger_limit_interval.unwrap_or(Duration::from_secs(2)), config.trigger_limit_burst.unwrap_or(200));
            let Some(socket) = self.socket(unit) else { return };
            if !socket.triggers.allow(now(), limit.0, limit.1) {
                return self.socket_failed(unit, "triggered too often, not listening any more");
            }
            socket.accepted = socket.accepted.saturating_add(1);
            let number = socket.accepted;
            // While the machine goes down nobody is served any more.
            if !self.power.is_none() {
                continue;
            }
            let peer = peer.and_then(plain);
            if let Err(why) = self.serve_connection(unit, config, number, fd, peer) {
                let name = self.name(unit);
                self.reporter.unit(&name, 4, &format!("connection {number} is dropped: {why}"));
            }
        }
    }

    fn serve_connection(
        &mut self,
        unit: UnitId,
        config: &SocketConfig,
        number: u64,
        fd: OwnedFd,
        peer: Option<SocketAddr>,
    ) -> Result<(), String> {
        let limit = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        if self.connection_count(unit) >= limit(config.max_connections) {
            return Err(format!("there are {} already (MaxConnections=)", config.max_connections));
        }
        let from_there = |connection: &&Connection| connection.peer.map(|peer| peer.ip()) == peer.map(|peer| peer.ip());
        let per_source = config.max_connections_per_source;
        if per_source > 0 && self.connections_of(unit).filter(from_there).count() >= limit(per_source) {
            return Err(format!("its source has {per_source} already (MaxConnectionsPerSource=)"));
        }
        super::sockets::options(&fd, config);
        let instance = instance_name(number, &fd, peer);
        let name = service_name(self.graph.name(unit), &instance).ok_or("no service can be named for it")?;
        let service = self.load(name.as_str()).ok_or("no service can be named for it")?;
        let Some(runtime) = self.units.get_mut(&service) else { return Err("its service is gone".to_owned()) };
        runtime.transient = true;
        let usable = runtime.def.load_state == LoadState::Loaded && matches!(runtime.def.config, Config::Service(_));
        if usable {
            let name = config.fd_name.clone().unwrap_or_else(|| "connection".to_owned());
            runtime.connection = Some(Box::new(Connection { socket: unit, fd: Some(fd), name, peer }));
        }
        let queued = self.enqueue(Verb::Start, &[service], JobMode::Fail);
        if let Err(why) = queued {
            if let Some(runtime) = self.units.get_mut(&service) {
                runtime.connection = None;
            }
            self.garbage.push(service);
            return Err(format!("cannot start {name}: {why}"));
        }
        Ok(())
    }

    /// What a service started for a connection is given: its fd, and who is at the other end.
    pub fn connection_fd(&self, service: UnitId) -> Option<(String, OwnedFd)> {
        let connection = self.units.get(&service)?.connection.as_ref()?;
        Some((connection.name.clone(), connection.fd.as_ref()?.try_clone().ok()?))
    }

    /// `REMOTE_ADDR` and `REMOTE_PORT`.
    pub fn connection_peer(&self, service: UnitId) -> Option<SocketAddr> {
        self.units.get(&service)?.connection.as_ref()?.peer
    }

    /// A service of a connection has changed: what PID 1 holds for it goes when it is not needed any more.
    pub fn connection_changed(&mut self, service: UnitId, down: bool) {
        let Some(runtime) = self.units.get_mut(&service).filter(|runtime| runtime.transient) else { return };
        let up = runtime.active() == ActiveState::Active;
        if down {
            runtime.connection = None;
            self.garbage.push(service);
        } else if up && let Some(connection) = &mut runtime.connection {
            // The service has it now; when it closes it, the peer is to see that.
            connection.fd = None;
        }
    }

    /// Forgets the services of connections that are over: their number has no bound.
    pub fn collect_garbage(&mut self) {
        let mut candidates = std::mem::take(&mut self.garbage);
        candidates.sort_unstable();
        candidates.dedup();
        for unit in candidates {
            let Some(runtime) = self.units.get(&unit) else { continue };
            let down = matches!(runtime.active(), ActiveState::Inactive | ActiveState::Failed);
            let busy = runtime.cgroup.is_some() || self.queue.get(unit).is_some() || self.pids.values().any(|owner| *owner == unit);
            if !runtime.transient || !down {
                continue;
            }
            // Left-over processes keep it for now.
            if busy {
                self.garbage.push(unit);
                continue;
            }
            self.units.remove(&unit);
            self.loaded.remove(&unit);
            self.graph.forget(unit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_named_after_both_ends() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let (port, peer_port) = (listener.local_addr().unwrap().port(), client.local_addr().unwrap().port());
        let instance = instance_name(3, &stream.into(), Some(peer));
        assert_eq!(instance, format!("3-127.0.0.1:{port}-127.0.0.1:{peer_port}"));
        assert_eq!(service_name("ssh.socket", &instance).unwrap().as_str(), format!("ssh@{instance}.service"));
        assert_eq!(service_name("a@b.socket", "1").unwrap().as_str(), "a@1.service");
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(instance_name(1, &one.into(), None), format!("1-{}-0", std::process::id()));
    }
}
