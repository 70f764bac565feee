//! `status`: a unit at a glance, with its processes and its last log lines.

use std::fmt::Write as _;

use unit_files::UnitName;

use super::args::Options;
use super::files::FileView;
use super::human::{self, bytes, dot, paint};
use super::{Failure, Outcome, pid1};
use crate::engine::protocol::{ActiveState, LoadState, Reply, Request, SystemStatus, UnitStatus};
use crate::logs::journalctl;

/// How many log lines are shown when nobody says.
const LOG_LINES: usize = 10;

/// `status`.
pub(super) fn status(options: &Options, operands: &[String]) -> Outcome {
    if operands.is_empty() {
        return system(options);
    }
    let names = pid1::names(&operands.iter().map(|operand| of_process(operand).unwrap_or_else(|| operand.clone())).collect::<Vec<_>>())?;
    let answer = pid1::ask(&Request::Status { units: names }, false)?;
    let units: Vec<UnitStatus> = answer
        .replies
        .into_iter()
        .filter_map(|reply| match reply {
            Reply::Unit(unit) => Some(*unit),
            _ => None,
        })
        .collect();
    if options.json {
        human::emit_json(&units)?;
        return Ok(exit_code(&units));
    }
    let files = FileView::new(options);
    let (colour, now) = (human::colour(), human::now());
    for (position, unit) in units.iter().enumerate() {
        if position > 0 {
            plain_output::print("\n");
        }
        if unit.load == LoadState::NotFound && unit.active == ActiveState::Inactive {
            eprintln!("Unit {} could not be found.", unit.name);
            continue;
        }
        let enabled = UnitName::parse(&unit.name).ok().and_then(|name| files.state(&name));
        plain_output::print(&render(unit, enabled, now, colour));
        let lines = options.lines.unwrap_or(LOG_LINES);
        if lines > 0 {
            plain_output::print(&log_tail(&unit.name, lines));
        }
    }
    Ok(exit_code(&units))
}

/// A process id stands for the unit that it belongs to.
fn of_process(operand: &str) -> Option<String> {
    let pid: u32 = operand.parse().ok()?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    unit_of_group(groups.lines().find_map(|line| line.strip_prefix("0::"))?)
}

/// The last component of a control group's path that is a unit other than a slice.
fn unit_of_group(group: &str) -> Option<String> {
    let parts = group.split('/').rev().filter_map(|part| UnitName::parse(part).ok());
    parts.into_iter().find(|name| name.kind() != unit_files::UnitKind::Slice).map(|name| name.to_string())
}

/// 0 when all are active, 4 when any does not exist, else 3.
fn exit_code(units: &[UnitStatus]) -> u8 {
    if units.is_empty() || units.iter().any(|unit| unit.load == LoadState::NotFound && unit.active == ActiveState::Inactive) {
        4
    } else if units.iter().all(|unit| matches!(unit.active, ActiveState::Active | ActiveState::Reloading)) {
        0
    } else {
        3
    }
}

/// The first names of a list, and how many more there are.
pub(super) fn few(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    let more = names.len() - shown.len();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

struct Fields {
    out: String,
}

impl Fields {
    fn put(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.out, "{name:>10}: {value}");
    }

    fn more(&mut self, value: &str) {
        let _ = writeln!(self.out, "{:>10}  {value}", "");
    }
}

