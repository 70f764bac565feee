//! What must hold of a unit as a whole, and what follows from what is not written.

use std::collections::HashSet;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::exec::{CapabilitySet, ExecContext, PrivateTmp, ProtectHome, ProtectSystem};
use crate::name::{UnitKind, UnitName};
use crate::service::{NotifyAccess, OomPolicy, Restart, ServiceConfig, ServiceType};
use crate::socket::Listen;
use crate::timer::TimerTrigger;
use crate::unit::{Config, EmergencyAction, Unit};
use crate::value::{ALL_CAPABILITIES, parse_capability};

/// Fills in what a service's other settings imply.
pub(crate) fn infer_service_defaults(unit: &mut Unit, assigned: &HashSet<&'static str>) {
    let Config::Service(service) = &mut unit.config else { return };
    if !assigned.contains("Type") {
        service.service_type = if service.bus_name.is_some() {
            ServiceType::Dbus
        } else if service.exec_start.is_empty() {
            ServiceType::Oneshot
        } else {
            ServiceType::Simple
        };
    }
    if service.service_type == ServiceType::Oneshot && !assigned.contains("TimeoutStartSec") && !assigned.contains("TimeoutSec") {
        service.timeout_start = None;
    }
    let needs_notify = matches!(service.service_type, ServiceType::Notify | ServiceType::NotifyReload)
        || service.watchdog.is_some()
        || service.fd_store_max > 0;
    if needs_notify && service.notify_access == NotifyAccess::None {
        service.notify_access = NotifyAccess::Main;
    }
    if !assigned.contains("OOMPolicy") && service.cgroup.delegate.is_on() {
        service.oom_policy = OomPolicy::Continue;
    }
    imply(Arc::make_mut(&mut service.exec));
}

/// `DynamicUser=` brings its own sandbox, and several restrictions mean nothing while a capability gets around them.
fn imply(exec: &mut ExecContext) {
    let implied: [(bool, &[&str]); 4] = [
        (exec.private_devices, &["CAP_MKNOD", "CAP_SYS_RAWIO"]),
        (exec.protect_kernel_modules, &["CAP_SYS_MODULE"]),
        (exec.protect_kernel_logs, &["CAP_SYSLOG"]),
        (exec.protect_clock, &["CAP_SYS_TIME", "CAP_WAKE_ALARM"]),
    ];
    for name in implied.into_iter().filter(|(on, _)| *on).flat_map(|(_, names)| names) {
        if let Ok(number) = parse_capability(name) {
            let kept = exec.capability_bounding_set.map_or(ALL_CAPABILITIES, |set| set.0);
            exec.capability_bounding_set = Some(CapabilitySet(kept & !(1_u64 << number)));
        }
    }
    if exec.dynamic_user {
        exec.no_new_privileges = true;
        exec.restrict_suid_sgid = true;
        exec.remove_ipc = true;
        if exec.protect_system != ProtectSystem::Strict {
            exec.protect_system = ProtectSystem::Strict;
        }
        if exec.protect_home == ProtectHome::No {
            exec.protect_home = ProtectHome::ReadOnly;
        }
        if exec.private_tmp == PrivateTmp::No {
            exec.private_tmp = PrivateTmp::Connected;
        }
    }
}

