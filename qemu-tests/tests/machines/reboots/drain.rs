//! What ends before a reboot, and in which order: hooks, containers, units.

use qemu_tests::Guest;

use super::{machine, rebooted, said_at};
use crate::docker::{LEND, build_image};

/// A bound that what ends by itself does not need, and that includes the hooks.
const BOUND: f64 = 40.0;

/// A hook.
pub(super) fn hook(host: &Guest, name: &str, script: &str) {
    let path = format!("/etc/garboard/pre-reboot.d/{name}");
    host.ok(&format!("sudo tee {path} >/dev/null <<'END'\n#!/bin/sh\n{script}\nEND\nsudo chmod 755 {path}"));
}

/// A container of the image that [`build_image`] made; `options` say how it is stopped.
fn container(host: &Guest, name: &str, options: &str, script: &str) {
    host.ok(&format!("docker run -d --name {name} {options} -v data:/data {LEND} local/base bash -c '{script}; sleep infinity & wait'"));
}

/// A unit that says when it stops, which is before what it comes after.
fn unit(host: &Guest, name: &str, after: &str) {
    let service = format!("Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/echo {name} stops");
    let text = format!("[Unit]\nAfter={after}\n[Service]\n{service}\n[Install]\nWantedBy=multi-user.target\n");
    host.ok(&format!("sudo tee /media/state/units/{name}.service >/dev/null <<'END'\n{text}END"));
    host.ok(&format!("sudo systemctl daemon-reload && sudo systemctl enable --now {name}"));
}

/// How a container ended, and when.
fn ended(host: &Guest, name: &str) -> (String, f64) {
    let state = |what: &str| host.ok(&format!("docker inspect -f '{{{{.State.{what}}}}}' {name}"));
    let at = host.ok(&format!("date -d '{}' +%s.%N", state("FinishedAt")));
    (state("ExitCode"), at.parse().unwrap())
}

/// Hooks run before anything stops, and one that hangs is cut; each container has its own time; then units stop in reverse. All before PID 1's
/// part has one bound, whatever a container would like.
#[test]
#[ignore = "three boots with Docker: scripts/test-long"]
fn hooks_containers_and_units_end_in_order_and_within_a_bound() {
    let settings = format!("strategy: etcd-lock\nhook_timeout: 5s\ndrain_timeout: {BOUND}s\nhooks_must_succeed: false\n");
    let mut host = machine("docker", &settings);
    build_image(&host);
    hook(&host, "10-first", "echo \"$1 with $(docker ps -q | wc -l) containers\"");
    hook(&host, "20-hangs", "exec sleep 600");
    unit(&host, "lower", "docker.service");
    unit(&host, "upper", "lower.service");
    container(&host, "tidy", "--stop-timeout 30", "trap \"sleep 4; echo in order >/data/end; exit 0\" TERM");
    container(&host, "stubborn", "--stop-timeout 3", "trap \"\" TERM");
    container(&host, "kept", "--restart unless-stopped", "trap \"exit 0\" TERM");
    let log = |host: &Guest, text: &str| said_at(host, -1, "reboot-locksmith", text);
    let kept = |host: &Guest| host.eventually("docker inspect -f '{{.State.Running}}' kept | tee /dev/stderr | grep -q true");

    host.ok("sudo locksmithctl send-need-reboot");
    rebooted(&mut host, 2);
    let begun = log(&host, "draining: nothing is against the reboot");
    let hooked = log(&host, "pre-reboot with 3 containers");
    let cut = log(&host, "/etc/garboard/pre-reboot.d/20-hangs took more than 5s; going on, as the settings say");
    let (reboots, upper, lower) = (
        log(&host, "rebooting: asked for by hand"),
        said_at(&host, -1, "upper", "upper stops"),
        said_at(&host, -1, "lower", "lower stops"),
    );
    host.eventually("docker version >/dev/null");
    let ((tidy, tidy_at), (stubborn, stubborn_at)) = (ended(&host, "tidy"), ended(&host, "stubborn"));
    eprintln!(
        "since the drain began: hook {:.1} s, hook cut {:.1} s, tidy {:.1} s, stubborn {:.1} s, reboot {:.1} s, upper {:.1} s, lower {:.1} s",
        hooked - begun,
        cut - begun,
        tidy_at - begun,
        stubborn_at - begun,
        reboots - begun,
        upper - begun,
        lower - begun
    );
    assert!(begun <= hooked && cut - hooked > 4.5 && cut - hooked < 15.0, "{begun} {hooked} {cut}");
    assert_eq!((tidy.as_str(), host.ok("sudo cat /var/lib/docker/volumes/data/_data/end").as_str()), ("0", "in order"));
    assert_eq!(stubborn, "137", "killed");
    // By its own time, not by another one.
    said_at(&host, -1, "docker", "failed to exit within 3s of signal 15");
    assert!(tidy_at - cut > 4.0 && stubborn_at - cut > 3.0, "{cut} {tidy_at} {stubborn_at}");
    assert!(tidy_at < reboots && stubborn_at < reboots && reboots < upper && upper < lower, "{reboots} {upper} {lower}");
    kept(&host);
    host.eventually("sudo locksmithctl status | tee /dev/stderr | grep -q 'Available: 1'");

    // One that would like more than there is: all together has its bound, the hook that hangs included.
    container(&host, "slow", "--stop-timeout 600", "trap \"sleep 300\" TERM");
    host.ok("sudo locksmithctl send-need-reboot");
    rebooted(&mut host, 3);
    log(&host, "not all containers stopped in time: docker stop took more than");
    let took = log(&host, "rebooting: asked for by hand") - log(&host, "draining: nothing is against the reboot");
    eprintln!("a drain of {took:.1} s that has at most {BOUND} s");
    assert!((BOUND - 1.0..BOUND + 10.0).contains(&took), "{took} s");
    kept(&host);
    assert_eq!(host.ok("docker inspect -f '{{.State.Running}} {{.State.ExitCode}}' slow"), "false 137");
    assert_eq!(host.starts(), 3);
}
