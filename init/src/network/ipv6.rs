//! IPv6 of the daemon's links, beside what the kernel does itself (addresses and routes by router advertisement): name servers
//! that routers name, and DHCPv6 where they point to it.

use super::daemon::Daemon;
use super::dhcp6_message::{Given, Information};
use super::dhcp6_state::{Action, Client6, Event, Lease6, Mode};
use super::dhcp6_transport::{Transport6, solicit_routers};
use super::host_facts::{now_ms, random_seed};
use super::netlink::{Address, Message};
use super::network_file::NetworkFile;
use super::plan::{Desired, LinkState};
use super::router_advertisement::Advertised;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::BorrowedFd;

/// What one link has of it.
#[derive(Default)]
pub(super) struct Ipv6 {
    client: Option<Client6>,
    transport: Transport6,
    advertised: Advertised,
    /// What routers say is to be asked; `None` while none has spoken.
    said: Option<Mode>,
    /// When a lease came, for what is left of its times.
    leased_at: u64,
    lease: Lease6,
    /// Whether a server has answered since we started: until then, addresses of the daemon before us stay.
    settled: bool,
    /// Those addresses.
    inherited: Vec<Address>,
    begun: u64,
    pub(super) configured_after: Option<u64>,
}

impl Ipv6 {
    /// After a restart of the daemon: what DHCPv6 seems to have given to the one before.
    pub(super) fn inheriting(file: &NetworkFile, have: &LinkState) -> Ipv6 {
        let by_hand = |address: &Address| file.addresses.iter().any(|prefix| prefix.address == address.address);
        let given = have.addresses.iter().filter(|address| address.address.is_ipv6() && address.prefix == 128 && !by_hand(address));
        Ipv6 { inherited: given.copied().collect(), ..Ipv6::default() }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        [self.client.as_ref().and_then(Client6::deadline), self.advertised.deadline()].into_iter().flatten().min()
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.transport.fd()
    }

    pub(super) fn given(&self) -> Vec<Given> {
        self.lease.addresses.clone()
    }

    /// Adds to what a link should have.
    pub(super) fn add_to(&self, link: u32, file: &NetworkFile, wanted: &mut Desired, now: u64) {
        let options = &file.ipv6;
        let passed = u32::try_from(now.saturating_sub(self.leased_at) / 1000).unwrap_or(u32::MAX);
        for given in self.lease.addresses.iter().filter(|_| options.dhcp_use_address) {
            let address = IpAddr::V6(given.address);
            wanted.state.addresses.insert(Address { link, address, prefix: 128 });
            let left = (given.valid != u32::MAX).then(|| given.valid.saturating_sub(passed).max(1));
            wanted.leased.push((address, left));
        }
        if !self.settled && file.accept_ra {
            // The kernel itself ends them when their time is over.
            wanted.state.addresses.extend(self.inherited.iter().copied());
        }
        if file.accept_ra && options.use_dns {
            wanted.dns.extend(self.advertised.dns().into_iter().map(IpAddr::V6));
        }
        if file.accept_ra && options.use_domains {
            wanted.domains.extend(self.advertised.domains());
        }
        let Information { dns, domains, ntp } = &self.lease.information;
        if options.dhcp_use_dns {
            wanted.dns.extend(dns.iter().copied().map(IpAddr::V6));
        }
        if options.dhcp_use_domains {
            wanted.domains.extend(domains.iter().cloned());
        }
        if options.dhcp_use_ntp {
            wanted.ntp.extend(ntp.iter().map(Ipv6Addr::to_string));
        }
    }
}

/// Whether a message is for [`Daemon::hear_router`].
pub(super) fn is_ipv6_news(message: &Message) -> bool {
    match message {
        Message::RouterFlags { .. } | Message::RouterOptions { .. } => true,
        Message::Address(address, tentative) => !tentative && is_link_local(address.address),
        _ => false,
    }
}

impl Daemon {
    /// Takes in what the kernel says of routers and of the link's own address.
    pub(super) fn hear_router(&mut self, message: &Message) {
        match message {
            Message::RouterFlags { link, managed, other } => {
                let said = match (managed, other) {
                    (true, _) => Mode::Stateful,
                    (false, true) => Mode::Stateless,
                    (false, false) => Mode::Off,
                };
                let Some(ours) = self.managed.get_mut(link) else { return };
                ours.ipv6.said = Some(said);
                self.look_at_ipv6(*link);
            }
            Message::RouterOptions { link, options } => {
                let Some(ours) = self.managed.get_mut(link) else { return };
                if ours.ipv6.advertised.hear(options, now_ms()) {
                    self.apply(*link);
                }
            }
            // The link-local address is free, so it can be sent from.
            Message::Address(address, false) if is_link_local(address.address) => {
                self.look_at_ipv6(address.link);
                // Routers may have named their servers before we listened; the kernel asks only once.
                let quiet =
                    self.managed.get(&address.link).is_some_and(|ours| ours.file.accept_ra && ours.ipv6.advertised.dns().is_empty());
                if quiet {
                    let _ = solicit_routers(address.link);
                }
            }
            _ => {}
        }
    }

