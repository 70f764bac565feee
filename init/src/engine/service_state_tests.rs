//! Whole lives of services as tables: an event, the state after it, the actions that it led to.

use std::time::Duration;

use unit_files::service::{KillConfig, KillMode, NotifyAccess, Restart, ServiceType};

use super::*;

fn command(path: &str) -> ExecCommand {
    ExecCommand { path: path.into(), argv: vec![path.into()], ..ExecCommand::default() }
}

fn config(service_type: ServiceType) -> ServiceConfig {
    ServiceConfig { service_type, exec_start: vec![command("/bin/x")], ..ServiceConfig::default() }
}

/// A service with a clock and a control group.
struct World {
    service: Service,
    config: ServiceConfig,
    now: Usec,
    populated: bool,
    restarts: bool,
    pid: i32,
}

impl World {
    fn new(config: ServiceConfig) -> Self {
        Self { service: Service::default(), config, now: 1_000_000, populated: false, restarts: false, pid: 100 }
    }

    /// One event; a `Run` is answered by a process. Returns the actions in words.
    fn on(&mut self, event: Event) -> String {
        let mut words = Vec::new();
        let mut events = vec![event];
        while !events.is_empty() {
            let event = events.remove(0);
            if matches!(event, Event::Empty) {
                self.populated = false;
            }
            let actions =
                self.service.handle(&self.config, event, Env { now: self.now, populated: self.populated, restarts: self.restarts });
            for action in actions {
                match action {
                    Action::Run(role, phase, index) => {
                        self.pid += 1;
                        self.populated = true;
                        words.push(format!("run {phase:?}{index}"));
                        events.push(Event::Spawned(role, self.pid));
                    }
                    Action::Kill { main, control, group, signal, .. } => {
                        let whom = [(main, "main"), (control, "control"), (group, "group")];
                        let whom: Vec<&str> = whom.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
                        words.push(format!("kill {} {signal}", whom.join("+")));
                    }
                    Action::FindMain => words.push("find-main".into()),
                    Action::Restart => words.push("restart".into()),
                    Action::Release(again) => words.push(if again { "release again" } else { "release" }.into()),
                }
            }
        }
        words.join(", ")
    }

    fn later(&mut self, by: Duration) -> String {
        self.now += usec(by);
        self.on(Event::Tick)
    }

    fn exit(&mut self, code: i32) -> String {
        let pid = self.pid;
        self.on(Event::Exited(pid, Exit::Code(code)))
    }

    fn ready(&mut self) -> String {
        self.on(Event::Notify(Role::Main, Notice { ready: true, ..Notice::default() }))
    }

    fn state(&self) -> &'static str {
        self.service.state.as_str()
    }
}

#[test]
fn each_type_is_up_when_it_says() {
    use ServiceType::{Exec, Forking, Idle, Notify, Oneshot, Simple};
    for (service_type, after_spawn) in
        [(Simple, "running"), (Idle, "running"), (Exec, "start"), (Notify, "start"), (Oneshot, "start"), (Forking, "start")]
    {
        let mut world = World::new(config(service_type));
        assert_eq!(world.on(Event::Start), "run Start0");
        assert_eq!(world.state(), after_spawn, "{service_type:?}");
    }
    let mut world = World::new(config(Exec));
    world.on(Event::Start);
    world.on(Event::Executed);
    assert_eq!(world.state(), "running");
    let mut world = World::new(ServiceConfig { notify_access: NotifyAccess::Main, ..config(Notify) });
    world.on(Event::Start);
    world.on(Event::Notify(Role::Other, Notice { ready: true, ..Notice::default() }));
    assert_eq!(world.state(), "start", "not from somebody else");
    world.ready();
    assert_eq!(world.state(), "running");
}

#[test]
fn a_oneshot_runs_its_commands_in_turn_and_ends() {
    let mut config = config(ServiceType::Oneshot);
    config.exec_start.push(command("/bin/y"));
    config.exec_start_post.push(command("/bin/post"));
    config.exec_stop_post.push(command("/bin/clean"));
    let mut world = World::new(config.clone());
    world.on(Event::Start);
    assert_eq!(world.exit(0), "run Start1");
    assert_eq!(world.exit(0), "run StartPost0");
    world.populated = false;
    assert_eq!(world.exit(0), "run StopPost0");
    world.populated = false;
    assert_eq!(world.exit(0), "release");
    assert_eq!(world.state(), "dead");

    config.remain_after_exit = true;
    let mut world = World::new(config);
    world.on(Event::Start);
    world.exit(0);
    world.exit(0);
    world.exit(0);
    assert_eq!(world.state(), "exited");
}

