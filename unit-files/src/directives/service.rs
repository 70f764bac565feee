//! `[Service]`.

use crate::name::{UnitKind, UnitName};
use crate::service::{
    ExitStatusSet, ExitType, FdStorePreserve, NotifyAccess, OomPolicy, OpenFile, Restart, RestartMode, ServiceConfig, ServiceType,
    TimeoutFailureMode,
};
use crate::value::{self, expected, parse_exit_code, parse_signal};
use crate::words::{Escapes, split};

use super::setters::{
    boolean, boolean_or_choice, choice, clean_path, commands, expand, list_with, optional_span, optional_text, signal, span, timeout,
    unsigned,
};
use super::{Effect, Input, Outcome, Table, silent, warn, yes};

fn exit_statuses(slot: &mut ExitStatusSet, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        *slot = ExitStatusSet::default();
        return Ok(Effect::None);
    }
    for word in split(input.value, Escapes::Keep)? {
        if let Ok(code) = parse_exit_code(&word) {
            slot.codes.insert(code);
        } else if let Ok(number) = parse_signal(&word) {
            slot.signals.insert(number);
        } else {
            input.note(format!("{word:?} is neither an exit status nor a signal, so this word is ignored"));
        }
    }
    Ok(Effect::Active)
}

fn failure_mode(slot: &mut TimeoutFailureMode, input: &Input<'_>) -> Outcome {
    let modes = [("terminate", TimeoutFailureMode::Terminate), ("abort", TimeoutFailureMode::Abort), ("kill", TimeoutFailureMode::Kill)];
    choice(slot, input, &modes, "terminate, abort or kill")
}

/// `OpenFile=path[:name[:options]]`.
fn open_file(slot: &mut Vec<OpenFile>, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    let text = expand(input)?;
    let mut parts = text.splitn(3, ':');
    let path = clean_path(parts.next().unwrap_or_default())?;
    let default_name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let name = parts.next().filter(|name| !name.is_empty()).map_or(default_name, str::to_owned);
    let mut file = OpenFile { path, name, read_only: false, append: false, truncate: false, graceful: false };
    for option in parts.next().unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
        match option {
            "read-only" => file.read_only = true,
            "append" => file.append = true,
            "truncate" => file.truncate = true,
            "graceful" => file.graceful = true,
            other => return Err(expected(other, "read-only, append, truncate or graceful")),
        }
    }
    slot.push(file);
    Ok(Effect::Active)
}

