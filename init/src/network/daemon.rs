//! `init network-daemon`: brings links up, runs a DHCP client on each that wants one, keeps addresses and routes as planned.
//!
//! One thread, one `poll`. Relies on the kernel's answers only, never on names in `/sys`, so that it works the same in a network
//! namespace. Promises: a restart keeps addresses and leases, nothing that others have set is removed, and a broken file or
//! server costs the link that it is for and no other.

use super::dhcp_message::{Lease, Message};
use super::dhcp_state::{Action, Client, Event, Identity};
use super::dhcp_transport::Transport;
use super::host_facts::{driver_of, is_hardware, mac_text, now_ms, own_hostname, random_seed, unix_seconds};
use super::ipv6::{Ipv6, is_ipv6_news};
use super::netlink::{self, Address, Link, Request, Route};
use super::netlink_socket::Netlink;
use super::network_file::NetworkFile;
use super::plan::{self, Desired, LinkState};
use super::published::{self, NetworkStatus};
use super::settings::Settings;
use super::status::inherited_states;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Where the daemon reads and writes.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The root of configuration and state.
    pub root: PathBuf,
    /// Whether links without a file get DHCP when they are hardware.
    pub manage_hardware: bool,
}

impl Paths {
    pub(super) fn run(&self, name: &str) -> PathBuf {
        self.root.join("run/garboard").join(name)
    }

    fn lease(&self, mac: &str) -> PathBuf {
        self.root.join("var/lib/garboard/network").join(format!("{}.json", mac.replace(':', "")))
    }
}

/// A link that we look after.
pub(super) struct Managed {
    pub(super) file: NetworkFile,
    pub(super) client: Option<Client>,
    pub(super) transport: Transport,
    pub(super) applied: LinkState,
    /// The lease behind an address that the daemon before us had set, until a server has confirmed or refused it.
    pub(super) inherited: Option<Lease>,
    pub(super) desired: Desired,
    pub(super) leased_at: Option<u64>,
    pub(super) carrier: bool,
    pub(super) carrier_since: u64,
    pub(super) configured_after: Option<u64>,
    pub(super) ipv6: Ipv6,
}

/// The daemon.
pub struct Daemon {
    pub(super) paths: Paths,
    pub(super) netlink: Netlink,
    pub(super) settings: Settings,
    inotify: OwnedFd,
    pub(super) links: BTreeMap<u32, Link>,
    pub(super) addresses: BTreeSet<(Address, bool)>,
    pub(super) defaults: BTreeSet<Route>,
    pub(super) managed: BTreeMap<u32, Managed>,
    /// What the daemon before us had set, by link name.
    inherited: BTreeMap<String, LinkState>,
    pub(super) problems: Vec<String>,
    pub(super) published: Option<NetworkStatus>,
    pub(super) buffer: Vec<u8>,
    /// Links whose `.link` file was applied.
    pub(super) adopted: BTreeSet<u32>,
}

