use proptest::prelude::*;
use reboot_rules::settings::{Settings, Strategy as How};
use reboot_rules::windows::Opening;

use super::*;
use crate::policy::{Boot, Origin, Wanted};

/// A host, its journal, and what others think that it holds.
#[derive(Clone, Debug)]
struct World {
    now: Seconds,
    phase: Phase,
    wanted: bool,
    window: Opening,
    blocked: bool,
    doubt: bool,
    /// Whether a slot is free for us.
    free: bool,
    lock: LockFact,
    quorum: QuorumFact,
    work: Work,
    users: Option<usize>,
    drained: bool,
    reboot_fails: bool,
    reboot_failed: Option<String>,
    pause: Option<(Seconds, String)>,
    rebooted: bool,
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Want(bool),
    Window(bool),
    Block(bool),
    Doubt(bool),
    Free(bool),
    Lost,
    Work(bool),
    Users(Option<usize>),
    Crash,
    RebootFails(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_u64..400).prop_map(Event::Pass),
        2 => any::<bool>().prop_map(Event::Want),
        2 => any::<bool>().prop_map(Event::Window),
        1 => any::<bool>().prop_map(Event::Block),
        1 => any::<bool>().prop_map(Event::Doubt),
        2 => any::<bool>().prop_map(Event::Free),
        1 => Just(Event::Lost),
        3 => prop::bool::weighted(0.8).prop_map(Event::Work),
        1 => prop_oneof![Just(None), Just(Some(0)), Just(Some(2))].prop_map(Event::Users),
        2 => Just(Event::Crash),
        1 => any::<bool>().prop_map(Event::RebootFails),
    ]
}

impl World {
    fn new() -> Self {
        Self {
            now: 1000,
            phase: Phase::Idle,
            wanted: true,
            window: Opening::Always,
            blocked: false,
            doubt: false,
            free: true,
            lock: LockFact::Unknown,
            quorum: QuorumFact::Unknown,
            work: Work::None,
            users: Some(0),
            drained: false,
            reboot_fails: false,
            reboot_failed: None,
            pause: None,
            rebooted: false,
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Pass(seconds) => self.now += seconds,
            Event::Want(wanted) => self.wanted = *wanted,
            Event::Window(true) => self.window = Opening::Open { since: self.now, until: self.now + 5000 },
            Event::Window(false) => self.window = Opening::Closed { next: Some(self.now + 100) },
            Event::Block(blocked) => self.blocked = *blocked,
            Event::Doubt(doubt) => self.doubt = *doubt,
            Event::Free(free) => self.free = *free,
            Event::Lost if self.lock == LockFact::Held => self.lock = LockFact::Refused("freed by somebody".into()),
            Event::Lost => {}
            Event::Work(true) if self.work == Work::Running => self.work = Work::Done,
            Event::Work(false) if self.work == Work::Running => self.work = Work::Failed("a hook failed".into()),
            Event::Work(_) => {}
            Event::Users(users) => self.users = *users,
            // What only memory knew is gone; what others hold for us stays.
            Event::Crash => self.work = Work::None,
            Event::RebootFails(fails) => self.reboot_fails = *fails,
        }
    }

    fn settings() -> Settings {
        Settings { warn: 60, jitter: 0, ..Settings::default() }
    }