#[test]
fn a_failing_command_ends_the_start_unless_it_may_fail() {
    let mut config = config(ServiceType::Oneshot);
    config.exec_start_pre = vec![command("/bin/pre"), command("/bin/pre2")];
    let mut world = World::new(config.clone());
    assert_eq!(world.on(Event::Start), "run StartPre0");
    world.populated = false;
    assert_eq!(world.exit(1), "release");
    assert_eq!((world.state(), world.service.result), ("failed", ServiceResult::ExitCode));

    config.exec_start_pre[0].ignore_failure = true;
    let mut world = World::new(config);
    world.on(Event::Start);
    assert_eq!(world.exit(1), "run StartPre1");
    assert_eq!(world.exit(0), "run Start0");
}

#[test]
fn an_exec_condition_skips_and_is_no_failure() {
    let mut config = config(ServiceType::Simple);
    config.exec_condition.push(command("/bin/cond"));
    config.restart = Restart::Always;
    let mut world = World::new(config);
    assert_eq!(world.on(Event::Start), "run Condition0");
    world.populated = false;
    assert_eq!(world.exit(1), "release");
    assert_eq!((world.state(), world.service.result), ("dead", ServiceResult::ExecCondition));
    world.on(Event::Start);
    world.populated = false;
    world.exit(255);
    assert_eq!(world.state(), "auto-restart", "255 is a failure");
}

#[test]
fn a_stop_asks_then_terminates_then_kills() {
    let mut config = config(ServiceType::Simple);
    config.exec_stop.push(command("/bin/stop"));
    let mut world = World::new(config);
    world.on(Event::Start);
    let main = world.pid;
    assert_eq!(world.on(Event::Stop), "run Stop0");
    assert_eq!(world.exit(0), "kill main+group 15");
    assert_eq!(world.state(), "stop-sigterm");
    assert_eq!(world.later(Duration::from_secs(89)), "");
    assert_eq!(world.later(Duration::from_secs(1)), "kill main+group 9");
    world.populated = false;
    assert_eq!(world.on(Event::Exited(main, Exit::Signal(9))), "release");
    assert_eq!((world.state(), world.service.result), ("failed", ServiceResult::Timeout));
}

#[test]
fn kill_modes_signal_whom_they_say() {
    for (mode, first, second) in [
        (KillMode::ControlGroup, "kill main+group 15", "kill main+group 9"),
        (KillMode::Mixed, "kill main 15", "kill main+group 9"),
        (KillMode::Process, "kill main 15", "kill main 9"),
    ] {
        let mut config = config(ServiceType::Simple);
        config.kill = KillConfig { mode, ..KillConfig::default() };
        let mut world = World::new(config);
        world.on(Event::Start);
        assert_eq!(world.on(Event::Stop), first, "{mode:?}");
        assert_eq!(world.later(Duration::from_secs(90)), second, "{mode:?}");
    }
    let mut config = config(ServiceType::Simple);
    config.kill.mode = KillMode::Process;
    let mut world = World::new(config);
    world.on(Event::Start);
    world.on(Event::Stop);
    assert_eq!(world.exit(0), "release", "what else is in the group lives on");
    assert_eq!(world.state(), "dead");
}

#[test]
fn a_restart_has_a_signal_of_its_own() {
    let mut config = config(ServiceType::Simple);
    config.kill.restart_signal = Some(libc::SIGUSR2);
    for (restarts, expected) in [(true, "kill main+group 12"), (false, "kill main+group 15")] {
        let mut world = World::new(config.clone());
        world.restarts = restarts;
        world.on(Event::Start);
        assert_eq!(world.on(Event::Stop), expected);
        assert_eq!(world.later(Duration::from_secs(90)), "kill main+group 9");
    }
}

#[test]
fn what_the_main_process_leaves_behind_is_terminated_and_killed() {
    let mut world = World::new(config(ServiceType::Simple));
    world.on(Event::Start);
    assert_eq!(world.exit(0), "kill group 15");
    assert_eq!(world.state(), "stop-sigterm");
    assert_eq!(world.on(Event::Empty), "release");
    assert_eq!(world.state(), "dead");
}

