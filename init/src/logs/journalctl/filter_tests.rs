//! What people type, against a store of three boots: which entries are shown.

use super::*;
use crate::logs::format::{Entry, Source};
use crate::logs::store::{Limits, Store};

/// 2026-11-22 12:00:00 UTC, in microseconds.
const NOON: u64 = 1_795_348_800_000_000;
const MINUTE: u64 = 60_000_000;

/// Boots of three days in a row, each with one entry a minute from noon on; segments so small that each boot has several.
fn store() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for boot in 1..=3_u8 {
        let limits = Limits { total: 1 << 20, segment: 400, group: None };
        let mut store = Store::open(directory.path(), limits, [boot; 16]).unwrap();
        let day = NOON - u64::from(3 - boot) * 24 * 60 * MINUTE;
        let entries = [
            ("", "kernel", Source::Kernel, 4, 0, None, "eth0: link up"),
            ("", "", Source::Kernel, 2, 0, None, "Out of memory: Killed process 7"),
            ("web.service", "nginx", Source::Stdout, 6, 100, Some(33), "GET / 200"),
            ("web.service", "nginx", Source::Stdout, 3, 100, Some(33), "upstream timed out"),
            ("web.service", "init", Source::Native, 5, 1, Some(0), "web.service: restarting"),
            ("db.service", "postgres", Source::Stdout, 4, 200, Some(70), "checkpoints are too frequent"),
            ("ssh.service", "sshd", Source::Syslog, 6, 300, Some(0), "Accepted publickey for core"),
            ("webhook@a.service", "hook", Source::Stdout, 7, 400, Some(0), "GET /hook 200"),
        ];
        for (minute, (unit, identifier, source, priority, pid, uid, message)) in (0..).zip(entries) {
            let message = format!("{boot}.{minute} {message}");
            store.append(&Entry {
                realtime: day + minute * MINUTE,
                monotonic: minute * MINUTE,
                pid,
                uid,
                priority,
                source,
                unit,
                identifier,
                message: message.as_bytes(),
                kernel_sequence: None,
                invocation: "",
            });
            store.flush();
        }
    }
    assert!(segments::list(directory.path()).unwrap().len() > 5);
    directory
}

/// Boot and minute of the entries that a command line selects, in the order shown; `_` in the line is a blank within a word.
fn shown(store: &Path, line: &str) -> Vec<String> {
    selected(store, &line.split_whitespace().map(|word| word.replace('_', " ")).collect::<Vec<_>>())
}

