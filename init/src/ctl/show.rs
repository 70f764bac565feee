//! `show`, `is-active`, `is-failed`, `is-system-running`.

use std::collections::BTreeMap;

use unit_files::UnitName;

use super::args::Options;
use super::files::FileView;
use super::{Failure, Outcome, human, pid1};
use crate::engine::protocol::{ActiveState, LoadState, Reply, Request, UnitStatus};

/// `show`.
pub(super) fn show(options: &Options, operands: &[String]) -> Outcome {
    let answer = pid1::ask(&Request::Show { units: pid1::names(operands)? }, false)?;
    let mut units: Vec<BTreeMap<String, String>> = answer
        .replies
        .into_iter()
        .filter_map(|reply| match reply {
            Reply::Properties { properties, .. } => Some(properties),
            _ => None,
        })
        .collect();
    let clocks = Clocks { wall: human::now(), monotonic: monotonic() };
    let asked = |name: &str| options.properties.is_empty() || options.properties.iter().any(|property| property == name);
    let files = asked("UnitFileState").then(|| FileView::new(options));
    for properties in &mut units {
        add_timestamps(properties, clocks);
        let name = properties.get("Id").and_then(|name| UnitName::parse(name).ok());
        if let Some(state) = name.and_then(|name| files.as_ref()?.state(&name)) {
            properties.insert("UnitFileState".to_owned(), state.to_owned());
        }
    }
    if options.json {
        return human::emit_json(&units.iter().map(|properties| wanted(properties, options)).collect::<Vec<_>>());
    }
    plain_output::print(&units.iter().map(|properties| render(properties, options)).collect::<Vec<_>>().join("\n"));
    Ok(0)
}

/// Two clocks read at once.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    wall: u64,
    monotonic: u64,
}

fn monotonic() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec / 1000).unwrap_or(0)
}

/// `...Timestamp`, for people, from `...TimestampMonotonic`, as PID 1 has it.
fn add_timestamps(properties: &mut BTreeMap<String, String>, clocks: Clocks) {
    let mut more = Vec::new();
    for (name, value) in &*properties {
        let (Some(name), Ok(at)) = (name.strip_suffix("Monotonic").filter(|name| name.ends_with("Timestamp")), value.parse::<u64>()) else {
            continue;
        };
        let text = if at == 0 { String::new() } else { human::timestamp(clocks.wall.saturating_sub(clocks.monotonic.saturating_sub(at))) };
        more.push((name.to_owned(), text));
    }
    properties.extend(more);
}

/// The properties asked for, in the order asked; all when none was.
fn wanted<'a>(properties: &'a BTreeMap<String, String>, options: &Options) -> Vec<(&'a str, &'a str)> {
    if options.properties.is_empty() {
        let filled = properties.iter().filter(|(_, value)| options.all || !value.is_empty());
        return filled.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    }
    options
        .properties
        .iter()
        .filter_map(|name| properties.get_key_value(name).map(|(name, value)| (name.as_str(), value.as_str())))
        .collect()
}

fn render(properties: &BTreeMap<String, String>, options: &Options) -> String {
    let line = |(name, value): (&str, &str)| if options.value { format!("{value}\n") } else { format!("{name}={value}\n") };
    wanted(properties, options).into_iter().map(line).collect()
}

fn statuses(operands: &[String]) -> Result<Vec<UnitStatus>, Failure> {
    let answer = pid1::ask(&Request::Status { units: pid1::names(operands)? }, false)?;
    let units = answer.replies.into_iter().filter_map(|reply| match reply {
        Reply::Unit(unit) => Some(*unit),
        _ => None,
    });
    Ok(units.collect())
}

/// One line for each unit and the exit code: 0 when any is active, 4 when none exists, else 3.
fn active_lines(units: &[UnitStatus]) -> (Vec<&'static str>, u8) {
    let active = |unit: &&UnitStatus| matches!(unit.active, ActiveState::Active | ActiveState::Reloading);
    let code = if units.iter().any(|unit| active(&unit)) {
        0
    } else if units.iter().all(|unit| unit.load == LoadState::NotFound) {
        4
    } else {
        3
    };
    (units.iter().map(|unit| unit.active.as_str()).collect(), code)
}

/// `is-active`.
pub(super) fn is_active(options: &Options, operands: &[String]) -> Outcome {
    if operands.is_empty() {
        return Err(Failure { message: "systemctl: is-active needs a unit".to_owned(), code: 2 });
    }
    let units = statuses(operands)?;
    let (lines, code) = active_lines(&units);
    print_lines(options, &lines);
    Ok(code)
}

