//! The DHCP client against servers that answer, refuse, and fall silent.

use super::*;
use proptest::prelude::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 2, 2];

fn client(remembered: Option<Lease>) -> Client {
    Client::new(Identity { mac: MAC, hostname: None, seed: 7 }, remembered)
}

fn reply(kind: Kind, to: &Message, seconds: u32) -> Message {
    Message {
        kind,
        reply: true,
        yiaddr: Ipv4Addr::new(10, 0, 2, 15),
        options: vec![(code::SERVER_ID, SERVER.to_vec()), (code::LEASE_TIME, seconds.to_be_bytes().to_vec())],
        ..to.clone()
    }
}

fn sent(actions: &[Action]) -> Message {
    match actions {
        [Action::Broadcast(message) | Action::Unicast(_, message)] => message.clone(),
        other => panic!("expected one message, got {other:?}"),
    }
}

fn bound(client: &mut Client, now: Millis, seconds: u32) {
    let discover = sent(&client.handle(Event::CarrierUp, now));
    let request = sent(&client.handle(Event::Received(&reply(Kind::Offer, &discover, seconds)), now));
    assert_eq!(request.address_option(code::SERVER_ID), Some(SERVER.into()));
    assert!(matches!(client.handle(Event::Received(&reply(Kind::Ack, &request, seconds)), now)[..], [Action::Bound(_)]));
}

#[test]
fn four_messages_make_a_lease() {
    let mut client = client(None);
    bound(&mut client, 0, 3600);
    assert_eq!(client.deadline(), Some(1_800_000));
    assert!(!client.listens());
}

#[test]
fn silence_is_answered_by_asking_again_slower_and_slower() {
    let mut client = client(None);
    let mut now = 0;
    let mut waits = Vec::new();
    client.handle(Event::CarrierUp, now);
    for _ in 0..9 {
        let next = client.deadline().unwrap();
        waits.push(next - now);
        now = next;
        assert_eq!(sent(&client.handle(Event::Tick, now)).kind, Kind::Discover);
    }
    for (wait, full) in waits.iter().zip([300, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]) {
        assert!((full * 4 / 5..=full).contains(wait), "{waits:?}");
    }
}

#[test]
fn every_other_try_does_without_the_mtu() {
    let mut client = client(None);
    let asks = |message: &Message| message.option(code::PARAMETERS).unwrap().contains(&code::MTU);
    assert!(asks(&sent(&client.handle(Event::CarrierUp, 0))));
    assert!(!asks(&sent(&client.handle(Event::Tick, 300))));
}

#[test]
fn a_lease_is_renewed_then_rebound_then_lost() {
    let mut client = client(None);
    bound(&mut client, 0, 100);
    let mut log = Vec::new();
    let mut now = 0;
    while now < 100_000 {
        now = client.deadline().unwrap();
        for action in client.handle(Event::Tick, now) {
            log.push((
                now / 1000,
                match action {
                    Action::Unicast(server, message) => {
                        assert_eq!((server, message.ciaddr), (SERVER.into(), Ipv4Addr::new(10, 0, 2, 15)));
                        "renew"
                    }
                    Action::Broadcast(message) if message.kind == Kind::Request => "rebind",
                    Action::Broadcast(_) => "discover",
                    Action::Lost(_) => "lost",
                    Action::Bound(_) => "bound",
                },
            ));
        }
    }
    assert_eq!(log.first(), Some(&(50, "renew")));
    assert!(log.contains(&(87, "rebind")), "{log:?}");
    assert_eq!(&log[log.len() - 2..], [(100, "lost"), (100, "discover")]);
}

#[test]
fn an_answered_renewal_starts_the_time_anew() {
    let mut client = client(None);
    bound(&mut client, 0, 100);
    let request = sent(&client.handle(Event::Tick, 50_000));
    assert!(matches!(client.handle(Event::Received(&reply(Kind::Ack, &request, 100)), 50_100)[..], [Action::Bound(_)]));
    assert_eq!(client.deadline(), Some(100_100));
}

