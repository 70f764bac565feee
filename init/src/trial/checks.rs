//! `init health-checks`: the network's and the operator's checks of the health gate, in a process of their own.
//!
//! Operator checks are the `*.toml` files of `/etc/garboard/health.d`:
//!
//! ```toml
//! [[check]]
//! unit = "docker.service"                 # is active
//! [[check]]
//! http = "http://127.0.0.1:8080/health"   # answers 2xx; addresses only, no names
//! timeout = 5                             # seconds, 5 when not there
//! [[check]]
//! tcp = "127.0.0.1:22"                    # takes connections
//! [[check]]
//! command = ["/usr/bin/curl", "-fsS", "https://example.org"]   # ends with 0
//! ```
//!
//! A file that cannot be read is a check that fails: a typing error must not make a bad version look good.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::engine::client;
use crate::engine::protocol::{ActiveState, Reply, Request};
use crate::network::published::NetworkStatus;

/// Seconds that a check may take when it does not say.
const TIMEOUT: u64 = 5;
const NETWORK: &str = "/run/garboard/network.json";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    check: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    unit: Option<String>,
    http: Option<String>,
    tcp: Option<String>,
    command: Option<Vec<String>>,
    timeout: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Unit(String),
    Http { address: SocketAddr, host: String, path: String },
    Tcp(SocketAddr),
    Command(Vec<String>),
}

#[derive(Debug, PartialEq, Eq)]
struct Check {
    kind: Kind,
    timeout: Duration,
}

impl Entry {
    fn check(self) -> Result<Check, String> {
        let timeout = Duration::from_secs(self.timeout.unwrap_or(TIMEOUT).clamp(1, 300));
        let kind = match (self.unit, self.http, self.tcp, self.command) {
            (Some(unit), None, None, None) => Kind::Unit(unit),
            (None, Some(url), None, None) => http(&url)?,
            (None, None, Some(text), None) => Kind::Tcp(address(&text)?),
            (None, None, None, Some(command)) if command.first().is_some_and(|path| path.starts_with('/')) => Kind::Command(command),
            (None, None, None, Some(_)) => return Err("`command` must begin with an absolute path".to_owned()),
            _ => return Err("a check has one of `unit`, `http`, `tcp`, `command`".to_owned()),
        };
        Ok(Check { kind, timeout })
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| format!("'{text}' is no address with a port (names other than localhost are not looked up)"))
}

fn http(url: &str) -> Result<Kind, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("'{url}' does not begin with http:// (for https use a command)"))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = address(&if port { host.to_owned() } else { format!("{host}:80") })?;
    Ok(Kind::Http { address, host: host.to_owned(), path: if path.is_empty() { "/".to_owned() } else { path.to_owned() } })
}

fn parse(text: &str) -> Result<Vec<Check>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string().replace('\n', " "))?;
    file.check.into_iter().map(Entry::check).collect()
}

/// What is wrong, if anything.
fn run(check: &Check) -> Result<(), String> {
    match &check.kind {
        Kind::Unit(unit) => {
            let request = Request::Status { units: vec![unit.clone()] };
            let replies =
                client::ask_all(Path::new(client::CONTROL_SOCKET), &request, Some(check.timeout)).map_err(|error| error.to_string())?;
            let active = replies.iter().find_map(|reply| match reply {
                Reply::Unit(status) => Some(status.active),
                _ => None,
            });
            match active {
                Some(ActiveState::Active | ActiveState::Reloading) => Ok(()),
                Some(state) => Err(format!("{unit} is {}", state.as_str())),
                None => Err(format!("{unit} does not exist")),
            }
        }
        Kind::Tcp(address) => {
            TcpStream::connect_timeout(address, check.timeout).map(drop).map_err(|error| format!("nothing listens at {address}: {error}"))
        }
        Kind::Http { address, host, path } => {
            let status = get(*address, host, path, check.timeout).map_err(|error| format!("http://{host}{path}: {error}"))?;
            if (200..300).contains(&status) { Ok(()) } else { Err(format!("http://{host}{path} answers {status}")) }
        }
        Kind::Command(command) => run_command(command, check.timeout),
    }
}

fn get(address: SocketAddr, host: &str, path: &str, timeout: Duration) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut head = Vec::new();
    stream.take(64).read_to_end(&mut head)?;
    let text = String::from_utf8_lossy(&head);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).and_then(|code| code.parse().ok());
    status.ok_or_else(|| std::io::Error::other("the answer is no HTTP"))
}

fn run_command(command: &[String], timeout: Duration) -> Result<(), String> {
    let Some((path, args)) = command.split_first() else { return Err("an empty command".to_owned()) };
    let spawned = Command::new(path).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = spawned.map_err(|error| format!("cannot run {path}: {error}"))?;
    let deadline = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{path} ended with {status}")),
            Ok(None) if Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{path} took more than {} s", timeout.as_secs()));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(format!("{path}: {error}")),
        }
    }
}