#[test]
fn a_crash_restarts_with_a_growing_delay_and_a_stop_ends_that() {
    let mut config = config(ServiceType::Simple);
    config.restart = Restart::OnFailure;
    config.restart_delay = Duration::from_secs(1);
    config.restart_steps = 4;
    config.restart_max_delay = Some(Duration::from_secs(16));
    let mut world = World::new(config);
    world.on(Event::Start);
    for delay in [1_u64, 2, 4, 8, 16, 16] {
        world.populated = false;
        assert_eq!(world.exit(1), "release again");
        assert_eq!(world.state(), "auto-restart");
        assert_eq!(world.later(Duration::from_millis(delay * 1000 - 1)), "", "{delay}");
        assert_eq!(world.later(Duration::from_millis(1)), "restart");
        world.on(Event::Start);
        assert_eq!(world.state(), "running");
    }
    assert_eq!(world.service.restarts, 6);
    world.populated = false;
    world.exit(1);
    assert_eq!(world.on(Event::Stop), "release");
    assert_eq!(world.state(), "dead");
    world.on(Event::Start);
    assert_eq!(world.service.restarts, 0, "a start by request begins anew");
}

#[test]
fn a_stop_by_request_is_not_followed_by_a_restart() {
    let mut config = config(ServiceType::Simple);
    config.restart = Restart::Always;
    let mut world = World::new(config);
    world.on(Event::Start);
    world.on(Event::Stop);
    world.populated = false;
    assert_eq!(world.exit(0), "release");
    assert_eq!(world.state(), "dead");
}

#[test]
fn a_start_that_takes_too_long_is_terminated() {
    let mut world = World::new(ServiceConfig { notify_access: NotifyAccess::Main, ..config(ServiceType::Notify) });
    world.on(Event::Start);
    world.later(Duration::from_secs(80));
    world.on(Event::Notify(Role::Main, Notice { extend_timeout: Some(60_000_000), ..Notice::default() }));
    assert_eq!(world.later(Duration::from_secs(20)), "", "it asked for more time");
    assert_eq!(world.later(Duration::from_secs(40)), "kill main+group 15");
    world.populated = false;
    world.exit(0);
    assert_eq!((world.state(), world.service.result), ("failed", ServiceResult::Timeout));
}

#[test]
fn ending_without_ready_is_against_the_protocol() {
    let mut world = World::new(config(ServiceType::Notify));
    world.on(Event::Start);
    world.populated = false;
    world.exit(0);
    assert_eq!((world.state(), world.service.result), ("failed", ServiceResult::Protocol));
}

#[test]
fn a_forking_service_is_what_its_pid_file_says() {
    let mut config = config(ServiceType::Forking);
    config.pid_file = Some("/run/x.pid".into());
    let mut world = World::new(config);
    world.on(Event::Start);
    assert_eq!(world.exit(0), "find-main");
    world.on(Event::FoundMain(None));
    assert_eq!(world.state(), "start", "not written yet");
    assert_eq!(world.later(Duration::from_millis(50)), "find-main");
    world.on(Event::FoundMain(Some(777)));
    assert_eq!((world.state(), world.service.main), ("running", Some(777)));
    world.populated = false;
    world.on(Event::Exited(777, Exit::Code(0)));
    assert_eq!(world.state(), "dead");
}

#[test]
fn a_forking_service_without_a_main_process_lives_as_long_as_its_group() {
    let mut world = World::new(config(ServiceType::Forking));
    world.on(Event::Start);
    assert_eq!(world.exit(0), "find-main");
    world.on(Event::FoundMain(None));
    assert_eq!(world.state(), "running");
    world.on(Event::Empty);
    assert_eq!(world.state(), "dead");
}

#[test]
fn a_silent_watchdog_aborts_the_service() {
    let mut config = ServiceConfig { notify_access: NotifyAccess::Main, ..config(ServiceType::Notify) };
    config.watchdog = Some(Duration::from_secs(10));
    let mut world = World::new(config);
    world.on(Event::Start);
    world.ready();
    world.later(Duration::from_secs(9));
    world.on(Event::Notify(Role::Main, Notice { watchdog: true, ..Notice::default() }));
    assert_eq!(world.later(Duration::from_secs(9)), "");
    assert_eq!(world.later(Duration::from_secs(1)), "kill main+group 6");
    world.populated = false;
    let pid = world.pid;
    world.on(Event::Exited(pid, Exit::Dumped(6)));
    assert_eq!((world.state(), world.service.result), ("failed", ServiceResult::Watchdog));
}