/// The same of words as they are.
fn selected(store: &Path, args: &[String]) -> Vec<String> {
    let mut request = args::parse(args, NOON + 30 * MINUTE).unwrap();
    if let Some(choice) = &request.boot {
        request.filter.boot = Some(find_boot(store, choice, false).unwrap().unwrap());
    }
    let mut lines = query::backward(store, &request.filter, request.lines.unwrap_or(usize::MAX), u64::MAX).unwrap();
    if !request.reverse {
        lines.reverse();
    }
    if request.lines.is_none() && !request.reverse {
        // The other way of reading must find the same.
        let mut forwards = Vec::new();
        let _ = query::forward(store, &request.filter, &mut Position::default(), |entry, boot, place| {
            forwards.push(query::to_line(entry, boot, place));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(forwards, lines, "{args:?}");
    }
    lines.iter().map(|line| String::from_utf8_lossy(&line.message).split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn options_select_by_time_priority_boot_unit_and_transport_and_all_together() {
    let store = store();
    for (line, wanted) in [
        // Where noon is, whatever the zone of the machine is.
        ("--utc --since 2026-11-22_12:05", "3.5 3.6 3.7"),
        ("--utc -S 2026-11-21_12:06 -U 2026-11-22_12:00:00", "2.6 2.7 3.0"),
        ("--utc --until 2026-11-20_12:01:30", "1.0 1.1"),
        ("--since -24min", "3.6 3.7"),
        ("--since 25_min_ago --until -24min", "3.5 3.6"),
        ("--utc --since yesterday --until today", "2.0 2.1 2.2 2.3 2.4 2.5 2.6 2.7"),
        ("--utc --since today --until 12:01", "3.0 3.1"),
        ("--since @1795348860 --until @1795348920.5", "3.1 3.2"),
        ("--utc --since 2026-11-23", ""),
        ("-p err -b", "3.1 3.3"),
        ("-p crit", "1.1 2.1 3.1"),
        ("-p 5..7 -b -1", "2.2 2.4 2.6 2.7"),
        ("-p warning..err -b 1", "1.0 1.3 1.5"),
        ("-p debug -b 0 -n 2", "3.6 3.7"),
        ("-k", "3.0 3.1"),
        ("-k -b -1", "2.0 2.1"),
        ("-k -b all", "1.0 1.1 2.0 2.1 3.0 3.1"),
        ("-k -p 3 -b -2", "1.1"),
        ("-b 02020202020202020202020202020202 -u db", "2.5"),
        ("-u web -b", "3.2 3.3 3.4"),
        ("-u web* -b", "3.2 3.3 3.4 3.7"),
        ("-u web -u db.service -b -1", "2.2 2.3 2.4 2.5"),
        ("-t sshd", "1.6 2.6 3.6"),
        ("-t nginx -p 4 -b", "3.3"),
        ("-g GET.*200 -b", "3.2 3.7"),
        ("-g get", "1.2 1.7 2.2 2.7 3.2 3.7"),
        ("-u web -n 1", "3.4"),
        ("-u web -n 2 -r", "3.4 3.3"),
        ("-r -b -k", "3.1 3.0"),
        ("-u never", ""),
        ("--utc -u web -p info -b -1 --since 2026-11-21_12:02:30 --until 2026-11-21_12:04:00", "2.3 2.4"),
    ] {
        assert_eq!(shown(store.path(), line).join(" "), wanted, "journalctl {line}");
    }
    for (field, wanted) in [
        ("_TRANSPORT=syslog", "1.6 2.6 3.6"),
        ("_TRANSPORT=journal", "1.4 2.4 3.4"),
        ("_PID=200", "1.5 2.5 3.5"),
        ("_UID=33", "1.2 1.3 2.2 2.3 3.2 3.3"),
        ("PRIORITY=7", "1.7 2.7 3.7"),
        ("_SYSTEMD_UNIT=ssh.service", "1.6 2.6 3.6"),
        ("SYSLOG_IDENTIFIER=postgres", "1.5 2.5 3.5"),
        ("_BOOT_ID=01010101010101010101010101010101", "1.0 1.1 1.2 1.3 1.4 1.5 1.6 1.7"),
    ] {
        assert_eq!(selected(store.path(), &[field.to_owned()]).join(" "), wanted, "journalctl {field}");
    }
}

#[test]
fn boots_are_numbered_from_the_last_and_the_first_and_unknown_ones_named() {
    let store = store();
    let spans = query::boots(store.path()).unwrap();
    let day = 24 * 60 * MINUTE;
    let wanted: Vec<([u8; 16], u64, u64)> =
        (1..=3_u8).map(|boot| ([boot; 16], NOON - u64::from(3 - boot) * day, NOON - u64::from(3 - boot) * day + 7 * MINUTE)).collect();
    assert_eq!(spans.iter().map(|span| (span.id, span.first, span.last)).collect::<Vec<_>>(), wanted);
    let number = |number| find_boot(store.path(), &BootChoice::Number(number), false).unwrap();
    for (asked, boot) in [(0, 3), (-1, 2), (-2, 1), (1, 1), (2, 2), (3, 3)] {
        assert_eq!(number(asked), Ok([boot; 16]), "-b {asked}");
    }
    for asked in [-3, 4] {
        assert!(number(asked).unwrap_err().contains("3 are known"), "-b {asked}");
    }
    assert!(find_boot(store.path(), &BootChoice::Id("ff".repeat(16)), false).unwrap().is_err());
}

#[test]
fn who_follows_sees_the_next_boot_too() {
    let store = store();
    let filter = Filter { units: vec!["web.service".into()], ..Filter::default() };
    let mut position = Position::end(store.path()).unwrap();
    let mut seen = Vec::new();
    let mut read = |seen: &mut Vec<(u8, String)>| {
        let _ = query::forward(store.path(), &filter, &mut position, |entry, boot, _| {
            seen.push((boot[0], String::from_utf8_lossy(entry.message).into_owned()));
            ControlFlow::Continue(())
        })
        .unwrap();
    };
    read(&mut seen);
    assert!(seen.is_empty(), "only what is new");
    for boot in [3, 4, 5_u8] {
        let limits = Limits { total: 1 << 20, segment: 400, group: None };
        let mut writer = Store::open(store.path(), limits, [boot; 16]).unwrap();
        for number in 0..5 {
            for unit in ["web.service", "db.service"] {
                writer.append(&query::tests::entry(unit, &number.to_string(), NOON));
                writer.flush();
            }
            if number % 2 == 0 {
                read(&mut seen);
            }
        }
    }
    read(&mut seen);
    let wanted: Vec<(u8, String)> = [3, 4, 5].iter().flat_map(|boot| (0..5).map(|number| (*boot, number.to_string()))).collect();
    assert_eq!(seen, wanted);
}