/// The network counts when something is configured to need it: one such link with an address is enough.
fn network(status: &NetworkStatus) -> Result<(), String> {
    let required: Vec<_> = status.links.iter().filter(|link| link.required_for_online && !link.file.is_empty()).collect();
    if status.online || required.is_empty() || required.iter().any(|link| link.carrier && !link.configured.addresses.is_empty()) {
        return Ok(());
    }
    let words: Vec<String> =
        required.iter().map(|link| format!("{} has no {}", link.name, if link.carrier { "address" } else { "carrier" })).collect();
    Err(format!("the network is not up: {}", words.join(", ")))
}

/// All that is wrong.
fn problems(directory: &Path, with_network: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if with_network && let Some(status) = std::fs::read(NETWORK).ok().and_then(|text| serde_json::from_slice::<NetworkStatus>(&text).ok()) {
        problems.extend(network(&status).err());
    }
    let mut files: Vec<_> = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut checks = Vec::new();
    for path in files {
        let parsed = std::fs::read_to_string(&path).map_err(|error| error.to_string()).and_then(|text| parse(&text));
        match parsed {
            Ok(found) => checks.extend(found),
            Err(error) => problems.push(format!("{}: {error}", path.display())),
        }
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = checks.iter().map(|check| scope.spawn(|| run(check))).collect();
        for result in running {
            match result.join() {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => problems.push(problem),
                Err(_) => problems.push("a check crashed".to_owned()),
            }
        }
    });
    problems
}

/// `init health-checks DIRECTORY RESULT [network]`: runs all checks once and writes what is wrong into the file RESULT, which is empty when
/// nothing is. Ends with 0 when nothing is wrong, 1 when something is.
pub fn main(args: &[String]) -> ExitCode {
    let [directory, result, rest @ ..] = args else {
        eprintln!("init health-checks: name a directory of checks and a file for the result");
        return ExitCode::from(2);
    };
    let problems = problems(Path::new(directory), rest.iter().any(|word| word == "network"));
    let temporary = format!("{result}.new");
    let written = std::fs::write(&temporary, problems.join("; ")).and_then(|()| std::fs::rename(&temporary, result));
    if let Err(error) = written {
        eprintln!("init health-checks: cannot write {result}: {error}");
        return ExitCode::FAILURE;
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::published::LinkStatus;
    use std::net::TcpListener;

    fn one(text: &str) -> Result<Check, String> {
        parse(&format!("[[check]]\n{text}\n")).map(|mut checks| checks.pop().unwrap())
    }

    #[test]
    fn each_kind_of_check_is_read() {
        assert_eq!(one("unit = 'docker.service'").unwrap().kind, Kind::Unit("docker.service".into()));
        assert_eq!(one("tcp = 'localhost:22'\ntimeout = 2").unwrap().timeout, Duration::from_secs(2));
        let http = one("http = 'http://127.0.0.1:8080/health'").unwrap().kind;
        assert_eq!(http, Kind::Http { address: "127.0.0.1:8080".parse().unwrap(), host: "127.0.0.1:8080".into(), path: "/health".into() });
        assert!(matches!(one("http = 'http://127.0.0.1'").unwrap().kind, Kind::Http { path, .. } if path == "/"));
    }

    #[test]
    fn what_cannot_be_read_is_a_problem() {
        for bad in
            ["", "unit = 'a'\ntcp = 'b:1'", "http = 'https://127.0.0.1/'", "tcp = 'example.org:80'", "command = ['true']", "wish = 1"]
        {
            assert!(one(bad).is_err(), "{bad}");
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("bad.toml"), "[[check]\n").unwrap();
        std::fs::write(directory.path().join("ignored.txt"), "x").unwrap();
        assert_eq!(problems(directory.path(), false).len(), 1);
        assert!(problems(Path::new("/nowhere"), false).is_empty());
    }

    #[test]
    fn http_wants_a_2xx() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for answer in ["200 OK", "503 no"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let _ = stream.read(&mut request).unwrap();
                write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
        });
        let check = one(&format!("http = 'http://{address}/'")).unwrap();
        assert_eq!(run(&check), Ok(()));
        assert!(run(&check).unwrap_err().ends_with("answers 503"));
        server.join().unwrap();
        assert!(run(&check).is_err(), "nobody listens any more");
    }

    #[test]
    fn commands_end_with_zero_in_time() {
        assert_eq!(run(&one("command = ['/bin/true']").unwrap()), Ok(()));
        assert!(run(&one("command = ['/bin/false']").unwrap()).is_err());
        assert!(run(&one("command = ['/bin/sleep', '20']\ntimeout = 1").unwrap()).unwrap_err().contains("more than 1 s"));
    }

    #[test]
    fn a_network_that_nobody_configured_is_no_problem() {
        let mut status = NetworkStatus::default();
        assert_eq!(network(&status), Ok(()));
        status.links.push(LinkStatus { name: "eth0".into(), file: "x.network".into(), required_for_online: true, ..LinkStatus::default() });
        assert_eq!(network(&status).unwrap_err(), "the network is not up: eth0 has no carrier");
        status.online = true;
        assert_eq!(network(&status), Ok(()));
    }
}