/// The page of one unit, without its log.
fn render(unit: &UnitStatus, enabled: Option<&'static str>, now: u64, colour: bool) -> String {
    let mut fields = Fields { out: format!("{} {}", dot(unit.active, colour), unit.name) };
    if unit.description != unit.name {
        let _ = write!(fields.out, " - {}", unit.description);
    }
    fields.out.push('\n');
    fields.put("Loaded", &loaded(unit, enabled, colour));
    for (position, path) in unit.drop_ins.iter().enumerate() {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let same = position > 0
            && unit.drop_ins.get(position - 1).is_some_and(|before| before.rsplit_once('/').is_some_and(|(d, _)| d == directory));
        match (position, same) {
            (0, _) => fields.put("Drop-In", directory),
            (_, false) => fields.more(directory),
            _ => {}
        }
        let next = unit.drop_ins.get(position + 1).is_some_and(|after| after.rsplit_once('/').is_some_and(|(d, _)| d == directory));
        fields.more(&format!("{}{name}", if next { "├─" } else { "└─" }));
    }
    fields.put("Active", &active(unit, now, colour));
    if let Some(job) = &unit.job {
        let waits = match job.waits_for.as_slice() {
            _ if job.running => String::new(),
            [] => ", waiting".to_owned(),
            others => format!(", waiting for {}", few(others)),
        };
        fields.put("Job", &format!("{} ({}{waits})", job.id, job.kind));
    }
    if let Some(condition) = unit.condition_failed.as_deref().filter(|_| unit.active == ActiveState::Inactive) {
        fields.put("Condition", &format!("start condition unmet: {condition}"));
    }
    for (position, trigger) in unit.triggered_by.iter().enumerate() {
        if position == 0 { fields.put("Triggered", &format!("by {trigger}")) } else { fields.more(&format!("by {trigger}")) }
    }
    if let Some(next) = unit.next_usec {
        fields.put("Trigger", &format!("{}; {}", human::timestamp(next), human::distance(next, now)));
    }
    for (position, other) in unit.triggers.iter().enumerate() {
        if position == 0 { fields.put("Triggers", other) } else { fields.more(other) }
    }
    for (position, page) in unit.documentation.iter().enumerate() {
        if position == 0 { fields.put("Docs", page) } else { fields.more(page) }
    }
    if let Some(ended) = ended(unit) {
        fields.put("Main PID", &ended);
    } else if unit.main_pid > 0 {
        let command = unit.processes.iter().find(|(pid, _)| *pid == unit.main_pid).map(|(_, line)| program(line));
        fields.put("Main PID", &command.map_or_else(|| unit.main_pid.to_string(), |name| format!("{} ({name})", unit.main_pid)));
    }
    if unit.control_pid > 0 {
        fields.put("Cntrl PID", &unit.control_pid.to_string());
    }
    if unit.restarts > 0 {
        fields.put("Restarts", &unit.restarts.to_string());
    }
    if let Some(text) = unit.status_text.as_deref().filter(|text| !text.is_empty()) {
        fields.put("Status", &format!("\"{text}\""));
    }
    if let Some(tasks) = unit.tasks {
        fields.put("Tasks", &tasks.to_string());
    }
    if let Some(memory) = unit.memory {
        fields.put("Memory", &bytes(memory));
    }
    if let Some(cpu) = unit.cpu_usec {
        fields.put("CPU", &human::span(cpu));
    }
    if let Some(group) = &unit.cgroup {
        fields.put("CGroup", group);
        for (position, (pid, command)) in unit.processes.iter().enumerate() {
            let branch = if position + 1 == unit.processes.len() { "└─" } else { "├─" };
            fields.more(&format!("{branch}{pid} {command}"));
        }
    }
    let told = unit.load_error.as_deref();
    for (position, warning) in unit.warnings.iter().filter(|warning| Some(warning.as_str()) != told).enumerate() {
        let warning = paint(warning, "33", colour);
        if position == 0 { fields.put("Warning", &warning) } else { fields.more(&warning) }
    }
    fields.out
}

fn loaded(unit: &UnitStatus, enabled: Option<&'static str>, colour: bool) -> String {
    let word = match unit.load {
        LoadState::Loaded => "loaded".to_owned(),
        other => paint(other.as_str(), "31", colour),
    };
    let details: Vec<&str> = unit.path.as_deref().into_iter().chain(enabled).collect();
    match (&unit.load_error, details.is_empty()) {
        (Some(error), _) if unit.load != LoadState::Loaded => format!("{word} (Reason: {error})"),
        (Some(error), false) => format!("{word} ({}) {}", details.join("; "), paint(error, "31", colour)),
        (_, false) => format!("{word} ({})", details.join("; ")),
        (_, true) => word,
    }
}

