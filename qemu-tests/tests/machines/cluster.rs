//! Three machines that are one etcd cluster, as `garboard cluster` starts them: releases go through them one at a time while a client
//! writes, a broken one stops at the first; members join one by one, and find each other in DNS; clocks jump; the command as people type
//! it. `make test-long`.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qemu_tests::{Fleet, Names, Node, Setup, Shop, Web};

use super::update::with_unit;

mod command;

/// A boot of a busy emulated machine, its health gate, and the reboot daemon's word to etcd, three times over.
const ROLL: Duration = Duration::from_secs(900);
/// Of three members.
const QUORUM: usize = 2;
/// A leader moves in less than a second; one that is asked just then may take three to answer.
const MOVES: Duration = Duration::from_secs(10);
const GATE: &str = "[[file]]\npath = \"/etc/garboard/health.toml\"\ncontent = \"settle = 2\\ndeadline = 200\\n\"\n";

/// Tells a thread that it is over, also when what it watched has panicked: a scope waits for its threads.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Watches the members while `during` runs, in which machines reboot: never is more than one of three down, and a quorum knows its leader but for the
/// moments in which the leader moves, since it is moved away from a member before that goes down.
fn one_at_a_time(fleet: &Fleet, during: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let watch = || {
        let (mut fewest_up, mut longest, mut working) = (usize::MAX, Duration::ZERO, Instant::now());
        while !over.load(Ordering::Relaxed) {
            let members = fleet.members();
            let up = members.iter().filter(|member| member.up).count();
            let works = members.iter().filter(|member| member.works.is_ok()).count() >= QUORUM;
            if up < fewest_up || !works {
                eprintln!("{up} members are up: {members:?}");
            }
            fewest_up = fewest_up.min(up);
            if works {
                working = Instant::now();
            } else {
                longest = longest.max(working.elapsed());
            }
            thread::sleep(Duration::from_millis(300));
        }
        (fewest_up, longest)
    };
    let (fewest_up, longest) = thread::scope(|scope| {
        let watch = scope.spawn(watch);
        let over = Over(&over);
        during();
        drop(over);
        watch.join().unwrap()
    });
    eprintln!("never fewer than {fewest_up} members up, at most {:.1} s without a quorum that knows its leader", longest.as_secs_f64());
    assert!(fewest_up >= QUORUM, "one at a time: {fewest_up}");
    assert!(longest < MOVES, "{longest:?} without a quorum");
}

fn runs(node: &Node, version: &str) -> bool {
    node.run(&format!("sudo update-agent status | grep -q 'version: *{version} '")).code == 0
}

fn says(node: &Node, command: &str, text: &str) -> bool {
    let reply = node.run(command);
    let found = reply.out.contains(text);
    if !found {
        eprintln!("{}: {command}: {}{}", node.name, reply.out.trim(), reply.err.trim());
    }
    found
}

/// What became of the lock.
fn audit(node: &Node) -> Vec<(String, String)> {
    steps(&node.ok("sudo locksmithctl audit"))
}

/// What became of the lock by its audit trail, in order: what was done, and the machine id whose lock it is. Each lock ended before the next was
/// taken.
pub(crate) fn steps(text: &str) -> Vec<(String, String)> {
    let step = |line: &str| {
        let (what, id) = (line.split_whitespace().nth(3)?, line.split_whitespace().nth(4)?);
        matches!(what, "lock" | "unlock" | "expire").then(|| (what.to_owned(), id.to_owned()))
    };
    let steps: Vec<_> = text.lines().filter_map(step).collect();
    for two in steps.windows(2) {
        let [before, after] = [0, 1].map(|at| two[at].0 == "lock");
        assert!(before != after && (after || two[0].1 == two[1].1), "{steps:?}");
    }
    steps
}

/// The most holders that there ever were, by etcd's own history.
fn most_holders(node: &Node) -> usize {
    let watch = "timeout 10 etcdctl watch --rev=1 --prefix /garboard/reboot-lock/v1/groups/default/lock/holder/";
    let text = node.ok(&format!("({watch} || true) | grep -A 1 -x -e PUT -e DELETE"));
    let (mut holders, mut most) = (HashSet::new(), 0);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        match line {
            "PUT" => drop(holders.insert(lines.next().unwrap())),
            "DELETE" => assert!(holders.remove(lines.next().unwrap()), "{text}"),
            _ => {}
        }
        most = most.max(holders.len());
    }
    most
}