pub(super) static SERVICE: Table<ServiceConfig> = Table::new(&[
    yes("Type", |c, i| {
        let types = [
            ("simple", ServiceType::Simple),
            ("exec", ServiceType::Exec),
            ("forking", ServiceType::Forking),
            ("oneshot", ServiceType::Oneshot),
            ("notify", ServiceType::Notify),
            ("notify-reload", ServiceType::NotifyReload),
            ("idle", ServiceType::Idle),
            ("dbus", ServiceType::Dbus),
        ];
        choice(&mut c.service_type, i, &types, "a service type (simple, exec, forking, oneshot, notify, notify-reload, idle)")
    }),
    yes("ExitType", |c, i| choice(&mut c.exit_type, i, &[("main", ExitType::Main), ("cgroup", ExitType::Cgroup)], "'main' or 'cgroup'")),
    yes("ExecCondition", |c, i| commands(&mut c.exec_condition, i)),
    yes("ExecStartPre", |c, i| commands(&mut c.exec_start_pre, i)),
    yes("ExecStart", |c, i| commands(&mut c.exec_start, i)),
    yes("ExecStartPost", |c, i| commands(&mut c.exec_start_post, i)),
    yes("ExecReload", |c, i| commands(&mut c.exec_reload, i)),
    warn("ExecReloadPost", |c, i| commands(&mut c.exec_reload_post, i)),
    yes("ExecStop", |c, i| commands(&mut c.exec_stop, i)),
    yes("ExecStopPost", |c, i| commands(&mut c.exec_stop_post, i)),
    yes("Restart", |c, i| {
        let values = [
            ("no", Restart::No),
            ("always", Restart::Always),
            ("on-success", Restart::OnSuccess),
            ("on-failure", Restart::OnFailure),
            ("on-abnormal", Restart::OnAbnormal),
            ("on-abort", Restart::OnAbort),
            ("on-watchdog", Restart::OnWatchdog),
        ];
        choice(&mut c.restart, i, &values, "no, always, on-success, on-failure, on-abnormal, on-abort or on-watchdog")
    }),
    yes("RestartMode", |c, i| {
        let modes = [("normal", RestartMode::Normal), ("direct", RestartMode::Direct), ("debug", RestartMode::Debug)];
        choice(&mut c.restart_mode, i, &modes, "normal or direct")
    }),
    yes("RestartSec", |c, i| span(&mut c.restart_delay, i)),
    yes("RestartSteps", |c, i| unsigned(&mut c.restart_steps, i)),
    yes("RestartMaxDelaySec", |c, i| optional_span(&mut c.restart_max_delay, i)),
    yes("TimeoutStartSec", |c, i| timeout(&mut c.timeout_start, i)),
    yes("TimeoutStopSec", |c, i| timeout(&mut c.timeout_stop, i)),
    yes("TimeoutSec", |c, i| {
        timeout(&mut c.timeout_start, i)?;
        c.timeout_stop = c.timeout_start;
        Ok(Effect::Active)
    }),
    yes("TimeoutAbortSec", |c, i| optional_span(&mut c.timeout_abort, i)),
    yes("TimeoutStartFailureMode", |c, i| failure_mode(&mut c.timeout_start_failure_mode, i)),
    yes("TimeoutStopFailureMode", |c, i| failure_mode(&mut c.timeout_stop_failure_mode, i)),
    yes("RuntimeMaxSec", |c, i| {
        c.runtime_max = value::parse_timeout(i.value)?;
        Ok(Effect::from(c.runtime_max.is_some()))
    }),
    warn("RuntimeRandomizedExtraSec", |c, i| span(&mut c.runtime_randomized_extra, i)),
    yes("WatchdogSec", |c, i| {
        c.watchdog = value::parse_timeout(i.value)?;
        Ok(Effect::from(c.watchdog.is_some()))
    }),
    yes("RemainAfterExit", |c, i| boolean(&mut c.remain_after_exit, i)),
    yes("PIDFile", |c, i| {
        let text = expand(i)?;
        c.pid_file = match text.as_str() {
            "" => None,
            path if path.starts_with('/') => Some(clean_path(path)?),
            relative => Some(clean_path(&format!("/run/{relative}"))?),
        };
        Ok(Effect::from(c.pid_file.is_some()))
    }),
    yes("GuessMainPID", |c, i| boolean(&mut c.guess_main_pid, i)),
    yes("SuccessExitStatus", |c, i| exit_statuses(&mut c.success_exit_status, i)),
    yes("RestartPreventExitStatus", |c, i| exit_statuses(&mut c.restart_prevent_exit_status, i)),
    yes("RestartForceExitStatus", |c, i| exit_statuses(&mut c.restart_force_exit_status, i)),
    yes("NotifyAccess", |c, i| {
        let values = [("none", NotifyAccess::None), ("main", NotifyAccess::Main), ("exec", NotifyAccess::Exec), ("all", NotifyAccess::All)];
        choice(&mut c.notify_access, i, &values, "none, main, exec or all")
    }),
    yes("Sockets", |c, i| {
        list_with(&mut c.sockets, i, Escapes::Keep, |word| {
            let name = UnitName::parse(word)?;
            if name.kind() == UnitKind::Socket { Ok(name) } else { Err(expected(word, "a socket unit")) }
        })
    }),
    warn("OpenFile", |c, i| open_file(&mut c.open_files, i)),
    yes("FileDescriptorStoreMax", |c, i| unsigned(&mut c.fd_store_max, i)),
    yes("FileDescriptorStorePreserve", |c, i| {
        let choices = [("restart", FdStorePreserve::Restart)];
        let no_yes = [FdStorePreserve::No, FdStorePreserve::Yes];
        boolean_or_choice(&mut c.fd_store_preserve, i, no_yes, &choices, "yes, no or restart")
    }),
    yes("OOMPolicy", |c, i| {
        let policies = [("continue", OomPolicy::Continue), ("stop", OomPolicy::Stop), ("kill", OomPolicy::Kill)];
        choice(&mut c.oom_policy, i, &policies, "continue, stop or kill")
    }),
    yes("BusName", |c, i| {
        // Without `Type=dbus` the name only labels the unit.
        optional_text(&mut c.bus_name, i)
    }),
    silent("BusPolicy"),
    yes("NonBlocking", |c, i| boolean(&mut c.non_blocking, i)),
    // As long as `RootDirectory=` itself is refused.
    warn("RootDirectoryStartOnly", |c, i| boolean(&mut c.root_directory_start_only, i)),
    yes("PermissionsStartOnly", |c, i| boolean(&mut c.permissions_start_only, i)),
    yes("ReloadSignal", |c, i| signal(&mut c.reload_signal, i)),
    warn("USBFunctionDescriptors", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    warn("USBFunctionStrings", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    // Old names that systemd itself has dropped.
    silent("SysVStartPriority"),
    silent("FsckPassNo"),
]);