fn active(unit: &UnitStatus, now: u64, colour: bool) -> String {
    let mut words = format!("{} ({})", unit.active.as_str(), unit.sub);
    match unit.active {
        ActiveState::Active | ActiveState::Reloading => words = paint(&words, "32", colour),
        ActiveState::Failed => words = paint(&format!("failed (Result: {})", unit.result), "31", colour),
        _ => {}
    }
    if unit.since_usec > 0 {
        let _ = write!(words, " since {}; {}", human::timestamp(unit.since_usec), human::distance(unit.since_usec, now));
    }
    words
}

/// How the last main process ended, when none runs.
fn ended(unit: &UnitStatus) -> Option<String> {
    if unit.main_pid > 0 {
        return None;
    }
    if let Some(signal) = unit.exit_signal {
        return Some(format!("(code=killed, signal={})", unit_files::value::signal_name(signal)));
    }
    let code = unit.exit_code?;
    let name = u8::try_from(code).ok().and_then(unit_files::value::exit_code_name);
    Some(name.map_or_else(|| format!("(code=exited, status={code})"), |name| format!("(code=exited, status={code}/{name})")))
}

/// The name of the program of a command line.
fn program(command: &str) -> &str {
    let first = command.split_whitespace().next().unwrap_or_default();
    first.rsplit('/').next().unwrap_or(first).trim_end_matches(':')
}

/// The unit's last log lines of this boot.
fn log_tail(unit: &str, count: usize) -> String {
    let lines = journalctl::status_lines(unit, count);
    if lines.is_empty() { String::new() } else { format!("\n{}\n", lines.join("\n")) }
}

fn system(options: &Options) -> Outcome {
    let answer = pid1::ask(&Request::SystemStatus, false)?;
    let system = answer.replies.into_iter().find_map(|reply| match reply {
        Reply::System(system) => Some(system),
        _ => None,
    });
    let system = system.ok_or_else(|| Failure::new("systemctl: PID 1 did not say how it is"))?;
    if options.json {
        return human::emit_json(&system);
    }
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    plain_output::print(&render_system(&system, &hostname, human::colour()));
    Ok(0)
}

