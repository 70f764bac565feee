//! Updates of whole machines: found, installed, tried, kept; given up when they are bad; gone back from; and what happens when
//! nothing good is left.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use release_format::{Digest, Kernel, KernelPatch, Operation, Piece, Recipe};

use qemu_tests::{Guest, Setup, Shop, Way, Web};

/// Makes the unit `bad.service`, which every boot wants to be healthy.
pub(crate) fn with_unit(command: &str) -> String {
    format!(
        "[units]\nenable = [\"bad.service\"]\n[[file]]\npath = \"/usr/lib/systemd/system/bad.service\"\ncontent = \"\"\"\n\
         [Unit]\nDescription=Bad\nX-Health=required\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={command}\n\
         [Install]\nWantedBy=multi-user.target\n\"\"\"\n[[file]]\npath = \"/etc/garboard/health.toml\"\n\
         content = \"settle = 1\\ndeadline = 20\\n\"\n"
    )
}

/// Waits until a version runs and the agent has understood what became of the last update.
pub(crate) fn runs(host: &mut Guest, version: &str, slot: &str) {
    host.wait_for_ssh();
    host.eventually(&format!("sudo update-agent status | grep -q 'version: *{version} (slot {slot})'"));
}

/// A machine with 1.0, which looks for releases as soon as it is up.
fn machine(shop: &Shop, web: &Web) -> Setup {
    Setup::of_image(&shop.build("1.0", "")).user_data(&web.user_data("interval: 3600\n"))
}

/// Starts it, and waits until its first version is up and answers.
pub(crate) fn up(setup: Setup) -> Guest {
    let mut host = setup.start();
    host.wait_for("garboard: boot-complete version=1.0 slot=a");
    host.wait_for_ssh();
    host
}

/// 1.0 finds 1.1 by itself, reboots into it and keeps it; it is pinned there; then 1.2 is taken, and somebody goes back from it.
#[test]
fn a_machine_keeps_good_versions_and_goes_back_when_told() {
    let shop = Shop::new();
    shop.release("1.1", "");
    let web = Web::serve(Path::new(&shop.path("repo")));
    let mut host = machine(&shop, &web).start();
    host.wait_for("garboard: boot-complete version=1.0 slot=a");
    host.wait_for("garboard: boot-complete version=1.1 slot=b");
    runs(&mut host, "1.1", "b");
    host.eventually("sudo update-agent history | grep -q 'good.*1.1'");
    let resident_kib: u64 = host.ok("sleep 1; awk '/^VmRSS/ {print $2}' /proc/$(pgrep -x update-agent)/status").parse().unwrap();
    assert!(resident_kib < 8 * 1024, "idle, the agent has {resident_kib} KiB");
    // The verdict is stored first, then the entry gets its name; the lock keeps this mount out of the way of that.
    let entries = "sudo flock /run/garboard/esp.lock sh -c 'mount -o ro /dev/vda1 /boot; ls /boot/EFI/Linux; umount /boot'";
    host.eventually(&format!("{entries} | grep -qx garboard_1.1.efi"));
    assert_eq!(host.ok(entries), "garboard_1.0.efi\ngarboard_1.1.efi");

    shop.release("1.2", "");
    host.ok("sudo update-agent pin 1.1");
    let said = host.ok("sudo update-agent update && sudo update-agent why");
    assert!(said.contains("version 1.2 is not taken since version 1.1 is pinned"), "{said}");
    host.ok("sudo update-agent pin --clear");
    let _ = host.run("sudo update-agent update");
    host.wait_for("garboard: boot-complete version=1.2 slot=a");
    runs(&mut host, "1.2", "a");
    host.eventually("sudo update-agent history | grep -q 'good.*1.2'");

    let _ = host.run("sudo update-agent rollback");
    runs(&mut host, "1.1", "b");
    let said = host.ok("sudo update-agent update");
    assert!(said.contains("set aside"), "{said}");
}

