//! Our reading against that of the tools people trust: `systemd-analyze` and `systemd-escape`, which `apt-get install systemd` brings.
//! Without them the tests fail, unless `GARBOARD_TESTS_MAY_SKIP` is set.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::process::Command;

#[path = "support/tools.rs"]
mod tools;

use tools::{Numbers, missing};
use unit_files::memory::MemorySource;
use unit_files::{HostFacts, LoadState, Loader, UnitName};

/// Standard output of a tool, and whether it was content; `None` where it is not installed.
fn tool(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    match Command::new(program).args(arguments).env("SYSTEMD_COLORS", "0").env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => Some((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(_) => {
            missing(program);
            None
        }
    }
}

#[test]
fn time_spans_mean_what_systemd_says() {
    let numbers = ["0", "1", "5", "12.5", ".5", "1.", "90", "007", "3.25", "99999999999999999999", "+4", "-1", ""];
    let units =
        ["", "s", "sec", "seconds", "min", "m", "h", "hr", "ms", "msec", "us", "usec", "d", "w", "month", "M", "y", "x", "minutes", "days"];
    let blanks = ["", " ", "  "];
    let mut random = Numbers(1);
    let mut compared = 0;
    for _ in 0..500 {
        let mut text = String::new();
        for _ in 0..=random.below(3) {
            text.push_str(random.pick(&numbers));
            text.push_str(random.pick(&blanks));
            text.push_str(random.pick(&units));
            text.push_str(random.pick(&blanks));
        }
        let Some((accepted, output)) = tool("systemd-analyze", &["timespan", "--", &text]) else { return };
        let theirs = accepted.then(|| {
            output.lines().find_map(|line| line.trim().strip_prefix("μs: ").map(|micros| micros.parse::<u128>().unwrap())).unwrap()
        });
        let ours = unit_files::value::parse_time_span(&text).ok().flatten().map(|span| span.as_micros());
        assert_eq!(ours, theirs, "{text:?}");
        if let Some(micros) = ours.filter(|micros| *micros > 0) {
            let human = output.lines().find_map(|line| line.trim().strip_prefix("Human: ")).unwrap();
            let span = std::time::Duration::from_micros(u64::try_from(micros).unwrap());
            assert_eq!(unit_files::value::format_time_span(Some(span), std::time::Duration::from_micros(1)), human, "{text:?}");
        }
        compared += 1;
    }
    assert!(compared == 500);
}

#[test]
fn names_are_escaped_as_systemd_does() {
    let parts = ["/", "a", "b-c", ".", "..", " ", "ü", "\\", "x2d", "_", ":", "%", "//", "@", "\t", "Z9"];
    let mut random = Numbers(2);
    for _ in 0..250 {
        let text: String = (0..=random.below(6)).map(|_| random.pick(&parts)).collect();
        let Some((accepted, output)) = tool("systemd-escape", &["--", &text]) else { return };
        assert!(accepted);
        let escaped = output.trim_end_matches('\n');
        assert_eq!(unit_files::name::escape(text.as_bytes()), escaped, "{text:?}");
        let (accepted, back) = tool("systemd-escape", &["--unescape", "--", escaped]).unwrap();
        assert_eq!(
            accepted.then(|| back.trim_end_matches('\n').as_bytes().to_vec()),
            Some(unit_files::name::unescape(escaped)),
            "{escaped:?}"
        );
        let path = format!("/{text}");
        let (accepted, output) = tool("systemd-escape", &["--path", "--", &path]).unwrap();
        assert_eq!(unit_files::name::escape_path(path.as_bytes()), accepted.then(|| output.trim_end_matches('\n').to_owned()), "{path:?}");
    }
}

#[test]
fn exit_statuses_have_systemds_names() {
    let Some((true, output)) = tool("systemd-analyze", &["exit-status", "--no-pager"]) else { return };
    let mut compared = 0;
    for line in output.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, code, ..] = words.as_slice() else { continue };
        assert_eq!(unit_files::value::exit_code_name(code.parse().unwrap()), Some(*name), "{line}");
        compared += 1;
    }
    assert!(compared > 60, "{output}");
}

