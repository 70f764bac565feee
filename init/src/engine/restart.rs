//! When a service is started again: how endings are judged, the `Restart=` table, backoff and the start limit.
//!
//! Pure; times are microseconds of the monotonic clock, handed in.

use std::collections::VecDeque;
use std::time::Duration;

use unit_files::service::{ExitStatusSet, Restart, ServiceConfig, ServiceType};

/// Microseconds of the monotonic clock.
pub type Usec = u64;

/// A duration as microseconds; what does not fit is for ever.
#[must_use]
pub fn usec(duration: Duration) -> Usec {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By this signal, with a core dump.
    Dumped(i32),
}

impl Exit {
    /// `$EXIT_CODE`.
    #[must_use]
    pub fn code_word(self) -> &'static str {
        match self {
            Self::Code(_) => "exited",
            Self::Signal(_) => "killed",
            Self::Dumped(_) => "dumped",
        }
    }
}

/// Why a service is in its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceResult {
    /// All well.
    #[default]
    Success,
    /// It could not be set up.
    Resources,
    /// It did not keep to its `Type=`.
    Protocol,
    /// Something took too long.
    Timeout,
    /// A bad exit code.
    ExitCode,
    /// Killed by a signal.
    Signal,
    /// Killed by a signal, with a core dump.
    CoreDump,
    /// It did not report in time.
    Watchdog,
    /// Started too often.
    StartLimitHit,
    /// The kernel killed one of its processes for want of memory.
    OomKill,
    /// `ExecCondition=` said no.
    ExecCondition,
}

impl ServiceResult {
    /// `$SERVICE_RESULT` and `systemctl show -p Result`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Resources => "resources",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::ExitCode => "exit-code",
            Self::Signal => "signal",
            Self::CoreDump => "core-dump",
            Self::Watchdog => "watchdog",
            Self::StartLimitHit => "start-limit-hit",
            Self::OomKill => "oom-kill",
            Self::ExecCondition => "exec-condition",
        }
    }
}

fn listed(set: &ExitStatusSet, exit: Exit) -> bool {
    match exit {
        Exit::Code(code) => u8::try_from(code).is_ok_and(|code| set.codes.contains(&code)),
        Exit::Signal(signal) | Exit::Dumped(signal) => set.signals.contains(&signal),
    }
}

/// What the end of a process means. `daemon`: being asked to end by a signal is a clean end for daemons only.
#[must_use]
pub fn judge(exit: Exit, config: &ServiceConfig, daemon: bool) -> ServiceResult {
    let clean_signal = |signal: i32| daemon && [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE].contains(&signal);
    match exit {
        Exit::Code(0) => ServiceResult::Success,
        _ if listed(&config.success_exit_status, exit) => ServiceResult::Success,
        Exit::Code(_) => ServiceResult::ExitCode,
        Exit::Signal(signal) if clean_signal(signal) => ServiceResult::Success,
        Exit::Signal(_) => ServiceResult::Signal,
        Exit::Dumped(_) => ServiceResult::CoreDump,
    }
}

/// Whether a service that ended by itself is started again.
#[must_use]
pub fn should_restart(config: &ServiceConfig, result: ServiceResult, exit: Option<Exit>) -> bool {
    if matches!(result, ServiceResult::ExecCondition | ServiceResult::StartLimitHit) {
        return false;
    }
    if exit.is_some_and(|exit| listed(&config.restart_prevent_exit_status, exit)) {
        return false;
    }
    if exit.is_some_and(|exit| listed(&config.restart_force_exit_status, exit)) {
        return true;
    }
    match config.restart {
        Restart::No => false,
        Restart::Always => true,
        Restart::OnSuccess => result == ServiceResult::Success,
        Restart::OnFailure => result != ServiceResult::Success,
        Restart::OnAbnormal => !matches!(result, ServiceResult::Success | ServiceResult::ExitCode),
        Restart::OnAbort => matches!(result, ServiceResult::Signal | ServiceResult::CoreDump),
        Restart::OnWatchdog => result == ServiceResult::Watchdog,
    }
}

/// Whether a service of this type is a daemon: its end by SIGTERM is clean.
#[must_use]
pub fn is_daemon(service_type: ServiceType) -> bool {
    service_type != ServiceType::Oneshot
}

/// How long to wait before restart number `restarts` (from 0).
#[must_use]
pub fn restart_delay(config: &ServiceConfig, restarts: u32) -> Usec {
    let base = config.restart_delay.as_secs_f64();
    let Some(max) = config.restart_max_delay.map(|max| max.as_secs_f64()) else { return usec(config.restart_delay) };
    if config.restart_steps == 0 || base <= 0.0 || max <= base {
        return usec(config.restart_delay);
    }
    if restarts >= config.restart_steps {
        return usec(Duration::from_secs_f64(max.min(1e12)));
    }
    let delay = base * (max / base).powf(f64::from(restarts) / f64::from(config.restart_steps));
    usec(Duration::try_from_secs_f64(delay).unwrap_or(Duration::MAX))
}

/// Starts in a sliding window.
#[derive(Debug, Default, Clone)]
pub struct StartLimiter {
    starts: VecDeque<Usec>,
}

