//! Thousands of generated units, with drop-ins, read by us and by `systemd-analyze verify`: which lines are found fault with, which
//! units cannot be run, and what the rest is understood to say.
//!
//! `apt-get install systemd` brings the tool (252 and later were tried). Without it the test fails, unless `GARBOARD_TESTS_MAY_SKIP`
//! is set.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use unit_files::exec::{ExecCommand, LimitKind};
use unit_files::{FsSource, HostFacts, LoadState, Loader, Unit, UnitName};

#[path = "support/tools.rs"]
mod tools;
#[path = "support/unit_lines.rs"]
mod unit_lines;

use tools::{Numbers, missing};
use unit_lines::{INSTALL, MOUNT, PATH, SERVICE, SOCKET, TIMER, UNIT};

/// How many of each kind.
const COUNTS: [(&str, usize); 5] = [("service", 2400), ("socket", 400), ("timer", 400), ("path", 200), ("mount", 200)];
/// Units for one call of the tool.
const BATCH: usize = 200;

fn lines(random: &mut Numbers, from: &[&str], most: usize, text: &mut String) {
    for _ in 0..random.below(most + 1) {
        text.push_str(random.pick(from));
        text.push('\n');
    }
}

/// Its file, and perhaps a drop-in.
fn generate(random: &mut Numbers, kind: &str, name: &str) -> (String, Option<String>) {
    let (section, of_kind, needed): (_, &[&str], _) = match kind {
        "service" => ("Service", &SERVICE, "ExecStart=/bin/sh -c 'echo start'\n"),
        "socket" => ("Socket", &SOCKET, "ListenStream=/run/x.sock\n"),
        "timer" => ("Timer", &TIMER, "OnBootSec=5min\n"),
        "path" => ("Path", &PATH, "PathExists=/run/x\n"),
        _ => ("Mount", &MOUNT, "What=/dev/vdz\n"),
    };
    let mut text = "[Unit]\nDefaultDependencies=no\n".to_owned();
    lines(random, &UNIT, 4, &mut text);
    text.push_str(&format!("[{section}]\n"));
    // Mostly units that run, or nothing but refusals would be compared.
    if random.below(4) > 0 {
        text.push_str(needed);
    }
    if kind == "mount" {
        text.push_str(&format!("Where=/{}\n", name.trim_end_matches(".mount")));
    }
    lines(random, of_kind, 6, &mut text);
    if random.below(5) == 0 {
        text.push_str("[Install]\n");
        lines(random, &INSTALL, 2, &mut text);
    }
    let drop_in = (random.below(4) == 0).then(|| {
        let mut text = String::new();
        if random.below(2) == 0 {
            text.push_str("[Unit]\n");
            lines(random, &UNIT, 2, &mut text);
        }
        text.push_str(&format!("[{section}]\n"));
        lines(random, of_kind, 3, &mut text);
        text
    });
    (text, drop_in)
}

/// What one of the two says of all units.
#[derive(Default)]
struct Reading {
    /// File and line of every line that is found fault with.
    faults: BTreeSet<(String, u32)>,
    /// Units that cannot be run.
    refused: BTreeSet<String>,
    /// What it understands, by unit and property.
    values: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

/// The properties that are compared, in the tool's words.
const COMPARED: [&str; 16] = [
    "Description",
    "Restart",
    "Type",
    "KillMode",
    "KillSignal",
    "UMask",
    "WorkingDirectory",
    "Environment",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "RestartSec",
    "LimitNOFILE",
    "LimitNOFILESoft",
    "Command Line",
    "RemainAfterExit",
    "RefuseManualStart",
];

fn theirs(directory: &Path, names: &[String]) -> Option<Reading> {
    let mut reading = Reading::default();
    for batch in names.chunks(BATCH) {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "--generators=no", "--recursive-errors=no"]).current_dir(directory);
        command
            .args(batch.iter().map(|name| format!("./{name}")))
            .env("SYSTEMD_LOG_LEVEL", "debug")
            .env("SYSTEMD_COLORS", "0")
            .env("LC_ALL", "C.UTF-8");
        let Ok(output) = command.output() else {
            missing("systemd-analyze");
            return None;
        };
        let text = [output.stdout, output.stderr].concat();
        collect(&mut reading, directory, &String::from_utf8_lossy(&text));
    }
    Some(reading)
}