/// One of these, often the first.
fn field(random: &mut Numbers, numbers: &[&str]) -> String {
    let mut out = String::new();
    loop {
        match random.below(8) {
            0..3 => return if out.is_empty() { "*".to_owned() } else { out + random.pick(numbers) },
            3..6 => out.push_str(random.pick(numbers)),
            6 => out = format!("{out}{}/{}", random.pick(numbers), random.pick(numbers)),
            _ => {
                out = format!("{out}{}..{}", random.pick(numbers), random.pick(numbers));
                if random.below(3) == 0 {
                    out = format!("{out}/{}", random.pick(numbers));
                }
            }
        }
        if random.below(3) > 0 {
            return out;
        }
        out.push(',');
    }
}

const ZONES: [&str; 10] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Pacific/Chatham",
    "Asia/Tehran",
    "Atlantic/Azores",
];

/// A calendar expression, mostly valid.
fn expression(random: &mut Numbers) -> String {
    let fixed =
        ["minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly", "semiannually", "@1790000000", "Mon", "nonsense"];
    let days = ["Mon", "tue", "Wednesday", "Thu", "FRI", "Sat", "Sunday", "Mon..Fri", "Sat,Sun", "Tue-Thu", "Fri..Mon", "Mon,", "x"];
    let mut text = match random.below(10) {
        0 => random.pick(&fixed).to_owned(),
        _ => {
            let mut parts = Vec::new();
            if random.below(3) == 0 {
                parts.push(random.pick(&days).to_owned());
            }
            let time = random.below(4) > 0;
            if random.below(3) > 0 || !time {
                let day = field(random, &["1", "2", "7", "15", "28", "29", "30", "31", "3", "32", "0"]);
                let month = field(random, &["1", "2", "3", "5", "10", "12", "4", "13"]);
                let separator = random.pick(&["-", "-", "~"]);
                let year = field(random, &["2026", "2027", "2024", "30", "2199", "99", "2200", "2028"]);
                parts.push(if random.below(2) == 0 {
                    format!("{year}-{month}{separator}{day}")
                } else {
                    format!("{month}{separator}{day}")
                });
            }
            if time {
                let hour = field(random, &["0", "1", "2", "3", "12", "23", "5", "24"]);
                let minute = field(random, &["0", "15", "30", "59", "5", "10", "60"]);
                let second = field(random, &["0", "30", "59", "1.5", "0.25", "15", "10", "59.9999999"]);
                parts.push(if random.below(2) == 0 { format!("{hour}:{minute}") } else { format!("{hour}:{minute}:{second}") });
            }
            parts.join(random.pick(&[" ", " ", " ", "  "]))
        }
    };
    if random.below(2) == 0 {
        text = format!("{text} {}", random.pick(&ZONES));
    }
    if random.below(20) == 0 {
        let at = random.below(text.len() + 1);
        text.insert_str(at, random.pick(&["-", ":", ",", "/", "..", "~", "*", " ", "9"]));
    }
    text
}

fn zone(name: &str) -> unit_files::calendar::Zone {
    unit_files::calendar::Zone::from_tzif(name, &std::fs::read(format!("/usr/share/zoneinfo/{name}")).unwrap()).unwrap()
}

/// Days around which clocks change somewhere, and others.
const BASES: [&str; 12] = [
    "2026-03-28 20:59:59 UTC",
    "2026-03-29 00:30:00 UTC",
    "2026-10-25 00:10:00 UTC",
    "2026-10-25 01:20:00 UTC",
    "2026-11-01 05:30:30 UTC",
    "2026-03-08 06:59:59 UTC",
    "2026-04-04 14:45:00 UTC",
    "2026-10-03 15:10:00 UTC",
    "2026-04-23 21:30:00 UTC",
    "2024-02-28 23:59:59 UTC",
    "2027-12-31 23:00:00 UTC",
    "2038-01-19 03:14:07 UTC",
];

