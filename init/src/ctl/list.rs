//! Lists of what runs: units, jobs, sockets, timers, dependencies.

use super::args::Options;
use super::human::{self, distance, dot, paint, timestamp};
use super::table::table;
use super::{Failure, Outcome, pid1};
use crate::engine::protocol::{ActiveState, LoadState, Reply, Request, UnitStatus};

/// `list-units`, `--failed`.
pub(super) fn units(options: &Options, operands: &[String]) -> Outcome {
    let all = options.all || options.states.iter().any(|state| matches!(state.as_str(), "inactive" | "dead" | "not-found" | "all"));
    let answer = pid1::ask(&Request::ListUnits { all, patterns: pid1::names(operands)? }, false)?;
    let units: Vec<UnitStatus> = answer
        .replies
        .into_iter()
        .filter_map(|reply| match reply {
            Reply::Unit(unit) if shown(&unit, options) => Some(*unit),
            _ => None,
        })
        .collect();
    if options.json {
        let rows: Vec<_> = units.iter().map(|unit| serde_json::json!({"unit": unit.name, "load": unit.load, "active": unit.active, "sub": unit.sub, "description": unit.description})).collect();
        return human::emit_json(&rows);
    }
    plain_output::print(&render_units(&units, options, human::colour()));
    Ok(0)
}

fn shown(unit: &UnitStatus, options: &Options) -> bool {
    let kind = unit.name.rsplit('.').next().unwrap_or_default();
    let state_fits = |state: &String| state == "all" || state == unit.active.as_str() || state == &unit.sub || state == unit.load.as_str();
    // Types and load states may be mixed in `--type`, as in systemd.
    let type_fits = |wanted: &String| wanted == kind || wanted == unit.load.as_str();
    (!options.failed || unit.active == ActiveState::Failed)
        && (options.types.is_empty() || options.types.iter().any(type_fits))
        && (options.states.is_empty() || options.states.iter().any(state_fits))
}

fn render_units(units: &[UnitStatus], options: &Options, colour: bool) -> String {
    let mark = |unit: &UnitStatus| {
        let bad = unit.active == ActiveState::Failed || !matches!(unit.load, LoadState::Loaded);
        if bad { dot(ActiveState::Failed, false).replace('×', "●") } else { " ".to_owned() }
    };
    let rows: Vec<Vec<String>> = units
        .iter()
        .map(|unit| {
            let mut row = if options.plain { Vec::new() } else { vec![mark(unit)] };
            row.extend([
                unit.name.clone(),
                unit.load.as_str().to_owned(),
                unit.active.as_str().to_owned(),
                unit.sub.clone(),
                unit.description.clone(),
            ]);
            row
        })
        .collect();
    let heading: &[&str] = if options.plain {
        &["UNIT", "LOAD", "ACTIVE", "SUB", "DESCRIPTION"]
    } else {
        &["", "UNIT", "LOAD", "ACTIVE", "SUB", "DESCRIPTION"]
    };
    let legend = !options.no_legend && !options.quiet;
    let mut out = String::new();
    for (line, unit) in table(heading, &rows, legend && !units.is_empty()).lines().enumerate().map(|(at, line)| {
        let position = if legend { at.checked_sub(1) } else { Some(at) };
        (line.to_owned(), position.and_then(|at| units.get(at)))
    }) {
        let failed = unit.is_some_and(|unit| unit.active == ActiveState::Failed);
        out.push_str(&if failed { paint(&line, "31", colour) } else { line });
        out.push('\n');
    }
    if legend {
        if !units.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("{} loaded units listed.", units.len()));
        if !options.all && !options.failed {
            out.push_str(
                " Pass --all to see loaded but inactive units, too.\nTo show all installed unit files use 'systemctl list-unit-files'.",
            );
        }
        out.push('\n');
    }
    out
}