/// As the agent asks for it: the files in their directory, the unit, what comes out.
#[test]
fn a_kernel_is_rebuilt_by_a_unit_of_its_own() {
    let contents: Vec<u8> = (0..400_000_u32).map(|number| (number.wrapping_mul(number) >> 11) as u8 & 0x3f).collect();
    let kernels = [&contents[..], &contents[5..]].map(|contents| Kernel::sample(contents, 1).unwrap());
    let [old, new] = &kernels;
    let outside = Kernel::open(new).unwrap().outside(new).unwrap();
    let len = contents.len() as u64 - 5;
    let patch = KernelPatch {
        source: Digest::of(old),
        result: Digest::of(new),
        frame: Kernel::open(new).unwrap().frame as u64,
        len: new.len() as u64,
        recipe: Recipe::Zstd157,
        outside: Piece { operation: Operation::Raw, len: outside.len() as u64, from: 0, from_len: 0, payload: outside },
        pieces: vec![Piece { operation: Operation::Copy, len, from: 5, from_len: len, payload: Vec::new() }],
    };
    let patch = patch.encode().unwrap();
    let machine =
        Setup::of("tiny").memory_mib(2048).disk(|path| fs::write(path, old).unwrap()).disk(|path| fs::write(path, &patch).unwrap());
    let mut host = machine.start();
    host.wait_for_ssh();
    let directory = "/media/state/garboard/rebuild-kernel";
    // Disks are as long as their last sector.
    let take = |disk: &str, bytes: &[u8], name: &str| {
        host.ok(&format!("sudo head -c {} /dev/{disk} | sudo tee {directory}/{name} > /dev/null", bytes.len()));
    };
    host.ok(&format!("sudo mkdir -m 700 {directory}"));
    take("vdc", old, "old");
    take("vdd", &patch, "patch");
    host.ok("sudo systemctl start rebuild-kernel.service || { sudo journalctl -u rebuild-kernel.service >&2; false; }");
    assert_eq!(host.ok(&format!("sudo sha256sum {directory}/new")).split(' ').next().unwrap(), Digest::of(new).to_string());
    // One that does not fit fails, and its log says why.
    host.ok(&format!("sudo rm {directory}/new && sudo cp {directory}/patch {directory}/old"));
    assert_eq!(host.run("sudo systemctl start rebuild-kernel.service").code, 1);
    let log = host.ok("sudo journalctl -u rebuild-kernel.service");
    assert!(log.contains("made for another kernel"), "{log}");
}

/// It is given up and remembered; a good one is taken.
#[test]
fn a_version_whose_unit_fails_is_given_up_and_a_good_one_is_taken() {
    let shop = Shop::new();
    shop.release("1.1", &with_unit("/bin/false"));
    let web = Web::serve(Path::new(&shop.path("repo")));
    let mut host = ["bad.service", "boot-failed", "Failed to start"].into_iter().fold(machine(&shop, &web), Setup::expect_trouble).start();
    host.wait_for("garboard: boot-complete version=1.0 slot=a");
    host.wait_for("garboard: boot-failed version=1.1 slot=b reason=bad.service is failed");
    runs(&mut host, "1.0", "a");
    host.eventually("sudo update-agent history | grep -q 'failed.*1.1.*bad.service is failed'");
    let said = host.ok("sudo update-agent update");
    assert!(said.contains("failed on this host and is not tried again"), "{said}");

    shop.release("1.2", "");
    let _ = host.run("sudo update-agent update");
    host.wait_for("garboard: boot-complete version=1.2 slot=b");
    runs(&mut host, "1.2", "b");
    host.eventually("sudo update-agent history | grep -q 'good.*1.2'");
}