#[test]
fn calendar_expressions_come_round_when_systemd_says() {
    use unit_files::calendar::{CalendarSpec, CalendarZone, Zone};
    const ROUNDS: usize = 3;
    let mut random = Numbers(3);
    let (mut accepted, mut refused) = (0, 0);
    let mut differences: Vec<String> = Vec::new();
    for round in 0..60 {
        let base = BASES[round % BASES.len()];
        let texts: Vec<String> = (0..50).map(|_| expression(&mut random)).filter(|text| !text.is_empty()).collect();
        let iterations = format!("--iterations={ROUNDS}");
        let output = match Command::new("systemd-analyze")
            .args(["calendar", &iterations, "--base-time", base, "--"])
            .args(&texts)
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8")
            .output()
        {
            Ok(output) => output,
            Err(_) => {
                missing("systemd-analyze");
                return;
            }
        };
        let failures = String::from_utf8(output.stderr).unwrap();
        let answers = String::from_utf8(output.stdout).unwrap();
        // What it is content with, one block each: the normalised form and the next times.
        let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
        for line in answers.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            match name.trim() {
                "Normalized form" => blocks.push((value.to_owned(), Vec::new())),
                "Next elapse" if value == "never" => {}
                name if name == "Next elapse" || name.starts_with("Iter.") => blocks.last_mut().unwrap().1.push(value[4..].to_owned()),
                _ => {}
            }
        }
        let mut blocks = blocks.into_iter();
        let from = CalendarSpec::parse(base).unwrap().next_after(0, &Zone::utc()).unwrap();
        for text in &texts {
            let ours = CalendarSpec::parse(text);
            if failures.contains(&format!("'{text}'")) {
                refused += 1;
                let last = text.rsplit(' ').next().unwrap();
                let unknown_zone = last.starts_with(|c: char| c.is_ascii_alphabetic()) && !ZONES.contains(&last);
                // systemd takes three days off the longest month again for each further number of a list (`~2,28` but not `~28`).
                let shrunk = text.contains('~') && text.contains(',');
                if let Ok(spec) = ours
                    && !unknown_zone
                    && !shrunk
                {
                    differences.push(format!("{text:?}: systemd refuses it, we read {spec}"));
                }
                continue;
            }
            accepted += 1;
            let (normal, times) = blocks.next().unwrap_or_else(|| panic!("no answer for {text:?}: {failures}"));
            let spec = match ours {
                Ok(spec) if spec.to_string() == normal => spec,
                other => {
                    differences.push(format!("{text:?}: systemd reads {normal}, we {other:?}"));
                    continue;
                }
            };
            let zone = match &spec.zone {
                CalendarZone::Named(name) => zone(name),
                _ => Zone::utc(),
            };
            let mut at = from;
            let mut next = Vec::new();
            while next.len() < ROUNDS {
                let Some(found) = spec.next_after(at, &zone) else { break };
                next.push(when(found));
                at = found;
            }
            if next != times {
                differences.push(format!("{text:?} ({normal}) from {base}: systemd {times:?}, we {next:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    assert!(accepted > 1000 && refused > 200, "{accepted} {refused}");
    eprintln!("{accepted} expressions compared, {refused} refused by both");
}

/// As systemd-analyze prints it.
fn when(usec: u64) -> String {
    let time = jiff::Timestamp::from_microsecond(i64::try_from(usec).unwrap()).unwrap();
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[test]
fn a_thousand_units_load_fast() {
    let mut source = MemorySource::default();
    for number in 0..1000 {
        let text = format!(
            "[Unit]\nDescription=Unit {number} of %H\nAfter=u{}.service network.target\nRequires=u{}.service\n[Service]\nType=notify\nUser=core\n\
             ExecStartPre=-/usr/bin/docker rm -f %n\nExecStart=/usr/bin/docker run --name %n --rm -e A=${{B}} image:{number}\nExecStop=/usr/bin/docker stop %n\n\
             Restart=always\nRestartSec=10\nTimeoutStartSec=0\nLimitNOFILE=infinity\nEnvironmentFile=-/etc/environment\nMemoryMax=512M\n\
             [Install]\nWantedBy=multi-user.target\n",
            number / 2,
            number / 3
        );
        source = source.file(&format!("/usr/lib/systemd/system/u{number}.service"), text);
    }
    let begin = std::time::Instant::now();
    let loader = Loader::new(source, HostFacts::default());
    let names: Vec<UnitName> = loader.names().cloned().collect();
    let loaded = names.iter().filter(|name| loader.load(name).load_state == LoadState::Loaded).count();
    let taken = begin.elapsed();
    println!("1000 units in {taken:?}");
    assert_eq!(loaded, 1000);
    // The goal is 100 ms optimised; tests run unoptimised and on busy machines.
    assert!(taken < std::time::Duration::from_secs(5), "{taken:?}");
}
