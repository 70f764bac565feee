//! IPv6 against a real kernel, radvd and dnsmasq; virtual links and link files against the kernel; in namespaces of their own.

use super::lab::{Lab, run, until};
use std::net::Ipv6Addr;

const SIX: &str = "[Match]\nName=c0\n[Network]\nIPv6AcceptRA=yes\n";

fn six(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn routers_give_address_route_and_name_servers() {
    let Some(mut lab) = Lab::new(1) else { return };
    run(&format!("ip -n {} addr add 2001:db8:7::1/64 dev s0 nodad", lab.server));
    lab.radvd("prefix 2001:db8:7::/64 { }; RDNSS 2001:db8:7::53 { AdvRDNSSLifetime 60; }; DNSSL lab6.example { AdvDNSSLLifetime 60; };");
    lab.file("10.network", SIX);
    let mut daemon = lab.daemon();
    let status = until(&mut daemon, "online by IPv6", |status| status.online && !status.dns.is_empty());
    assert!(status.links[0].addresses.iter().any(|address| address.starts_with("2001:db8:7:")), "{status:?}");
    assert_eq!(status.dns, [std::net::IpAddr::V6(six("2001:db8:7::53"))]);
    assert_eq!(status.domains, ["lab6.example"]);
    let resolv = std::fs::read_to_string(lab.path("run/garboard/resolv.conf")).unwrap();
    assert!(resolv.contains("nameserver 2001:db8:7::53\nsearch lab6.example\n"), "{resolv}");
    assert!(status.links[0].dhcp6.is_empty(), "nobody said that DHCPv6 is to be asked");
    // A restart finds out again, without waiting for the next advertisement to come by itself.
    drop(daemon);
    let mut daemon = lab.daemon();
    until(&mut daemon, "the name server again", |status| status.dns == [std::net::IpAddr::V6(six("2001:db8:7::53"))]);
    // The router takes its server back when it goes.
    lab.file("10.network", &format!("{SIX}[IPv6AcceptRA]\nUseDNS=no\n"));
    until(&mut daemon, "no name servers", |status| status.dns.is_empty());
}

#[test]
fn managed_addresses_come_by_dhcpv6_soon_after_the_router_says_so() {
    let Some(mut lab) = Lab::new(1) else { return };
    run(&format!("ip -n {} addr add 2001:db8:8::1/64 dev s0 nodad", lab.server));
    lab.dnsmasq("--interface=s0 --enable-ra --dhcp-range=2001:db8:8::100,2001:db8:8::1ff,64,300 --dhcp-option=option6:dns-server,[2001:db8:8::53] --dhcp-option=option6:domain-search,six.example");
    lab.file("10.network", SIX);
    let mut daemon = lab.daemon();
    let status = until(&mut daemon, "an address by DHCPv6", |status| status.links.iter().any(|link| !link.dhcp6.is_empty()));
    let link = &status.links[0];
    println!("DHCPv6 took {} ms from the router's word to the address", link.dhcp6_after_ms.unwrap());
    // dnsmasq answers within a few ms; what is over is ours, and the machine may be busy.
    assert!(link.dhcp6_after_ms.unwrap() < 1000);
    let given = format!("{}/128", link.dhcp6[0].address);
    let status = until(&mut daemon, "online", |status| status.online && status.links[0].addresses.contains(&given));
    assert!(status.dns.contains(&std::net::IpAddr::V6(six("2001:db8:8::53"))), "{status:?}");
    assert!(status.domains.contains(&"six.example".to_owned()), "{status:?}");
    let address = status.links[0].dhcp6[0].address;
    let shown = lab.ip("-6 addr show dev c0");
    assert!(shown.contains(&format!("inet6 {address}/128")) && shown.contains("valid_lft"), "{shown}");
    run(&format!("ip netns exec {} ping -6 -c1 -W2 2001:db8:8::1", lab.client));
    // A restart keeps the address, and gets the same.
    drop(daemon);
    let mut daemon = lab.daemon();
    assert!(lab.ip("-6 addr show dev c0").contains(&format!("inet6 {address}/128")), "the restart took the address away");
    let again = until(&mut daemon, "the lease again", |status| status.links.iter().any(|link| !link.dhcp6.is_empty()));
    assert_eq!(again.links[0].dhcp6[0].address, address);
}

#[test]
fn where_routers_give_addresses_dhcpv6_gives_the_rest() {
    let Some(mut lab) = Lab::new(1) else { return };
    run(&format!("ip -n {} addr add 2001:db8:9::1/64 dev s0 nodad", lab.server));
    // Without RDNSS of its own the server must be asked.
    lab.dnsmasq("--interface=s0 --enable-ra --dhcp-range=2001:db8:9::,ra-stateless,64,300 --dhcp-option=option6:sntp-server,[2001:db8:9::9] --dhcp-option=option6:dns-server,[2001:db8:9::53]");
    lab.file("10.network", &format!("{SIX}[IPv6AcceptRA]\nUseDNS=no\n"));
    let mut daemon = lab.daemon();
    let status = until(&mut daemon, "time and name servers", |status| !status.ntp.is_empty() && status.online);
    assert_eq!(status.ntp, ["2001:db8:9::9"]);
    assert_eq!(status.dns, [std::net::IpAddr::V6(six("2001:db8:9::53"))]);
    assert!(status.links[0].dhcp6.is_empty(), "{status:?}");
    assert!(status.links[0].addresses.iter().any(|address| address.starts_with("2001:db8:9:")), "{status:?}");
}

#[test]
fn both_families_work_side_by_side_and_a_flapping_link_ends_up_right() {
    let Some(mut lab) = Lab::new(1) else { return };
    run(&format!("ip -n {} addr add 2001:db8:7::1/64 dev s0 nodad", lab.server));
    lab.radvd("prefix 2001:db8:7::/64 { }; RDNSS 2001:db8:7::53 { AdvRDNSSLifetime 60; };");
    lab.dnsmasq("--interface=s0 --dhcp-range=10.0.0.50,10.0.0.60,300 --dhcp-option=option:dns-server,10.0.0.53");
    lab.file("10.network", "[Match]\nName=c0\n[Network]\nDHCP=yes\nAddress=172.20.0.7/24\n");
    let mut daemon = lab.daemon();
    let complete = |status: &super::published::NetworkStatus| {
        let has = |start: &str| status.links[0].addresses.iter().any(|address| address.starts_with(start));
        status.online && status.dns.len() == 2 && has("10.0.0.") && has("172.20.0.7/24") && has("2001:db8:7:")
    };
    until(&mut daemon, "all addresses", complete);
    for _ in 0..5 {
        run(&format!("ip -n {} link set s0 down", lab.server));
        daemon.turn(Some(20)).unwrap();
        run(&format!("ip -n {} link set s0 up", lab.server));
        daemon.turn(Some(20)).unwrap();
    }
    run(&format!("ip -n {} addr replace 2001:db8:7::1/64 dev s0 nodad", lab.server));
    until(&mut daemon, "all addresses again", complete);
    assert!(lab.ip("route show default").contains("via 10.0.0.1 dev c0"));
}

#[test]
fn a_bridge_is_made_and_its_member_put_into_it() {
    let Some(lab) = Lab::new(1) else { return };
    lab.file("10-bridge.netdev", "[NetDev]\nName=bridge7\nKind=bridge\nMACAddress=02:00:00:00:07:07\n");
    lab.file("20-c0.network", "[Match]\nName=c0\n[Network]\nBridge=bridge7\n");
    lab.file("30-bridge.network", "[Match]\nName=bridge7\n[Network]\nAddress=10.0.0.2/24\nGateway=10.0.0.1\n");
    let mut daemon = lab.daemon();
    until(&mut daemon, "the bridge", |status| {
        status.online && status.links.iter().any(|l| l.name == "bridge7" && l.carrier && l.addresses.contains(&"10.0.0.2/24".to_owned()))
    });
    assert!(lab.ip("link show c0").contains("master bridge7"));
    assert!(lab.ip("link show bridge7").contains("02:00:00:00:07:07"));
    let ping = || std::process::Command::new("ip").args(["netns", "exec", &lab.client, "ping", "-c1", "-W1", "10.0.0.1"]).output().unwrap();
    let begun = std::time::Instant::now();
    while !ping().status.success() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "the bridge does not forward");
    }
    assert!(daemon.status().problems.is_empty(), "{:?}", daemon.status().problems);
}

#[test]
fn a_link_file_gives_name_and_mtu_before_anything_is_set_up() {
    let Some(lab) = Lab::new(1) else { return };
    lab.file("10-up.link", "[Match]\nOriginalName=c0\n[Link]\nName=uplink0\nMTUBytes=1300\nMACAddressPolicy=none\n");
    lab.file("20-up.network", "[Match]\nName=uplink0\n[Network]\nAddress=10.0.0.9/24\nGateway=10.0.0.1\n");
    let mut daemon = lab.daemon();
    let status = until(&mut daemon, "online", |status| status.online);
    assert_eq!((status.links[0].name.as_str(), status.links[0].mtu), ("uplink0", 1300));
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    run(&format!("ip netns exec {} ping -c1 -W2 10.0.0.1", lab.client));
}
