//! Three machines that are one etcd cluster, as `garboard cluster` starts them: releases go through them one at a time while a client
//! writes, a broken one stops at the first. `make test-long`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use qemu_tests::{Fleet, Node, Shop, Web};

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
    node.run("sudo update-agent status").out.contains(&format!("version: {version} "))
        || node.run(&format!("sudo update-agent status | grep -q 'version: *{version} '")).code == 0
}

fn says(node: &Node, command: &str, text: &str) -> bool {
    let reply = node.run(command);
    let found = reply.out.contains(text);
    if !found {
        eprintln!("{}: {command}: {}{}", node.name, reply.out.trim(), reply.err.trim());
    }
    found
}

/// When locks were taken and given back for a version, in order: `lock node2`, `unlock node2`.
fn audit(node: &Node, version: &str) -> Vec<String> {
    let text = node.ok("sudo locksmithctl audit");
    let steps = text.lines().filter(|line| line.contains(version) || line.contains(" unlock ")).filter_map(|line| {
        let mut words = line.split_whitespace().skip(3);
        let what = words.next()?;
        let host = line.split(" on ").nth(1)?.split(' ').next()?;
        matches!(what, "lock" | "unlock").then(|| format!("{what} {host}"))
    });
    steps.collect()
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
    let steps = audit(first, "1.3");
    eprintln!("{steps:?}");
}
