//! Who is logged in at a terminal when a reboot comes.

use qemu_tests::Guest;
use serde_json::Value;

use super::{machine, rebooted, said_at};

/// When the daemon says that users are waited for until, in seconds since 1970.
fn users_until(host: &Guest) -> Option<u64> {
    // The daemon answers when it has done what it was asked before.
    let status: Value = serde_json::from_str(&host.ok("sudo locksmithctl why --json")).unwrap();
    let gates = status["gates"].as_array()?;
    gates.iter().find(|gate| gate["kind"] == "users")?["until"].as_u64()
}

/// They are told why and when, put it off as long as they may, and it comes at the time that they were told last, though the daemon was killed.
#[test]
#[ignore = "two boots: scripts/test-long"]
fn users_are_warned_and_put_a_reboot_off_up_to_a_bound() {
    let mut host = machine("tiny", "strategy: reboot\nwarn: 60s\nwarn_extend: 90s\n");
    let mut ann = host.terminal();
    ann.enter("tty; echo here-$((1 + 1))");
    ann.wait_for("here-2");
    host.ok("sudo locksmithctl send-need-reboot --why='the new kernel'");
    let warned = ann.wait_for("*** this host reboots at ");
    let first = users_until(&host).expect("users are waited for");
    let told = |at: u64| host.ok(&format!("date -u -d @{at} '+%Y-%m-%d %H:%M UTC'"));
    assert!(warned.contains(&format!("at {}: the new kernel. ", told(first))) && warned.contains("locksmithctl extend"), "{warned}");

    // Everybody sees the new time, and who asks for more than is left sees that in one line. What is typed while sudo runs would be lost.
    ann.enter("sudo locksmithctl extend 60s; echo code-$?");
    let line = ann.wait_for("*** the reboot is put off to ");
    ann.wait_for("code-0");
    let second = users_until(&host).expect("users are waited for");
    assert!(second.abs_diff(first + 60) <= 1, "{first} {second}");
    assert!(line.contains(&told(second)) && line.contains("by 1min 30s in all"), "{line}");
    ann.enter("sudo locksmithctl extend; echo code-$?");
    let line = ann.wait_for("locksmithctl: the reboot stays at ");
    assert!(line.ends_with(&format!("{}: it can be put off by no more than 30s", told(second))), "{line}");
    ann.wait_for("code-1");
    ann.enter("sudo locksmithctl extend 30s; echo code-$?");
    ann.wait_for("*** the reboot is put off to ");
    ann.wait_for("code-0");
    ann.enter("sudo locksmithctl extend 1s; echo code-$?");
    let line = ann.wait_for("locksmithctl: the reboot stays at ");
    assert!(line.ends_with("it was put off by 1min 30s in all, which is the most"), "{line}");
    ann.wait_for("code-1");

    // What they were told holds without the daemon that told them.
    host.ok("sudo pkill -KILL -x reboot-locksmit");
    host.eventually("sudo locksmithctl why | tee /dev/stderr | grep -q 'in use: the reboot is at '");
    let last = users_until(&host).expect("users are waited for");
    assert!(last.abs_diff(first + 90) <= 1, "{first} {last}");
    assert_eq!(host.starts(), 1);

    ann.wait_for_end();
    rebooted(&mut host, 2);
    let drains = said_at(&host, -1, "reboot-locksmith", "draining: nothing is against the reboot");
    let reboots = said_at(&host, -1, "reboot-locksmith", "rebooting: the new kernel");
    eprintln!("told {last}, drains {drains}, reboots {reboots}");
    #[allow(clippy::cast_precision_loss)]
    let late = reboots - last as f64;
    assert!((0.0..20.0).contains(&late), "{late} s after the time that was told");
}
