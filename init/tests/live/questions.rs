//! `systemctl` asking a live engine why: what waits for what, where the time went, what a unit is made of.

use crate::engine::Engine;

#[test]
fn it_says_what_waits_for_what_where_the_time_went_and_what_a_unit_is_made_of() {
    let engine = Engine::start(&[
        ("default.target", "[Unit]\nWants=app.service quick.service\nAfter=app.service quick.service\n"),
        ("app.service", "[Unit]\nDescription=The app\nRequires=db.service\nAfter=db.service\n[Service]\nExecStart=/bin/sleep 1000\n"),
        ("app.service.d/10-more.conf", "[Service]\nEnvironment=MORE=yes\n"),
        (
            "db.service",
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'while ! test -e @/go; do sleep 0.05; done; sleep 0.4'\n",
        ),
        ("quick.service", "[Service]\nExecStart=/bin/sleep 1000\n"),
        ("crash.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 7'\n"),
    ]);
    let ask = |arguments: &str| engine.systemctl(arguments).0;
    engine.until("db.service", || engine.state("db.service") == "activating/start");
    // While the boot waits.
    let jobs = ask("list-jobs --no-legend");
    let line = |unit: &str| jobs.lines().find(|line| line.contains(&format!(" {unit} "))).unwrap_or_default().to_owned();
    assert!(line("db.service").contains("start") && line("db.service").contains("running"), "{jobs}");
    assert!(line("app.service").contains("waiting") && line("app.service").trim_end().ends_with("db.service"), "{jobs}");
    let (page, running) = engine.systemctl("status app.service");
    assert!(page.contains("waiting for db.service") && !running, "{page}");
    assert_eq!(ask("is-system-running"), "starting\n");

    std::fs::write(engine.path("go"), "").unwrap();
    engine.until("boot-complete", || engine.log().contains("garboard: boot-complete"));
    assert_eq!(engine.systemctl("is-system-running"), ("running\n".to_owned(), true));
    let page = ask("status app.service");
    let pid = engine.pid("app.service");
    for wanted in ["app.service - The app", "Active: active (running)", "10-more.conf", &format!("{pid} ")] {
        assert!(page.contains(wanted), "{wanted} in {page}");
    }

    // Where the time went: the slow one first, and the chain from the target back over what it waited for.
    let blame = ask("analyze blame");
    assert!(blame.lines().next().unwrap_or_default().ends_with(" db.service"), "{blame}");
    let chain = ask("analyze critical-chain");
    let names: Vec<&str> = chain.lines().skip(3).map(|line| line.trim_start_matches([' ', '└', '─']).split(' ').next().unwrap()).collect();
    assert_eq!(&names[..3], ["default.target", "app.service", "db.service"], "{chain}");
    let chain = ask("analyze critical-chain app.service");
    assert!(chain.contains("app.service @") && chain.contains("└─db.service @") && chain.contains(" +"), "{chain}");

    // Trees in both directions.
    let tree = ask("list-dependencies --plain --all default.target");
    assert!(["\n  app.service\n", "\n    db.service\n", "\n  quick.service\n"].iter().all(|line| tree.contains(line)), "{tree}");
    let tree = ask("list-dependencies --plain --all --reverse db.service");
    assert!(tree.starts_with("db.service\n  app.service\n    default.target\n"), "{tree}");
    let tree = ask("list-dependencies --plain --after app.service");
    assert!(tree.contains("\n  db.service\n"), "{tree}");

    let text = ask("cat app.service");
    assert_eq!(
        text,
        "# /etc/systemd/system/app.service\n[Unit]\nDescription=The app\nRequires=db.service\nAfter=db.service\n[Service]\nExecStart=/bin/sleep 1000\n\n\
         # /etc/systemd/system/app.service.d/10-more.conf\n[Service]\nEnvironment=MORE=yes\n"
    );
    assert_eq!(ask("show -p Requires -p ActiveState --value app.service"), "db.service sysinit.target\nactive\n");
    assert_eq!(ask(&format!("status {pid}")).lines().next(), page.lines().next(), "a process leads to its unit");

    // What failed, and how.
    assert_eq!(engine.job("start", "crash.service"), "failed");
    let failed = ask("--failed --no-legend --plain");
    assert!(failed.starts_with("crash.service loaded failed failed"), "{failed}");
    let (page, fine) = engine.systemctl("status crash.service");
    assert!(page.contains("Active: failed (Result: exit-code)") && page.contains("status=7") && !fine, "{page}");
    assert_eq!(engine.systemctl("is-system-running"), ("degraded\n".to_owned(), false));
    assert_eq!(engine.systemctl("is-failed crash.service"), ("failed\n".to_owned(), true));
    assert_eq!(engine.systemctl("reset-failed crash.service"), (String::new(), true));
    assert_eq!(engine.systemctl("is-system-running"), ("running\n".to_owned(), true));
    let (text, found) = engine.systemctl("start never-heard-of");
    assert!(text.contains("never-heard-of.service not found") && !found, "{text}");
}
