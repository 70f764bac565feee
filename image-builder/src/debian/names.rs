//! Host names to addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`. The program is linked statically,
//! and glibc's own lookup would load whatever modules of another glibc the build host has configured.
#![deny(clippy::indexing_slicing)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

const TIMEOUT: Duration = Duration::from_secs(3);
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// Looks names up for `ureq`.
#[derive(Debug, Default)]
pub struct Names;

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let found = lookup(host.trim_start_matches('[').trim_end_matches(']'))?;
        let mut result = self.empty();
        for address in config.ip_family().keep_wanted(found.into_iter().map(|ip| SocketAddr::new(ip, port))).take(16) {
            result.push(address);
        }
        if result.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(result) }
    }
}

/// The addresses of a name, IPv4 first, because a host without an IPv6 route is commoner than the reverse.
fn lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let known = from_hosts(&fs::read_to_string("/etc/hosts").unwrap_or_default(), host);
    if !known.is_empty() {
        return Ok(known);
    }
    if host == "localhost" {
        return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
    let servers = Servers::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let mut problem = io::Error::new(io::ErrorKind::NotFound, format!("no name server knows the host '{host}'"));
    for name in servers.names(host) {
        match servers.ask(&name) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => return Ok(found),
            Err(error) => problem = io::Error::new(error.kind(), format!("looking up '{host}': {error}")),
        }
    }
    Err(problem)
}

fn from_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(host)).then_some(address)
    });
    let mut found: Vec<IpAddr> = lines.collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

/// What `/etc/resolv.conf` says.
#[derive(Debug, PartialEq, Eq)]
struct Servers {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
}

impl Servers {
    fn parse(text: &str) -> Self {
        let mut parsed = Self { servers: Vec::new(), search: Vec::new() };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
                    parsed.servers.extend(address.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => parsed.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        parsed.servers.truncate(3);
        if parsed.servers.is_empty() {
            parsed.servers.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53));
        }
        parsed
    }

    /// The names to ask for: with a dot, as it is first; without, in the search domains first.
    fn names(&self, host: &str) -> Vec<String> {
        let plain = host.trim_end_matches('.').to_owned();
        if host.ends_with('.') {
            return vec![plain];
        }
        let mut names: Vec<String> = self.search.iter().map(|domain| format!("{plain}.{}", domain.trim_end_matches('.'))).collect();
        names.insert(if plain.contains('.') { 0 } else { names.len() }, plain);
        names
    }

    fn ask(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut problem = None;
        for _ in 0..2 {
            for server in &self.servers {
                let answers = [TYPE_A, TYPE_AAAA].map(|kind| ask_one(*server, name, kind));
                match answers {
                    [Ok(mut four), Ok(six)] => {
                        four.extend(six);
                        return Ok(four);
                    }
                    [Ok(found), Err(_)] | [Err(_), Ok(found)] if !found.is_empty() => return Ok(found),
                    [Err(error), _] | [_, Err(error)] => problem = Some(error),
                }
            }
        }
        Err(problem.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }
}

fn ask_one(server: SocketAddr, name: &str, kind: u16) -> io::Result<Vec<IpAddr>> {
    let mut id = [0; 2];
    getrandom(&mut id, GetRandomFlags::empty())?;
    let query = query(u16::from_be_bytes(id), name, kind).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let local: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.send(&query)?;
    let mut buffer = vec![0; 4096];
    let len = socket.recv(&mut buffer)?;
    match answer(buffer.get(..len).unwrap_or_default(), &query, kind) {
        Some(Answer::Addresses(found)) => Ok(found),
        Some(Answer::Truncated) => ask_tcp(server, &query, kind),
        Some(Answer::Failed) => Err(io::Error::other("the name server failed")),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the name server's answer is malformed")),
    }
}

