//! A unit that misbehaves hurts itself only.

use std::time::{Duration, Instant};

use crate::engine::Engine;

#[test]
fn a_unit_that_forks_without_end_is_stopped_in_bounded_time_while_others_live() {
    // Each of its processes forks again as soon as it may, and none heeds SIGTERM. The limit of its user stands for TasksMax=, which
    // needs a kernel whose pids controller is not taken; the machine tests show that.
    let bomb = "my $made = 0; $SIG{TERM} = \"IGNORE\"; $SIG{CHLD} = \"IGNORE\"; \
        while (1) { my $p = fork; if (defined $p) { if ($p == 0) { $made = 0 } else { $made++ } } else { select undef, undef, undef, 0.002 } }";
    let unit = format!(
        "[Service]\nUser=61183\nLimitNPROC=400\nTasksMax=400\nTimeoutStopSec=1\nNice=19\nExecStart=/usr/bin/perl -e '{}'\n",
        bomb.replace('$', "$$")
    );
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=good.service\n"),
        ("good.service", "[Service]\nExecStart=/bin/sh -c 'while :; do echo x >> @/alive; sleep 0.05; done'\n"),
        ("bomb.service", &unit),
    ]);
    engine.until("the good one", || engine.state("good.service") == "active/running");
    assert_eq!(engine.job("start", "bomb.service"), "done", "{}", engine.log());
    let group = engine.group.join("system.slice/bomb.service/cgroup.procs");
    engine.until("hundreds of processes", || std::fs::read_to_string(&group).unwrap_or_default().lines().count() > 300);
    let alive = engine.read("alive").lines().count();
    let asked = Instant::now();
    assert_eq!(engine.state("good.service"), "active/running");
    assert!(asked.elapsed() < Duration::from_secs(5), "PID 1 answers: {:?}", asked.elapsed());
    engine.until("a word of the good one", || engine.read("alive").lines().count() > alive);
    let begun = Instant::now();
    assert_eq!(engine.job("stop", "bomb.service"), "done", "{}", engine.log());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    engine.until("that nothing of it is left", || !group.exists());
    assert_eq!(engine.state("good.service"), "active/running");
}

#[test]
fn a_unit_file_of_any_bytes_that_a_boot_wants_does_not_stop_it() {
    let noise: String = (0..20_000_u32).map(|n| char::from_u32(n.wrapping_mul(2_654_435_761) % 0x800).unwrap_or('\n')).collect();
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=noise.service raw.service loop.service good.service\nAfter=noise.service loop.service\n"),
        ("good.service", "[Service]\nExecStart=/bin/sleep 1000\n"),
        ("noise.service", &noise),
        ("raw.service", ""),
        ("loop.service", "[Unit]\nRequires=loop.service\nAfter=loop.service\nBefore=loop.service\n[Service]\nExecStart=/bin/true\n"),
    ]);
    engine.until("boot-complete", || engine.log().contains("garboard: boot-complete"));
    assert_eq!(engine.state("good.service"), "active/running");
    assert_ne!(engine.show("noise.service", "LoadState"), "loaded");
}