#[test]
fn reloads_run_commands_or_wait_for_the_service() {
    let mut plain = config(ServiceType::Simple);
    plain.exec_reload.push(command("/bin/reload"));
    let mut world = World::new(plain);
    world.on(Event::Start);
    let main = world.pid;
    assert_eq!(world.on(Event::Reload), "run Reload0");
    assert_eq!(world.service.state.active(), ActiveState::Reloading);
    world.exit(1);
    assert_eq!((world.state(), world.service.reload_result), ("running", ServiceResult::ExitCode));
    assert_eq!(world.service.main, Some(main), "a failed reload ends nothing");

    let mut world = World::new(ServiceConfig { notify_access: NotifyAccess::Main, ..config(ServiceType::NotifyReload) });
    world.on(Event::Start);
    world.ready();
    assert_eq!(world.on(Event::Reload), "kill main 1");
    world.ready();
    assert_eq!(world.state(), "reload-notify", "READY=1 without RELOADING=1 is an old one");
    world.on(Event::Notify(Role::Main, Notice { reloading: true, monotonic_usec: Some(999_999), ready: true, ..Notice::default() }));
    assert_eq!(world.state(), "reload-notify", "that was about an earlier reload");
    world.on(Event::Notify(Role::Main, Notice { reloading: true, ..Notice::default() }));
    world.ready();
    assert_eq!(world.state(), "running");
}

#[test]
fn lies_change_nothing() {
    let mut world = World::new(ServiceConfig { notify_access: NotifyAccess::All, ..config(ServiceType::Simple) });
    for notice in [
        Notice { ready: true, ..Notice::default() },
        Notice { stopping: true, reloading: true, ..Notice::default() },
        Notice { main_pid: Some(4242), watchdog_usec: Some(1), ..Notice::default() },
    ] {
        world.on(Event::Notify(Role::Other, notice));
        assert_eq!((world.state(), world.service.main), ("dead", None));
    }
}

proptest::proptest! {
    #[test]
    fn no_order_of_events_is_too_much(kind in 0_usize..6, events in proptest::collection::vec(0_u8..14, 0..60)) {
        let types = [ServiceType::Simple, ServiceType::Exec, ServiceType::Forking, ServiceType::Oneshot, ServiceType::Notify, ServiceType::NotifyReload];
        let mut config = config(types[kind]);
        config.restart = Restart::OnFailure;
        config.exec_stop_post.push(command("/bin/p"));
        config.exec_start_pre.push(command("/bin/q"));
        config.notify_access = NotifyAccess::All;
        let mut world = World::new(config);
        for event in events {
            match event {
                0 => { world.on(Event::Start); }
                1 => { world.on(Event::Stop); }
                2 => { world.on(Event::Reload); }
                3 => { world.exit(0); }
                4 => { world.exit(1); }
                5 => { world.populated = false; world.on(Event::Empty); }
                6 => { world.later(Duration::from_secs(91)); }
                7 => { world.ready(); }
                8 => { world.on(Event::Executed); }
                9 => { world.on(Event::FoundMain(None)); }
                10 => { world.on(Event::Notify(Role::Main, Notice { stopping: true, ..Notice::default() })); }
                11 => { world.on(Event::Notify(Role::Other, Notice { reloading: true, main_pid: Some(9), ..Notice::default() })); }
                12 => { world.on(Event::SpawnFailed(Role::Control)); }
                _ => { if let Some(main) = world.service.main { world.on(Event::Exited(main, Exit::Signal(11))); } }
            }
        }
        // Whatever happened, a stop and enough time end it.
        world.on(Event::Stop);
        for _ in 0..12 {
            world.populated = false;
            for pid in [world.service.main, world.service.control].into_iter().flatten() {
                world.on(Event::Exited(pid, Exit::Signal(9)));
            }
            world.later(Duration::from_secs(91));
        }
        proptest::prop_assert!(matches!(world.service.state, State::Dead | State::Failed), "{}", world.state());
    }
}

#[test]
fn with_exit_type_cgroup_the_last_process_counts() {
    let mut world = World::new(ServiceConfig { exit_type: unit_files::service::ExitType::Cgroup, ..config(ServiceType::Simple) });
    world.on(Event::Start);
    world.exit(0);
    assert_eq!(world.state(), "running", "others of it are still there");
    world.on(Event::Empty);
    assert_eq!(world.state(), "dead");
}
