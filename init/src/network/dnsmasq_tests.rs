//! The daemon against a real DHCP server (dnsmasq) and a real kernel, in network namespaces of its own.
//!
//! Needs root, `ip` and `dnsmasq`; without root each test fails, unless `GARBOARD_TESTS_MAY_SKIP` is set.

use super::lab::{Lab, run, until};
use super::published::NetworkStatus;
use std::time::{Duration, Instant};

const DHCP: &str = "[Match]\nName=c*\n[Network]\nDHCP=ipv4\n";

#[test]
fn a_lease_brings_address_route_mtu_dns_and_files_quickly() {
    let Some(mut lab) = Lab::new(1) else { return };
    lab.dnsmasq("--interface=s0 --dhcp-range=10.0.0.50,10.0.0.60,300 --dhcp-option=option:mtu,1400 --dhcp-option=option:dns-server,10.0.0.53 --dhcp-option=option:domain-search,a.example,b.example --dhcp-option=option:ntp-server,10.0.0.9 --domain=lab.example");
    lab.file("10.network", DHCP);
    let mut daemon = lab.daemon();
    assert!(std::fs::read_to_string(lab.path("run/garboard/environment")).unwrap().contains("COREOS_PRIVATE_IPV4=\n"));
    let status = until(&mut daemon, "online", |status| status.online);
    let link = &status.links[0];
    assert!(link.addresses.iter().any(|address| address.starts_with("10.0.0.5") || address.starts_with("10.0.0.60")), "{link:?}");
    println!(
        "bench: link up to configured address, dnsmasq answering | {} ms | 50 ms beyond the answer",
        link.configured_after_ms.unwrap()
    );
    // dnsmasq answers within a few ms; what is over is ours, and the machine may be busy.
    assert!(link.configured_after_ms.unwrap() < 1000);
    assert!(lab.ip("route show default").contains("via 10.0.0.1 dev c0"));
    let status = until(&mut daemon, "the MTU", |status| status.links[0].mtu == 1400);
    assert_eq!(status.domains, ["lab.example", "a.example", "b.example"]);
    let resolv = std::fs::read_to_string(lab.path("run/garboard/resolv.conf")).unwrap();
    assert!(resolv.contains("nameserver 10.0.0.53\nsearch lab.example a.example b.example\n"), "{resolv}");
    let environment = std::fs::read_to_string(lab.path("run/garboard/environment")).unwrap();
    assert!(environment.contains(&format!("COREOS_PRIVATE_IPV4={}\n", status.private_ipv4.unwrap())), "{environment}");
    assert_eq!(std::fs::read_to_string(lab.path("run/chrony-dhcp/garboard.sources")).unwrap(), "server 10.0.0.9 iburst\n");
}

#[test]
fn a_slash_32_address_with_classless_routes_reaches_its_gateway() {
    let Some(mut lab) = Lab::new(1) else { return };
    // dnsmasq leases from the link's own network, and says another mask to the client.
    lab.dnsmasq("--interface=s0 --dhcp-range=10.0.0.50,10.0.0.60,300 --dhcp-option-force=option:netmask,255.255.255.255 --dhcp-option=option:router,10.0.0.99 --dhcp-option=option:classless-static-route,0.0.0.0/0,10.0.0.1,192.168.7.0/24,10.0.0.2");
    lab.file("10.network", DHCP);
    let mut daemon = lab.daemon();
    let status = until(&mut daemon, "online", |status| status.online);
    assert!(status.links[0].addresses.iter().any(|address| address.ends_with("/32")), "{status:?}");
    let routes = lab.ip("route show");
    assert!(routes.contains("default via 10.0.0.1 dev c0") && routes.contains("onlink"), "{routes}");
    assert!(routes.contains("192.168.7.0/24 via 10.0.0.2"), "{routes}");
    assert!(!routes.contains("10.0.0.99"), "option 121 must hide option 3: {routes}");
    run(&format!("ip netns exec {} ping -c1 -W2 10.0.0.1", lab.client));
    assert!(status.problems.is_empty(), "{:?}", status.problems);
}

