//! A cluster of machines, as `garboard cluster` starts it for a person, and a client that writes to its etcd all the time.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::console::Console;
use crate::ssh::Reply;

/// What etcd's `/health` says.
const HEALTHY: &str = "\"health\":\"true\"";

/// The machines of one `garboard cluster`. Dropping it ends them and checks their consoles.
#[derive(Debug)]
pub struct Fleet {
    child: Child,
    expected_trouble: Vec<&'static str>,
    /// The machines.
    pub nodes: Vec<Node>,
}

/// A machine of the cluster.
#[derive(Debug)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Its serial console.
    pub console: Console,
    ssh: Vec<String>,
    etcd: SocketAddr,
    health: SocketAddr,
}

impl Fleet {
    /// Starts machines with these further arguments of `garboard cluster`, and waits until all are members.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    pub fn start(image: &Path, arguments: &[&str], expected_trouble: &[&'static str]) -> Self {
        let mut child = Command::new(crate::shop::program())
            .args(["cluster", "--json"])
            .arg(image)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("garboard, built with these tests");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let printed = lines.map(|line| line.expect("its output")).inspect(|line| eprintln!("{line}"));
        let running = printed.filter_map(|line| serde_json::from_str::<Value>(&line).ok()).find(|value| value.get("nodes").is_some());
        let Some(running) = running else { panic!("no cluster: {:?}", child.wait()) };
        let nodes = running["nodes"].as_array().expect("machines").iter().map(Node::of).collect();
        Self { child, expected_trouble: expected_trouble.to_vec(), nodes }
    }

    /// Waits until something holds of all machines.
    ///
    /// # Panics
    /// When it does not within that time.
    pub fn wait_until(&self, what: &str, limit: Duration, holds: impl Fn(&Node) -> bool) {
        let start = Instant::now();
        let mut left: Vec<&Node> = self.nodes.iter().collect();
        loop {
            left.retain(|node| !holds(node));
            if left.is_empty() {
                return;
            }
            if start.elapsed() > limit {
                let tails: Vec<String> = left.iter().map(|node| format!("{}:\n{}", node.name, node.console.tail())).collect();
                panic!("after {} s not {what}:\n{}", limit.as_secs(), tails.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// How the members are now. All are asked at the same time: by when one that is down has not answered it may be back, and the next one down.
    #[must_use]
    #[allow(clippy::missing_panics_doc)]
    pub fn members(&self) -> Vec<Member> {
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                self.nodes.iter().map(|node| (node, scope.spawn(|| node.health()), scope.spawn(|| node.runs_etcd()))).collect();
            let told = asked.into_iter().map(|(node, works, up)| Member {
                name: node.name.clone(),
                up: up.join().expect("an answer"),
                works: works.join().expect("an answer"),
            });
            told.collect()
        })
    }

    /// Begins to write into the cluster's etcd through all members in turn.
    #[must_use]
    pub fn writer(&self) -> Writer {
        let members: Vec<SocketAddr> = self.nodes.iter().map(|node| node.etcd).collect();
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut written = Written::default();
            let mut last = Instant::now();
            while !told.load(Ordering::Relaxed) {
                let key = format!("written/{:08}", written.keys.len());
                // Whoever does not answer is passed over, as clients of etcd do.
                let put = json!({"key": STANDARD.encode(&key), "value": STANDARD.encode("yes")});
                let turn = written.keys.len() + written.failures;
                if members.get(turn % members.len()).is_some_and(|member| post(member, "/v3/kv/put", &put).is_some()) {
                    written.keys.push(key);
                    written.longest_gap = written.longest_gap.max(last.elapsed());
                    last = Instant::now();
                } else {
                    written.failures += 1;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            written
        });
        Writer { end, thread }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // It ends its machines itself, when it is asked to.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let text: Vec<_> = self.nodes.iter().map(|node| (node.name.clone(), node.console.trouble(&self.expected_trouble))).collect();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            for (name, trouble) in text {
                assert!(trouble.is_empty(), "trouble on the console of {name}: {trouble:#?}");
            }
        }
    }
}

impl Node {
    fn of(told: &Value) -> Self {
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let port = |key: &str| {
            let port = told[key].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
            SocketAddr::from(([127, 0, 0, 1], port))
        };
        let words = told["ssh"].as_array().expect("a command").iter().map(|word| word.as_str().expect("a word").to_owned());
        Self {
            name: text("name"),
            console: Console::new(text("console").into()),
            ssh: words.collect(),
            etcd: port("etcd_port"),
            health: port("health_port"),
        }
    }

    /// Runs a shell command as `core`; the bound ends what hangs.
    #[must_use]
    pub fn run(&self, script: &str) -> Reply {
        let mut command = Command::new("timeout");
        command.args(["60"]).args(&self.ssh).args(["-o", "ConnectTimeout=10", "-o", "BatchMode=yes", "--"]).arg(script);
        command.stdin(Stdio::null()).output().expect("ssh").into()
    }

    /// Runs one that must succeed; its output without the last line's end.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, script: &str) -> String {
        let reply = self.run(script);
        assert_eq!(reply.code, 0, "{}: '{script}' failed: {}{}\n{}", self.name, reply.out, reply.err, self.console.tail());
        reply.out.trim_end().to_owned()
    }

    /// How often it has come up completely with this version.
    #[must_use]
    pub fn boots(&self, version: &str) -> usize {
        self.console.text().matches(&format!("garboard: boot-complete version={version} ")).count()
    }

    /// Whether this member says that the cluster works; else what it says.
    ///
    /// # Errors
    /// That.
    pub fn health(&self) -> Result<(), String> {
        let answer = request(&self.health, "GET /health HTTP/1.0\r\n\r\n").ok_or("it does not answer within 3 s")?;
        if answer.contains(HEALTHY) { Ok(()) } else { Err(answer.lines().last().unwrap_or_default().to_owned()) }
    }

    fn runs_etcd(&self) -> bool {
        request(&self.health, "GET /health?serializable=true HTTP/1.0\r\n\r\n").is_some_and(|answer| answer.contains(HEALTHY))
    }
}

/// A member of a cluster, as it tells itself.
#[derive(Debug)]
pub struct Member {
    /// The machine's name.
    pub name: String,
    /// Its etcd runs, whatever it knows of the others.
    pub up: bool,
    /// Whether the cluster works for it; else what it says. For a moment it works for nobody while another member becomes the leader.
    pub works: Result<(), String>,
}

/// A client that writes all the time.
#[derive(Debug)]
pub struct Writer {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

/// What it has written.
#[derive(Debug, Default)]
pub struct Written {
    /// Keys whose write was acknowledged.
    pub keys: Vec<String>,
    /// Writes that a member refused, or did not answer in time.
    pub failures: usize,
    /// The longest time without a write.
    pub longest_gap: Duration,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = self.longest_gap.as_secs_f64();
        write!(f, "{} writes acknowledged, {} tried elsewhere, never longer than {gap:.1} s without one", self.keys.len(), self.failures)
    }
}

impl Writer {
    /// Ends it.
    ///
    /// # Panics
    /// When it has panicked.
    #[must_use]
    pub fn finish(self) -> Written {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writing client")
    }
}

fn post(member: &SocketAddr, path: &str, body: &Value) -> Option<Value> {
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = request(member, &format!("{head}{body}"))?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| serde_json::from_str(body).ok()).flatten()
}

fn request(at: &SocketAddr, text: &str) -> Option<String> {
    let limit = Duration::from_secs(3);
    let mut stream = TcpStream::connect_timeout(at, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer).ok()?;
    Some(answer)
}