    fn facts<'a>(&self, settings: &'a Settings) -> Facts<'a> {
        let block = Inhibitor { what: "shutdown".into(), who: "a".into(), why: "b".into(), ..Inhibitor::default() };
        Facts {
            now: self.now,
            uptime: self.now,
            settings,
            strategy: How::EtcdLock,
            doubt: self.doubt.then(|| "x".to_owned()),
            wanted: self.wanted.then(|| Wanted {
                origin: Origin::Update,
                version: Some("1.2".into()),
                reason: "an update".into(),
                by: "agent".into(),
                since: 1,
            }),
            opening: self.window,
            number: 0,
            inhibitors: if self.blocked { vec![block] } else { Vec::new() },
            boot: Boot::Healthy,
            pause: self.pause.clone(),
            lock: self.lock.clone(),
            quorum: self.quorum.clone(),
        }
    }

    /// One step, with its actions done, cut short after `cut` of them as by a crash.
    fn go(&mut self, cut: usize) -> Result<bool, TestCaseError> {
        let settings = Self::settings();
        let facts = self.facts(&settings);
        let progress = Progress { work: self.work.clone(), reboot_failed: self.reboot_failed.take(), users: self.users };
        let step = step(self.phase, &facts, &progress);
        let before = self.phase;
        // The journal is written first; a phase that gives up stays in it until that is done.
        let gives_up = step.actions.iter().any(|action| matches!(action, Action::Release(_) | Action::Undrain(_)));
        if !gives_up {
            self.phase = step.phase;
        }
        for (at, action) in step.actions.iter().enumerate() {
            if at >= cut {
                self.work = Work::None;
                return Ok(true);
            }
            match action {
                Action::Acquire => {
                    prop_assert!(step.judgement.decision != Decision::Wait && step.judgement.decision != Decision::Rest);
                    if self.free || self.lock == LockFact::Held {
                        (self.lock, self.quorum) = (LockFact::Held, QuorumFact::Reserved(None));
                    } else {
                        self.lock = LockFact::Waiting("others".into());
                    }
                }
                Action::Release(why) => {
                    prop_assert!(!why.is_empty());
                    (self.lock, self.quorum) = (LockFact::Unknown, QuorumFact::Unknown);
                }
                Action::Drain => {
                    prop_assert_eq!(self.lock.clone(), LockFact::Held);
                    (self.drained, self.work) = (true, Work::Running);
                }
                Action::Undrain(_) => (self.drained, self.work) = (false, Work::None),
                Action::Pause(why) => self.pause = Some((self.now + 300, why.clone())),
                Action::Reboot => {
                    // The one thing that matters.
                    let open = self.window.is_open() && self.wanted && !self.blocked && !self.doubt;
                    prop_assert!(open && self.lock == LockFact::Held && self.quorum == QuorumFact::Reserved(None) && self.drained);
                    if self.reboot_fails {
                        self.reboot_failed = Some("PID 1 refused".into());
                    } else {
                        self.rebooted = true;
                    }
                }
                Action::Warn(_) | Action::Announce => {}
            }
        }
        self.phase = step.phase;
        // Who waits holds nothing.
        if matches!(self.phase, Phase::Idle | Phase::Waiting) {
            prop_assert!(self.lock != LockFact::Held && !self.drained, "{before:?} -> {:?}", self.phase);
        }
        Ok(self.phase != before || !step.actions.is_empty())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_happens_in_whatever_order(events in prop::collection::vec((event(), 0_usize..4), 1..60)) {
        let mut world = World::new();
        for (event, cut) in events {
            world.take(&event);
            for _ in 0..8 {
                if world.rebooted || !world.go(if matches!(event, Event::Crash) { cut } else { usize::MAX })? {
                    break;
                }
            }
        }
        // Whatever it was: when all is well from now on, the host reboots; nothing is left half done.
        (world.wanted, world.window, world.blocked, world.doubt, world.free) = (true, Opening::Always, false, false, true);
        (world.users, world.reboot_fails) = (Some(0), false);
        for _ in 0..40 {
            if world.rebooted {
                break;
            }
            world.go(usize::MAX)?;
            world.take(&Event::Work(true));
            world.now += 100;
        }
        prop_assert!(world.rebooted, "{world:?}");
    }

    #[test]
    fn what_is_not_wanted_any_more_is_given_back(events in prop::collection::vec(event(), 1..40)) {
        let mut world = World::new();
        for event in events {
            world.take(&event);
            if !world.rebooted {
                world.go(usize::MAX)?;
            }
        }
        if !world.rebooted && world.phase != Phase::Rebooting {
            world.wanted = false;
            world.go(usize::MAX)?;
            prop_assert_eq!(world.phase, Phase::Idle);
        }
    }
}