impl Daemon {
    /// Opens the sockets, reads files and links, starts what can be started.
    pub fn start(paths: Paths) -> io::Result<Daemon> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let inherited = std::fs::read(paths.run("network.json")).ok().and_then(|json| serde_json::from_slice::<NetworkStatus>(&json).ok());
        let mut daemon = Daemon {
            netlink: Netlink::open()?,
            settings: Settings::load(&paths.root),
            inotify,
            links: BTreeMap::new(),
            addresses: BTreeSet::new(),
            defaults: BTreeSet::new(),
            managed: BTreeMap::new(),
            inherited: inherited.map(|status| inherited_states(&status)).unwrap_or_default(),
            problems: Vec::new(),
            published: None,
            buffer: vec![0; 4096],
            adopted: BTreeSet::new(),
            paths,
        };
        daemon.watch_settings();
        daemon.refresh()?;
        // Even when there is nothing to say yet: who reads the files must find them.
        daemon.publish();
        Ok(daemon)
    }

    /// Runs for ever.
    pub fn run(mut self) -> io::Result<std::convert::Infallible> {
        loop {
            self.turn(None)?;
        }
    }

    /// Waits for the next event, at most `longest` milliseconds, and handles what there is.
    pub fn turn(&mut self, longest: Option<u64>) -> io::Result<()> {
        let four = self.managed.values().filter_map(|managed| managed.client.as_ref()?.deadline());
        let due = four.chain(self.managed.values().filter_map(|managed| managed.ipv6.deadline())).min();
        let wait = [due.map(|due| due.saturating_sub(now_ms())), longest].into_iter().flatten().min();
        let timeout = wait.map(|ms| rustix::event::Timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 });
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.netlink.event_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN),
        ];
        for managed in self.managed.values() {
            fds.extend(managed.transport.fds().chain(managed.ipv6.fd()).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready.first() == Some(&true) {
            self.hear_kernel()?;
        }
        if ready.get(1) == Some(&true) {
            self.reload();
        }
        self.hear_servers();
        self.hear_servers6();
        self.tick();
        self.tick6();
        self.publish();
        Ok(())
    }

    /// The state as it was last published.
    #[cfg(test)]
    pub fn status(&self) -> NetworkStatus {
        self.published.clone().unwrap_or_default()
    }

    fn watch_settings(&mut self) {
        use inotify::WatchFlags as W;
        let flags = W::CLOSE_WRITE | W::MOVED_TO | W::MOVED_FROM | W::DELETE | W::CREATE | W::ONLYDIR;
        for directory in super::settings::DIRECTORIES {
            let path = self.paths.root.join(directory);
            // Only /run and /etc can change; making the directories lets a later file be seen.
            if !directory.starts_with("usr") {
                let _ = std::fs::create_dir_all(&path);
            }
            let _ = inotify::add_watch(&self.inotify, &path, flags);
        }
    }

    fn reload(&mut self) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        while rustix::io::read(&self.inotify, &mut buffer).is_ok() {}
        let settings = Settings::load(&self.paths.root);
        if settings == self.settings {
            return;
        }
        eprintln!("<6>network files have changed, applying them");
        self.settings = settings;
        self.make_virtual_links();
        for index in self.links.keys().copied().collect::<Vec<_>>() {
            self.look_at(index);
        }
    }

    /// Asks the kernel for everything anew.
    fn refresh(&mut self) -> io::Result<()> {
        let mut messages = self.netlink.request(&Request::DumpLinks)?;
        self.links.clear();
        self.addresses.clear();
        self.defaults.clear();
        messages.extend(self.netlink.request(&Request::DumpAddresses)?);
        messages.extend(self.netlink.request(&Request::DumpRoutes)?);
        // Their absence costs DHCPv6, not the network: IPv6 may be switched off.
        messages.extend(self.netlink.request(&Request::DumpRouterFlags).unwrap_or_default());
        let news = messages.iter().filter(|message| is_ipv6_news(message)).cloned().collect::<Vec<_>>();
        messages.into_iter().for_each(|message| self.note(message));
        let gone: Vec<u32> = self.managed.keys().filter(|index| !self.links.contains_key(index)).copied().collect();
        gone.into_iter().for_each(|index| drop(self.managed.remove(&index)));
        self.make_virtual_links();
        for index in self.links.keys().copied().collect::<Vec<_>>() {
            self.look_at(index);
        }
        news.iter().for_each(|message| self.hear_router(message));
        Ok(())
    }

    fn hear_kernel(&mut self) -> io::Result<()> {
        let Some(messages) = self.netlink.changes() else { return self.refresh() };
        let (mut touched, mut routers) = (BTreeSet::new(), Vec::new());
        for message in messages {
            if let netlink::Message::Link(link) = &message {
                touched.insert(link.index);
            } else if is_ipv6_news(&message) {
                routers.push(message.clone());
            }
            self.note(message);
        }
        touched.into_iter().for_each(|index| self.look_at(index));
        routers.iter().for_each(|message| self.hear_router(message));
        Ok(())
    }

    pub(super) fn note(&mut self, message: netlink::Message) {
        match message {
            netlink::Message::Link(link) => drop(self.links.insert(link.index, link)),
            netlink::Message::LinkGone(index) => {
                self.adopted.remove(&index);
                self.links.remove(&index);
                self.managed.remove(&index);
            }
            netlink::Message::Address(address, tentative) => {
                self.addresses.remove(&(address, !tentative));
                self.addresses.insert((address, tentative));
            }
            netlink::Message::AddressGone(address) => {
                self.addresses.remove(&(address, true));
                self.addresses.remove(&(address, false));
            }
            netlink::Message::Route(route) if route.prefix == 0 => drop(self.defaults.insert(route)),
            netlink::Message::RouteGone(route) => drop(self.defaults.remove(&route)),
            _ => {}
        }
    }

    /// Decides about a link: is it ours, by which file, has its carrier changed.
    pub(super) fn look_at(&mut self, index: u32) {
        let Some(link) = self.links.get(&index).cloned() else { return };
        let driver = driver_of(&self.paths.root, &link.name);
        if self.adopt_link_file(&link, driver.as_deref()) {
            return;
        }
        let file = match self.settings.file_for(&link, driver.as_deref()) {
            Some(file) if file.unmanaged => None,
            Some(file) => Some(file.clone()),
            None => (self.paths.manage_hardware && is_hardware(&link)).then(NetworkFile::fallback),
        };
        // A bridge or bond speaks for its members.
        let Some(file) = file.filter(|_| link.master.is_none()) else {
            self.managed.remove(&index);
            return;
        };
        if self.managed.get(&index).is_none_or(|managed| managed.file != file) {
            let managed = self.begin(&link, file);
            self.managed.insert(index, managed);
            self.prepare(&link);
            self.apply(index);
            self.join_master(&link);
            self.make_virtual_links();
            self.look_at_ipv6(index);
        }
        let Some(managed) = self.managed.get_mut(&index) else { return };
        if managed.carrier == link.carrier {
            return;
        }
        managed.carrier = link.carrier;
        managed.carrier_since = now_ms();
        if link.carrier {
            managed.configured_after = None;
            // Who took the link down took its routes away.
            self.apply(index);
        }
        let event = if link.carrier { Event::CarrierUp } else { Event::CarrierDown };
        self.feed(index, event);
        if link.carrier {
            self.link_up6(index);
        }
    }

    fn begin(&mut self, link: &Link, file: NetworkFile) -> Managed {
        let mac = link.mac.unwrap_or_default();
        let mut old = self.managed.remove(&link.index);
        let old_ipv6 = old.as_mut().map(|old| std::mem::take(&mut old.ipv6));
        let remembered = old.as_ref().and_then(|old| old.client.as_ref()?.lease().cloned()).or_else(|| self.stored_lease(link));
        let applied = match old {
            Some(old) => old.applied,
            None => self.inherited.remove(&link.name).map(|state| self.still_there(state, link.index)).unwrap_or_default(),
        };
        let ipv6 = old_ipv6.unwrap_or_else(|| Ipv6::inheriting(&file, &applied));
        let present = |lease: &Lease| applied.addresses.iter().any(|address| address.address == IpAddr::V4(lease.address));
        let inherited = remembered.clone().filter(|lease| file.dhcp && present(lease));
        let client = (file.dhcp && link.mac.is_some()).then(|| {
            let options = &file.dhcp_options;
            let hostname = if options.send_hostname { options.hostname.clone().or_else(|| own_hostname(&self.paths.root)) } else { None };
            Client::new(Identity { mac, hostname, seed: random_seed() ^ u64::from(link.index) }, remembered)
        });
        Managed {
            file,
            client,
            transport: Transport::new(link.index, link.name.clone()),
            inherited,
            applied,
            desired: Desired::default(),
            leased_at: None,
            carrier: false,
            carrier_since: now_ms(),
            configured_after: None,
            ipv6,
        }
    }

    /// What of a state the kernel still has, under the number that the link has now.
    fn still_there(&self, state: LinkState, link: u32) -> LinkState {
        let addresses = state.addresses.into_iter().map(|address| Address { link, ..address });
        let present = |address: &Address| self.addresses.contains(&(*address, false)) || self.addresses.contains(&(*address, true));
        LinkState {
            addresses: addresses.filter(present).collect(),
            routes: state.routes.into_iter().map(|route| Route { link, ..route }).collect(),
        }
    }

    fn stored_lease(&self, link: &Link) -> Option<Lease> {
        serde_json::from_slice(&std::fs::read(self.paths.lease(&mac_text(link))).ok()?).ok()
    }

    /// Per-link kernel settings, then up: addresses by router advertisement come from the kernel itself.
    fn prepare(&mut self, link: &Link) {
        let Some(managed) = self.managed.get(&link.index) else { return };
        let six = self.paths.root.join("proc/sys/net/ipv6/conf").join(&link.name);
        // 2: also when the host forwards, which Docker switches on.
        let accept = if managed.file.accept_ra { "2" } else { "0" };
        let _ = std::fs::write(six.join("accept_ra"), accept);
        let _ = std::fs::write(six.join("addr_gen_mode"), if managed.file.link_local_ipv6 { "0" } else { "1" });
        if !link.up {
            self.ask(link.index, &Request::SetLink { index: link.index, up: true, mtu: managed.file.mtu });
        }
    }

    /// Gives an event to a link's client and does what it says.
    fn feed(&mut self, index: u32, event: Event<'_>) {
        let Some(managed) = self.managed.get_mut(&index) else { return };
        let Some(client) = &mut managed.client else { return };
        let actions = client.handle(event, now_ms());
        let source = client.lease().map(|lease| lease.address);
        let listens = client.listens();
        for action in actions {
            let Some(managed) = self.managed.get_mut(&index) else { return };
            match action {
                Action::Broadcast(message) => {
                    let source = (!message.ciaddr.is_unspecified()).then_some(message.ciaddr);
                    if let Err(error) = managed.transport.broadcast(source, &message) {
                        eprintln!("<4>{}: cannot send a DHCP {:?}: {error}", managed.transport.name(), message.kind);
                    }
                }
                Action::Unicast(server, message) => {
                    if let Err(error) = managed.transport.unicast(message.ciaddr, server, &message) {
                        eprintln!("<4>{}: cannot ask DHCP server {server} to renew: {error}", managed.transport.name());
                    }
                }
                Action::Bound(lease) => self.bound(index, &lease),
                Action::Lost(reason) => {
                    eprintln!("<4>{}: the address is given up: {reason}", managed.transport.name());
                    managed.leased_at = None;
                    managed.inherited = None;
                    if let Some(link) = self.links.get(&index) {
                        let _ = std::fs::remove_file(self.paths.lease(&mac_text(link)));
                    }
                    self.apply(index);
                }
            }
        }
        if let Some(managed) = self.managed.get_mut(&index) {
            managed.transport.keep(listens, source);
        }
    }

    fn bound(&mut self, index: u32, lease: &Lease) {
        if let Some(managed) = self.managed.get_mut(&index) {
            managed.inherited = None;
        }
        self.apply(index);
        let (Some(managed), Some(link)) = (self.managed.get_mut(&index), self.links.get(&index)) else { return };
        let first = managed.leased_at.is_none();
        managed.leased_at = Some(unix_seconds());
        if first {
            let took = now_ms().saturating_sub(managed.carrier_since);
            managed.configured_after = Some(took);
            eprintln!(
                "<6>{}: {}/{} from {} for {} s, {took} ms after the carrier",
                link.name, lease.address, lease.prefix, lease.server, lease.seconds
            );
        }
        let path = self.paths.lease(&mac_text(link));
        let stored = serde_json::to_string(lease).map_err(io::Error::other).and_then(|json| published::write_whole(&path, &json));
        if let Err(error) = stored {
            eprintln!("<4>{}: cannot keep the lease for the next boot in {}: {error}", link.name, path.display());
        }
        if managed.file.dhcp_options.use_hostname
            && let Some(name) = &lease.hostname
            && own_hostname(&self.paths.root).is_none()
        {
            match rustix::system::sethostname(name.as_bytes()) {
                Ok(()) => eprintln!("<6>host name {name} by DHCP"),
                Err(error) => eprintln!("<4>cannot set host name {name}: {error}"),
            }
        }
    }

    /// Brings a link's addresses and routes from what we have set to what is wanted.
    pub(super) fn apply(&mut self, index: u32) {
        let Some(managed) = self.managed.get_mut(&index) else { return };
        let lease = managed.client.as_ref().and_then(Client::lease);
        // Until a client that may confirm its lease has an answer, what the daemon before us had set stays, and so does what
        // it said about name servers. The kernel itself ends the address when its time is over.
        let inherited = managed.inherited.as_ref().filter(|_| lease.is_none());
        managed.desired = plan::desired(index, &managed.file, lease.or(inherited));
        if inherited.is_some() {
            managed.desired.leased.clear();
        }
        managed.ipv6.add_to(index, &managed.file, &mut managed.desired, now_ms());
        let mut requests = plan::changes(&managed.applied, &managed.desired);
        let present = self.links.get(&index).map(|link| link.mtu);
        if let Some(mtu) = managed.desired.mtu.filter(|mtu| present != Some(*mtu)) {
            requests.insert(0, Request::SetLink { index, up: true, mtu: Some(mtu) });
        }
        managed.applied = managed.desired.state.clone();
        requests.iter().for_each(|request| self.ask(index, request));
    }

    pub(super) fn ask(&mut self, index: u32, request: &Request) {
        if let Err(error) = self.netlink.request(request) {
            // What was to be removed may be gone already: a link that went down takes its routes along.
            let removal = matches!(request, Request::RemoveAddress(_) | Request::RemoveRoute(_));
            let name = self.links.get(&index).map(|link| link.name.clone()).unwrap_or_default();
            if !removal {
                self.problem(format!("{name}: the kernel refused {request:?}: {error}"));
            }
        }
    }

    /// Says what could not be done, in the log and in what is published.
    pub(super) fn problem(&mut self, problem: String) {
        eprintln!("<4>{problem}");
        self.problems.retain(|known| *known != problem);
        self.problems.push(problem);
        let excess = self.problems.len().saturating_sub(20);
        self.problems.drain(..excess);
    }

    fn hear_servers(&mut self) {
        for index in self.managed.keys().copied().collect::<Vec<_>>() {
            // Bounded, so that a flood on one link does not starve the others.
            for _ in 0..32 {
                let Some(managed) = self.managed.get_mut(&index) else { break };
                let Some(received) = managed.transport.receive(&mut self.buffer) else { break };
                if let Some(message) = received.and_then(Message::decode) {
                    self.feed(index, Event::Received(&message));
                }
            }
        }
    }

    fn tick(&mut self) {
        let now = now_ms();
        for index in self.managed.keys().copied().collect::<Vec<_>>() {
            let due = self.managed.get(&index).and_then(|managed| managed.client.as_ref()?.deadline());
            if due.is_some_and(|due| due <= now) {
                self.feed(index, Event::Tick);
            }
        }
    }
}