fn collect(reading: &mut Reading, directory: &Path, text: &str) {
    let mut unit = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix(&format!("{}/", directory.display()))
            && let Some((file, rest)) = rest.split_once(':')
            && let Some((number, _)) = rest.split_once(": ")
            && let Ok(number) = number.parse()
        {
            reading.faults.insert((file.to_owned(), number));
        } else if let Some(name) = line.strip_prefix("Unit ").and_then(|rest| rest.strip_suffix(" has a bad unit file setting.")) {
            reading.refused.insert(name.to_owned());
        } else if let Some(name) = line.trim_start().strip_prefix("-> Unit ") {
            unit = Some(name.trim_end_matches(':').to_owned());
        } else if let (Some(unit), Some((key, value))) = (&unit, line.trim_start().split_once(": "))
            && COMPARED.contains(&key)
        {
            reading.values.entry(unit.clone()).or_default().entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
}

/// A word as the tool prints it in a command line.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=+:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut out = String::from("\"");
    for c in word.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\\' | '"' | '$' | '`' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out + "\""
}

fn span(span: Option<Duration>) -> String {
    unit_files::value::format_time_span(span, Duration::from_micros(1))
}

fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap_or_default().to_owned()
}

/// The same properties as we read them.
fn understood(unit: &Unit) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut set = |key: &str, value: String| out.entry(key.to_owned()).or_default().push(value);
    let yes = |on: bool| if on { "yes" } else { "no" }.to_owned();
    set("Description", unit.description.clone());
    set("RefuseManualStart", yes(unit.refuse_manual_start));
    let Some(service) = unit.service() else { return out };
    set("Type", word(&service.service_type));
    set("Restart", word(&service.restart));
    set("KillMode", word(&service.kill.mode));
    set("KillSignal", format!("SIG{}", unit_files::value::signal_name(service.kill.signal)));
    set("UMask", format!("{:04o}", service.exec.umask));
    set("WorkingDirectory", service.exec.working_directory.clone().filter(|path| path != "~").unwrap_or_else(|| "/".to_owned()));
    let mut environment = BTreeMap::new();
    for (name, value) in &service.exec.environment {
        environment.insert(name, value);
    }
    for (name, value) in environment {
        set("Environment", format!("{name}={value}"));
    }
    set("TimeoutStartSec", span(service.timeout_start));
    set("TimeoutStopSec", span(service.timeout_stop));
    set("RestartSec", span(Some(service.restart_delay)));
    set("RemainAfterExit", yes(service.remain_after_exit));
    if let Some(limit) = service.exec.limits.get(&LimitKind::Nofile) {
        let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX).to_string();
        set("LimitNOFILE", number(limit.hard));
        set("LimitNOFILESoft", number(limit.soft));
    }
    let lists: [&Vec<ExecCommand>; 7] = [
        &service.exec_condition,
        &service.exec_start_pre,
        &service.exec_start,
        &service.exec_start_post,
        &service.exec_reload,
        &service.exec_stop,
        &service.exec_stop_post,
    ];
    for command in lists.into_iter().flatten() {
        // The tool prints the words, of a replaced first one too.
        set("Command Line", command.argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
    }
    out
}

fn ours(directory: &Path, names: &[String]) -> Reading {
    let mut reading = Reading::default();
    let place = directory.parent().unwrap();
    let within = format!("/{}/", directory.file_name().unwrap().to_str().unwrap());
    let source = FsSource::with_search_path(place, vec![within.trim_end_matches('/').to_owned()]);
    let loader = Loader::new(source, HostFacts::default());
    for name in names {
        let unit = loader.load(&UnitName::parse(name).unwrap());
        for found in &unit.diagnostics {
            // What we understand and do not do is no fault of the line.
            let not_done = found.message.contains("is not supported");
            if let Some(location) = found.location.as_ref().filter(|location| location.line > 0 && !not_done) {
                let path = location.path.strip_prefix(&within).unwrap_or(&location.path);
                reading.faults.insert((path.to_owned(), location.line));
            }
        }
        if unit.load_state != LoadState::Loaded {
            reading.refused.insert(name.clone());
        }
        reading.values.insert(name.clone(), understood(&unit));
    }
    reading
}

