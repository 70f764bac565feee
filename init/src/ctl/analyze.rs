//! `analyze`: where the time of the boot went.

use std::collections::HashMap;

use unit_files::calendar::{CalendarSpec, Zone};

use super::args::Options;
use super::{Failure, Outcome, human, pid1};
use crate::engine::protocol::{Analysis, Reply, Request, UnitTiming};

/// `analyze [time|blame|critical-chain [UNIT]|calendar EXPRESSION...]`.
pub(super) fn analyze(options: &Options, operands: &[String]) -> Outcome {
    if let [word, expressions @ ..] = operands
        && word == "calendar"
    {
        return calendar(expressions, options.lines.unwrap_or(3));
    }
    let answer = pid1::ask(&Request::Analyze, false)?;
    let analysis = answer.replies.into_iter().find_map(|reply| match reply {
        Reply::Analysis(analysis) => Some(analysis),
        _ => None,
    });
    let analysis = analysis.ok_or_else(|| Failure::new("systemctl: PID 1 did not give its times"))?;
    if options.json {
        return human::emit_json(&analysis);
    }
    let text = match operands {
        [] => format!("{}\n{}", times(&analysis), blame(&analysis, 10)),
        [word] if word == "time" => times(&analysis),
        [word] if word == "blame" => blame(&analysis, usize::MAX),
        [word] if word == "critical-chain" => critical_chain(&analysis, None),
        [word, unit] if word == "critical-chain" => critical_chain(&analysis, Some(&pid1::name(unit)?)),
        _ => {
            return Err(Failure {
                message: "systemctl: analyze takes 'time', 'blame', 'critical-chain [UNIT]' or 'calendar EXPRESSION...'".to_owned(),
                code: 2,
            });
        }
    };
    plain_output::print(&text);
    Ok(0)
}

/// What `OnCalendar=` expressions mean, and when they come round next; nothing of PID 1 is needed for it.
fn calendar(expressions: &[String], times: usize) -> Outcome {
    if expressions.is_empty() {
        return Err(Failure { message: "systemctl: analyze calendar needs an expression".to_owned(), code: 2 });
    }
    for expression in expressions {
        let spec = CalendarSpec::parse(expression).map_err(|why| Failure::new(format!("systemctl: {why}")))?;
        let zone = crate::engine::time_zone(&spec.zone)
            .ok_or_else(|| Failure::new(format!("systemctl: {expression:?}: there is no such time zone")))?;
        plain_output::print(&upcoming(&spec, &zone, human::now(), times));
    }
    Ok(0)
}

fn upcoming(spec: &CalendarSpec, zone: &Zone, now: u64, times: usize) -> String {
    let mut out = format!("  Original form: {}\nNormalized form: {spec}\n", spec.text);
    let mut at = now;
    for number in 0..times {
        match spec.next_after(at, zone) {
            None if number == 0 => out.push_str("    Next elapse: never\n"),
            None => break,
            Some(next) => {
                let title = if number == 0 { "Next elapse".to_owned() } else { format!("Iteration {}", number + 1) };
                out.push_str(&format!("{title:>15}: {} ({})\n", human::timestamp(next), human::distance(next, now)));
                at = next;
            }
        }
    }
    out
}

/// The phases, each with how long it took.
fn times(analysis: &Analysis) -> String {
    let mut out = String::new();
    let mut last = 0;
    for (name, end) in &analysis.phases {
        out.push_str(&format!("{:>12}  {name}\n", format!("+{}", human::span(end.saturating_sub(last)))));
        last = last.max(*end);
    }
    if let Some(finished) = analysis.finished_usec {
        out.push_str(&format!("Startup finished {} after the kernel started.\n", human::span(finished)));
    }
    match analysis.complete_usec {
        Some(complete) => out.push_str(&format!("Boot complete, health checks included, after {}.\n", human::span(complete))),
        None => out.push_str("The boot is not complete yet.\n"),
    }
    out
}

fn duration(unit: &UnitTiming) -> Option<u64> {
    unit.active_usec.map(|active| active.saturating_sub(unit.activating_usec))
}

/// Units by how long they took to start.
fn blame(analysis: &Analysis, most: usize) -> String {
    let mut units: Vec<(u64, &str)> = analysis.units.iter().filter_map(|unit| Some((duration(unit)?, unit.name.as_str()))).collect();
    units.sort_by(|a, b| b.cmp(a));
    units.retain(|(time, _)| *time >= 1000);
    units.iter().take(most).map(|(time, name)| format!("{:>12} {name}\n", human::span(*time))).collect()
}

