//! The DHCPv4 client of one link as a state machine: events and time in, actions out.
//!
//! Pure: the clock, the random seed and the network are the caller's. Promises: from every state and with every loss of packets it
//! comes to ask again, never more often than once a second after the first tries, and an address is given up only when its time
//! has run out or a server has refused it.
#![deny(clippy::indexing_slicing)]

use super::dhcp_message::{Kind, Lease, Message, code};
use std::net::Ipv4Addr;

/// Milliseconds of a monotonic clock.
pub type Millis = u64;

const SECOND: Millis = 1000;
const FIRST_WAIT: Millis = 300;
const LONGEST_WAIT: Millis = 60 * SECOND;
/// A server that does not answer a request for a known address within this does not know us any more.
const REBOOT_WAIT: Millis = SECOND;
/// At least this long between two renewals.
const SHORTEST_RENEWAL: Millis = 5 * SECOND;

/// What the client says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The link's address.
    pub mac: [u8; 6],
    /// A name to send. With one, none is asked for: some servers echo it back as if it were theirs.
    pub hostname: Option<String>,
    /// Seed of transaction numbers and of jitter.
    pub seed: u64,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The link has a carrier.
    CarrierUp,
    /// It has not.
    CarrierDown,
    /// A message came in.
    Received(&'a Message),
    /// [`Client::deadline`] may have come.
    Tick,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send to everybody on the link, without an address of our own.
    Broadcast(Message),
    /// Send from our address to the server.
    Unicast(Ipv4Addr, Message),
    /// The link has this lease now.
    Bound(Box<Lease>),
    /// The lease is over: take address and routes away.
    Lost(&'static str),
}

/// Where the exchange is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// No carrier.
    Waiting,
    /// Asking whether a lease from before still holds.
    Rebooting,
    /// Looking for servers.
    Selecting,
    /// An offer was taken.
    Requesting { offer: Box<Lease> },
    /// Nothing to do until T1.
    Bound,
    /// Asking our server.
    Renewing,
    /// Asking any server.
    Rebinding,
}

/// The client of one link.
#[derive(Clone, Debug)]
pub struct Client {
    identity: Identity,
    state: State,
    xid: u32,
    begun: Millis,
    tries: u32,
    naks: u32,
    next: Option<Millis>,
    /// The lease that is configured, and when it was acknowledged.
    lease: Option<(Lease, Millis)>,
    /// One from an earlier run, to ask for again.
    remembered: Option<Lease>,
}

impl Client {
    /// A client that knows of no carrier yet; `remembered` is the lease of an earlier run.
    pub fn new(identity: Identity, remembered: Option<Lease>) -> Client {
        let xid = mix(identity.seed) as u32;
        Client { identity, state: State::Waiting, xid, begun: 0, tries: 0, naks: 0, next: None, lease: None, remembered }
    }

    /// The lease that holds.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref().map(|(lease, _)| lease)
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Millis> {
        let expiry = self.lease.as_ref().and_then(|(lease, since)| after(*since, lease.seconds));
        [self.next, expiry].into_iter().flatten().min()
    }

    /// Whether packets from outside our own address are wanted: false while only unicast can come.
    pub fn listens(&self) -> bool {
        !matches!(self.state, State::Waiting | State::Bound | State::Renewing)
    }