/// Three starts, then it is back: nobody has to do anything.
#[test]
fn a_version_that_panics_is_given_up_after_three_starts() {
    let shop = Shop::new();
    // Once there is a place for a kernel's last words.
    let panic = "until grep -q efi /sys/module/pstore/parameters/backend; do sleep 0.1; done; echo c >/proc/sysrq-trigger";
    shop.release("1.1", &with_unit(&format!("/bin/sh -c '{panic}'")));
    let web = Web::serve(Path::new(&shop.path("repo")));
    let trouble = ["Kernel panic - not syncing: sysrq", "Call Trace"];
    let mut host = trouble.into_iter().fold(machine(&shop, &web), Setup::expect_trouble).start();
    host.wait_for("garboard: boot-complete version=1.0 slot=a");
    // 1.0, three times 1.1, 1.0.
    for times in 2..=5 {
        host.wait_for_starts(times);
    }
    runs(&mut host, "1.0", "a");
    host.eventually("sudo update-agent history | grep -q 'failed.*1.1.*did not come up in 3 starts'");
    assert_eq!(host.console.text().matches("sysrq triggered crash").count(), 3);
    // What the kernels said last is kept, and was taken out of the firmware's store, which has room for few.
    host.eventually("sudo grep -rq 'sysrq triggered crash' /var/lib/garboard/pstore && test -z \"$(sudo ls /sys/fs/pstore)\"");
    assert_eq!(host.starts(), 5);
}

/// With no server no daemon runs; a bundle brings 1.1. When its root is damaged, the machine goes back by itself; when both are, it
/// stops and says so.
#[test]
fn an_air_gapped_machine_takes_a_bundle_and_ends_in_a_clear_stop_when_nothing_is_left() {
    let shop = Shop::new();
    let image = shop.build("1.0", "");
    shop.release("1.1", "");
    let (repo, keys, bundle) = (shop.path("repo"), shop.path("keys"), shop.path("tiny.bundle"));
    shop.garboard(&["bundle", "--repo", &repo, "--channel", "stable", "--keys", &keys, "--out", &bundle]);
    let trouble = ["is corrupted", "the boot stops here", "erofs", "I/O error"];
    let setup = trouble.into_iter().fold(Setup::of_image(&image), Setup::expect_trouble);
    // The bundle as a disk: what somebody brings on a stick.
    let stick = |path: &Path| assert!(std::fs::copy(&bundle, path).unwrap() > 0);
    let mut host = setup.disk(stick).start();
    host.wait_for_boot();
    host.wait_for_ssh();
    assert_eq!(host.run("systemctl is-active update-agent.service").out.trim(), "inactive", "nothing to do without a server");
    // The reboot daemon reboots as soon as the update is in place, which may cut the answer off.
    let said = host.run("sudo update-agent apply /dev/vdc");
    assert!(said.out.contains("version 1.1 is in place") || said.code == 255, "{} {}{}", said.code, said.out, said.err);
    host.wait_for("garboard: boot-complete version=1.1 slot=b");
    runs(&mut host, "1.1", "b");
    host.eventually("sudo update-agent history | grep -q 'good.*1.1'");
    host.press_power_button();

    damage(&host, &image, 4);
    host.power_on();
    host.wait_for("the root of version 1.1 in slot b is damaged: it is given up, the next boot starts version 1.0 from slot a");
    host.wait_for("garboard: boot-complete version=1.0 slot=a");
    host.wait_for_ssh();
    host.press_power_button();

    damage(&host, &image, 2);
    host.power_on();
    let said = host.wait_for("stopped: the root of version 1.0 in slot a is damaged, and there is nothing better to start");
    assert!(said.contains("the root of version 1.1 in the other slot is damaged"), "{said}");
    std::thread::sleep(Duration::from_secs(15));
    assert_eq!(host.starts(), 1, "it does not start again and again:\n{}", host.console.tail());
}