impl StartLimiter {
    /// Notes a start; false when it is one too many.
    pub fn allow(&mut self, now: Usec, interval: Duration, burst: u32) -> bool {
        if burst == 0 || interval.is_zero() {
            return true;
        }
        let window = usec(interval);
        while self.starts.front().is_some_and(|start| now.saturating_sub(*start) >= window) {
            self.starts.pop_front();
        }
        // A burst of millions is a way to write "no limit"; do not keep millions of times.
        if self.starts.len() >= burst.min(1000) as usize {
            return burst > 1000;
        }
        self.starts.push_back(now);
        true
    }

    /// `systemctl reset-failed`.
    pub fn reset(&mut self) {
        self.starts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(restart: Restart) -> ServiceConfig {
        ServiceConfig { restart, ..ServiceConfig::default() }
    }

    #[test]
    fn the_restart_table() {
        use ServiceResult::{CoreDump, ExitCode, Signal, Success, Timeout, Watchdog};
        let results = [Success, ExitCode, Signal, CoreDump, Timeout, Watchdog];
        let table = [
            (Restart::No, [false, false, false, false, false, false]),
            (Restart::Always, [true, true, true, true, true, true]),
            (Restart::OnSuccess, [true, false, false, false, false, false]),
            (Restart::OnFailure, [false, true, true, true, true, true]),
            (Restart::OnAbnormal, [false, false, true, true, true, true]),
            (Restart::OnAbort, [false, false, true, true, false, false]),
            (Restart::OnWatchdog, [false, false, false, false, false, true]),
        ];
        for (restart, expected) in table {
            let config = config(restart);
            let got = results.map(|result| should_restart(&config, result, None));
            assert_eq!(got, expected, "{restart:?}");
        }
    }

    #[test]
    fn listed_codes_win_over_the_table_and_prevention_over_force() {
        let mut config = config(Restart::Always);
        config.restart_prevent_exit_status.codes.insert(3);
        config.restart_force_exit_status.codes.insert(3);
        assert!(!should_restart(&config, ServiceResult::ExitCode, Some(Exit::Code(3))));
        config.restart = Restart::No;
        config.restart_prevent_exit_status.codes.clear();
        assert!(should_restart(&config, ServiceResult::ExitCode, Some(Exit::Code(3))));
        assert!(!should_restart(&config, ServiceResult::ExecCondition, Some(Exit::Code(3))));
    }

    #[test]
    fn a_signal_is_a_clean_end_only_for_daemons() {
        let mut config = config(Restart::No);
        assert_eq!(judge(Exit::Signal(libc::SIGTERM), &config, true), ServiceResult::Success);
        assert_eq!(judge(Exit::Signal(libc::SIGTERM), &config, false), ServiceResult::Signal);
        assert_eq!(judge(Exit::Signal(libc::SIGKILL), &config, true), ServiceResult::Signal);
        assert_eq!(judge(Exit::Code(2), &config, true), ServiceResult::ExitCode);
        config.success_exit_status.codes.insert(2);
        assert_eq!(judge(Exit::Code(2), &config, true), ServiceResult::Success);
    }

    #[test]
    fn the_delay_grows_geometrically_to_its_cap() {
        let series = |base: f64, max: f64, steps: u32| {
            let mut config = config(Restart::Always);
            config.restart_delay = Duration::from_secs_f64(base);
            config.restart_max_delay = Some(Duration::from_secs_f64(max));
            assert_eq!(restart_delay(&config, 3), usec(config.restart_delay), "steps and cap need each other");
            config.restart_steps = steps;
            assert_eq!(restart_delay(&config, 1000), usec(Duration::from_secs_f64(max)));
            (0..steps + 2).map(|n| restart_delay(&config, n) as f64 / 1e6).collect::<Vec<f64>>()
        };
        // The example of systemd's manual.
        assert_eq!(series(10.0, 160.0, 4), [10.0, 20.0, 40.0, 80.0, 160.0, 160.0]);
        // Published by people who watched systemd at it: rounded in the first two, with up to 0.12 s for the start itself in the third.
        for (settings, published, slack) in [
            ((0.1, 10.0, 5), [0.1, 0.25, 0.63, 1.58, 3.98, 10.0].as_slice(), 0.005),
            ((1.0, 10.0, 3), [1.0, 2.15, 4.64, 10.0].as_slice(), 0.005),
            ((2.0, 120.0, 5), [2.1, 4.6, 10.4, 23.4, 52.9].as_slice(), 0.12),
        ] {
            let ours = series(settings.0, settings.1, settings.2);
            for (ours, published) in ours.iter().zip(published) {
                assert!((ours - published).abs() < slack, "{settings:?}: {ours} instead of {published}");
            }
        }
    }

    #[test]
    fn the_sixth_start_in_ten_seconds_is_refused() {
        let mut limiter = StartLimiter::default();
        let interval = Duration::from_secs(10);
        for n in 0..5 {
            assert!(limiter.allow(n * 1_000_000, interval, 5));
        }
        assert!(!limiter.allow(5_000_000, interval, 5));
        assert!(limiter.allow(10_000_000, interval, 5), "the first has left the window");
        limiter.reset();
        assert!(limiter.allow(10_000_001, interval, 1));
        assert!(!limiter.allow(10_000_002, interval, 1));
        assert!(limiter.allow(10_000_003, Duration::ZERO, 1));
    }
}