/// `list-jobs`.
pub(super) fn jobs(options: &Options) -> Outcome {
    let answer = pid1::ask(&Request::ListJobs, false)?;
    let jobs: Vec<_> = answer
        .replies
        .into_iter()
        .filter_map(|reply| match reply {
            Reply::Job(job) => Some(job),
            _ => None,
        })
        .collect();
    if options.json {
        return human::emit_json(&jobs);
    }
    if jobs.is_empty() {
        if !options.no_legend {
            plain_output::print("No jobs running.\n");
        }
        return Ok(0);
    }
    let state = |running| if running { "running" } else { "waiting" };
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            vec![job.id.to_string(), job.unit.clone(), job.kind.clone(), state(job.running).to_owned(), super::status::few(&job.waits_for)]
        })
        .collect();
    plain_output::print(&table(&["JOB", "UNIT", "TYPE", "STATE", "WAITS FOR"], &rows, !options.no_legend));
    if !options.no_legend {
        plain_output::print(&format!("\n{} jobs listed.\n", rows.len()));
    }
    Ok(0)
}

/// `list-sockets`.
pub(super) fn sockets(options: &Options, operands: &[String]) -> Outcome {
    let patterns = pid1::names(operands)?;
    let answer = pid1::ask(&Request::ListSockets, false)?;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for reply in answer.replies {
        if let Reply::Socket { unit, listen, activates } = reply
            && (patterns.is_empty() || patterns.iter().any(|pattern| unit_files::glob::matches(pattern, &unit)))
        {
            rows.extend(listen.into_iter().map(|address| vec![address, unit.clone(), activates.clone()]));
        }
    }
    rows.sort();
    if options.json {
        let objects: Vec<_> = rows
            .iter()
            .filter_map(|row| <&[String; 3]>::try_from(row.as_slice()).ok())
            .map(|[listen, unit, activates]| serde_json::json!({"listen": listen, "unit": unit, "activates": activates}))
            .collect();
        return human::emit_json(&objects);
    }
    plain_output::print(&table(&["LISTEN", "UNIT", "ACTIVATES"], &rows, !options.no_legend));
    if !options.no_legend {
        plain_output::print(&format!("\n{} sockets listed.\n", rows.len()));
    }
    Ok(0)
}

/// `list-timers`: the next to elapse first.
pub(super) fn timers(options: &Options, operands: &[String]) -> Outcome {
    let patterns = pid1::names(operands)?;
    let answer = pid1::ask(&Request::ListTimers, false)?;
    let mut timers: Vec<(Option<u64>, Option<u64>, String, String)> = Vec::new();
    for reply in answer.replies {
        if let Reply::Timer { unit, next_usec, last_usec, activates } = reply
            && (patterns.is_empty() || patterns.iter().any(|pattern| unit_files::glob::matches(pattern, &unit)))
        {
            timers.push((next_usec, last_usec, unit, activates));
        }
    }
    timers.sort_by_key(|(next, _, unit, _)| (next.unwrap_or(u64::MAX), unit.clone()));
    if options.json {
        let objects: Vec<_> = timers
            .iter()
            .map(|(next, last, unit, activates)| serde_json::json!({"next": next, "last": last, "unit": unit, "activates": activates}))
            .collect();
        return human::emit_json(&objects);
    }
    plain_output::print(&render_timers(&timers, human::now(), !options.no_legend));
    Ok(0)
}

fn render_timers(timers: &[(Option<u64>, Option<u64>, String, String)], now: u64, legend: bool) -> String {
    let moment = |time: &Option<u64>| match time {
        Some(time) => [timestamp(*time), distance(*time, now)],
        None => ["-".to_owned(), "-".to_owned()],
    };
    let row = |(next, last, unit, activates): &(Option<u64>, Option<u64>, String, String)| {
        moment(next).into_iter().chain(moment(last)).chain([unit.clone(), activates.clone()]).collect()
    };
    let rows: Vec<Vec<String>> = timers.iter().map(row).collect();
    let mut out = table(&["NEXT", "LEFT", "LAST", "PASSED", "UNIT", "ACTIVATES"], &rows, legend);
    if legend {
        out.push_str(&format!("\n{} timers listed.\n", rows.len()));
    }
    out
}