#[test]
fn a_short_lease_is_renewed_and_a_dead_server_costs_the_address_only_when_its_time_is_over() {
    let Some(mut lab) = Lab::new(1) else { return };
    // Two minutes is the shortest that dnsmasq gives; T1 and T2 may be said to be sooner.
    lab.dnsmasq("--interface=s0 --dhcp-range=10.0.0.50,10.0.0.60,120 --dhcp-option=option:T1,3 --dhcp-option=option:T2,60");
    lab.file("10.network", DHCP);
    let mut daemon = lab.daemon();
    let first = until(&mut daemon, "a lease", |status| status.links.iter().any(|link| link.lease.is_some()));
    let renewed = until(&mut daemon, "a renewal", |status| status.links[0].leased_at > first.links[0].leased_at);
    let address = |status: &NetworkStatus| status.links[0].lease.as_ref().map(|lease| lease.address);
    assert_eq!(address(&first), address(&renewed));
    assert_eq!(renewed.links[0].lease.as_ref().map(|lease| lease.renew), Some(3));
    lab.stop_servers();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        daemon.turn(Some(100)).unwrap();
    }
    assert!(daemon.status().online, "a server that is gone for seconds must not cost the address");
}

#[test]
fn a_lease_of_another_network_is_refused_and_a_new_one_taken() {
    let Some(mut lab) = Lab::new(1) else { return };
    lab.dnsmasq("--interface=s0 --dhcp-range=10.0.0.50,10.0.0.60,300");
    lab.file("10.network", DHCP);
    let mut daemon = lab.daemon();
    until(&mut daemon, "online", |status| status.online);
    drop(daemon);
    lab.stop_servers();
    run(&format!("ip -n {} addr flush dev s0", lab.server));
    run(&format!("ip -n {} addr add 10.77.0.1/24 dev s0", lab.server));
    // Authoritative: it says NAK to the address of before.
    lab.dnsmasq("--interface=s0 --dhcp-range=10.77.0.50,10.77.0.60,300 --dhcp-authoritative");
    let mut daemon = lab.daemon();
    until(&mut daemon, "the new address", |status| {
        status.online && status.links[0].addresses.iter().any(|address| address.starts_with("10.77.0."))
    });
    let addresses = lab.ip("-4 addr show dev c0");
    assert!(!addresses.contains("10.0.0."), "the refused address is still there: {addresses}");
}

#[test]
fn a_restart_keeps_the_address_and_asks_for_it_in_one_round() {
    let Some(mut lab) = Lab::new(1) else { return };
    lab.dnsmasq("--interface=s0 --dhcp-range=10.0.0.50,10.0.0.60,300");
    lab.file("10.network", DHCP);
    let mut daemon = lab.daemon();
    let before = until(&mut daemon, "online", |status| status.online);
    // Somebody else's address stays what it is.
    lab.ip("addr add 172.20.0.1/24 dev c0");
    drop(daemon);
    assert!(lab.ip("-4 addr show dev c0").contains("10.0.0."));
    let mut daemon = lab.daemon();
    assert!(lab.ip("-4 addr show dev c0").contains("10.0.0."), "the restart took the address away");
    let after = until(&mut daemon, "the lease", |status| status.links[0].lease.is_some());
    assert_eq!(before.links[0].lease.as_ref().map(|lease| lease.address), after.links[0].lease.as_ref().map(|lease| lease.address));
    assert!(lab.ip("-4 addr show dev c0").contains("172.20.0.1/24"));
}

#[test]
fn several_links_come_up_side_by_side_and_the_first_is_preferred() {
    let Some(mut lab) = Lab::new(3) else { return };
    lab.dnsmasq("--interface=s0 --interface=s2 --dhcp-range=10.0.0.50,10.0.0.60,300 --dhcp-range=10.2.0.50,10.2.0.60,300");
    lab.file("10.network", "[Match]\nName=c1\n[Network]\nAddress=10.1.0.7/24\n[Link]\nRequiredForOnline=no\n");
    lab.file("20.network", DHCP);
    let mut daemon = lab.daemon();
    until(&mut daemon, "three links", |status| {
        status.links.len() == 3 && status.links.iter().all(|link| link.addresses.iter().any(|a| a.starts_with("10.")))
    });
    let routes = lab.ip("route show default");
    let metrics: Vec<u32> =
        routes.lines().filter_map(|line| line.split("metric ").nth(1)?.split_whitespace().next()?.parse().ok()).collect();
    assert_eq!(metrics.len(), 2, "{routes}");
    assert!(routes.lines().next().unwrap().contains("dev c0"), "{routes}");
}