/// Its roll-out is held back, then comes in an hour: it says so, and goes by itself when it is offered to all. Then one of its UKIs is
/// damaged and later lost: it is whole again when the agent has started.
#[test]
#[ignore = "many boots: scripts/test-long"]
fn a_machine_waits_for_its_wave_and_repairs_its_entries() {
    let shop = Shop::new();
    let _ = shop.build("1.1", "");
    shop.publish_with("1.1", &["--hold"]);
    let web = Web::serve(Path::new(&shop.path("repo")));
    let mut host = up(Setup::of_image(&shop.build("1.0", "")).user_data(&web.user_data("interval: 20\n")));
    host.eventually("sudo update-agent why | grep -q 'paused'");
    shop.publish_with("1.1", &["--wave", "100%@100h"]);
    host.eventually("sudo update-agent why | grep -q 'reaches this host'");
    assert!(host.ok("sudo update-agent status").contains("1.0 (slot a)"));
    shop.publish_with("1.1", &["--wave", "100%@0s"]);
    host.wait_for("garboard: boot-complete version=1.1 slot=b");
    runs(&mut host, "1.1", "b");
    host.eventually("sudo update-agent history | grep -q 'good.*1.1'");

    let whole = with_esp(&host, "sha256sum *.efi");
    assert_eq!(whole.lines().count(), 2, "{whole}");
    with_esp(&host, "dd if=/dev/zero of=garboard_1.0.efi bs=1M seek=2 count=1 conv=notrunc,fsync");
    assert_ne!(with_esp(&host, "sha256sum *.efi"), whole);
    host.press_power_button();
    host.power_on();
    host.wait_for_boot();
    runs(&mut host, "1.1", "b");
    assert_eq!(with_esp(&host, "sha256sum *.efi"), whole);
    with_esp(&host, "rm garboard_1.0.efi");
    host.ok("sudo systemctl restart update-agent");
    host.eventually("sudo update-agent status --json | grep -q garboard_1.0.efi");
    assert_eq!(with_esp(&host, "sha256sum *.efi"), whole);
}

/// Runs a script where the UKIs lie, while the agent keeps out.
fn with_esp(host: &Guest, script: &str) -> String {
    host.ok(&format!("sudo flock /run/garboard/esp.lock sh -ec 'mount /dev/vda1 /boot; cd /boot/EFI/Linux; {script}; cd /; umount /boot'"))
}

#[test]
#[ignore = "many boots: scripts/test-long"]
fn an_update_in_full_survives_power_cuts() {
    survives_power_cuts(Way::Full);
}

#[test]
#[ignore = "many boots: scripts/test-long"]
fn an_update_by_chunks_survives_power_cuts() {
    survives_power_cuts(Way::Chunks);
}

#[test]
#[ignore = "many boots: scripts/test-long"]
fn an_update_by_patch_survives_power_cuts() {
    survives_power_cuts(Way::Patch);
}

/// The power fails at many moments of an update; each time the machine comes up in one of the two versions, and in the end the new
/// one is there.
fn survives_power_cuts(way: Way) {
    let shop = Shop::new();
    let image = shop.two_releases(way);
    let web = Web::serve(Path::new(&shop.path("repo")));
    let data = web.user_data("automatic: false\nreboot_strategy: off\n");
    let mut host = Setup::of_image(&image).user_data(&data).start();
    let mut cuts = 0;
    for point in 0..20_u64 {
        host.wait_for("garboard: boot-complete version=1.");
        host.wait_for_ssh();
        if host.run("sudo update-agent status | grep -q 'version: *1.1'").code == 0 {
            break;
        }
        host.ok("sudo sh -c 'nohup update-agent update >/dev/null 2>&1 &'");
        std::thread::sleep(Duration::from_millis(700 * (point + 1)));
        host.cut_power();
        host.power_on();
        cuts += 1;
    }
    eprintln!("{cuts} power cuts");
    assert!(cuts > 3, "the update was over before it could be cut");
    host.wait_for_ssh();
    if host.run("sudo update-agent status | grep -q 'version: *1.1'").code != 0 {
        host.ok("sudo update-agent update");
        host.cut_power();
        host.power_on();
    }
    host.wait_for("garboard: boot-complete version=1.1 slot=b");
    runs(&mut host, "1.1", "b");
    came(&host, "1.1", way);
}