fn render_system(system: &SystemStatus, hostname: &str, colour: bool) -> String {
    let (state, colour_code) = match system.state.as_str() {
        "running" => (ActiveState::Active, "32"),
        "degraded" | "maintenance" => (ActiveState::Failed, "31"),
        _ => (ActiveState::Activating, ""),
    };
    let mut fields = Fields { out: format!("{} {hostname}\n", dot(state, colour)) };
    fields.put("State", &paint(&system.state, colour_code, colour));
    fields.put("Units", &format!("{} loaded", system.units));
    fields.put("Jobs", &format!("{} queued", system.jobs));
    fields.put("Failed", &format!("{} units", system.failed.len()));
    for unit in &system.failed {
        fields.more(unit);
    }
    fields.put("Version", &system.version);
    if !system.slot.is_empty() {
        fields.put("Slot", &system.slot);
    }
    if let Some(boot) = &system.boot {
        fields.put("Boot", boot);
    }
    let micros = std::time::Duration::try_from_secs_f64(system.uptime.max(0.0)).unwrap_or_default().as_micros();
    fields.put("Uptime", &human::span(u64::try_from(micros).unwrap_or(u64::MAX)));
    fields.out
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::unit;
    use super::*;

    #[test]
    fn the_page_of_a_running_service() {
        let mut docker = unit("docker.service", LoadState::Loaded, ActiveState::Active);
        docker.description = "Docker".into();
        docker.path = Some("/usr/lib/systemd/system/docker.service".into());
        docker.drop_ins = vec!["/etc/systemd/system/docker.service.d/a.conf".into(), "/etc/systemd/system/docker.service.d/b.conf".into()];
        docker.sub = "running".into();
        docker.main_pid = 7;
        docker.memory = Some(101_187_584);
        docker.tasks = Some(9);
        docker.triggered_by = vec!["docker.socket".into()];
        docker.cgroup = Some("/system.slice/docker.service".into());
        docker.processes = vec![(7, "/usr/bin/dockerd -H fd://".into()), (8, "containerd".into())];
        let expected = "\
● docker.service - Docker
    Loaded: loaded (/usr/lib/systemd/system/docker.service; enabled)
   Drop-In: /etc/systemd/system/docker.service.d
            ├─a.conf
            └─b.conf
    Active: active (running)
 Triggered: by docker.socket
  Main PID: 7 (dockerd)
     Tasks: 9
    Memory: 96.5M
    CGroup: /system.slice/docker.service
            ├─7 /usr/bin/dockerd -H fd://
            └─8 containerd
";
        assert_eq!(render(&docker, Some("enabled"), 0, false), expected);
    }

    #[test]
    fn the_page_of_a_timer_says_when() {
        let mut timer = unit("a.timer", LoadState::Loaded, ActiveState::Active);
        timer.next_usec = Some(1_795_316_400_000_000);
        timer.triggers = vec!["a.service".into()];
        let page = render(&timer, None, 1_795_316_340_000_000, false);
        assert!(page.contains("   Trigger: Sun 2026-11-22") && page.contains("; in 1min\n  Triggers: a.service\n"), "{page}");
    }

    #[test]
    fn the_page_of_a_job_that_waits_says_for_what() {
        let mut waits = unit("a.service", LoadState::Loaded, ActiveState::Inactive);
        let others = ["b", "c", "d", "e", "f"].map(|name| format!("{name}.service")).to_vec();
        waits.job = Some(crate::engine::protocol::JobInfo {
            id: 7,
            unit: "a.service".into(),
            kind: "start".into(),
            running: false,
            waits_for: others,
        });
        let page = render(&waits, None, 0, false);
        assert!(page.contains("Job: 7 (start, waiting for b.service, c.service, d.service and 2 more)"), "{page}");
    }

    #[test]
    fn the_page_of_a_failed_service_says_why() {
        let mut web = unit("web.service", LoadState::Loaded, ActiveState::Failed);
        web.result = "exit-code".into();
        web.exit_code = Some(203);
        web.since_usec = 1_795_316_400_000_000;
        web.warnings = vec!["/x:3: Foo= is not known in [Service], so it is ignored".into()];
        let page = render(&web, None, web.since_usec + 5_000_000, false);
        assert!(page.starts_with("× web.service - Some web.service\n"), "{page}");
        assert!(page.contains("Active: failed (Result: exit-code) since Sun 2026-11-22"), "{page}");
        assert!(page.contains("5s ago"), "{page}");
        assert!(page.contains("Main PID: (code=exited, status=203/EXEC)"), "{page}");
        assert!(page.contains("Warning: /x:3:"), "{page}");
    }

    #[test]
    fn a_unit_that_cannot_be_used_says_why() {
        let mut bad = unit("bad.service", LoadState::BadSetting, ActiveState::Inactive);
        bad.load_error = Some("/x: no ExecStart=".into());
        assert!(render(&bad, None, 0, false).contains("Loaded: bad-setting (Reason: /x: no ExecStart=)"));
    }

    #[test]
    fn exit_codes() {
        let running = unit("a.service", LoadState::Loaded, ActiveState::Active);
        let dead = unit("b.service", LoadState::Loaded, ActiveState::Inactive);
        let missing = unit("c.service", LoadState::NotFound, ActiveState::Inactive);
        assert_eq!(exit_code(std::slice::from_ref(&running)), 0);
        assert_eq!(exit_code(&[running.clone(), dead]), 3);
        assert_eq!(exit_code(&[running, missing]), 4);
        assert_eq!(exit_code(&[]), 4);
    }

    #[test]
    fn processes_lead_to_units() {
        assert_eq!(unit_of_group("/system.slice/docker.service/init").as_deref(), Some("docker.service"));
        assert_eq!(unit_of_group("/system.slice"), None);
    }
}