/// From a unit back over whatever it waited for last.
fn critical_chain(analysis: &Analysis, unit: Option<&str>) -> String {
    let by_name: HashMap<&str, &UnitTiming> = analysis.units.iter().map(|unit| (unit.name.as_str(), unit)).collect();
    let last = || {
        analysis
            .units
            .iter()
            .filter(|unit| unit.active_usec.is_some())
            .max_by_key(|unit| (unit.active_usec, unit.name.ends_with(".target")))
    };
    let mut current = match unit {
        Some(name) => by_name.get(name).copied(),
        None => last(),
    };
    if current.is_none() {
        return format!("{} was not started in this boot.\n", unit.unwrap_or("Nothing"));
    }
    let mut out = "The time when unit became active or started is printed after the \"@\" character.\nThe time the unit took to start is printed after the \"+\" character.\n\n".to_owned();
    let (mut depth, mut seen) = (0_usize, Vec::new());
    while let Some(unit) = current {
        if depth > 0 {
            out.extend(std::iter::repeat_n("  ", depth - 1));
            out.push_str("└─");
        }
        out.push_str(&unit.name);
        if let Some(active) = unit.active_usec {
            out.push_str(&format!(" @{}", human::span(active)));
        }
        if let Some(time) = duration(unit).filter(|time| *time >= 1000) {
            out.push_str(&format!(" +{}", human::span(time)));
        }
        out.push('\n');
        seen.push(unit.name.as_str());
        depth += 1;
        current = unit
            .after
            .iter()
            .filter_map(|name| by_name.get(name.as_str()).copied())
            .filter(|other| other.active_usec.is_some() && !seen.contains(&other.name.as_str()))
            // What became active after this began was not what it waited for.
            .filter(|other| other.active_usec <= unit.active_usec)
            .max_by_key(|other| other.active_usec);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(name: &str, from: u64, to: u64, after: &[&str]) -> UnitTiming {
        let after = after.iter().map(|name| (*name).to_owned()).collect();
        UnitTiming { name: name.into(), activating_usec: from * 1000, active_usec: Some(to * 1000), after }
    }

    fn boot() -> Analysis {
        Analysis {
            phases: vec![("kernel".into(), 900_000), ("initramfs".into(), 1_400_000)],
            finished_usec: Some(5_000_000),
            complete_usec: None,
            units: vec![
                timing("basic.target", 1500, 1500, &[]),
                timing("fast.service", 1500, 1510, &["basic.target"]),
                timing("docker.service", 1500, 4500, &["basic.target", "fast.service"]),
                timing("multi-user.target", 4500, 4500, &["docker.service", "fast.service"]),
            ],
        }
    }

    #[test]
    fn the_slowest_comes_first() {
        assert_eq!(blame(&boot(), 9), "          3s docker.service\n        10ms fast.service\n");
        assert_eq!(blame(&boot(), 1).lines().count(), 1);
    }

    #[test]
    fn the_chain_leads_back_over_what_was_waited_for() {
        let chain = critical_chain(&boot(), None);
        let lines: Vec<&str> = chain.lines().skip(3).collect();
        assert_eq!(
            lines,
            ["multi-user.target @4.500s", "└─docker.service @4.500s +3s", "  └─fast.service @1.510s +10ms", "    └─basic.target @1.500s"]
        );
        assert!(critical_chain(&boot(), Some("x.service")).contains("was not started"));
    }

    #[test]
    fn calendar_expressions_are_explained() {
        let spec = CalendarSpec::parse("daily UTC").unwrap();
        let text = upcoming(&spec, &Zone::utc(), 1_795_316_400_000_000, 2);
        assert!(
            text.starts_with("  Original form: daily UTC\nNormalized form: *-*-* 00:00:00 UTC\n    Next elapse: Mon 2026-11-23"),
            "{text}"
        );
        assert!(text.contains("(in 21h)\n    Iteration 2: Tue 2026-11-24"), "{text}");
        let never = CalendarSpec::parse("02-30").unwrap();
        assert!(upcoming(&never, &Zone::utc(), 0, 3).ends_with("Next elapse: never\n"));
        assert_eq!(calendar(&["whenever".to_owned()], 1).unwrap_err().code, 1);
    }

    #[test]
    fn times_say_whether_the_boot_is_complete() {
        let text = times(&boot());
        assert!(text.contains("+900ms  kernel") && text.contains("+500ms  initramfs") && text.contains("finished 5s"), "{text}");
        assert!(text.ends_with("not complete yet.\n"));
    }
}