/// That the last update is of this version, and came that way.
pub(crate) fn came(host: &Guest, version: &str, way: Way) {
    let said = host.ok("sudo update-agent status");
    assert!(said.contains(&format!("came:     {version} {}: ", way.as_str())), "{said}");
    eprintln!("{}", said.lines().find(|line| line.starts_with("came:")).unwrap_or_default());
}

/// Updates in a row alternate the slots and leave nothing behind. All of it within 64 MiB of memory.
#[test]
#[ignore = "many boots: scripts/test-long"]
fn twenty_updates_in_a_row() {
    let shop = Shop::new();
    let image = shop.build("1.0", "");
    shop.publish("1.0");
    let web = Web::serve(Path::new(&shop.path("repo")));
    let mut host = Setup::of_image(&image).user_data(&web.user_data("interval: 3600\n")).start();
    host.wait_for("garboard: boot-complete version=1.0 slot=a");
    host.wait_for_ssh();
    host.ok("sudo mkdir -p /media/state/units/update-agent.service.d");
    host.ok("printf '[Service]\\nMemoryMax=64M\\n' | sudo tee /media/state/units/update-agent.service.d/limit.conf >/dev/null");
    host.ok("sudo systemctl daemon-reload && sudo systemctl restart update-agent");
    for number in 1..=20 {
        let (version, slot) = (format!("1.{number}"), if number % 2 == 1 { "b" } else { "a" });
        shop.release(&version, "");
        let _ = host.run("sudo update-agent update");
        host.wait_for(&format!("garboard: boot-complete version={version} slot={slot}"));
        runs(&mut host, &version, slot);
        host.eventually(&format!("sudo update-agent history | grep -q 'good.*{version} '"));
        came(&host, &version, Way::Patch);
    }
    assert_eq!(host.ok("sudo ls /media/state/garboard/update/uki | wc -l"), "4", "two copies with their records");
}

/// No room on the ESP, then none on state: the one is refused before anything is changed, the other is what the reserve is for.
#[test]
#[ignore = "scripts/test-long"]
fn a_full_esp_is_refused_and_a_full_state_is_not() {
    let shop = Shop::new();
    let image = shop.build("1.0", "");
    shop.release("1.1", "");
    let web = Web::serve(Path::new(&shop.path("repo")));
    let mut host = Setup::of_image(&image).user_data(&web.user_data("automatic: false\n")).start();
    host.wait_for("garboard: boot-complete version=1.0 slot=a");
    runs(&mut host, "1.0", "a");
    host.ok("sudo mount /dev/vda1 /boot; sudo dd if=/dev/zero of=/boot/filler bs=1M count=110 2>/dev/null || true; sudo umount /boot");
    let reply = host.run("sudo update-agent update");
    assert!(reply.code == 1 && reply.err.contains("esp-full"), "{}{}", reply.out, reply.err);
    host.ok("sudo mount /dev/vda1 /boot; sudo rm /boot/filler; sudo umount /boot");
    host.ok("sudo dd if=/dev/zero of=/media/state/filler bs=1M 2>/dev/null || true; sync");
    let _ = host.run("sudo update-agent update");
    host.wait_for("garboard: boot-complete version=1.1 slot=b");
}

/// Overwrites the first block of a partition of a machine that is off.
pub fn damage(host: &Guest, image: &Path, partition: u64) {
    let mut sector = [0_u8; 8];
    File::open(image).unwrap().read_exact_at(&mut sector, 1024 + (partition - 1) * 128 + 32).unwrap();
    let start = u64::from_le_bytes(sector) * 512;
    let command = format!("write -P 0xee {start} 4096");
    let output = Command::new("qemu-io").args(["-f", "qcow2", "-c", &command]).arg(host.disk()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