/// `list-dependencies`.
pub(super) fn dependencies(options: &Options, operands: &[String]) -> Outcome {
    let unit = match operands {
        [] => "default.target".to_owned(),
        [one] => pid1::name(one)?,
        _ => return Err(Failure { message: "systemctl: list-dependencies takes one unit".to_owned(), code: 2 }),
    };
    let request = Request::ListDependencies { unit: unit.clone(), reverse: options.reverse, order: options.order, all: options.all };
    let answer = pid1::ask(&request, false)?;
    let edges: Vec<(u32, String, ActiveState)> = answer
        .replies
        .into_iter()
        .filter_map(|reply| match reply {
            Reply::Dependency { depth, unit, active } => Some((depth, unit, active)),
            _ => None,
        })
        .collect();
    if options.json {
        let objects: Vec<_> =
            edges.iter().map(|(depth, unit, active)| serde_json::json!({"depth": depth, "unit": unit, "active": active})).collect();
        return human::emit_json(&objects);
    }
    plain_output::print(&render_tree(&unit, &edges, options.plain, human::colour()));
    Ok(0)
}

/// A tree from its edges in depth-first order.
fn render_tree(root: &str, edges: &[(u32, String, ActiveState)], plain: bool, colour: bool) -> String {
    let mut out = format!("{root}\n");
    for (position, (depth, unit, active)) in edges.iter().enumerate() {
        let after = edges.get(position + 1..).unwrap_or_default();
        // Whether anything of a depth follows before the branch that holds it ends.
        let goes_on = |level: u32| after.iter().map(|(depth, ..)| *depth).take_while(|depth| *depth >= level).any(|depth| depth == level);
        if plain {
            out.extend(std::iter::repeat_n("  ", *depth as usize));
        } else {
            out.push_str(&dot(*active, colour));
            out.push(' ');
            for level in 1..*depth {
                out.push_str(if goes_on(level) { "│ " } else { "  " });
            }
            out.push_str(if goes_on(*depth) { "├─" } else { "└─" });
        }
        out.push_str(unit);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::unit;
    use super::*;

    #[test]
    fn units_are_filtered_and_marked() {
        let mut failed = unit("b.service", LoadState::Loaded, ActiveState::Failed);
        failed.sub = "failed".into();
        let units = [unit("a.socket", LoadState::Loaded, ActiveState::Active), failed];
        let filter = |line: &[&str]| {
            let args: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
            let options = super::super::args::parse(&args).unwrap().options;
            units.iter().filter(|unit| shown(unit, &options)).count()
        };
        assert_eq!((filter(&[]), filter(&["--failed"]), filter(&["-t", "socket,timer"]), filter(&["--state=failed,dead"])), (2, 1, 1, 2));
        let text = render_units(&units, &Options::default(), false);
        let expected = "  UNIT      LOAD   ACTIVE SUB    DESCRIPTION\n  a.socket  loaded active dead   Some a.socket\n● b.service loaded failed failed Some b.service\n\n2 loaded units listed.";
        assert!(text.starts_with(expected), "{text}");
        let bare = render_units(&units, &Options { no_legend: true, plain: true, ..Options::default() }, false);
        assert_eq!(bare.lines().count(), 2);
        assert!(render_units(&[], &Options { failed: true, ..Options::default() }, false).starts_with("0 loaded units listed."));
    }

    #[test]
    fn trees_have_branches() {
        let edges = [
            (1, "a", ActiveState::Active),
            (2, "b", ActiveState::Inactive),
            (1, "c", ActiveState::Failed),
            (2, "d", ActiveState::Active),
            (2, "e", ActiveState::Active),
        ]
        .map(|(depth, name, active)| (depth, name.to_owned(), active));
        assert_eq!(render_tree("t", &edges, false, false), "t\n● ├─a\n○ │ └─b\n× └─c\n●   ├─d\n●   └─e\n");
        assert_eq!(render_tree("t", &edges, true, false), "t\n  a\n    b\n  c\n    d\n    e\n");
    }

    #[test]
    fn timers_without_a_next_time_have_a_dash() {
        let text = render_timers(&[(None, None, "a.timer".into(), "a.service".into())], 0, false);
        assert_eq!(text, "- - - - a.timer a.service\n");
    }
}