    /// Takes an event in.
    pub fn handle(&mut self, event: Event<'_>, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::CarrierUp => {
                if self.state == State::Waiting {
                    self.start(now, &mut actions);
                }
            }
            // The address stays: a cable put back in seconds later must not cost connections.
            Event::CarrierDown => {
                self.state = State::Waiting;
                self.next = None;
            }
            Event::Received(message) => self.received(message, now, &mut actions),
            Event::Tick => self.tick(now, &mut actions),
        }
        actions
    }

    fn start(&mut self, now: Millis, actions: &mut Vec<Action>) {
        self.begun = now;
        self.naks = 0;
        if let Some(lease) = self.lease().or(self.remembered.as_ref()).cloned() {
            self.state = State::Rebooting;
            self.new_exchange();
            let mut request = self.message(Kind::Request, now);
            request.options.push((code::REQUESTED_ADDRESS, lease.address.octets().to_vec()));
            actions.push(Action::Broadcast(request));
            self.next = Some(now + REBOOT_WAIT);
        } else {
            self.discover_anew(now, actions);
        }
    }

    fn discover_anew(&mut self, now: Millis, actions: &mut Vec<Action>) {
        self.state = State::Selecting;
        self.new_exchange();
        self.discover(now, actions);
    }

    fn discover(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut discover = self.message(Kind::Discover, now);
        if let Some(remembered) = &self.remembered {
            discover.options.push((code::REQUESTED_ADDRESS, remembered.address.octets().to_vec()));
        }
        actions.push(Action::Broadcast(discover));
        self.next = Some(now + self.backoff());
        self.tries += 1;
    }

    fn received(&mut self, message: &Message, now: Millis, actions: &mut Vec<Action>) {
        if !message.reply || message.xid != self.xid || message.mac != self.identity.mac {
            return;
        }
        match (&self.state, message.kind) {
            (State::Selecting, Kind::Offer) => {
                // A server that does not say who it is cannot be asked for its offer.
                if let Some(offer) = message.lease().filter(|lease| !lease.server.is_unspecified()) {
                    self.tries = 0;
                    self.state = State::Requesting { offer: Box::new(offer) };
                    self.request(now, actions);
                }
            }
            (State::Requesting { .. } | State::Rebooting | State::Renewing | State::Rebinding, Kind::Ack) => {
                if let Some(lease) = message.lease() {
                    self.bind(lease, now, actions);
                }
            }
            (State::Requesting { .. } | State::Rebooting | State::Renewing | State::Rebinding, Kind::Nak) => {
                self.remembered = None;
                if self.lease.take().is_some() {
                    actions.push(Action::Lost("a DHCP server refused it"));
                }
                self.naks += 1;
                if self.naks == 1 {
                    self.discover_anew(now, actions);
                } else {
                    // A server that offers and then refuses would be asked without pause.
                    self.state = State::Selecting;
                    self.new_exchange();
                    self.tries = self.naks.min(6);
                    self.next = Some(now + self.backoff());
                }
            }
            _ => {}
        }
    }

    fn bind(&mut self, mut lease: Lease, now: Millis, actions: &mut Vec<Action>) {
        if let (Some(old), true) = (self.lease().or(self.remembered.as_ref()), lease.server.is_unspecified()) {
            lease.server = old.server;
        }
        self.state = State::Bound;
        self.tries = 0;
        self.naks = 0;
        self.next = after(now, lease.renew);
        self.lease = Some((lease.clone(), now));
        self.remembered = Some(lease.clone());
        actions.push(Action::Bound(Box::new(lease)));
    }

    fn request(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let State::Requesting { offer } = &self.state else { return };
        let (address, server) = (offer.address, offer.server);
        let mut request = self.message(Kind::Request, now);
        request.options.push((code::REQUESTED_ADDRESS, address.octets().to_vec()));
        request.options.push((code::SERVER_ID, server.octets().to_vec()));
        actions.push(Action::Broadcast(request));
        self.next = Some(now + self.backoff());
        self.tries += 1;
    }

    fn tick(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if let Some((lease, since)) = &self.lease
            && after(*since, lease.seconds).is_some_and(|end| now >= end)
        {
            self.lease = None;
            actions.push(Action::Lost("its time ran out"));
            if self.state != State::Waiting {
                self.discover_anew(now, actions);
            }
            return;
        }
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        match &self.state {
            State::Waiting => self.next = None,
            State::Rebooting => self.discover_anew(now, actions),
            State::Selecting => self.discover(now, actions),
            State::Requesting { .. } if self.tries >= 5 => self.discover_anew(now, actions),
            State::Requesting { .. } => self.request(now, actions),
            State::Bound => {
                self.new_exchange();
                self.begun = now;
                self.state = State::Renewing;
                self.renew(now, actions);
            }
            State::Renewing | State::Rebinding => self.renew(now, actions),
        }
    }

    /// Asks for more time: our server until T2, then whoever answers.
    fn renew(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let Some((lease, since)) = self.lease.clone() else { return self.discover_anew(now, actions) };
        let rebind = after(since, lease.rebind).unwrap_or(Millis::MAX);
        let end = after(since, lease.seconds).unwrap_or(Millis::MAX);
        let mut request = self.message(Kind::Request, now);
        request.ciaddr = lease.address;
        // RFC 2131 4.4.5: wait half of what is left, but not less than so long.
        let next_phase = if now < rebind {
            actions.push(if lease.server.is_unspecified() { Action::Broadcast(request) } else { Action::Unicast(lease.server, request) });
            rebind
        } else {
            self.state = State::Rebinding;
            actions.push(Action::Broadcast(request));
            end
        };
        let left = next_phase.saturating_sub(now);
        self.next = Some((now + (left / 2).clamp(SHORTEST_RENEWAL, 3600 * SECOND)).min(next_phase.max(now + SECOND)));
    }

    fn new_exchange(&mut self) {
        self.identity.seed = mix(self.identity.seed);
        self.xid = self.identity.seed as u32;
        self.tries = 0;
    }

    /// 0.3 (for the first packet that a link loses while it comes up), 1, 2, 4, ... 60 seconds, with up to a fifth taken off so that a rack after a power cut does not ask in step.
    fn backoff(&mut self) -> Millis {
        self.identity.seed = mix(self.identity.seed);
        match self.tries {
            0 => FIRST_WAIT,
            tries => {
                let full = (SECOND << (tries - 1).min(6)).min(LONGEST_WAIT);
                full - self.identity.seed % (full / 5)
            }
        }
    }

    fn message(&self, kind: Kind, now: Millis) -> Message {
        let mut message = Message::of_client(kind, self.xid, self.identity.mac);
        message.secs = u16::try_from(now.saturating_sub(self.begun) / SECOND).unwrap_or(u16::MAX);
        let mut client_id = vec![1];
        client_id.extend_from_slice(&self.identity.mac);
        message.options.push((code::CLIENT_ID, client_id));
        message.options.push((code::MAX_SIZE, 1472u16.to_be_bytes().to_vec()));
        let mut parameters = vec![code::SUBNET_MASK, code::CLASSLESS_ROUTES, code::ROUTER, code::DNS, code::DOMAIN, code::DOMAIN_SEARCH];
        parameters.extend([code::NTP, code::RENEWAL_TIME, code::REBINDING_TIME]);
        // Azure's server does not answer who asks for an MTU, so every other try does without.
        if self.tries.is_multiple_of(2) {
            parameters.push(code::MTU);
        }
        match &self.identity.hostname {
            Some(name) => message.options.push((code::HOSTNAME, name.as_bytes().to_vec())),
            None => parameters.push(code::HOSTNAME),
        }
        message.options.push((code::PARAMETERS, parameters));
        message
    }
}

/// A time some seconds later; `u32::MAX` seconds is never.
fn after(since: Millis, seconds: u32) -> Option<Millis> {
    (seconds != u32::MAX).then(|| since + Millis::from(seconds) * SECOND)
}

/// splitmix64: enough to tell exchanges apart.
fn mix(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
#[path = "dhcp_state_tests.rs"]
mod tests;
