//! New versions that are bad in ways of their own: a machine that hangs, one that never gets healthy, a corrupt root, a kernel that the
//! firmware cannot load, Docker or etcd that never come up. Each time the machine is back on the version before by itself. And a
//! good one whose daemons are killed. `make test-long`.

use std::path::Path;
use std::time::{Duration, Instant};

use qemu_tests::{Guest, Setup, Shop, Web};

use super::update::{damage, runs, up};

const GATE: &str = "[[file]]\npath = \"/etc/garboard/health.toml\"\ncontent = \"settle = 2\\ndeadline = 60\\n\"\n";

/// A machine on 1.0 that looks for releases when it is asked to, and reboots into them when `reboot` says so.
fn machine(shop: &Shop, web: &Web, lines: &str, reboot: bool, trouble: &[&'static str]) -> Setup {
    let image = shop.build("1.0", lines);
    let strategy = if reboot { "reboot" } else { "off" };
    let data = web.user_data(&format!("automatic: false\nreboot_strategy: {strategy}\n"));
    trouble.iter().copied().fold(Setup::of_image(&image), Setup::expect_trouble).user_data(&data)
}

/// Takes 1.1 and reboots into it, which may cut the answer off.
fn update(host: &Guest) {
    let reply = host.run("sudo update-agent update");
    eprintln!("update-agent update: {} {}{}", reply.code, reply.out, reply.err);
}

fn is_back(host: &mut Guest, why: &str) {
    host.wait_for("garboard: boot-complete version=1.0 slot=a");
    runs(host, "1.0", "a");
    host.eventually(&format!("sudo update-agent history | grep -q 'failed.*1.1.*{why}'"));
    let said = host.ok("sudo update-agent update");
    assert!(said.contains("failed on this host and is not tried again"), "{said}");
}

/// The agent and the reboot daemon die again and again while a version is on trial, which is decided without them.
#[test]
#[ignore = "two boots: scripts/test-long"]
fn daemons_that_are_killed_over_a_trial_take_nothing_from_a_good_version() {
    let shop = Shop::new();
    shop.release("1.1", &GATE.replace("settle = 2", "settle = 60").replace("deadline = 60", "deadline = 180"));
    let web = Web::serve(Path::new(&shop.path("repo")));
    let mut host = up(machine(&shop, &web, GATE, true, &[]));
    update(&host);
    host.wait_for_starts(2);
    host.wait_for_ssh();
    for daemon in ["update-agent", "reboot-locksmit", "update-agent", "reboot-locksmit"] {
        let old = host.eventually(&format!("pgrep -x {daemon}"));
        host.ok(&format!("sudo kill -9 {old}"));
        host.eventually(&format!("new=$(pgrep -x {daemon}) && [ $new != {old} ]"));
    }
    assert!(!host.console.text().contains("boot-complete version=1.1"), "it is still on trial");
    host.wait_for("garboard: boot-complete version=1.1 slot=b");
    runs(&mut host, "1.1", "b");
    host.eventually("sudo update-agent history | tee /dev/stderr | grep -q 'good.*1.1'");
    host.eventually("sudo locksmithctl why | tee /dev/stderr | grep -q 'No reboot is wanted'");
    assert_eq!(host.starts(), 2);
}

/// A version whose machine hangs while its health is still watched, with a hardware watchdog: that resets it, three times.
fn is_reset_by_the_watchdog(lines: &str, hang: &str) {
    let shop = Shop::new();
    let watchdog = "[[file]]\npath = \"/etc/systemd/system.conf.d/watchdog.conf\"\ncontent = \"[Manager]\\nRuntimeWatchdogSec=10\\n\"\n";
    let unit = "[units]\nenable = [\"hang.service\"]\n[[file]]\npath = \"/usr/lib/systemd/system/hang.service\"\ncontent = \"\"\"\n[Service]\n\
                CPUSchedulingPolicy=fifo\nCPUSchedulingPriority=99\nExecStart=/bin/bash /usr/lib/hang\n[Install]\nWantedBy=multi-user.target\n\"\"\"\n";
    let script = format!(
        "[[file]]\npath = \"/usr/lib/hang\"\ncontent = '''\nuntil grep -qx active /sys/class/watchdog/watchdog0/state; do sleep 1; done\n\
         sleep 10\nsay_so() {{ echo '<2>hanging' >/dev/kmsg; }}\n{hang}\n'''\n"
    );
    // It hangs while its health is still watched; later, it would be a good version that hangs.
    let gate = GATE.replace("settle = 2", "settle = 40").replace("deadline = 60", "deadline = 120");
    shop.release("1.1", &format!("{unit}{script}{watchdog}{gate}{lines}"));
    let web = Web::serve(Path::new(&shop.path("repo")));
    let trouble = ["hanging", "rcu", "watchdog", "soft lockup", "hung", "stall"];
    let setup = machine(&shop, &web, &format!("{watchdog}{GATE}"), true, &trouble);
    let mut host = up(setup.device("i6300esb"));
    update(&host);
    host.wait_for("hanging");
    // 1.0, three times 1.1, 1.0.
    for times in 3..=5 {
        host.wait_for_starts(times);
    }
    is_back(&mut host, "did not come up in 3 starts");
    assert_eq!(host.starts(), 5);
}

/// A real-time loop has the one processor, without the share that the kernel keeps for others: PID 1 does not run either, so nobody keeps
/// the watchdog quiet.
#[test]
#[ignore = "many boots: scripts/test-long"]
fn a_version_whose_user_space_hangs_is_reset_by_the_watchdog_and_given_up() {
    is_reset_by_the_watchdog(
        "",
        "mount -t debugfs none /sys/kernel/debug; echo 0 >/sys/kernel/debug/sched/fair_server/cpu0/runtime\n\
         echo -1 >/proc/sys/kernel/sched_rt_runtime_us; echo 0 >/proc/sys/kernel/soft_watchdog; say_so; while :; do :; done",
    );
}

/// Its processor is made deaf: it hears of no timer and no device any more.
#[test]
#[ignore = "many boots: scripts/test-long"]
fn a_version_whose_kernel_hangs_is_reset_by_the_watchdog_and_given_up() {
    let deafen = env!("CARGO_BIN_EXE_deafen");
    is_reset_by_the_watchdog(
        &format!("[[file]]\npath = \"/usr/lib/deafen\"\nsource = \"{deafen}\"\n[kernel]\ncmdline = [\"iomem=relaxed\"]\n"),
        "say_so; /usr/lib/deafen",
    );
}

/// Its machine runs, but a service that it needs never gets ready: back by itself, in at most one deadline and one boot.
#[test]
#[ignore = "many boots: scripts/test-long"]
fn a_version_that_never_gets_healthy_is_given_up_at_its_deadline() {
    let shop = Shop::new();
    let unit = "[units]\nenable = [\"never.service\"]\n[[file]]\npath = \"/usr/lib/systemd/system/never.service\"\ncontent = \"\"\"\n[Unit]\n\
                X-Health=required\n[Service]\nType=notify\nTimeoutStartSec=infinity\nExecStart=/bin/sleep infinity\n\
                [Install]\nWantedBy=multi-user.target\n\"\"\"\n";
    shop.release("1.1", &format!("{unit}{GATE}"));
    let web = Web::serve(Path::new(&shop.path("repo")));
    let mut host = machine(&shop, &web, GATE, true, &["boot-failed"]).start();
    let began = Instant::now();
    host.wait_for("garboard: boot-complete version=1.0 slot=a");
    let one_boot = began.elapsed();
    host.wait_for_ssh();
    update(&host);
    host.wait_for_starts(2);
    let trial = Instant::now();
    host.wait_for("garboard: boot-failed version=1.1 slot=b reason=start-up jobs are not done");
    host.wait_for_starts(3);
    is_back(&mut host, "never.service");
    let took = trial.elapsed();
    assert_eq!(host.starts(), 3);
    // The trial's own boot until its deadline begins to count, the deadline, and a boot.
    assert!(took < one_boot * 2 + Duration::from_secs(60), "back after {took:?}, a boot takes {one_boot:?}");
}

/// What is on the disk is not what was verified when it was written: a bad medium.
#[test]
#[ignore = "many boots: scripts/test-long"]
fn a_version_whose_root_is_corrupt_is_given_up() {
    let shop = Shop::new();
    shop.release("1.1", GATE);
    let web = Web::serve(Path::new(&shop.path("repo")));
    let setup = machine(&shop, &web, GATE, false, &["is corrupted", "erofs", "I/O error", "is damaged", "Kernel panic", "boot-failed"]);
    let image = setup.image().to_owned();
    let mut host = up(setup);
    host.ok("sudo update-agent update");
    host.press_power_button();
    damage(&host, &image, 4);
    host.power_on();
    is_back(&mut host, "");
}

/// Its kernel is not one any more when the firmware is to start it. The loader gives it up after its tries, without a kernel's help.
#[test]
#[ignore = "many boots: scripts/test-long"]
fn a_version_that_the_firmware_cannot_load_is_given_up() {
    let shop = Shop::new();
    shop.release("1.1", GATE);
    let web = Web::serve(Path::new(&shop.path("repo")));
    let setup = machine(&shop, &web, GATE, false, &["Failed to start boot entry", "Load error"]);
    let mut host = up(setup);
    host.ok("sudo update-agent update");
    // The stub stays, what it starts does not: past the copy and the check, as a disk may do it.
    host.ok("sudo systemctl stop update-agent; sudo mount /dev/vda1 /boot; \
             f=$(ls /boot/EFI/Linux/garboard_1.1+*.efi); sudo dd if=/dev/zero of=$f bs=1M seek=1 count=4 conv=notrunc,fsync 2>/dev/null; sudo umount /boot");
    host.cut_power();
    host.power_on();
    is_back(&mut host, "did not come up in 3 starts");
}

/// The gate of the image that we ship asks for Docker and etcd.
fn does_not_come_up(unit: &str, reason: &str) {
    let shop = Shop::of("docker");
    let broken = format!(
        "[[file]]\npath = \"/usr/lib/systemd/system/{unit}.d/broken.conf\"\ncontent = \"[Service]\\nExecStart=\\nExecStart=/bin/false\\n\"\n{GATE}"
    );
    shop.release("1.1", &broken);
    let web = Web::serve(Path::new(&shop.path("repo")));
    let trouble = ["boot-failed", "docker", "etcd", "Failed", "containerd"];
    let setup = machine(&shop, &web, GATE, true, &trouble);
    let mut host = up(setup.memory_mib(2048));
    update(&host);
    host.wait_for(&format!("garboard: boot-failed version=1.1 slot=b reason={reason}"));
    let failed = Instant::now();
    is_back(&mut host, unit);
    assert!(failed.elapsed() < Duration::from_secs(240), "back after {:?}", failed.elapsed());
}

#[test]
#[ignore = "many boots: scripts/test-long"]
fn a_version_whose_docker_does_not_come_up_is_given_up() {
    does_not_come_up("docker.service", "docker.service");
}

#[test]
#[ignore = "many boots: scripts/test-long"]
fn a_version_whose_etcd_does_not_come_up_is_given_up() {
    does_not_come_up("etcd.service", "etcd.service");
}
