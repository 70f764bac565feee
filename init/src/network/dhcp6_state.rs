//! The DHCPv6 client of one link as a state machine (RFC 8415): events and the time in, actions out.
//!
//! Pure. It takes the first server that answers, since an address soon is worth more here than the best of several offers.

use super::dhcp6_message::{Given, Information, Kind, Message6};

/// First wait for an answer, in milliseconds; doubled each time.
const FIRST_WAIT: u64 = 1000;
/// Longest wait while looking for a server.
const LONGEST_WAIT: u64 = 120_000;
/// Longest wait while renewing.
const LONGEST_RENEW_WAIT: u64 = 600_000;
/// Unanswered requests before another server is looked for.
const MOST_REQUESTS: u32 = 5;
/// When to ask for information again, in seconds, where the server does not say.
const REFRESH: u32 = 86_400;

/// What routers say is to be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    #[default]
    Off,
    /// Everything but addresses.
    Stateless,
    /// Addresses too.
    Stateful,
}

/// What a server has given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease6 {
    /// Addresses.
    pub addresses: Vec<Given>,
    /// The rest.
    pub information: Information,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Routers say something else, or the link is up again.
    Start(Mode),
    /// The link is up again, perhaps on another network.
    LinkUp,
    /// A message has come in.
    Received(&'a Message6),
    /// The deadline is reached.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To all servers of the link.
    Send(Message6),
    /// Use this from now on.
    Use(Lease6),
    /// Nothing is given any more; why.
    Lost(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Off,
    Asking,
    Informed,
    Soliciting,
    Requesting { server: Vec<u8>, offered: Vec<Given>, tries: u32 },
    Bound { server: Vec<u8> },
    Renewing { server: Vec<u8> },
    Rebinding,
}

/// The client.
#[derive(Debug)]
pub struct Client6 {
    duid: Vec<u8>,
    set: u32,
    mode: Mode,
    state: State,
    random: u64,
    transaction: u32,
    begun: u64,
    wait: u64,
    deadline: Option<u64>,
    lease: Option<Lease6>,
    /// When to renew, to rebind, and when all is over.
    times: (u64, u64, u64),
}

impl Client6 {
    /// For a link with this hardware address, which servers know it by.
    pub fn new(mac: [u8; 6], seed: u64) -> Client6 {
        let [_, _, a, b, c, d] = mac;
        // DUID-LL, Ethernet.
        let duid = [0, 3, 0, 1].into_iter().chain(mac).collect();
        Client6 {
            duid,
            set: u32::from_be_bytes([a, b, c, d]),
            mode: Mode::Off,
            state: State::Off,
            random: seed | 1,
            transaction: 0,
            begun: 0,
            wait: FIRST_WAIT,
            deadline: None,
            lease: None,
            times: (0, 0, 0),
        }
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Whether it waits for servers at all.
    pub fn runs(&self) -> bool {
        self.state != State::Off
    }

    /// Handles an event at `now`, in milliseconds.
    pub fn handle(&mut self, event: Event<'_>, now: u64) -> Vec<Action> {
        match event {
            Event::Start(mode) => self.start(mode, now),
            Event::LinkUp => self.link_up(now),
            Event::Received(message) => self.received(message, now),
            Event::Tick => self.tick(now),
        }
    }

    fn start(&mut self, mode: Mode, now: u64) -> Vec<Action> {
        if mode == self.mode && self.runs() {
            return Vec::new();
        }
        self.mode = mode;
        match mode {
            Mode::Off => {
                self.state = State::Off;
                self.deadline = None;
                self.lose("routers do not point to DHCPv6 any more")
            }
            Mode::Stateless => {
                let lost = if self.lease.as_ref().is_some_and(|lease| !lease.addresses.is_empty()) {
                    self.lose("addresses are not given any more")
                } else {
                    Vec::new()
                };
                lost.into_iter().chain(self.begin(State::Asking, now)).collect()
            }
            Mode::Stateful => self.begin(State::Soliciting, now),
        }
    }

    fn link_up(&mut self, now: u64) -> Vec<Action> {
        match self.state {
            State::Off => Vec::new(),
            State::Asking | State::Informed => self.begin(State::Asking, now),
            State::Soliciting | State::Requesting { .. } => self.begin(State::Soliciting, now),
            // Whether the addresses still fit here.
            State::Bound { .. } | State::Renewing { .. } | State::Rebinding => self.begin(State::Rebinding, now),
        }
    }

    fn lose(&mut self, reason: &'static str) -> Vec<Action> {
        if self.lease.take().is_some() { vec![Action::Lost(reason)] } else { Vec::new() }
    }

    /// Begins an exchange: a new number, the first message.
    fn begin(&mut self, state: State, now: u64) -> Vec<Action> {
        self.state = state;
        self.transaction = self.roll() as u32 & 0xff_ffff;
        self.begun = now;
        self.wait = FIRST_WAIT;
        self.send(now)
    }

    /// A number for which nothing but variety is promised.
    fn roll(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn send(&mut self, now: u64) -> Vec<Action> {
        let (kind, server, addresses) = match &self.state {
            State::Off | State::Informed | State::Bound { .. } => return Vec::new(),
            State::Asking => (Kind::Information, Vec::new(), Vec::new()),
            State::Soliciting => (Kind::Solicit, Vec::new(), Vec::new()),
            State::Requesting { server, offered, .. } => (Kind::Request, server.clone(), offered.clone()),
            State::Renewing { server } => (Kind::Renew, server.clone(), self.given()),
            State::Rebinding => (Kind::Rebind, Vec::new(), self.given()),
        };
        let mut message = Message6::new(kind, self.transaction);
        message.client = self.duid.clone();
        message.server = server;
        message.set = (kind != Kind::Information).then_some(self.set);
        message.addresses = addresses;
        message.rapid = kind == Kind::Solicit;
        message.elapsed = u16::try_from(now.saturating_sub(self.begun) / 10).unwrap_or(u16::MAX);
        // A tenth more or less, so that a hall of hosts does not ask as one.
        let jitter = self.wait / 10;
        let wait = self.wait - jitter + self.roll() % (2 * jitter + 1);
        let mut next = now + wait;
        match self.state {
            State::Renewing { .. } => next = next.min(self.times.1),
            State::Rebinding => next = next.min(self.times.2),
            _ => {}
        }
        self.deadline = Some(next);
        let longest = if matches!(kind, Kind::Renew | Kind::Rebind) { LONGEST_RENEW_WAIT } else { LONGEST_WAIT };
        self.wait = (self.wait * 2).min(longest);
        vec![Action::Send(message)]
    }

    fn given(&self) -> Vec<Given> {
        self.lease.as_ref().map(|lease| lease.addresses.clone()).unwrap_or_default()
    }

    fn tick(&mut self, now: u64) -> Vec<Action> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        match &mut self.state {
            State::Off => {
                self.deadline = None;
                Vec::new()
            }
            State::Informed => self.begin(State::Asking, now),
            State::Bound { server } => {
                let server = std::mem::take(server);
                self.begin(State::Renewing { server }, now)
            }
            State::Renewing { .. } if now >= self.times.1 => self.begin(State::Rebinding, now),
            State::Rebinding if now >= self.times.2 => {
                let lost = self.lose("no server has renewed the addresses");
                lost.into_iter().chain(self.begin(State::Soliciting, now)).collect()
            }
            State::Requesting { tries, .. } => {
                *tries += 1;
                if *tries >= MOST_REQUESTS { self.begin(State::Soliciting, now) } else { self.send(now) }
            }
            _ => self.send(now),
        }
    }

    fn received(&mut self, message: &Message6, now: u64) -> Vec<Action> {
        if message.client != self.duid || message.transaction != self.transaction || message.server.is_empty() {
            return Vec::new();
        }
        let usable = message.set == Some(self.set) && message.status == 0 && message.addresses.iter().any(|given| given.valid > 0);
        match (&self.state, message.kind) {
            (State::Asking, Kind::Reply) => {
                self.state = State::Informed;
                let seconds = message.refresh.unwrap_or(REFRESH).max(600);
                self.deadline = Some(now + u64::from(seconds) * 1000);
                let lease = Lease6 { addresses: Vec::new(), information: message.information.clone() };
                self.lease = Some(lease.clone());
                vec![Action::Use(lease)]
            }
            (State::Soliciting, Kind::Advertise) if usable => {
                let state = State::Requesting { server: message.server.clone(), offered: message.addresses.clone(), tries: 0 };
                self.begin(state, now)
            }
            (State::Soliciting, Kind::Reply) if usable && message.rapid => self.bind(message, now),
            (State::Requesting { .. } | State::Renewing { .. } | State::Rebinding, Kind::Reply) if usable => self.bind(message, now),
            // It does not know us (any more), or has nothing: begin anew; the lease in hand holds until its time is over.
            (State::Requesting { .. }, Kind::Reply) => self.retry(now),
            (State::Renewing { .. } | State::Rebinding, Kind::Reply) if message.status != 0 => self.begin(State::Soliciting, now),
            _ => Vec::new(),
        }
    }

    /// Looks for a server again, but not at once: the same one would say the same.
    fn retry(&mut self, now: u64) -> Vec<Action> {
        self.state = State::Soliciting;
        self.transaction = self.roll() as u32 & 0xff_ffff;
        self.begun = now;
        self.deadline = Some(now + self.wait);
        Vec::new()
    }

    fn bind(&mut self, message: &Message6, now: u64) -> Vec<Action> {
        let addresses: Vec<Given> = message.addresses.iter().copied().filter(|given| given.valid > 0).collect();
        let shortest = addresses.iter().map(|given| given.preferred.min(given.valid)).min().unwrap_or(0);
        let longest = addresses.iter().map(|given| given.valid).max().unwrap_or(0);
        let at = |seconds: u32| if seconds == u32::MAX { u64::MAX } else { now.saturating_add(u64::from(seconds) * 1000) };
        let share = |part: u32| if shortest == u32::MAX { u32::MAX } else { shortest / 10 * part + shortest % 10 * part / 10 };
        let (first, second) = message.times;
        let second = if second == 0 { share(8) } else { second };
        let first = if first == 0 || first > second { share(5).min(second) } else { first };
        self.times = (at(first), at(second), at(longest));
        self.state = State::Bound { server: message.server.clone() };
        self.deadline = (self.times.0 != u64::MAX).then_some(self.times.0);
        let lease = Lease6 { addresses, information: message.information.clone() };
        self.lease = Some(lease.clone());
        vec![Action::Use(lease)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn sent(actions: &[Action]) -> &Message6 {
        match actions {
            [.., Action::Send(message)] => message,
            other => unreachable!("{other:?}"),
        }
    }

    fn answer(to: &Message6, kind: Kind, valid: u32) -> Message6 {
        Message6 {
            client: to.client.clone(),
            server: vec![7],
            set: to.set,
            addresses: vec![Given { address: "2001:db8::5".parse().unwrap(), preferred: valid, valid }],
            ..Message6::new(kind, to.transaction)
        }
    }

    fn bound(client: &mut Client6, now: u64, valid: u32) {
        let actions = client.handle(Event::Start(Mode::Stateful), now);
        let offer = answer(sent(&actions), Kind::Advertise, valid);
        let actions = client.handle(Event::Received(&offer), now);
        let request = sent(&actions);
        assert_eq!((request.kind, request.server.as_slice(), request.addresses.len()), (Kind::Request, &[7][..], 1));
        let reply = answer(request, Kind::Reply, valid);
        assert!(matches!(client.handle(Event::Received(&reply), now).as_slice(), [Action::Use(lease)] if lease.addresses.len() == 1));
    }

    #[test]
    fn four_messages_give_an_address_and_its_time_runs_through_renewal_to_the_end() {
        let mut client = Client6::new(MAC, 1);
        bound(&mut client, 0, 100);
        assert_eq!(client.deadline(), Some(50_000));
        assert_eq!(sent(&client.handle(Event::Tick, 50_000)).kind, Kind::Renew);
        assert_eq!(sent(&client.handle(Event::Tick, 80_000)).kind, Kind::Rebind);
        let actions = client.handle(Event::Tick, 100_000);
        assert!(matches!(actions.as_slice(), [Action::Lost(_), Action::Send(message)] if message.kind == Kind::Solicit), "{actions:?}");
    }

    #[test]
    fn a_renewal_starts_the_time_anew() {
        let mut client = Client6::new(MAC, 1);
        bound(&mut client, 0, 100);
        let actions = client.handle(Event::Tick, 50_000);
        let reply = answer(sent(&actions), Kind::Reply, 100);
        client.handle(Event::Received(&reply), 51_000);
        assert_eq!(client.deadline(), Some(101_000));
        assert!(client.handle(Event::Received(&reply), 51_001).is_empty(), "the same again is nothing new");
    }

    #[test]
    fn a_server_that_supports_it_needs_two_messages() {
        let mut client = Client6::new(MAC, 1);
        let actions = client.handle(Event::Start(Mode::Stateful), 0);
        let mut reply = answer(sent(&actions), Kind::Reply, 100);
        assert!(client.handle(Event::Received(&reply), 1).is_empty(), "without rapid commit it is no answer to a solicit");
        reply.rapid = true;
        assert!(matches!(client.handle(Event::Received(&reply), 1).as_slice(), [Action::Use(_)]));
    }

    #[test]
    fn strangers_are_not_believed_and_silence_is_asked_again() {
        let mut client = Client6::new(MAC, 1);
        let actions = client.handle(Event::Start(Mode::Stateful), 0);
        let offer = answer(sent(&actions), Kind::Advertise, 100);
        for wrong in [
            Message6 { transaction: offer.transaction ^ 1, ..offer.clone() },
            Message6 { client: vec![1], ..offer.clone() },
            Message6 { server: Vec::new(), ..offer.clone() },
            Message6 { status: 2, ..offer.clone() },
            Message6 { addresses: Vec::new(), ..offer.clone() },
        ] {
            assert!(client.handle(Event::Received(&wrong), 10).is_empty(), "{wrong:?}");
        }
        let (mut now, mut waits) = (0, Vec::new());
        for _ in 0..9 {
            let next = client.deadline().unwrap();
            waits.push(next - now);
            now = next;
            assert_eq!(sent(&client.handle(Event::Tick, now)).kind, Kind::Solicit);
        }
        assert!(waits[0] >= 900 && waits[0] <= 1100 && waits[8] >= 108_000 && waits[8] <= 132_000, "{waits:?}");
    }

    #[test]
    fn without_addresses_only_the_rest_is_asked_for() {
        let mut client = Client6::new(MAC, 1);
        let actions = client.handle(Event::Start(Mode::Stateless), 0);
        let request = sent(&actions);
        assert_eq!((request.kind, request.set), (Kind::Information, None));
        let mut reply = answer(request, Kind::Reply, 1);
        reply.information.dns.push("2001:db8::53".parse().unwrap());
        assert!(matches!(client.handle(Event::Received(&reply), 5).as_slice(), [Action::Use(lease)] if lease.addresses.is_empty()));
        assert_eq!(client.deadline(), Some(5 + 86_400_000));
        assert!(client.handle(Event::Start(Mode::Stateless), 6).is_empty(), "each advertisement says so again");
        assert!(matches!(client.handle(Event::Start(Mode::Off), 7).as_slice(), [Action::Lost(_)]));
    }
}