#[test]
fn a_remembered_lease_saves_a_round_and_a_refusal_starts_over() {
    let remembered = reply(Kind::Ack, &Message::of_client(Kind::Request, 0, MAC), 3600).lease();
    let mut client = client(remembered.clone());
    let request = sent(&client.handle(Event::CarrierUp, 0));
    assert_eq!((request.kind, request.address_option(code::REQUESTED_ADDRESS)), (Kind::Request, Some(Ipv4Addr::new(10, 0, 2, 15))));
    assert_eq!(request.option(code::SERVER_ID), None);
    let mut agreed = client.clone();
    assert!(matches!(agreed.handle(Event::Received(&reply(Kind::Ack, &request, 60)), 5)[..], [Action::Bound(_)]));
    let discover = sent(&client.handle(Event::Received(&reply(Kind::Nak, &request, 60)), 5));
    assert_eq!((discover.kind, discover.option(code::REQUESTED_ADDRESS)), (Kind::Discover, None));
    assert_ne!(discover.xid, request.xid);
}

#[test]
fn a_server_that_keeps_refusing_is_not_asked_without_pause() {
    let mut client = client(None);
    let mut now = 0;
    let mut message = sent(&client.handle(Event::CarrierUp, now));
    let mut discovers = 0;
    while now < 60_000 {
        let answer = if message.kind == Kind::Discover { Kind::Offer } else { Kind::Nak };
        let mut actions = client.handle(Event::Received(&reply(answer, &message, 60)), now);
        if actions.is_empty() {
            now = client.deadline().unwrap();
            actions = client.handle(Event::Tick, now);
        }
        message = sent(&actions);
        discovers += usize::from(message.kind == Kind::Discover);
    }
    assert!(discovers < 10, "{discovers}");
}

#[test]
fn a_pulled_cable_keeps_the_address_and_a_new_network_takes_it() {
    let mut client = client(None);
    bound(&mut client, 0, 3600);
    assert_eq!(client.handle(Event::CarrierDown, 1000), []);
    assert!(client.lease().is_some());
    let request = sent(&client.handle(Event::CarrierUp, 2000));
    assert_eq!(request.kind, Kind::Request);
    let actions = client.handle(Event::Received(&reply(Kind::Nak, &request, 0)), 2001);
    assert!(matches!(actions[..], [Action::Lost(_), Action::Broadcast(_)]), "{actions:?}");
}

#[test]
fn answers_to_others_are_not_ours() {
    let mut client = client(None);
    let discover = sent(&client.handle(Event::CarrierUp, 0));
    let offer = reply(Kind::Offer, &discover, 60);
    for other in [
        Message { xid: offer.xid ^ 1, ..offer.clone() },
        Message { mac: [9; 6], ..offer.clone() },
        Message { reply: false, ..offer.clone() },
        Message { yiaddr: Ipv4Addr::UNSPECIFIED, ..offer.clone() },
    ] {
        assert_eq!(client.handle(Event::Received(&other), 1), []);
    }
}

proptest! {
    #[test]
    fn whatever_happens_it_goes_on_asking(steps in proptest::collection::vec((0u8..6, 1u64..200_000, 0u32..2000), 1..60)) {
        let mut client = client(None);
        let mut now = 0;
        let mut last: Option<Message> = None;
        let mut up = false;
        for (step, wait, seconds) in steps {
            now += wait;
            let actions = match (step, &last) {
                (0, _) => { up = true; client.handle(Event::CarrierUp, now) }
                (1, _) => { up = false; client.handle(Event::CarrierDown, now) }
                (2, Some(message)) => client.handle(Event::Received(&reply(Kind::Offer, &message.clone(), seconds)), now),
                (3, Some(message)) => client.handle(Event::Received(&reply(Kind::Ack, &message.clone(), seconds)), now),
                (4, Some(message)) => client.handle(Event::Received(&reply(Kind::Nak, &message.clone(), seconds)), now),
                _ => client.handle(Event::Tick, now),
            };
            for action in &actions {
                if let Action::Broadcast(message) | Action::Unicast(_, message) = action { last = Some(message.clone()); }
            }
            let deadline = client.deadline();
            if up { prop_assert!(deadline.is_some(), "nothing would ever happen again"); }
            // A tick that is due must move the deadline on, or the daemon would spin.
            if let Some(due) = deadline.filter(|due| *due <= now) {
                client.handle(Event::Tick, now.max(due));
                prop_assert!(client.deadline().is_none_or(|next| next > now), "{client:?} at {now}");
            }
        }
    }
}
