//! What the daemon knows, in the words of `network.json`, and back after a restart.

use super::daemon::{Daemon, Managed};
use super::dhcp_state::Client;
use super::host_facts::mac_text;
use super::netlink::{Address, Route};
use super::plan::LinkState;
use super::published::{self, Configured, LinkStatus, NetworkStatus, RouteStatus};
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Daemon {
    /// All that [`published`](super::published) writes, from what is known now.
    pub(super) fn current_status(&self) -> NetworkStatus {
        let mut status = NetworkStatus {
            problems: self.settings.complaints.iter().chain(&self.problems).cloned().collect(),
            ..NetworkStatus::default()
        };
        let mut ranked: Vec<(u32, &Managed)> = self.managed.iter().map(|(index, managed)| (*index, managed)).collect();
        ranked.sort_by_key(|(index, managed)| {
            (managed.desired.state.routes.iter().filter(|r| r.prefix == 0).map(|r| r.metric).min().unwrap_or(u32::MAX), *index)
        });
        let mut fours = Vec::new();
        for (index, managed) in ranked {
            let Some(link) = self.links.get(&index) else { continue };
            let of_link: Vec<&(Address, bool)> = self.addresses.iter().filter(|(address, _)| address.link == index).collect();
            fours.extend(of_link.iter().filter_map(|(address, _)| match address.address {
                IpAddr::V4(four) => Some(four),
                IpAddr::V6(_) => None,
            }));
            merge(&mut status.dns, &managed.desired.dns);
            merge(&mut status.domains, &managed.desired.domains);
            merge(&mut status.ntp, &managed.desired.ntp);
            let usable = of_link.iter().any(|(address, tentative)| !tentative && is_global(address.address));
            let routed = self.defaults.iter().any(|route| route.link == index);
            // Somebody who sets an address and no gateway by hand wants no default route.
            let by_hand =
                !managed.file.dhcp && !managed.file.addresses.is_empty() && managed.file.routes.iter().all(|r| r.destination.length > 0);
            status.online |= managed.file.required_for_online && link.carrier && usable && (routed || by_hand);
            status.links.push(LinkStatus {
                name: link.name.clone(),
                index,
                mac: mac_text(link),
                mtu: link.mtu,
                carrier: link.carrier,
                file: managed.file.name.clone(),
                required_for_online: managed.file.required_for_online,
                addresses: of_link.iter().map(|(address, _)| format!("{}/{}", address.address, address.prefix)).collect(),
                configured: configured(&managed.applied),
                lease: managed.client.as_ref().and_then(Client::lease).cloned(),
                leased_at: managed.leased_at,
                configured_after_ms: managed.configured_after,
                dhcp6: managed.ipv6.given(),
                dhcp6_after_ms: managed.ipv6.configured_after,
            });
        }
        (status.private_ipv4, status.public_ipv4) = published::choose_addresses(&fours);
        status
    }

    /// Writes the files for others when anything in them has changed.
    pub(super) fn publish(&mut self) {
        let status = self.current_status();
        if self.published.as_ref() == Some(&status) {
            return;
        }
        let json = serde_json::to_string_pretty(&status).unwrap_or_default();
        for (path, text) in [
            (self.paths.run("resolv.conf"), published::resolv_conf(&status)),
            (self.paths.run("environment"), published::environment(&status)),
            // Last: who waits for it finds the others written.
            (self.paths.run("network.json"), json),
        ] {
            if let Err(error) = published::write_whole(&path, &text) {
                eprintln!("<3>cannot write {}: {error}", path.display());
            }
        }
        super::time_sources::publish(&self.paths.root, &published::chrony_sources(&status));
        if status.online && self.published.as_ref().is_none_or(|before| !before.online) {
            eprintln!("<6>online");
        }
        self.published = Some(status);
    }
}

fn merge<T: Clone + PartialEq>(all: &mut Vec<T>, more: &[T]) {
    for one in more {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => !four.is_loopback() && !four.is_link_local(),
        IpAddr::V6(six) => !six.is_loopback() && !six.is_unicast_link_local(),
    }
}

fn configured(state: &LinkState) -> Configured {
    Configured {
        addresses: state.addresses.iter().map(|address| format!("{}/{}", address.address, address.prefix)).collect(),
        routes: state
            .routes
            .iter()
            .map(|route| RouteStatus {
                destination: format!("{}/{}", route.destination, route.prefix),
                gateway: route.gateway,
                source: route.source,
                metric: route.metric,
                onlink: route.onlink,
            })
            .collect(),
    }
}

/// What an earlier daemon had set, by link name.
pub(super) fn inherited_states(status: &NetworkStatus) -> BTreeMap<String, LinkState> {
    let split = |text: &str| text.split_once('/').and_then(|(address, length)| Some((address.parse().ok()?, length.parse().ok()?)));
    let state = |link: &LinkStatus| LinkState {
        addresses: link
            .configured
            .addresses
            .iter()
            .filter_map(|text| split(text))
            .map(|(address, prefix)| Address { link: link.index, address, prefix })
            .collect(),
        routes: link
            .configured
            .routes
            .iter()
            .filter_map(|route| {
                let (destination, prefix) = split(&route.destination)?;
                Some(Route {
                    link: link.index,
                    destination,
                    prefix,
                    gateway: route.gateway,
                    source: route.source,
                    metric: route.metric,
                    onlink: route.onlink,
                })
            })
            .collect(),
    };
    status.links.iter().map(|link| (link.name.clone(), state(link))).collect()
}
