//! Verbs that change what runs.

use unit_files::{FsSource, Loader, UnitName};

use super::args::Options;
use super::pid1::{self, Answer};
use super::{Failure, Outcome, files};
use crate::engine::protocol::{JobInfo, JobMode, JobResult, Reply, Request, Verb};

/// `start`, `stop` and their kin.
pub(super) fn change(word: &str, options: &Options, operands: &[String]) -> Outcome {
    let verb = match word {
        "start" => Verb::Start,
        "stop" => Verb::Stop,
        "restart" => Verb::Restart,
        "try-restart" | "condrestart" => Verb::TryRestart,
        "reload" => Verb::Reload,
        "reload-or-restart" => Verb::ReloadOrRestart,
        "try-reload-or-restart" | "force-reload" => Verb::TryReloadOrRestart,
        _ => Verb::Isolate,
    };
    if operands.is_empty() {
        return Err(Failure { message: format!("systemctl: {word} needs a unit"), code: 2 });
    }
    // Only targets are isolated, so that is what a bare name means.
    let complete = |operand: &String| match verb {
        Verb::Isolate if UnitName::parse(operand).is_err() => pid1::name(&format!("{operand}.target")),
        _ => pid1::name(operand),
    };
    change_units(word, verb, options, &operands.iter().map(complete).collect::<Result<Vec<_>, _>>()?)
}

/// The same over full names.
pub(super) fn change_units(word: &str, verb: Verb, options: &Options, units: &[String]) -> Outcome {
    let wait = !options.no_block;
    let requests: Vec<Request> =
        units.iter().map(|unit| Request::Job { verb, units: vec![unit.clone()], mode: options.mode, wait }).collect();
    let mut code = 0;
    for (unit, result) in units.iter().zip(pid1::ask_side_by_side(&requests, wait)) {
        let problems = match result {
            Ok(answer) => report(&answer),
            Err(failure) => vec![(format!("Failed to {word} {unit}: {}", failure.message), failure.code)],
        };
        for (message, problem) in problems {
            if !options.quiet {
                eprintln!("{message}");
            }
            code = problem;
        }
    }
    if code == 0 && matches!(verb, Verb::Stop) && !options.quiet {
        warn_about_triggers(units);
    }
    Ok(code)
}

/// What went wrong with jobs, in `systemctl`'s words.
fn report(answer: &Answer) -> Vec<(String, u8)> {
    let jobs = answer.replies.iter().filter_map(|reply| match reply {
        Reply::JobDone { job, result } => explain(job, *result),
        _ => None,
    });
    let warnings = answer.warnings.iter().map(|warning| (warning.clone(), 0));
    jobs.map(|message| (message, 1)).chain(warnings).collect()
}

fn explain(job: &JobInfo, result: JobResult) -> Option<String> {
    let unit = &job.unit;
    let see = format!("See \"systemctl status {unit}\" and \"journalctl -u {unit}\" for details.");
    match result {
        JobResult::Done | JobResult::Skipped => None,
        JobResult::Canceled => Some(format!("Job for {unit} canceled.")),
        JobResult::Timeout => Some(format!("Job for {unit} timed out.\n{see}")),
        JobResult::Failed => Some(format!("Job for {unit} failed.\n{see}")),
        JobResult::Dependency => Some(format!("A dependency job for {unit} failed. See 'journalctl -b' for details.")),
        JobResult::Assert => Some(format!("Assertion failed on job for {unit}.")),
        JobResult::Unsupported => Some(format!("Operation on or unit type of {unit} not supported on this system.")),
    }
}

/// A stopped service that a socket or timer starts again surprises people.
fn warn_about_triggers(units: &[String]) {
    let Ok(answer) = pid1::ask(&Request::Status { units: units.to_vec() }, false) else { return };
    for reply in &answer.replies {
        let Reply::Unit(unit) = reply else { continue };
        let Ok(triggers) = pid1::ask(&Request::Status { units: unit.triggered_by.clone() }, false) else { continue };
        let active: Vec<&str> = triggers
            .replies
            .iter()
            .filter_map(|reply| match reply {
                Reply::Unit(trigger) if trigger.active == crate::engine::protocol::ActiveState::Active => Some(trigger.name.as_str()),
                _ => None,
            })
            .collect();
        if !unit.triggered_by.is_empty() && !active.is_empty() {
            eprintln!("Stopping '{}', but its triggering units are still active:\n{}", unit.name, active.join(", "));
        }
    }
}

