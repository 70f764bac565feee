//! `[Socket]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::socket::{BindIpv6Only, Listen, SocketAddress, SocketConfig};
use crate::value::{self, ValueError, expected};
use crate::words::Escapes;

use super::setters::{
    boolean, choice, clean_path, commands, expand, list_with, mode, optional_number, optional_size, optional_span, optional_text,
    optional_unit, timeout, unsigned,
};
use super::{Effect, Input, Outcome, Table, refuse, warn, yes};

/// A path, `@abstract`, `vsock:CID:PORT`, `[v6]:port`, `v4:port` or a port.
fn address(text: &str) -> Result<SocketAddress, ValueError> {
    let bad = || expected(text, "an address to listen on (a path, a port, ADDRESS:PORT, @name)");
    if text.starts_with('/') {
        return if text.len() < 108 { Ok(SocketAddress::Unix(clean_path(text)?)) } else { Err(bad()) };
    }
    if let Some(name) = text.strip_prefix('@') {
        return if !name.is_empty() && name.len() < 108 { Ok(SocketAddress::Abstract(name.to_owned())) } else { Err(bad()) };
    }
    if let Some(rest) = text.strip_prefix("vsock:") {
        let (cid, port) = rest.split_once(':').ok_or_else(bad)?;
        let cid = if cid.is_empty() { None } else { Some(cid.parse().map_err(|_| bad())?) };
        return Ok(SocketAddress::Vsock(cid, port.parse().map_err(|_| bad())?));
    }
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(bad);
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, tail) = rest.split_once("]:").ok_or_else(bad)?;
        let (number, interface) = match tail.split_once('%') {
            Some((number, interface)) if !interface.is_empty() => (port(number)?, Some(interface.to_owned())),
            Some(_) => return Err(bad()),
            None => (port(tail)?, None),
        };
        let ip: Ipv6Addr = ip.parse().map_err(|_| bad())?;
        return Ok(SocketAddress::Inet(SocketAddr::new(IpAddr::V6(ip), number), interface));
    }
    if let Some((ip, number)) = text.split_once(':') {
        let ip: Ipv4Addr = ip.parse().map_err(|_| bad())?;
        return Ok(SocketAddress::Inet(SocketAddr::new(IpAddr::V4(ip), port(number)?), None));
    }
    Ok(SocketAddress::Port(port(text)?))
}

fn listen(config: &mut SocketConfig, input: &Input<'_>, make: fn(&str) -> Result<Listen, ValueError>) -> Outcome {
    if input.value.is_empty() {
        // An empty value of any kind resets the whole list.
        config.listen.clear();
        return Ok(Effect::None);
    }
    config.listen.push(make(&expand(input)?)?);
    Ok(Effect::Active)
}

fn netlink(text: &str) -> Result<Listen, ValueError> {
    let (family, group) = text.split_once([' ', '\t']).unwrap_or((text, "0"));
    let group = group.trim().parse().map_err(|_| expected(text, "a netlink family and a group number"))?;
    Ok(Listen::Netlink(family.to_owned(), group))
}

fn ip_tos(slot: &mut Option<i32>, input: &Input<'_>) -> Outcome {
    *slot = match input.value {
        "" => None,
        "low-delay" => Some(0x10),
        "throughput" => Some(0x08),
        "reliability" => Some(0x04),
        "low-cost" => Some(0x02),
        text => Some(text.parse().map_err(|_| expected(text, "a type of service"))?),
    };
    Ok(Effect::from(slot.is_some()))
}