#[test]
fn a_changed_file_is_applied_and_a_pulled_cable_noticed() {
    let Some(lab) = Lab::new(1) else { return };
    lab.file("10.network", "[Match]\nName=c0\n[Network]\nAddress=10.0.0.7/24\nGateway=10.0.0.1\nDNS=10.0.0.53\nAddress=2001:db8::7/64\n[Route]\nDestination=192.168.0.0/16\nGateway=10.0.0.2\n[Link]\nMTUBytes=1300\n");
    let mut daemon = lab.daemon();
    until(&mut daemon, "online", |status| status.online && status.links[0].mtu == 1300);
    let routes = lab.ip("route show");
    assert!(routes.contains("default via 10.0.0.1 dev c0") && routes.contains("192.168.0.0/16 via 10.0.0.2"), "{routes}");
    assert!(lab.ip("-6 addr show dev c0").contains("2001:db8::7/64"));
    lab.file("10.network", "[Match]\nName=c0\n[Network]\nAddress=10.0.0.8/24\nGateway=10.0.0.1\nDNS=10.0.0.54\n");
    let status =
        until(&mut daemon, "the new address", |status| status.dns == ["10.0.0.54".parse::<std::net::IpAddr>().unwrap()] && status.online);
    let addresses = lab.ip("-4 addr show dev c0");
    assert!(addresses.contains("10.0.0.8/24") && !addresses.contains("10.0.0.7/24"), "{addresses}");
    assert!(!lab.ip("route show").contains("192.168.0.0/16"));
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    run(&format!("ip -n {} link set s0 down", lab.server));
    until(&mut daemon, "offline", |status| !status.online);
    run(&format!("ip -n {} link set s0 up", lab.server));
    until(&mut daemon, "online again", |status| status.online);
    assert!(lab.ip("route show").contains("default via 10.0.0.1 dev c0"));
}

#[test]
fn a_link_that_appears_late_is_set_up_like_one_that_was_there() {
    let Some(mut lab) = Lab::new(0) else { return };
    lab.file("10.network", DHCP);
    let mut daemon = lab.daemon();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        daemon.turn(Some(50)).unwrap();
    }
    assert!(daemon.status().links.is_empty() && !daemon.status().online);
    run(&format!("ip -n {} link add c5 type veth peer name s5 netns {}", lab.client, lab.server));
    run(&format!("ip -n {} addr add 10.5.0.1/24 dev s5", lab.server));
    run(&format!("ip -n {} link set s5 up", lab.server));
    lab.dnsmasq("--interface=s5 --dhcp-range=10.5.0.50,10.5.0.60,300");
    let status = until(&mut daemon, "online", |status| status.online);
    assert!(status.links[0].addresses.iter().any(|address| address.starts_with("10.5.0.")), "{status:?}");
    // It goes and another comes: nothing of the first is left.
    lab.ip("link del c5");
    until(&mut daemon, "offline", |status| !status.online && status.links.is_empty());
    lab.stop_servers();
    run(&format!("ip -n {} link add c6 type veth peer name s6 netns {}", lab.client, lab.server));
    run(&format!("ip -n {} addr add 10.6.0.1/24 dev s6", lab.server));
    run(&format!("ip -n {} link set s6 up", lab.server));
    lab.dnsmasq("--interface=s6 --dhcp-range=10.6.0.50,10.6.0.60,300");
    let status = until(&mut daemon, "online again", |status| status.online);
    assert_eq!((status.links.len(), status.links[0].name.as_str()), (1, "c6"));
    assert!(status.problems.is_empty(), "{:?}", status.problems);
}

#[test]
fn where_no_server_answers_the_other_links_are_online_and_the_daemon_goes_on_asking() {
    let Some(mut lab) = Lab::new(2) else { return };
    lab.file("10.network", "[Match]\nName=c0\n[Network]\nDHCP=ipv4\n");
    lab.file("20.network", "[Match]\nName=c1\n[Network]\nAddress=10.1.0.7/24\nGateway=10.1.0.1\n");
    let begun = Instant::now();
    let mut daemon = lab.daemon();
    assert!(begun.elapsed() < Duration::from_secs(2), "it starts without an answer: {:?}", begun.elapsed());
    let status = until(&mut daemon, "the other link", |status| status.online);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(status.links.iter().all(|link| link.lease.is_none()), "{status:?}");
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_secs(3) {
        daemon.turn(Some(100)).unwrap();
    }
    // The server comes at last.
    lab.dnsmasq("--interface=s0 --dhcp-range=10.0.0.50,10.0.0.60,300");
    until(&mut daemon, "the lease", |status| status.links.iter().any(|link| link.lease.is_some()));
}
