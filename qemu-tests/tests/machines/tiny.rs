//! `recipes/tiny` as a machine: boot, state, the reaper, units that misbehave, and power that fails.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use qemu_tests::Setup;

#[test]
fn first_boot_second_boot_and_a_bigger_disk() {
    let mut host = Setup::of("tiny").disk_gib(4).start();
    let line = host.wait_for_boot();
    assert!(line.starts_with("garboard: boot-complete version=1.0.0 slot=a uptime="), "{line}");
    host.wait_for_ssh();

    assert_eq!(host.ok("cat /proc/1/comm"), "init");
    let machine_id = host.ok("cat /etc/machine-id");
    assert!(machine_id.len() == 32 && machine_id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{machine_id}");
    let host_key = host.ok("cat /etc/ssh/ssh_host_ed25519_key.pub");
    assert_eq!(host.ok("findmnt -n -o FSTYPE /"), "erofs");
    assert_eq!(host.run("sudo touch /usr/bin/x").code, 1, "the root is read-only");
    let state_mib: u64 = host.ok("df -m --output=size /media/state | tail -n 1").trim().parse().unwrap();
    assert!(state_mib > 2500, "state grew to the 4 GiB disk: {state_mib} MiB");
    for directory in ["/var", "/home", "/root", "/opt", "/srv"] {
        host.ok(&format!("findmnt -n {directory}"));
    }
    assert_eq!(host.ok("ls -d /run/systemd/system 2>/dev/null || echo none"), "none");
    assert_eq!(host.ok("systemctl --failed --no-legend | wc -l"), "0");
    host.ok("echo kept | sudo tee /etc/kept /var/lib/kept /home/core/kept >/dev/null");
    host.press_power_button();

    host.power_on();
    host.wait_for_boot();
    host.wait_for_ssh();
    assert_eq!(host.ok("cat /etc/machine-id"), machine_id);
    assert_eq!(host.ok("cat /etc/ssh/ssh_host_ed25519_key.pub"), host_key);
    assert_eq!(host.ok("cat /etc/kept /var/lib/kept /home/core/kept"), "kept\nkept\nkept");
    let clean = host.ok("journalctl -b -k --no-pager -o cat | grep -c 'recovery complete' || true");
    assert_eq!(clean, "0", "state was unmounted clean");
    assert_eq!(host.ok("journalctl --list-boots --no-pager | tail -n +2 | wc -l"), "2");
    let boot_id = host.ok("tr -d - < /proc/sys/kernel/random/boot_id");
    assert!(host.ok("journalctl --list-boots --no-pager | tail -n 1").contains(&format!("  0 {boot_id} ")));
}

#[test]
fn five_hundred_orphans_are_reaped() {
    let mut host = Setup::of("tiny").start();
    host.wait_for_boot();
    host.wait_for_ssh();
    host.ok("for i in $(seq 500); do (sleep 2 &) ; done");
    host.eventually("test $(ps -e -o stat= | grep -c '^Z') = 0 && ! pgrep -x sleep");
    // PID 1 still answers, and is still small.
    host.ok("systemctl is-active multi-user.target");
    let resident_kib: u64 = host.ok("awk '/^VmRSS/ {print $2}' /proc/1/status").parse().unwrap();
    assert!(resident_kib < 6 * 1024, "init has {resident_kib} KiB resident");

    // What the kernel sends for Ctrl-Alt-Del, a reboot in order; and one that stops no unit first. Before either ends, the state is unmounted.
    for asked in ["kill -INT 1", "sh -c '(sleep 1; reboot -f) >/dev/null 2>&1 &'"] {
        let boot_id = host.ok("cat /proc/sys/kernel/random/boot_id");
        host.ok(&format!("sudo {asked}"));
        host.eventually(&format!("test $(cat /proc/sys/kernel/random/boot_id) != {boot_id}"));
        let recovered = host.ok("journalctl -b -k --no-pager -o cat | grep -c 'recovery complete' || true");
        assert_eq!(recovered, "0", "state was unmounted clean after {asked}");
    }
}

#[test]
fn state_that_cannot_be_read_is_never_formatted() {
    let mut start = 0;
    let find = |image: &std::fs::File| {
        // The first sector in the sixth entry of the partition table.
        let mut sector = [0_u8; 8];
        image.read_exact_at(&mut sector, 1024 + 5 * 128 + 32).unwrap();
        start = u64::from_le_bytes(sector) * 512;
    };
    let mut host = Setup::of("tiny").tamper(find).expect_trouble("the boot stops here").start();
    host.wait_for_boot();
    host.press_power_button();

    // Everything is gone, the backups of the superblock too; only the partition's label says that it was ours.
    qemu_io(&host.disk(), &format!("write -z {start} 1G"));
    host.power_on();
    let cause = host.wait_for("init: the boot stops here");
    assert!(cause.contains("state"), "{cause}");
    host.cut_power();
    // Still nothing but zeros.
    qemu_io(&host.disk(), &format!("read -P 0 {start} 1M"));
}

/// Reads or writes a disk of a machine that is off.
fn qemu_io(disk: &Path, command: &str) {
    let done = Command::new("qemu-io").args(["-f", "qcow2", "-c", command]).arg(disk).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && !text.contains("failed"), "{command}: {text}{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_crash_looping_unit_backs_off_and_is_given_up() {
    let mut host = Setup::of("tiny").expect_trouble("crash").start();
    host.wait_for_boot();
    host.wait_for_ssh();
    let unit = "[Service]\\nExecStart=/bin/false\\nRestart=always\\nRestartSec=100ms\\nRestartSteps=4\\nRestartMaxDelaySec=2s\\n";
    host.ok(&format!("printf '{unit}' | sudo tee /media/state/units/crash.service >/dev/null; sudo systemctl daemon-reload"));
    host.ok("sudo systemctl start --no-block crash.service");
    host.eventually("test $(systemctl show -p NRestarts --value crash.service) -ge 3");
    // Five starts in ten seconds is the default limit; the delays before them are 0.1, 0.2, 0.4 and 0.9 s.
    host.eventually("test $(systemctl show -p Result --value crash.service) = start-limit-hit");
    assert_eq!(host.ok("systemctl show -p NRestarts --value crash.service"), "4");
    assert_eq!(host.ok("systemctl is-failed crash.service"), "failed");
    host.ok("sleep 3");
    assert_eq!(host.ok("systemctl show -p NRestarts --value crash.service"), "4", "it was given up");
    host.ok("systemctl status crash.service || true");
    host.ok("sudo systemctl stop crash.service && ! systemctl is-active -q crash.service");
}

#[test]
fn what_was_synced_survives_a_power_cut_during_writes() {
    let mut host = Setup::of("tiny").start();
    host.wait_for_boot();
    host.wait_for_ssh();
    host.ok("sudo sh -c 'echo before > /var/lib/synced; sync /var/lib/synced'");
    host.ok("sudo sh -c 'nohup sh -c \"while :; do dd if=/dev/urandom of=/var/lib/noise bs=1M count=16 conv=fsync; done\" >/dev/null 2>&1 &'; sleep 3");
    host.cut_power();
    for _ in 0..2 {
        host.power_on();
        host.wait_for_boot();
        host.wait_for_ssh();
        assert_eq!(host.ok("cat /var/lib/synced"), "before");
        assert_eq!(host.ok("systemctl --failed --no-legend | wc -l"), "0");
        host.cut_power();
    }
}

#[test]
fn a_corrupted_root_block_is_never_served() {
    // A byte in the middle of the first slot's root: in the data of some file.
    let corrupt = |image: &std::fs::File| {
        let root = (1 << 20) + (128 << 20);
        let mut block = vec![0_u8; 4096];
        let mut changed = 0;
        // Change many blocks so that one of them is read during boot.
        for index in (0..20_000_u64).step_by(7) {
            let at = root + (2 << 20) + index * 4096;
            image.read_exact_at(&mut block, at).unwrap();
            if block.iter().any(|&byte| byte != 0) {
                block[100] ^= 0xff;
                image.write_all_at(&block, at).unwrap();
                changed += 1;
            }
        }
        assert!(changed > 100);
    };
    let mut host = Setup::of("tiny").tamper(corrupt).expect_trouble("").start();
    host.wait_for("device-mapper: verity:");
    // Noticed before this start was counted, or after three panics.
    host.wait_for("stopped: the root of version 1.0.0 in slot a is damaged, and there is nothing better to start: the other slot is empty");
    assert!(host.console.line_with("garboard: boot-complete").is_none());
}

#[test]
fn broken_units_and_a_broken_cloud_config_do_not_stop_a_boot() {
    let user_data = "#cloud-config\nhostname: still-here\nusers: 7\nwrite_files:\n  - path: /etc/good\n    content: good\n  - path: relative\n    content: bad\ncoreos:\n  units:\n    - name: broken.service\n      command: start\n      content: |\n        [Service]\n        Type=nonsense\n        ExecStart=not-absolute \"unclosed\n";
    let mut host = Setup::of("tiny").user_data(user_data).expect_trouble("broken").expect_trouble("cloud-config").start();
    host.wait_for_boot();
    host.wait_for_ssh();
    assert_eq!(host.ok("hostname"), "still-here");
    assert_eq!(host.ok("cat /etc/good"), "good");
    assert!(host.ok("systemctl status broken.service 2>&1 || true").contains("broken.service"));
    let status = host.ok("sudo cloud-config status || true");
    assert!(status.contains("users") && status.contains("write_files[1].path"), "{status}");
    // A unit file of any bytes.
    host.ok("sudo sh -c 'head -c 100000 /dev/urandom > /media/state/units/noise.service'; sudo systemctl daemon-reload; systemctl is-active multi-user.target");
}

/// The sections of the image's UKI, and a program to load them, go into the machine as disks.
#[test]
fn kexec_starts_the_loaded_kernel_without_the_firmware() {
    let setup = Setup::of("tiny");
    let parts = tempfile::tempdir().unwrap();
    let part = |name: &str| parts.path().join(name).display().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let esp = format!("{}@@1M", setup.image().display());
    run("mcopy", &["-n", "-o", "-i", &esp, "::EFI/Linux/garboard_1.0.0.efi", &part("uki")]);
    for section in ["linux", "initrd", "cmdline"] {
        run("objcopy", &["-O", "binary", "--dump-section", &format!(".{section}={}", part(section)), &part("uki"), "/dev/null"]);
    }
    let cmdline = String::from_utf8(std::fs::read(part("cmdline")).unwrap()).unwrap();
    let files = [part("linux"), part("initrd"), env!("CARGO_BIN_EXE_kexec-load").to_owned()];
    let copy = |from: String| move |path: &Path| assert!(std::fs::copy(from, path).unwrap() > 0);
    let setup = files.iter().cloned().fold(setup, |setup, file| setup.disk(copy(file)));
    let mut host = setup.start();
    host.wait_for_boot();
    host.wait_for_ssh();
    for (disk, (file, name)) in ["vdc", "vdd", "vde"].iter().zip(files.iter().zip(["kernel", "initrd", "kexec-load"])) {
        let size = std::fs::metadata(file).unwrap().len();
        host.ok(&format!("sudo head -c {size} /dev/{disk} >{name}"));
    }
    host.ok(&format!("chmod +x kexec-load && sudo ./kexec-load kernel initrd '{}' && sync", cmdline.trim_end_matches(['\0', '\n'])));
    let boot_id = host.ok("cat /proc/sys/kernel/random/boot_id");
    let _ = host.run("sudo systemctl kexec");
    host.eventually(&format!("test $(cat /proc/sys/kernel/random/boot_id) != {boot_id}"));
    assert_eq!(host.console.text().matches("BdsDxe: starting").count(), 1, "the firmware was not asked again");
    assert_eq!(host.ok("journalctl -b -k --no-pager -o cat | grep -c 'recovery complete' || true"), "0", "state was unmounted clean");
}