    /// Starts or stops DHCPv6 on a link, as routers and its file say.
    pub(super) fn look_at_ipv6(&mut self, index: u32) {
        let source = self.link_local(index);
        let Some(managed) = self.managed.get_mut(&index) else { return };
        let options = managed.file.ipv6;
        let mode = match managed.ipv6.said {
            Some(mode) if managed.file.accept_ra && options.dhcp && mode != Mode::Off => mode,
            _ if options.without_router => Mode::Stateful,
            _ => Mode::Off,
        };
        if mode == Mode::Off && managed.ipv6.client.is_none() {
            return;
        }
        let mac = self.links.get(&index).and_then(|link| link.mac);
        let (Some(_), Some(mac)) = (source, mac) else { return };
        if managed.ipv6.client.is_none() {
            managed.ipv6.client = Some(Client6::new(mac, random_seed() ^ u64::from(index)));
            managed.ipv6.begun = now_ms();
        }
        self.feed6(index, Event::Start(mode));
    }

    /// A link that was down may be on another network now.
    pub(super) fn link_up6(&mut self, index: u32) {
        if let Some(managed) = self.managed.get_mut(&index) {
            managed.ipv6.transport.close();
            self.feed6(index, Event::LinkUp);
        }
        if self.link_local(index).is_some() {
            let _ = solicit_routers(index);
        }
    }

    fn link_local(&self, index: u32) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|(address, tentative)| match address.address {
            IpAddr::V6(six) if address.link == index && !tentative && is_link_local(address.address) => Some(six),
            _ => None,
        })
    }

    fn feed6(&mut self, index: u32, event: Event<'_>) {
        let source = self.link_local(index);
        let Some(managed) = self.managed.get_mut(&index) else { return };
        let Some(client) = &mut managed.ipv6.client else { return };
        let now = now_ms();
        let mut changed = false;
        for action in client.handle(event, now) {
            match action {
                Action::Send(message) => {
                    let Some(source) = source else { continue };
                    if let Err(error) = managed.ipv6.transport.send(index, source, &message) {
                        eprintln!("<4>{}: cannot send a DHCPv6 {:?}: {error}", managed.transport.name(), message.kind);
                    }
                }
                Action::Use(lease) => {
                    if managed.ipv6.configured_after.is_none() {
                        let took = now.saturating_sub(managed.ipv6.begun);
                        managed.ipv6.configured_after = Some(took);
                        let addresses: Vec<String> = lease.addresses.iter().map(|given| given.address.to_string()).collect();
                        eprintln!(
                            "<6>{}: DHCPv6 gives '{}', {took} ms after it was asked for",
                            managed.transport.name(),
                            addresses.join(" ")
                        );
                    }
                    managed.ipv6.lease = lease;
                    managed.ipv6.leased_at = now;
                    managed.ipv6.settled = true;
                    changed = true;
                }
                Action::Lost(reason) => {
                    eprintln!("<4>{}: DHCPv6: {reason}", managed.transport.name());
                    managed.ipv6.lease = Lease6::default();
                    managed.ipv6.settled = true;
                    changed = true;
                }
            }
        }
        if managed.ipv6.client.as_ref().is_some_and(|client| !client.runs()) {
            managed.ipv6.transport.close();
        }
        if changed {
            self.apply(index);
        }
    }

    pub(super) fn hear_servers6(&mut self) {
        for index in self.managed.keys().copied().collect::<Vec<_>>() {
            for _ in 0..32 {
                let Some(managed) = self.managed.get_mut(&index) else { break };
                let Some(received) = managed.ipv6.transport.receive(&mut self.buffer) else { break };
                if let Some(message) = received {
                    self.feed6(index, Event::Received(&message));
                }
            }
        }
    }

    pub(super) fn tick6(&mut self) {
        let now = now_ms();
        for index in self.managed.keys().copied().collect::<Vec<_>>() {
            let Some(managed) = self.managed.get_mut(&index) else { continue };
            let over = managed.ipv6.advertised.expire(now);
            if managed.ipv6.client.as_ref().and_then(Client6::deadline).is_some_and(|due| due <= now) {
                self.feed6(index, Event::Tick);
            }
            if over {
                self.apply(index);
            }
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(six) if six.is_unicast_link_local())
}
