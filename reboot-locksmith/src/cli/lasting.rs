//! `locksmithctl inhibit`, `uninhibit`, `inhibitors`: lasting inhibitors, and all of them.

use anyhow::{Context, anyhow, bail};
use clap::Args;
use plain_output::say;
use reboot_rules::inhibitors::{Inhibitor, Mode, read};
use reboot_rules::{persistent, show_time, system_clock};
use serde_json::json;

use super::{parse_span, person, print_json};
use crate::paths::Paths;

/// Arguments of `locksmithctl inhibit`.
#[derive(Args, Clone, Debug)]
pub(super) struct InhibitArgs {
    /// Why: the others read it
    #[arg(long)]
    why: String,
    /// How long: 2h, 3d
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_span, conflicts_with = "until")]
    span: Option<u64>,
    /// Until when: 2026-12-01T06:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = persistent::parse_time_text)]
    until: Option<u64>,
    /// Who; you when not there
    #[arg(long)]
    who: Option<String>,
    /// Its name; made up when not there
    #[arg(long)]
    id: Option<String>,
    /// Ask for a moment only, instead of forbidding
    #[arg(long)]
    delay: bool,
}

pub(super) fn inhibit(paths: &Paths, args: &InhibitArgs, as_json: bool) -> anyhow::Result<()> {
    let now = system_clock();
    let until = args.until.or(args.span.map(|span| now.saturating_add(span)));
    let who = args.who.clone().unwrap_or_else(person);
    let id = args.id.clone().unwrap_or_else(|| {
        let stem: String = who.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        format!("{}-{now}", if stem.is_empty() { "somebody" } else { &stem })
    });
    let mode = if args.delay { Mode::Delay } else { Mode::Block };
    let asked = Inhibitor { id, what: "shutdown".into(), who, why: args.why.clone(), mode, until, ..Inhibitor::default() };
    let inhibitor = persistent::make(&paths.lasting(), asked, now).map_err(|why| anyhow!(why))?;
    if as_json {
        return print_json(&inhibitor);
    }
    let id = &inhibitor.id;
    let end = until.map_or("until it is removed".to_owned(), |until| format!("until {}", show_time(until)));
    say!("{id}: this host does not go down {end}; `locksmithctl uninhibit {id}` ends it");
    Ok(())
}

pub(super) fn uninhibit(paths: &Paths, id: &str, as_json: bool) -> anyhow::Result<()> {
    let directory = paths.lasting();
    if !persistent::remove(&directory, id).with_context(|| format!("cannot change {}", directory.display()))? {
        bail!("there is no lasting inhibitor '{id}': `locksmithctl inhibitors` shows all (held ones end with their owner)");
    }
    if as_json { print_json(&json!({ "removed": id })) } else { Ok(()) }
}

pub(super) fn list(paths: &Paths, as_json: bool) -> anyhow::Result<()> {
    let all = all(paths)?;
    if as_json {
        return print_json(&all);
    }
    plain_output::print(&table(&all));
    Ok(())
}

/// All inhibitors.
pub(super) fn all(paths: &Paths) -> anyhow::Result<Vec<Inhibitor>> {
    if !rustix::process::geteuid().is_root() {
        bail!("only root may read inhibitors: use sudo");
    }
    Ok(read(&paths.held(), &paths.lasting(), system_clock()))
}

/// As `systemd-inhibit --list` has it.
pub(super) fn table(all: &[Inhibitor]) -> String {
    let mut rows = vec![["WHO", "UID", "PID", "WHAT", "WHY", "MODE", "UNTIL"].map(str::to_owned)];
    for inhibitor in all {
        let until =
            inhibitor.until.map_or_else(|| if inhibitor.lasting { "removed".to_owned() } else { "its owner ends".to_owned() }, show_time);
        let clean = reboot_rules::inhibitors::clean;
        rows.push([
            clean(&inhibitor.who),
            inhibitor.uid.to_string(),
            if inhibitor.pid == 0 { format!("({})", clean(&inhibitor.id)) } else { inhibitor.pid.to_string() },
            clean(&inhibitor.what),
            clean(&inhibitor.why),
            inhibitor.mode.as_str().to_owned(),
            until,
        ]);
    }
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text.push_str(&format!("\n{} inhibitors listed.\n", all.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_the_columns_that_people_know() {
        let inhibitor =
            Inhibitor { who: "db".into(), why: "failing over".into(), what: "shutdown".into(), pid: 12, ..Inhibitor::default() };
        let text = table(&[inhibitor]);
        assert!(text.starts_with("WHO  UID  PID  WHAT      WHY           MODE   UNTIL\n"), "{text}");
        assert!(text.contains("db   0    12   shutdown  failing over  block  its owner ends\n") && text.contains("1 inhibitors listed"));
    }
}