/// Checks the whole unit; what is wrong becomes diagnostics.
pub(crate) fn check(unit: &mut Unit, assigned: &HashSet<&'static str>) {
    let mut found: Vec<(Severity, &'static str, String)> = Vec::new();
    let name = unit.name.clone();
    match &mut unit.config {
        Config::Service(service) => check_service(service, unit.success_action, assigned, &mut found),
        Config::Socket(socket) => {
            if socket.listen.is_empty() {
                found.push((Severity::Error, "ListenStream", "the socket has nothing to listen on (no Listen...= setting)".to_owned()));
            }
            if socket.accept && socket.service.is_some() {
                found.push((Severity::Error, "Service", "Service= cannot be combined with Accept=yes".to_owned()));
            }
            let connects = |listen: &Listen| matches!(listen, Listen::Stream(_) | Listen::SequentialPacket(_));
            if socket.accept && !socket.listen.iter().all(connects) {
                let text = "Accept=yes is for sockets with connections (ListenStream=, ListenSequentialPacket=) only".to_owned();
                found.push((Severity::Error, "Accept", text));
            }
            if socket.accept && socket.max_connections == 0 {
                found.push((Severity::Error, "MaxConnections", "MaxConnections= must not be 0 with Accept=yes".to_owned()));
            }
        }
        Config::Timer(timer) => {
            if timer.triggers.is_empty() && !timer.on_clock_change && !timer.on_timezone_change {
                found.push((Severity::Error, "OnCalendar", "the timer never elapses (no On...= setting)".to_owned()));
            }
            if timer.persistent && !timer.triggers.iter().any(|trigger| matches!(trigger, TimerTrigger::Calendar(_))) {
                found.push((Severity::Warning, "Persistent", "Persistent= means nothing without OnCalendar=".to_owned()));
            }
        }
        Config::Path(path) => {
            if path.watches.is_empty() {
                found.push((Severity::Error, "PathExists", "the path unit watches nothing (no Path...= setting)".to_owned()));
            }
        }
        Config::Mount(mount) => {
            check_mount_point(&name, &mut mount.mount_point, UnitKind::Mount, &mut found);
            if mount.what.is_empty() && unit.fragment.is_some() {
                found.push((Severity::Error, "What", "the mount has no What=".to_owned()));
            }
        }
        Config::Automount(automount) => check_mount_point(&name, &mut automount.mount_point, UnitKind::Automount, &mut found),
        Config::Swap(swap) => {
            if swap.what.is_empty() {
                swap.what = name.to_path().and_then(|path| String::from_utf8(path).ok()).unwrap_or_default();
            } else if UnitName::from_path(&swap.what, UnitKind::Swap).ok().as_ref() != Some(&name) {
                found.push((Severity::Error, "What", format!("What={} does not match the unit's name", swap.what)));
            }
        }
        Config::Slice(cgroup) => {
            if cgroup.delegate.is_on() {
                found.push((Severity::Warning, "Delegate", "Delegate= means nothing for a slice".to_owned()));
            }
        }
        Config::Scope(_) | Config::Target | Config::Device => {}
    }
    // A command that cannot be read was there all the same.
    if unit.diagnostics.iter().any(|known| known.severity == Severity::Error && known.key == "ExecStart") {
        found.retain(|(_, key, _)| *key != "ExecStart");
    }
    let location = unit.fragment.as_ref().map(|path| Location { path: path.clone(), line: 0 });
    for (severity, key, message) in found {
        unit.diagnostics.push(Diagnostic { severity, location: location.clone(), key: key.to_owned(), message });
    }
}

fn check_mount_point(name: &UnitName, mount_point: &mut String, kind: UnitKind, found: &mut Vec<(Severity, &'static str, String)>) {
    let from_name = name.to_path().and_then(|path| String::from_utf8(path).ok()).unwrap_or_default();
    if mount_point.is_empty() {
        *mount_point = from_name;
    } else if UnitName::from_path(mount_point, kind).ok().as_ref() != Some(name) {
        found.push((Severity::Error, "Where", format!("Where={mount_point} does not match the unit's name, which means {from_name}")));
    }
}

fn check_service(
    service: &ServiceConfig,
    success_action: EmergencyAction,
    assigned: &HashSet<&'static str>,
    found: &mut Vec<(Severity, &'static str, String)>,
) {
    let mut error = |key, message: &str| found.push((Severity::Error, key, message.to_owned()));
    let oneshot = service.service_type == ServiceType::Oneshot;
    if service.exec_start.is_empty() && service.exec_stop.is_empty() && success_action == EmergencyAction::None {
        error("ExecStart", "the service has no ExecStart=, ExecStop= or SuccessAction=");
    } else if !oneshot && service.exec_start.is_empty() {
        error("ExecStart", "the service has no ExecStart=, which only Type=oneshot may lack");
    } else if !service.remain_after_exit && service.exec_start.is_empty() && success_action == EmergencyAction::None {
        error("ExecStart", "the service has no ExecStart=, which needs RemainAfterExit=yes");
    }
    if !oneshot && service.exec_start.len() > 1 {
        error("ExecStart", "the service has more than one ExecStart=, which only Type=oneshot may have");
    }
    if oneshot && matches!(service.restart, Restart::Always | Restart::OnSuccess) {
        error("Restart", "Type=oneshot cannot have Restart=always or Restart=on-success");
    }
    let forced = &service.restart_force_exit_status;
    if oneshot && !(forced.codes.is_empty() && forced.signals.is_empty()) {
        error("RestartForceExitStatus", "Type=oneshot cannot have RestartForceExitStatus=");
    }
    if service.service_type == ServiceType::Dbus {
        error("Type", "Type=dbus needs a message bus, which there is none (write Type=simple or Type=notify)");
    }
    let mut warning = |key, message: &str| found.push((Severity::Warning, key, message.to_owned()));
    if (service.restart_steps > 0) != service.restart_max_delay.is_some() {
        warning("RestartSteps", "RestartSteps= and RestartMaxDelaySec= only work together, so neither counts");
    }
    if service.restart_max_delay.is_some_and(|most| most < service.restart_delay) {
        warning("RestartMaxDelaySec", "RestartMaxDelaySec= is below RestartSec=, so it does not count");
    }
    if oneshot && service.runtime_max.is_some() {
        warning("RuntimeMaxSec", "RuntimeMaxSec= means nothing for Type=oneshot; TimeoutStartSec= does");
    }
    if service.service_type == ServiceType::Forking && service.pid_file.is_none() && !service.guess_main_pid {
        warning("PIDFile", "Type=forking with neither PIDFile= nor GuessMainPID=yes leaves the main process unknown");
    }
    if service.exec.dynamic_user && assigned.contains("User") && service.exec.user.as_deref() == Some("root") {
        warning("DynamicUser", "DynamicUser= with User=root means nothing");
    }
}