fn ask_tcp(server: SocketAddr, query: &[u8], kind: u16) -> io::Result<Vec<IpAddr>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the name server's answer is malformed");
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(&u16::try_from(query.len()).map_err(|_| malformed())?.to_be_bytes())?;
    stream.write_all(query)?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut buffer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut buffer)?;
    match answer(&buffer, query, kind) {
        Some(Answer::Addresses(found)) => Ok(found),
        _ => Err(malformed()),
    }
}

/// A question for one kind of record; `None` when the name cannot be one.
fn query(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired, one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..64).contains(len))?;
        bytes.push(len);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    (bytes.len() < 280).then_some(bytes)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Addresses(Vec<IpAddr>),
    Truncated,
    Failed,
}

/// Reads an answer to `query`; `None` when it is not one.
fn answer(bytes: &[u8], query: &[u8], kind: u16) -> Option<Answer> {
    let short = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (flags, questions, answers) = (short(2)?, short(4)?, short(6)?);
    let question = query.get(12..)?;
    if bytes.get(..2) != query.get(..2)
        || flags & 0x8000 == 0
        || questions != 1
        || !bytes.get(12..12 + question.len())?.eq_ignore_ascii_case(question)
    {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    match flags & 0xf {
        // No error, or no such name.
        0 | 3 => {}
        _ => return Some(Answer::Failed),
    }
    let mut at = 12 + question.len();
    let mut found = Vec::new();
    for _ in 0..answers {
        at = skip_name(bytes, at)?;
        let (record, len) = (short(at)?, usize::from(short(at + 8)?));
        at += 10;
        let data = bytes.get(at..at + len)?;
        at += len;
        // Names that an alias leads through come first; the server adds the addresses at its end.
        if record == kind && kind == TYPE_A {
            found.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?));
        } else if record == kind {
            found.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?));
        }
    }
    Some(Answer::Addresses(found))
}

fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len if len & 0xc0 == 0xc0 => return Some(at + 2),
            len => at += 1 + usize::from(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_hosts_and_resolv_conf() {
        let hosts = "::1 localhost me\n127.0.0.1 localhost # me\n192.0.2.1 Mirror.example.org mirror\n";
        assert_eq!(from_hosts(hosts, "mirror"), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(from_hosts(hosts, "localhost").len(), 2);
        assert!(from_hosts(hosts, "localhost")[0].is_ipv4());
        let servers = Servers::parse("# x\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nsearch a.example b.example\noptions edns0\n");
        assert_eq!(servers.servers.len(), 2);
        assert_eq!(servers.names("mirror"), ["mirror.a.example", "mirror.b.example", "mirror"]);
        assert_eq!(servers.names("m.example.org"), ["m.example.org", "m.example.org.a.example", "m.example.org.b.example"]);
        assert_eq!(servers.names("m.example.org."), ["m.example.org"]);
    }

    fn reply(query: &[u8], flags: u16) -> Vec<u8> {
        let mut bytes = query.to_vec();
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[7] = 2;
        // An alias, then its address.
        bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
        bytes
    }

    #[test]
    fn reads_answers() {
        let query = query(7, "mirror.example.org", TYPE_A).unwrap();
        let good = reply(&query, 0x8180);
        assert_eq!(answer(&good, &query, TYPE_A), Some(Answer::Addresses(vec!["192.0.2.7".parse().unwrap()])));
        assert_eq!(answer(&reply(&query, 0x8380), &query, TYPE_A), Some(Answer::Truncated));
        assert_eq!(answer(&reply(&query, 0x8182), &query, TYPE_A), Some(Answer::Failed));
        let mut other = good.clone();
        other[0] ^= 1;
        assert_eq!(answer(&other, &query, TYPE_A), None, "an answer to somebody else");
        assert!(super::query(7, "a..b", TYPE_A).is_none());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(at in 0usize..80, byte: u8, cut in 0usize..90) {
            let query = query(7, "mirror.example.org", TYPE_A).unwrap();
            let mut bytes = reply(&query, 0x8180);
            if let Some(there) = bytes.get_mut(at) {
                *there = byte;
            }
            bytes.truncate(cut);
            let _ = answer(&bytes, &query, TYPE_A);
        }
    }
}
