use super::*;

fn settings() -> Settings {
    Settings { jitter: 600, ..Settings::default() }
}

fn facts(settings: &Settings) -> Facts<'_> {
    Facts {
        now: 10_000,
        uptime: 10_000,
        settings,
        strategy: Strategy::EtcdLock,
        doubt: None,
        wanted: Some(Wanted {
            origin: Origin::Update,
            version: Some("1.2".into()),
            reason: "version 1.2 is in place".into(),
            by: "update-agent".into(),
            since: 1000,
        }),
        opening: Opening::Open { since: 9000, until: 12_000 },
        number: 5,
        inhibitors: Vec::new(),
        boot: Boot::Healthy,
        pause: None,
        lock: LockFact::Held,
        quorum: QuorumFact::Reserved(None),
    }
}

fn blocker(mode: Mode, what: &str) -> Inhibitor {
    Inhibitor { id: "x".into(), what: what.into(), who: "ann".into(), why: "moving".into(), mode, ..Inhibitor::default() }
}

#[test]
fn everything_must_hold_and_each_part_says_why_not() {
    let settings = settings();
    assert_eq!(judge(&facts(&settings)).decision, Decision::Go);
    // Each line: what is different, what may be done, which gate says so, and what it says.
    type Change = fn(&mut Facts<'_>);
    let table: [(Change, Decision, &str, &str); 18] = [
        (|f| f.wanted = None, Decision::Rest, "wanted", "no reboot is wanted"),
        (|f| f.doubt = Some("garboard.reboot.windows: ...".into()), Decision::Wait, "settings", "doubtful"),
        (|f| f.strategy = Strategy::Off, Decision::Wait, "strategy", "off"),
        (|f| f.boot = Boot::Starting, Decision::Wait, "boot", "not yet"),
        (|f| f.boot = Boot::Unhealthy("docker is failed".into()), Decision::Wait, "boot", "docker is failed"),
        (|f| f.pause = Some((10_001, "a hook failed".into())), Decision::Wait, "pause", "a hook failed"),
        (|f| f.opening = Opening::Closed { next: Some(20_000) }, Decision::Wait, "window", "next opens at 1970-01-01 05:33 UTC"),
        (|f| f.opening = Opening::Closed { next: None }, Decision::Wait, "window", "none opens"),
        (|f| f.opening = Opening::Open { since: 9999, until: 12_000 }, Decision::Wait, "jitter", "turn is at"),
        (|f| f.inhibitors = vec![blocker(Mode::Block, "shutdown")], Decision::Wait, "inhibitor", "ann forbids it: moving"),
        (|f| f.lock = LockFact::Unknown, Decision::Coordinate, "lock", "not asked"),
        (|f| f.lock = LockFact::Waiting("host a has it".into()), Decision::Coordinate, "lock", "host a has it"),
        (|f| f.lock = LockFact::Quarantined("version 1.2 failed on b".into()), Decision::Coordinate, "quarantine", "failed on b"),
        (|f| f.lock = LockFact::Refused("not ours".into()), Decision::Coordinate, "lock", "not ours"),
        (|f| f.lock = LockFact::Down { since: 1, why: "refused".into() }, Decision::Coordinate, "lock", "waiting for it"),
        (|f| f.quorum = QuorumFact::Unknown, Decision::Coordinate, "quorum", "not asked"),
        (|f| f.quorum = QuorumFact::Refused("member b is down".into()), Decision::Coordinate, "quorum", "member b"),
        (|f| f.quorum = QuorumFact::Down { since: 1, why: "refused".into() }, Decision::Coordinate, "quorum", "waiting for it"),
    ];
    for (change, decision, kind, text) in table {
        let mut facts = facts(&settings);
        change(&mut facts);
        let judgement = judge(&facts);
        assert_eq!(judgement.decision, decision, "{kind}: {text}");
        let gate = judgement.gates.iter().find(|gate| !gate.open).unwrap();
        assert!(gate.kind == kind && gate.text.contains(text), "{gate:?}");
        assert!(judgement.against().contains(text));
    }
}

#[test]
fn what_does_not_matter_does_not_stop_it() {
    let settings = settings();
    let go = |change: fn(&mut Facts<'_>)| {
        let mut facts = facts(&settings);
        change(&mut facts);
        judge(&facts).decision == Decision::Go
    };
    assert!(go(|f| f.inhibitors = vec![blocker(Mode::Delay, "shutdown"), blocker(Mode::Block, "sleep:idle")]));
    assert!(go(|f| f.pause = Some((9999, "over".into()))));
    assert!(go(|f| f.quorum = QuorumFact::NotMember));
    assert!(go(|f| f.opening = Opening::Always));
    assert!(go(|f| (f.strategy, f.lock) = (Strategy::Reboot, LockFact::Unknown)));
    assert!(!go(|f| (f.strategy, f.lock) = (Strategy::FleetLock, LockFact::Unknown)));
}

#[test]
fn somebody_who_chose_the_moment_needs_no_window_but_the_lock() {
    let settings = settings();
    let mut facts = facts(&settings);
    facts.wanted.as_mut().unwrap().origin = Origin::Person;
    (facts.opening, facts.boot) = (Opening::Closed { next: None }, Boot::Unhealthy("x".into()));
    assert_eq!(judge(&facts).decision, Decision::Go);
    facts.lock = LockFact::Waiting("b has it".into());
    assert_eq!(judge(&facts).decision, Decision::Coordinate);
    facts.strategy = Strategy::Off;
    assert_eq!(judge(&facts).decision, Decision::Go, "where no lock is used, none is taken");
    facts.doubt = Some("x".into());
    assert_eq!(judge(&facts).decision, Decision::Wait);
}

#[test]
fn an_outage_of_etcd_is_waited_for_or_not_as_the_settings_say() {
    let mut settings = settings();
    let down = LockFact::Down { since: 9000, why: "refused".into() };
    let decision = |settings: &Settings, strategy, now| {
        let mut facts = facts(settings);
        (facts.lock, facts.strategy, facts.opening) = (down.clone(), strategy, Opening::Always);
        (facts.now, facts.uptime) = (now, now);
        let judgement = judge(&facts);
        (judgement.decision, judgement.until)
    };
    assert_eq!(decision(&settings, Strategy::EtcdLock, 1_000_000).0, Decision::Coordinate);
    assert_eq!(decision(&settings, Strategy::BestEffort, 9001).0, Decision::Go);
    settings.etcd_down = EtcdDown::ProceedAfter(3600);
    assert_eq!(decision(&settings, Strategy::EtcdLock, 12_599), (Decision::Coordinate, Some(12_600)));
    assert_eq!(decision(&settings, Strategy::EtcdLock, 12_600).0, Decision::Go);
    assert_eq!(decision(&settings, Strategy::FleetLock, 1_000_000).0, Decision::Coordinate);
}

#[test]
fn a_clock_that_jumps_makes_no_outage_no_pause_and_no_turn_longer_or_shorter() {
    let settings = Settings { etcd_down: EtcdDown::ProceedAfter(3600), ..Settings::default() };
    // The machine is up for 500 s, and for 400 s etcd cannot be asked. The reboot is wanted since 1000 by the clock as it was set then.
    for now in [500, 10_000, 1_000_000_000] {
        let mut facts = Facts { now, uptime: 500, opening: Opening::Always, ..facts(&settings) };
        facts.lock = LockFact::Down { since: 100, why: "refused".into() };
        let judgement = judge(&facts);
        assert_eq!((judgement.decision, judgement.until), (Decision::Coordinate, Some(now + 3200)), "at {now}");
        facts.uptime = 3700;
        assert_eq!(judge(&facts).decision, Decision::Go, "at {now}");
        (facts.lock, facts.uptime) = (LockFact::Held, 500);
        facts.pause = Some((800, "a hook failed".into()));
        assert_eq!((judge(&facts).decision, judge(&facts).until), (Decision::Wait, Some(now + 300)), "at {now}");
        facts.uptime = 800;
        assert_eq!(judge(&facts).decision, Decision::Go, "at {now}");
    }
    // A small step back leaves hosts spread; nobody waits for a clock that was set back further.
    let settings = Settings { jitter: 600, ..Settings::default() };
    let turn = |now| {
        let facts = Facts { now, opening: Opening::Always, lock: LockFact::Held, ..facts(&settings) };
        (judge(&facts).decision, judge(&facts).until)
    };
    assert_eq!([turn(999), turn(1004)], [(Decision::Wait, Some(1005)); 2]);
    assert_eq!([turn(1005).0, turn(399).0], [Decision::Go; 2]);
}

#[test]
fn it_is_asked_again_when_a_gate_opens_or_closes_by_itself() {
    let settings = settings();
    assert_eq!(judge(&facts(&settings)).until, Some(12_000), "when the window closes");
    let mut facts = facts(&settings);
    facts.inhibitors = vec![Inhibitor { until: Some(10_500), ..blocker(Mode::Block, "shutdown") }];
    assert_eq!(judge(&facts).until, Some(10_500));
}