#[test]
fn generated_units_are_read_as_systemd_reads_them() {
    let place = std::env::temp_dir().join(format!("unit-files-against-systemd-{}", std::process::id()));
    let directory = place.join("units");
    std::fs::create_dir_all(&directory).unwrap();
    let mut random = Numbers(11);
    let (mut names, mut texts) = (Vec::new(), BTreeMap::new());
    for (kind, count) in COUNTS {
        for number in 0..count {
            let name = format!("u{number}.{kind}");
            let (text, drop_in) = generate(&mut random, kind, &name);
            std::fs::write(directory.join(&name), &text).unwrap();
            texts.insert(name.clone(), text);
            if let Some(text) = drop_in {
                std::fs::create_dir(directory.join(format!("{name}.d"))).unwrap();
                std::fs::write(directory.join(format!("{name}.d/10-more.conf")), &text).unwrap();
                texts.insert(format!("{name}.d/10-more.conf"), text);
            }
            names.push(name);
        }
    }
    let Some(theirs) = theirs(&directory, &names) else { return };
    let ours = ours(&directory, &names);
    std::fs::remove_dir_all(&place).unwrap();

    // How often, and where first.
    let mut differences: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut differ = |text: String, place: &str| differences.entry(text).or_insert_with(|| (0, place.to_owned())).0 += 1;
    let whole = |name: &str| format!("{}{}", texts[name], texts.get(&format!("{name}.d/10-more.conf")).map_or("", |text| text));
    for (who, file, line) in theirs
        .faults
        .difference(&ours.faults)
        .map(|(file, line)| ("only systemd finds fault with", file, line))
        .chain(ours.faults.difference(&theirs.faults).map(|(file, line)| ("only we find fault with", file, line)))
    {
        // Where a unit cannot be run, systemd stops reading at the line that says so, and we go on to the others.
        let unit = file.split('/').next().unwrap().trim_end_matches(".d");
        if ours.refused.contains(unit) {
            continue;
        }
        let text = texts[file].lines().nth(*line as usize - 1).unwrap_or_default();
        if !unit_lines::ACCEPTED.iter().any(|(accepted, _)| *accepted == text) {
            differ(format!("{who} {text:?}"), &format!("{file}:{line}\n{}", texts[file]));
        }
    }
    for name in theirs.refused.symmetric_difference(&ours.refused) {
        let who = if ours.refused.contains(name) { "only we refuse" } else { "only systemd refuses" };
        // A drop-in that cannot be used is left there by systemd, and the unit runs without the rest of it: we refuse that.
        if ours.refused.contains(name) && texts.contains_key(&format!("{name}.d/10-more.conf")) {
            continue;
        }
        differ(who.to_owned(), &whole(name));
    }
    let mut compared = 0;
    for (name, values) in &ours.values {
        let Some(other) = theirs.values.get(name).filter(|_| !ours.refused.contains(name) && !theirs.refused.contains(name)) else {
            continue;
        };
        for key in COMPARED {
            let (mine, other) = (values.get(key), other.get(key));
            // What they do not print of this kind is not compared.
            if let Some(mine) = mine
                && (other.is_some() || matches!(key, "Environment" | "Command Line"))
            {
                let sorted = |list: Option<&Vec<String>>| {
                    let mut list = list.cloned().unwrap_or_default();
                    if key == "Environment" {
                        list.sort();
                    }
                    list
                };
                // Without one, systemd shows a mount by its path and we by its name; taken back, it is the name for systemd and empty for us.
                if key == "Description" && (mine.concat().is_empty() || name.ends_with(".mount")) {
                    continue;
                }
                compared += 1;
                if sorted(Some(mine)) != sorted(other) {
                    differ(format!("{key}: we {mine:?}, systemd {other:?}"), &whole(name));
                }
            }
        }
    }
    let mut worst: Vec<(&String, &(usize, String))> = differences.iter().collect();
    worst.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let shown: Vec<String> = worst.iter().take(25).map(|(text, (count, place))| format!("{count} x {text}, first in {place}")).collect();
    assert!(differences.is_empty(), "{} differences, the most frequent:\n{}", differences.len(), shown.join("\n"));
    eprintln!(
        "{} units: {} lines at fault and {} units refused by both, {compared} values the same",
        names.len(),
        theirs.faults.len(),
        theirs.refused.len()
    );
    // A corpus of one kind proves nothing.
    assert!(theirs.faults.len() > 1000 && (200..names.len() - 1000).contains(&theirs.refused.len()) && compared > 10_000);
}