/// Point 2 of what the reboot daemon is for: releases one by one, nothing lost; a broken one stays at the first host until its quarantine is
/// cleared, also after `unlock`; the next good one goes through.
#[test]
#[ignore = "three machines and four releases: scripts/test-long"]
fn releases_go_through_a_cluster_one_host_at_a_time_and_a_broken_one_stops_at_the_first() {
    let shop = Shop::of("docker");
    // The version that runs has been published, too: hosts then fetch what has changed, as they do anywhere.
    let image = shop.build("1.0", GATE);
    shop.publish("1.0");
    shop.release("1.1", GATE);
    let web = Web::serve(Path::new(&shop.path("repo")));
    let data = shop.path("user-data");
    std::fs::write(&data, web.user_data("interval: 20\n")).unwrap();
    let trouble = ["bad.service", "boot-failed", "Failed to start"];
    let fleet = Fleet::start(&image, &["--nodes", "3", "--cloud-config", &data], &trouble);
    let [first, ..] = fleet.nodes.as_slice() else { panic!("three machines") };
    assert!(first.ok("docker info -f '{{.ServerVersion}}'").contains('.'), "docker on each");

    // A good release.
    let writer = fleet.writer();
    one_at_a_time(&fleet, || fleet.wait_until("on 1.1", ROLL, |node| node.boots("1.1") == 1));
    let written = writer.finish();
    eprintln!("while three hosts rebooted: {written}");
    assert!(written.keys.len() > 100 && written.longest_gap < MOVES, "{written}");
    fleet.wait_until("given back", ROLL, |_| says(first, "sudo locksmithctl status", "Available: 1"));
    let there = first.ok("etcdctl get --prefix written/ --keys-only --endpoints=http://127.0.0.1:2379");
    let there: HashSet<&str> = there.lines().collect();
    let lost: Vec<_> = written.keys.iter().filter(|key| !there.contains(key.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    for node in &fleet.nodes {
        assert!(runs(node, "1.1"), "{}", node.name);
    }

    // A broken one: the first host falls back and keeps its lock, and nobody follows it.
    let bad = with_unit("/bin/false").replace("settle = 1", "settle = 2").replace("deadline = 20", "deadline = 120");
    shop.release("1.2", &bad);
    fleet.wait_until("quarantined", ROLL, |node| says(node, "sudo locksmithctl status", "1.2"));
    fleet.wait_until("explained", ROLL, |node| says(node, "sudo locksmithctl why", "quarantine"));
    let failed = || fleet.nodes.iter().filter(|node| node.console.text().contains("boot-failed version=1.2"));
    let keeps = |node: &Node| says(node, "sudo locksmithctl status", &format!("  {}  ", node.name));
    let [before] = failed().collect::<Vec<_>>()[..] else { panic!("{} hosts tried the broken release", failed().count()) };
    assert!(keeps(before), "it keeps the lock");

    // That the quarantine is cleared is enough for the next host, which has no more luck, and keeps the lock in its turn.
    before.ok("sudo locksmithctl quarantine clear 1.2");
    fleet.wait_until("tried once more", ROLL, |_| failed().count() == 2);
    fleet.wait_until("quarantined again", ROLL, |node| says(node, "sudo locksmithctl status", "Quarantined: version 1.2 "));
    let last = failed().find(|node| node.name != before.name).unwrap();
    assert!(keeps(last), "it keeps the lock");

    // Nobody follows it, though somebody gives its lock back.
    last.ok("sudo locksmithctl unlock");
    assert!(says(last, "sudo locksmithctl status", "Available: 1"));
    thread::sleep(Duration::from_secs(60));
    for node in &fleet.nodes {
        let tried = node.console.text().contains("version=1.2");
        assert_eq!(tried, [&before.name, &last.name].contains(&&node.name), "{}", node.name);
        assert!(runs(node, "1.1") && says(node, "sudo locksmithctl status", "1.2"), "{}", node.name);
    }

    // A newer good one: all go on.
    shop.release("1.3", GATE);
    one_at_a_time(&fleet, || fleet.wait_until("on 1.3", ROLL, |node| node.boots("1.3") == 1));
    fleet.wait_until("given back", ROLL, |_| says(first, "sudo locksmithctl status", "Available: 1"));
    // The trail says the same.
    let steps = audit(first);
    assert_eq!(most_holders(first), 1);
    assert!(steps.len() >= 15, "six reboots, and the two that failed: {steps:?}");
}

/// A CA, and one certificate for all machines of a cluster, as `garboard cluster` wants it.
fn certificates(directory: &Path) {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=ca -keyout ca.key -out ca.pem\n\
                  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=cluster -keyout key.pem -out request.pem\n\
                  printf 'subjectAltName=IP:127.0.0.1,IP:10.99.0.11,IP:10.99.0.12,IP:10.99.0.13\\nextendedKeyUsage=serverAuth,clientAuth\\n' > more\n\
                  openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile more -out cert.pem\n";
    let made = Command::new("sh").args(["-e", "-c", script]).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The first machine is a cluster of its own, the others join; all of it with certificates, the reboot daemon too. Then all reboot in turn, because
/// somebody asks them to at the same moment.
#[test]
#[ignore = "three machines: scripts/test-long"]
fn machines_join_a_cluster_with_certificates_and_reboot_in_turn() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let image = Setup::of("docker").image().to_owned();
    let fleet = Fleet::start(&image, &["--join", "--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key], &[]);
    let [first, ..] = fleet.nodes.as_slice() else { panic!("three machines") };
    let etcdctl = "sudo etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/ssl/etcd/ca.pem --cert=/etc/ssl/etcd/cert.pem --key=/etc/ssl/etcd/key.pem";
    let members = first.ok(&format!("{etcdctl} member list"));
    assert_eq!(members.matches(", started, node").count(), 3, "{members}");
    assert_eq!(members.matches("https://10.99.0.1").count(), 6, "{members}");
    assert!(
        first.run("etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/ssl/etcd/ca.pem member list").code != 0,
        "a certificate is asked for"
    );
    for node in &fleet.nodes {
        node.ok("sudo locksmithctl send-need-reboot");
    }
    one_at_a_time(&fleet, || fleet.wait_until("rebooted", ROLL, |node| node.boots("1.0.0") == 2));
    fleet.wait_until("given back", ROLL, |_| says(first, "sudo locksmithctl status", "Available: 1"));
}

/// Members that find each other by the SRV records of a domain, as do clients; the reboot daemon knows them by their names.
#[test]
#[ignore = "three machines: scripts/test-long"]
fn machines_find_each_other_in_dns() {
    let of = |node: usize| {
        let host = format!("node{node}.lab.example");
        let service = |name: &str, port: u16| format!("srv-host=_etcd-{name}._tcp.lab.example,{host},{port}");
        [format!("host-record={host},10.99.0.1{node}"), service("server", 2380), service("client", 2379)]
    };
    let names = Names::serve(&(1..=3).flat_map(of).collect::<Vec<_>>());
    let endpoints = (1..=3).map(|node| format!("http://node{node}.lab.example:2379")).collect::<Vec<_>>().join(", ");
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("user-data");
    let asks = names.asked_by("etcd.service").replace('\n', "\n  ");
    std::fs::write(
        &data,
        format!("#cloud-config\ngarboard:\n  reboot:\n    endpoints: [{endpoints}]\nwrite_files:\n  {}\n", asks.trim_end()),
    )
    .unwrap();
    let image = Setup::of("docker").image().to_owned();
    let fleet = Fleet::start(&image, &["--srv", "lab.example", "--cloud-config", data.to_str().unwrap()], &[]);
    let [first, second, third] = fleet.nodes.as_slice() else { panic!("three machines") };
    // etcdctl gives up after five seconds, which a busy machine may take.
    let by_name = |number: usize| format!("started, node{number}, http://node{number}.lab.example:2380");
    fleet.wait_until("members by their names", ROLL, |node| (1..=3).all(|number| says(node, "etcdctl member list", &by_name(number))));
    // A client that knows the domain alone.
    let put = "etcdctl --discovery-srv=lab.example --insecure-discovery put found yes";
    fleet.wait_until("found by a client", ROLL, |node| says(node, put, "OK"));
    let log = names.log();
    assert!(log.contains("_etcd-server._tcp.lab.example") && log.contains("_etcd-client._tcp.lab.example"), "{log}");

    // One lock for all, and a member that reboots is one of them again.
    second.ok("sudo locksmithctl lock");
    assert!(says(third, "sudo locksmithctl status", "  node2  "));
    third.ok("sudo locksmithctl send-need-reboot");
    fleet.wait_until("explained", ROLL, |node| node.name != third.name || says(node, "sudo locksmithctl why", "it is held by node2"));
    second.ok("sudo locksmithctl unlock");
    fleet.wait_until("rebooted", ROLL, |node| node.name != third.name || node.boots("1.0.0") == 2);
    fleet.wait_until("given back", ROLL, |_| says(first, "sudo locksmithctl status", "Available: 1"));
    fleet.wait_until("a member again", ROLL, |node| node.health().is_ok());
    assert_eq!((most_holders(first), audit(first).len()), (1, 4));
}

/// What each machine has to say about the lock.
fn accounts(fleet: &Fleet) -> String {
    let ask =
        "sudo locksmithctl status; sudo locksmithctl why; sudo locksmithctl audit; sudo journalctl --no-pager -n 30 -u reboot-locksmith";
    fleet.nodes.iter().map(|node| format!("{}:\n{}", node.name, node.run(ask).out)).collect()
}

/// Sets a machine's clock fast or slow by so many hours, for all that runs on it: etcd, the daemon, the kernel.
fn jump(node: &Node, hours: i64) {
    node.ok(&format!("sudo date -s @$(($(date +%s) + {})) >/dev/null", hours * 3600));
}

/// The clocks of members and hosts jump while one has the lock and the others queue for it on leases of etcd's: nobody loses lock or place, and
/// then the others have their turns.
#[test]
#[ignore = "three machines: scripts/test-long"]
fn clocks_that_jump_end_no_lock_and_no_place_in_the_queue() {
    // Longer than a place lasts that is not renewed.
    const LONG: Duration = Duration::from_secs(240);
    let image = Setup::of("docker").image().to_owned();
    let fleet = Fleet::start(&image, &[], &[]);
    let [first, second, third] = fleet.nodes.as_slice() else { panic!("three machines") };
    for node in &fleet.nodes {
        node.ok("sudo systemctl stop chrony");
    }
    first.ok("sudo locksmithctl lock");
    for node in [second, third] {
        node.ok("sudo locksmithctl send-need-reboot");
    }
    fleet.wait_until("in the queue", ROLL, |_| says(first, "sudo locksmithctl status", "Waiting: 2"));
    let all = "etcdctl get --prefix --keys-only /garboard/reboot-lock/v1/groups/default/";
    let keys = |node: &Node| node.ok(&format!("{all}queue/ && {all}lock/holder/"));
    let before = keys(first);

    // Each clock goes forth and back, by more than any lease lasts.
    let begun = Instant::now();
    for times in [1, -2, 1].into_iter().cycle().take_while(|_| begun.elapsed() < LONG) {
        for (node, hours) in fleet.nodes.iter().zip([7, -7, 24 * 40]) {
            jump(node, times * hours);
        }
        fleet.wait_until("well after a jump", Duration::from_secs(60), |node| node.health().is_ok());
        assert_eq!(keys(first), before, "after {:?}\n{}", begun.elapsed(), accounts(&fleet));
        thread::sleep(Duration::from_secs(10));
    }
    first.ok("sudo locksmithctl unlock");

    one_at_a_time(&fleet, || {
        fleet.wait_until("rebooted", ROLL, |node| node.name == first.name || node.boots("1.0.0") == 2);
    });
    fleet.wait_until("given back", ROLL, |_| says(first, "sudo locksmithctl status", "Available: 1"));
    let steps: Vec<String> = audit(first).into_iter().map(|(what, _)| what).collect();
    assert_eq!(steps, ["lock", "unlock", "lock", "unlock", "lock", "unlock"]);
    assert_eq!(most_holders(first), 1);
}