/// `is-failed`; without units, whether any unit has failed.
pub(super) fn is_failed(options: &Options, operands: &[String]) -> Outcome {
    if operands.is_empty() {
        let (state, failed) = system(false)?;
        print_lines(options, &[state.as_str()]);
        return Ok(u8::from(failed == 0));
    }
    let units = statuses(operands)?;
    print_lines(options, &units.iter().map(|unit| unit.active.as_str()).collect::<Vec<_>>());
    Ok(u8::from(!units.iter().any(|unit| unit.active == ActiveState::Failed)))
}

fn print_lines(options: &Options, lines: &[&str]) {
    if !options.quiet {
        plain_output::print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    }
}

fn system(wait: bool) -> Result<(String, usize), Failure> {
    let request = if wait { Request::WaitIdle } else { Request::SystemStatus };
    let answer = pid1::ask(&request, wait)?;
    let found = answer.replies.into_iter().find_map(|reply| match reply {
        Reply::System(system) => Some((system.state, system.failed.len())),
        _ => None,
    });
    found.ok_or_else(|| Failure::new("systemctl: PID 1 did not say how it is"))
}

/// `is-system-running`.
pub(super) fn is_system_running(options: &Options) -> Outcome {
    let (state, _) = system(options.wait)?;
    print_lines(options, &[state.as_str()]);
    Ok(u8::from(state != "running"))
}

/// `show-environment`.
pub(super) fn environment() -> Outcome {
    let answer = pid1::ask(&Request::Show { units: Vec::new() }, false)?;
    for reply in &answer.replies {
        if let Reply::Properties { properties, .. } = reply
            && let Some(environment) = properties.get("Environment")
        {
            plain_output::print(
                &environment.split(' ').filter(|word| !word.is_empty()).map(|word| format!("{word}\n")).collect::<String>(),
            );
        }
    }
    Ok(0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn unit(name: &str, load: LoadState, active: ActiveState) -> UnitStatus {
        let text = format!(
            r#"{{"name":"{name}","description":"Some {name}","load":"loaded","active":"inactive","sub":"dead","result":"success"}}"#
        );
        let mut unit: UnitStatus = serde_json::from_str(&text).unwrap();
        (unit.load, unit.active) = (load, active);
        unit
    }

    #[test]
    fn exit_codes_are_those_of_lsb() {
        let running = unit("a.service", LoadState::Loaded, ActiveState::Active);
        let failed = unit("b.service", LoadState::Loaded, ActiveState::Failed);
        let missing = unit("c.service", LoadState::NotFound, ActiveState::Inactive);
        assert_eq!(active_lines(std::slice::from_ref(&running)), (vec!["active"], 0));
        assert_eq!(active_lines(std::slice::from_ref(&failed)), (vec!["failed"], 3));
        assert_eq!(active_lines(std::slice::from_ref(&missing)), (vec!["inactive"], 4));
        assert_eq!(active_lines(&[failed, running]).1, 0, "one is enough");
    }

    #[test]
    fn times_are_for_people_too() {
        let mut properties = BTreeMap::from([
            ("ActiveEnterTimestampMonotonic".to_owned(), "4000000".to_owned()),
            ("InactiveEnterTimestampMonotonic".to_owned(), "0".to_owned()),
        ]);
        add_timestamps(&mut properties, Clocks { wall: 1_795_316_406_000_000, monotonic: 10_000_000 });
        assert!(properties["ActiveEnterTimestamp"].starts_with("Sun 2026-11-22"), "{properties:?}");
        assert_eq!(properties["InactiveEnterTimestamp"], "");
    }

    #[test]
    fn properties_come_as_asked() {
        let properties =
            BTreeMap::from([("Id".to_owned(), "a".to_owned()), ("MainPID".into(), "7".into()), ("User".into(), String::new())]);
        let asked = |names: &[&str], value| {
            let options = Options { properties: names.iter().map(|name| (*name).to_owned()).collect(), value, ..Options::default() };
            render(&properties, &options)
        };
        assert_eq!(asked(&[], false), "Id=a\nMainPID=7\n");
        assert_eq!(asked(&["MainPID", "Id", "Nothing"], false), "MainPID=7\nId=a\n");
        assert_eq!(asked(&["User"], true), "\n", "an empty value is a value");
    }
}