pub(super) static SOCKET: Table<SocketConfig> = Table::new(&[
    yes("ListenStream", |c, i| listen(c, i, |text| Ok(Listen::Stream(address(text)?)))),
    yes("ListenDatagram", |c, i| listen(c, i, |text| Ok(Listen::Datagram(address(text)?)))),
    yes("ListenSequentialPacket", |c, i| listen(c, i, |text| Ok(Listen::SequentialPacket(address(text)?)))),
    yes("ListenFIFO", |c, i| listen(c, i, |text| Ok(Listen::Fifo(clean_path(text)?)))),
    yes("ListenSpecial", |c, i| listen(c, i, |text| Ok(Listen::Special(clean_path(text)?)))),
    warn("ListenNetlink", |c, i| listen(c, i, netlink)),
    warn("ListenMessageQueue", |c, i| listen(c, i, |text| Ok(Listen::MessageQueue(text.to_owned())))),
    warn("ListenUSBFunction", |c, i| listen(c, i, |text| Ok(Listen::UsbFunction(text.to_owned())))),
    warn("SocketProtocol", |c, i| optional_text(&mut c.protocol, i)),
    yes("BindIPv6Only", |c, i| {
        let values = [("default", BindIpv6Only::Default), ("both", BindIpv6Only::Both), ("ipv6-only", BindIpv6Only::Ipv6Only)];
        choice(&mut c.bind_ipv6_only, i, &values, "default, both or ipv6-only")
    }),
    yes("Backlog", |c, i| unsigned(&mut c.backlog, i)),
    yes("BindToDevice", |c, i| optional_text(&mut c.bind_to_device, i)),
    yes("SocketUser", |c, i| optional_text(&mut c.socket_user, i)),
    yes("SocketGroup", |c, i| optional_text(&mut c.socket_group, i)),
    yes("SocketMode", |c, i| mode(&mut c.socket_mode, i)),
    yes("DirectoryMode", |c, i| mode(&mut c.directory_mode, i)),
    yes("Accept", |c, i| boolean(&mut c.accept, i)),
    yes("Writable", |c, i| boolean(&mut c.writable, i)),
    warn("FlushPending", |c, i| boolean(&mut c.flush_pending, i)),
    yes("MaxConnections", |c, i| unsigned(&mut c.max_connections, i)),
    yes("MaxConnectionsPerSource", |c, i| unsigned(&mut c.max_connections_per_source, i)),
    yes("KeepAlive", |c, i| boolean(&mut c.keep_alive, i)),
    yes("KeepAliveTimeSec", |c, i| optional_span(&mut c.keep_alive_time, i)),
    yes("KeepAliveIntervalSec", |c, i| optional_span(&mut c.keep_alive_interval, i)),
    yes("KeepAliveProbes", |c, i| optional_number(&mut c.keep_alive_probes, i, 0..=u32::MAX, "a number")),
    yes("NoDelay", |c, i| boolean(&mut c.no_delay, i)),
    yes("Priority", |c, i| optional_number(&mut c.priority, i, i32::MIN..=i32::MAX, "a number")),
    yes("DeferAcceptSec", |c, i| optional_span(&mut c.defer_accept, i)),
    yes("ReceiveBuffer", |c, i| optional_size(&mut c.receive_buffer, i)),
    yes("SendBuffer", |c, i| optional_size(&mut c.send_buffer, i)),
    yes("IPTOS", |c, i| ip_tos(&mut c.ip_tos, i)),
    yes("IPTTL", |c, i| optional_number(&mut c.ip_ttl, i, 1..=255, "a number from 1 to 255")),
    yes("Mark", |c, i| optional_number(&mut c.mark, i, 0..=u32::MAX, "a number")),
    yes("ReusePort", |c, i| boolean(&mut c.reuse_port, i)),
    yes("FreeBind", |c, i| boolean(&mut c.free_bind, i)),
    yes("Transparent", |c, i| boolean(&mut c.transparent, i)),
    yes("Broadcast", |c, i| boolean(&mut c.broadcast, i)),
    yes("PassCredentials", |c, i| boolean(&mut c.pass_credentials, i)),
    yes("PassSecurity", |c, i| boolean(&mut c.pass_security, i)),
    yes("PassPacketInfo", |c, i| boolean(&mut c.pass_packet_info, i)),
    warn("PassPIDFD", |_, i| Ok(Effect::from(value::parse_bool(i.value)?))),
    warn("AcceptFileDescriptors", |_, i| Ok(Effect::from(!value::parse_bool(i.value)?))),
    warn("Timestamping", |_, i| Ok(Effect::from(!matches!(i.value, "" | "off")))),
    yes("TCPCongestion", |c, i| optional_text(&mut c.tcp_congestion, i)),
    yes("PipeSize", |c, i| optional_size(&mut c.pipe_size, i)),
    warn("MessageQueueMaxMessages", |c, i| optional_number(&mut c.message_queue.0, i, 0..=u64::MAX, "a number")),
    warn("MessageQueueMessageSize", |c, i| optional_number(&mut c.message_queue.1, i, 0..=u64::MAX, "a number")),
    yes("Service", |c, i| {
        let outcome = optional_unit(&mut c.service, i)?;
        match c.service.take_if(|service| service.kind() != crate::UnitKind::Service) {
            Some(other) => Err(expected(other.as_str(), "a service unit")),
            None => Ok(outcome),
        }
    }),
    yes("RemoveOnStop", |c, i| boolean(&mut c.remove_on_stop, i)),
    yes("Symlinks", |c, i| list_with(&mut c.symlinks, i, Escapes::C, clean_path)),
    yes("FileDescriptorName", |c, i| {
        // A colon would make two names of it in `LISTEN_FDNAMES`.
        let name = expand(i)?;
        if name.len() > 255 || name.chars().any(|c| c == ':' || c.is_control()) {
            return Err(expected(&name, "a name without ':'"));
        }
        optional_text(&mut c.fd_name, i)
    }),
    yes("TriggerLimitIntervalSec", |c, i| optional_span(&mut c.trigger_limit_interval, i)),
    yes("TriggerLimitBurst", |c, i| optional_number(&mut c.trigger_limit_burst, i, 0..=u32::MAX, "a number")),
    warn("PollLimitIntervalSec", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    warn("PollLimitBurst", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    warn("DeferTrigger", |_, i| Ok(Effect::from(!matches!(i.value, "" | "no")))),
    warn("DeferTriggerMaxSec", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    warn("PassFileDescriptorsToExec", |_, i| Ok(Effect::from(value::parse_bool(i.value)?))),
    warn("ExecStartPre", |c, i| commands(&mut c.exec_start_pre, i)),
    warn("ExecStartPost", |c, i| commands(&mut c.exec_start_post, i)),
    warn("ExecStopPre", |c, i| commands(&mut c.exec_stop_pre, i)),
    warn("ExecStopPost", |c, i| commands(&mut c.exec_stop_post, i)),
    yes("TimeoutSec", |c, i| timeout(&mut c.timeout, i)),
    refuse("SmackLabel", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    refuse("SmackLabelIPIn", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    refuse("SmackLabelIPOut", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    refuse("SELinuxContextFromNet", |_, i| Ok(Effect::from(value::parse_bool(i.value)?))),
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        assert_eq!(address("/run/x.sock").unwrap(), SocketAddress::Unix("/run/x.sock".into()));
        assert_eq!(address("@x").unwrap(), SocketAddress::Abstract("x".into()));
        assert_eq!(address("80").unwrap(), SocketAddress::Port(80));
        assert_eq!(address("127.0.0.1:80").unwrap(), SocketAddress::Inet("127.0.0.1:80".parse().unwrap(), None));
        assert_eq!(address("[fe80::1]:80%eth0").unwrap(), SocketAddress::Inet("[fe80::1]:80".parse().unwrap(), Some("eth0".into())));
        assert_eq!(address("vsock::22").unwrap(), SocketAddress::Vsock(None, 22));
        for bad in ["", "0", "70000", "a:80", "[::1]", "@", "host"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
