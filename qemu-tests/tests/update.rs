//! Updates of whole machines: found, installed, tried, kept; given up when they are bad; gone back from; and what happens when
//! nothing good is left.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use qemu_tests::{Guest, Setup, Web};
use tempfile::TempDir;

/// A publisher: keys, images and a repository.
struct Shop {
    directory: TempDir,
}

impl Shop {
    fn new() -> Self {
        let shop = Self { directory: tempfile::Builder::new().prefix("garboard-shop-").tempdir_in("/var/tmp").unwrap() };
        shop.garboard(&["keys", "init", "--dir", &shop.path("keys")]);
        shop
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn garboard(&self, args: &[&str]) {
        // Tests lie in target/.../debug/deps, programs beside that directory.
        let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("garboard");
        let output = Command::new(&program).args(args).output().unwrap();
        assert!(output.status.success(), "garboard {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Builds a version of `tiny` with these lines added to its recipe, from the same packages; its image.
    fn build(&self, version: &str, lines: &str) -> PathBuf {
        let directory = self.path(&format!("recipe-{version}"));
        let recipe = format!("{directory}/tiny.toml");
        std::fs::create_dir_all(&directory).unwrap();
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes").canonicalize().unwrap();
        std::fs::copy(recipes.join("tiny.lock"), format!("{directory}/tiny.lock"))
            .expect("the lock of the images that scripts/test builds");
        std::fs::write(&recipe, format!("name = \"tiny\"\nextends = \"{}/tiny.toml\"\n{lines}\n", recipes.display())).unwrap();
        let (out, root) = (self.path(&format!("out-{version}")), self.path("keys/root.json"));
        self.garboard(&["build", &recipe, "--version", version, "--out", &out, "--format", "raw", "--update-root", &root, "--offline"]);
        PathBuf::from(out).join(format!("tiny-{version}-x86_64.raw"))
    }

    fn publish(&self, version: &str) {
        let (out, repo, keys) = (self.path(&format!("out-{version}")), self.path("repo"), self.path("keys"));
        self.garboard(&["publish", &out, "--repo", &repo, "--channel", "stable", "--keys", &keys, "--level", "1"]);
    }

    fn release(&self, version: &str, lines: &str) {
        self.build(version, lines);
        self.publish(version);
    }
}

/// Makes the unit `bad.service`, which every boot wants to be healthy.
fn with_unit(command: &str) -> String {
    format!(
        "[units]\nenable = [\"bad.service\"]\n[[file]]\npath = \"/usr/lib/systemd/system/bad.service\"\ncontent = \"\"\"\n\
         [Unit]\nDescription=Bad\nX-Health=required\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={command}\n\
         [Install]\nWantedBy=multi-user.target\n\"\"\"\n[[file]]\npath = \"/etc/garboard/health.toml\"\n\
         content = \"settle = 1\\ndeadline = 20\\n\"\n"
    )
}

fn user_data(web: &Web) -> String {
    format!("#cloud-config\ngarboard:\n  update:\n    server: {}\n    interval: 3600\n", web.url())
}

/// Waits until a version runs and the agent has understood what became of the last update.
fn runs(host: &mut Guest, version: &str, slot: &str) {
    host.wait_for_ssh();
    host.eventually(&format!("sudo update-agent status | grep -q 'version: *{version} (slot {slot})'"));
}

/// 1.0 finds 1.1 by itself, reboots into it and keeps it; a 1.2 whose unit fails and a 1.3 that panics are given up and
/// remembered; a good 1.4 is taken; somebody goes back from it.
#[test]
fn a_machine_keeps_good_versions_and_comes_back_from_bad_ones() {
    let shop = Shop::new();
    let image = shop.build("1.0", "");
    shop.release("1.1", "");
    let web = Web::serve(Path::new(&shop.path("repo")));
    let trouble = ["bad.service", "boot-failed", "Kernel panic - not syncing: sysrq", "Call Trace", "Failed to start"];
    let setup = trouble.into_iter().fold(Setup::of_image(&image), Setup::expect_trouble);
    let mut host = setup.user_data(&user_data(&web)).start();
    host.wait_for("garboard: boot-complete version=1.0 slot=a");
    host.wait_for("garboard: boot-complete version=1.1 slot=b");
    runs(&mut host, "1.1", "b");
    host.eventually("sudo update-agent history | grep -q 'good.*1.1'");
    let names = host.ok("sudo mount -o ro /dev/vda1 /boot && ls /boot/EFI/Linux && sudo umount /boot");
    assert_eq!(names, "garboard_1.0.efi\ngarboard_1.1.efi", "blessed: {names}");

    shop.release("1.2", &with_unit("/bin/false"));
    host.ok("sudo update-agent pin 1.1");
    let said = host.ok("sudo update-agent update && sudo update-agent why");
    assert!(said.contains("version 1.2 is not taken since version 1.1 is pinned"), "{said}");
    host.ok("sudo update-agent pin --clear");
    let _ = host.run("sudo update-agent update");
    host.wait_for("garboard: boot-failed version=1.2 slot=a reason=bad.service is failed");
    runs(&mut host, "1.1", "b");
    host.eventually("sudo update-agent history | grep -q 'failed.*1.2.*bad.service is failed'");
    let said = host.ok("sudo update-agent update");
    assert!(said.contains("failed on this host and is not tried again"), "{said}");

    shop.release("1.3", &with_unit("/bin/sh -c 'echo c >/proc/sysrq-trigger'"));
    let _ = host.run("sudo update-agent update");
    host.wait_for("sysrq triggered crash");
    runs(&mut host, "1.1", "b");
    host.eventually("sudo update-agent history | grep -q 'failed.*1.3.*did not come up in 3 starts'");

    shop.release("1.4", "");
    let _ = host.run("sudo update-agent update");
    host.wait_for("garboard: boot-complete version=1.4 slot=a");
    runs(&mut host, "1.4", "a");
    host.eventually("sudo update-agent history | grep -q 'good.*1.4'");

    let _ = host.run("sudo update-agent rollback");
    runs(&mut host, "1.1", "b");
    let said = host.ok("sudo update-agent update");
    assert!(said.contains("set aside"), "{said}");
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
    let mut host = setup.disk(|path| drop(std::fs::copy(&bundle, path).unwrap())).start();
    host.wait_for_boot();
    host.wait_for_ssh();
    assert_eq!(host.run("systemctl is-active update-agent.service").out.trim(), "inactive", "nothing to do without a server");
    let said = host.ok("sudo update-agent apply /dev/vdc");
    assert!(said.contains("version 1.1 is in place"), "{said}");
    host.press_power_button();

    host.power_on();
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
    let starts = host.console.text().matches("BdsDxe: starting").count();
    assert_eq!(starts, 1, "it does not start again and again:\n{}", host.console.tail());
}

/// Overwrites the first block of a partition of a machine that is off.
fn damage(host: &Guest, image: &Path, partition: u64) {
    let mut sector = [0_u8; 8];
    File::open(image).unwrap().read_exact_at(&mut sector, 1024 + (partition - 1) * 128 + 32).unwrap();
    let start = u64::from_le_bytes(sector) * 512;
    let command = format!("write -P 0xee {start} 4096");
    let output = Command::new("qemu-io").args(["-f", "qcow2", "-c", &command]).arg(host.disk()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
