//! Three machines that are one etcd cluster, as `garboard cluster` starts them: releases go through them one at a time while a client
//! writes, a broken one stops at the first. `make test-long`.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use qemu_tests::{Fleet, Node, Setup, Shop, Web};

use super::update::with_unit;

/// A boot of a busy emulated machine, its health gate, and the reboot daemon's word to etcd, three times over.
const ROLL: Duration = Duration::from_secs(900);
const GATE: &str = "[[file]]\npath = \"/etc/garboard/health.toml\"\ncontent = \"settle = 2\\ndeadline = 200\\n\"\n";

/// Watches, while `during` runs, how many members are well at the same time; the fewest.
fn fewest_healthy(fleet: &Fleet, during: impl FnOnce()) -> usize {
    let (over, fewest) = (AtomicBool::new(false), AtomicUsize::new(usize::MAX));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                fewest.fetch_min(fleet.healthy(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(300));
            }
        });
        during();
        over.store(true, Ordering::Relaxed);
    });
    fewest.into_inner()
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

/// Who took and gave back the lock, in order: `("lock", "node2")`.
fn audit(node: &Node) -> Vec<(String, String)> {
    let text = node.ok("sudo locksmithctl audit");
    let step = |line: &str| {
        let what = line.split_whitespace().nth(3)?;
        let host = line.split(" on ").nth(1)?.split(' ').next()?;
        matches!(what, "lock" | "unlock").then(|| (what.to_owned(), host.to_owned()))
    };
    text.lines().filter_map(step).collect()
}

/// Point 2 of what the reboot daemon is for: releases one by one, nothing lost; a broken one stays at the first host, also after `unlock`;
/// the next good one goes through.
#[test]
#[ignore = "three machines and four releases: scripts/test-long"]
fn releases_go_through_a_cluster_one_host_at_a_time_and_a_broken_one_stops_at_the_first() {
    let shop = Shop::of("docker");
    let image = shop.build("1.0", GATE);
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
    let fewest = fewest_healthy(&fleet, || fleet.wait_until("on 1.1", ROLL, |node| node.boots("1.1") == 1));
    let written = writer.finish();
    eprintln!("while three hosts rebooted: {written}; never fewer than {fewest} members");
    assert!(fewest >= 2, "one at a time: {fewest}");
    assert!(written.keys.len() > 100, "{written}");
    fleet.wait_until("given back", ROLL, |_| says(first, "sudo locksmithctl status", "Available: 1"));
    let there = first.ok("etcdctl get --prefix written/ --keys-only --endpoints=http://127.0.0.1:2379");
    let there: std::collections::HashSet<&str> = there.lines().collect();
    let lost: Vec<_> = written.keys.iter().filter(|key| !there.contains(key.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    for node in &fleet.nodes {
        assert!(runs(node, "1.1"), "{}", node.name);
    }

    // A broken one: the first host falls back, keeps its lock, and nobody follows it, though somebody gives its lock back.
    let bad = with_unit("/bin/false").replace("settle = 1", "settle = 2").replace("deadline = 20", "deadline = 120");
    shop.release("1.2", &bad);
    fleet.wait_until("quarantined", ROLL, |node| says(node, "sudo locksmithctl status", "1.2"));
    fleet.wait_until("explained", ROLL, |node| says(node, "sudo locksmithctl why", "quarantine"));
    let failed: Vec<&Node> = fleet.nodes.iter().filter(|node| node.console.text().contains("boot-failed version=1.2")).collect();
    let [failed] = failed.as_slice() else { panic!("{} hosts tried the broken release", failed.len()) };
    assert!(says(failed, "sudo locksmithctl status", &format!("  {}  ", failed.name)), "it keeps the lock");
    failed.ok("sudo locksmithctl unlock");
    assert!(says(failed, "sudo locksmithctl status", "Available: 1"));
    thread::sleep(Duration::from_secs(60));
    for node in &fleet.nodes {
        let tried = node.console.text().contains("version=1.2");
        assert_eq!(tried, node.name == failed.name, "{}", node.name);
        assert!(runs(node, "1.1") && says(node, "sudo locksmithctl status", "1.2"), "{}", node.name);
    }

    // A newer good one: all go on.
    shop.release("1.3", GATE);
    let fewest = fewest_healthy(&fleet, || fleet.wait_until("on 1.3", ROLL, |node| node.boots("1.3") == 1));
    assert!(fewest >= 2, "one at a time: {fewest}");
    fleet.wait_until("given back", ROLL, |_| says(first, "sudo locksmithctl status", "Available: 1"));
    // The trail says the same: each lock went back before the next was taken.
    let steps = audit(first);
    for two in steps.windows(2) {
        assert!(two[0].0 != two[1].0 && (two[0].0 == "unlock" || two[0].1 == two[1].1), "{steps:?}");
    }
    assert!(steps.len() >= 13, "six reboots, and the one that failed: {steps:?}");
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
    let fewest = fewest_healthy(&fleet, || fleet.wait_until("rebooted", ROLL, |node| node.boots("1.0.0") == 2));
    assert!(fewest >= 2, "one at a time: {fewest}");
    fleet.wait_until("given back", ROLL, |_| says(first, "sudo locksmithctl status", "Available: 1"));
}