/// `rescue`, `emergency`, `default`.
pub(super) fn isolate(word: &str, options: &Options) -> Outcome {
    let mode = if options.mode == JobMode::Replace { JobMode::ReplaceIrreversibly } else { options.mode };
    let options = Options { mode, ..options.clone() };
    change_units("isolate", Verb::Isolate, &options, &[format!("{word}.target")])
}

/// `daemon-reload`: what is wrong with unit files is said at once.
pub(super) fn reload_files(verb: &str) -> Outcome {
    let request = if verb == "daemon-reexec" { Request::DaemonReexec } else { Request::DaemonReload };
    for warning in pid1::ask(&request, true)?.warnings {
        eprintln!("{warning}");
    }
    super::files::keep();
    Ok(0)
}

/// `reset-failed`.
pub(super) fn reset_failed(operands: &[String]) -> Outcome {
    pid1::ask(&Request::ResetFailed { units: pid1::names(operands)? }, false)?;
    Ok(0)
}

/// `kill`.
pub(super) fn kill(options: &Options, operands: &[String]) -> Outcome {
    if operands.is_empty() {
        return Err(Failure { message: "systemctl: kill needs a unit".to_owned(), code: 2 });
    }
    let signal = options.signal.unwrap_or(15);
    pid1::ask(&Request::Kill { units: pid1::names(operands)?, signal, whom: options.whom }, false)
        .map_err(|failure| Failure { message: format!("Failed to kill unit: {}", failure.message), ..failure })?;
    Ok(0)
}

/// `cancel`.
pub(super) fn cancel(operands: &[String]) -> Outcome {
    let parse = |text: &String| text.parse().map_err(|_| Failure { message: format!("systemctl: '{text}' is not a job number"), code: 2 });
    let jobs = operands.iter().map(parse).collect::<Result<Vec<u32>, Failure>>()?;
    pid1::ask(&Request::Cancel { jobs }, false)?;
    Ok(0)
}

/// `set-environment`, `unset-environment`.
pub(super) fn environment(verb: &str, operands: &[String]) -> Outcome {
    let request = if verb == "set-environment" {
        Request::SetEnvironment { variables: operands.to_vec() }
    } else {
        Request::UnsetEnvironment { names: operands.to_vec() }
    };
    pid1::ask(&request, false)?;
    Ok(0)
}

/// After links were changed with `--now`: start or stop the units themselves.
pub(super) fn follow_up(verb: &str, options: &Options, units: &[UnitName], loader: &Loader<FsSource>) -> Outcome {
    let (word, job) = match verb {
        "enable" | "link" => ("start", Verb::Start),
        "reenable" => ("restart", Verb::Restart),
        "disable" | "mask" => ("stop", Verb::Stop),
        _ => return Ok(0),
    };
    let names = units.iter().filter_map(|unit| files::runnable(unit, loader)).collect::<Vec<_>>();
    change_units(word, job, options, &names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_went_wrong_is_told() {
        let job = JobInfo { id: 1, unit: "a.service".into(), kind: "start".into(), running: true, waits_for: Vec::new() };
        let done = |result| Reply::JobDone { job: job.clone(), result };
        let answer = |result| Answer { replies: vec![Reply::JobQueued(job.clone()), done(result)], warnings: Vec::new() };
        assert!(report(&answer(JobResult::Done)).is_empty());
        assert!(report(&answer(JobResult::Skipped)).is_empty(), "a condition that does not hold is no failure");
        let told = report(&answer(JobResult::Failed));
        assert_eq!(told.first().map(|(_, code)| *code), Some(1));
        assert!(told[0].0.starts_with("Job for a.service failed."));
        assert!(report(&answer(JobResult::Dependency))[0].0.contains("dependency job"));
    }
}