#[test]
fn the_way_to_a_reboot_step_by_step() {
    let mut world = World::new();
    world.users = Some(1);
    let mut seen = Vec::new();
    for _ in 0..20 {
        world.go(usize::MAX).unwrap();
        if seen.last() != Some(&world.phase.as_str()) {
            seen.push(world.phase.as_str());
        }
        world.take(&Event::Work(true));
        world.now += 10;
    }
    assert_eq!(seen, ["locking", "locked", "draining", "drained", "rebooting"]);
    assert!(world.rebooted);
}

#[test]
fn a_window_that_closes_while_draining_undoes_it_and_gives_the_lock_back() {
    let mut world = World::new();
    while !matches!(world.phase, Phase::Draining { .. }) {
        world.go(usize::MAX).unwrap();
        world.now += 10;
    }
    assert!(world.drained);
    world.take(&Event::Window(false));
    world.go(usize::MAX).unwrap();
    assert_eq!((world.phase, &world.lock, world.drained), (Phase::Waiting, &LockFact::Unknown, false));
}

/// What follows for a host that holds the lock since an uptime of 1000, with settings that warn for 60 s and wait for inhibitors for 30.
fn locked_since_1000(now: Seconds, uptime: Seconds, progress: (Option<usize>, Seconds), inhibitors: &[Inhibitor]) -> Step {
    let settings = World::settings();
    let mut world = World::new();
    (world.lock, world.quorum) = (LockFact::Held, QuorumFact::Reserved(None));
    let facts = Facts { now, uptime, inhibitors: inhibitors.to_vec(), ..world.facts(&settings) };
    let (users, extended) = progress;
    step(Phase::Locked { since: 1000, extended }, &facts, &Progress { work: Work::None, reboot_failed: None, users })
}

fn delay() -> Inhibitor {
    Inhibitor { what: "shutdown".into(), mode: Mode::Delay, who: "db".into(), why: "flushing".into(), ..Inhibitor::default() }
}

#[test]
fn users_and_delaying_inhibitors_are_waited_for_up_to_a_bound() {
    let look = |now, users, extended, inhibitors: &[Inhibitor]| locked_since_1000(now, now, (users, extended), inhibitors);
    assert_eq!(look(1000, Some(2), 0, &[]).until, Some(1060));
    assert_eq!(look(1059, None, 0, &[]).phase, Phase::Locked { since: 1000, extended: 0 }, "not knowing is somebody");
    assert_eq!(look(1060, Some(2), 0, &[]).actions, [Action::Drain]);
    assert_eq!(look(1060, Some(2), 900, &[]).until, Some(1960));
    assert_eq!(look(1000, Some(0), 0, &[]).actions, [Action::Drain]);
    assert_eq!(look(1060, Some(0), 900, &[]).until, Some(1960), "who put it off has left");
    let waiting = look(1029, Some(0), 0, &[delay()]);
    assert!(waiting.actions.is_empty() && waiting.judgement.against().contains("db asks to wait: flushing"));
    assert_eq!(look(1030, Some(0), 0, &[delay()]).actions, [Action::Drain]);
}

#[test]
fn a_clock_that_is_set_takes_no_time_from_users_and_gives_none_to_inhibitors() {
    for now in [10, 1000, 10_000_000] {
        let look = |uptime, users, inhibitors: &[Inhibitor]| locked_since_1000(now, uptime, (Some(users), 0), inhibitors);
        assert_eq!(look(1020, 1, &[]).until, Some(now + 40));
        assert_eq!(look(1060, 1, &[]).actions, [Action::Drain]);
        assert_eq!(look(1029, 0, &[delay()]).until, Some(now + 1));
        assert_eq!(look(1030, 0, &[delay()]).actions, [Action::Drain]);
    }
}
