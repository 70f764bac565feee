//! `docs/units.md` says what the directive tables say. `GARBOARD_WRITE_DOCS=1 cargo test --workspace --test units_page` writes it anew.

#![allow(clippy::unwrap_used, reason = "test helpers are not test functions to clippy")]

use std::fmt::Write as _;
use std::path::Path;

use unit_files::directives::{self, Support};
use unit_files::unit::DependencyKind;

const HEAD: &str = "\
# Unit files

<!-- Generated from the directive tables in `unit-files/src/directives/`: change those, then run
     GARBOARD_WRITE_DOCS=1 cargo test --workspace --test units_page -->

Garboard's PID 1 runs systemd unit files. This page lists every directive that it knows and what it does with it.

| word | means |
|---|---|
| done | it does what systemd's manual says |
| no effect | it is read and needs nothing here, or is only for people; nothing is said about it |
| warned | it is read but not done; `systemctl status` and `systemctl verify` say so; the unit runs |
| refused | it would take rights away, and is not done: a unit that uses it is not started, unless `X-Init-Allow-Unsupported=DIRECTIVE` (or `yes`) is in its `[Unit]` or `[Service]` |

A directive that is not on this page is unknown: `verify` and `status` warn, the line is ignored. Sections and directives that begin
with `X-` are passed over in silence.

## Where units are looked for

`/etc/systemd/system`, `/media/state/units`, `/run/garboard/units`, `/usr/local/lib/systemd/system`, `/usr/lib/systemd/system`; the first wins.
A link to `/dev/null` or an empty file masks a unit. Drop-ins (`NAME.d/*.conf`, also for prefixes, templates and kinds) are merged by file name over
all directories. `[Install]` of units in `/media/state/units` counts as enabled.

## What differs from systemd

- `Type=dbus` cannot be done, there is no bus; such a service is refused.
- A service whose program would run with more rights than its file says is not started (see *refused*).
- Services of an `Accept=yes` socket are forgotten when their connection is over, also those that failed; the log has their story.
- `.automount` and `.swap` units are not run.
- Slice accounting is always on.

";

fn word(support: Support) -> &'static str {
    match support {
        Support::Supported => "done",
        Support::Silent => "no effect",
        Support::Warned => "warned",
        Support::Refused => "refused",
    }
}

fn page() -> String {
    let sections = [
        ("Unit", "[Unit]"),
        ("Install", "[Install]"),
        ("Service", "[Service]"),
        ("Socket", "[Socket]"),
        ("Timer", "[Timer]"),
        ("Path", "[Path]"),
        ("Mount", "[Mount]"),
        ("Automount", "[Automount]"),
        ("Swap", "[Swap]"),
        ("exec", "Processes: [Service], [Socket], [Mount], [Swap]"),
        ("sandbox", "Restrictions of processes: the same sections"),
        ("kill", "Ending of processes: the same sections"),
        ("resources", "Resources: the same sections, [Slice], [Scope]"),
    ];
    let all = directives::all();
    let mut out = HEAD.to_owned();
    let count = |support| all.iter().filter(|info| info.support == support).count();
    writeln!(
        out,
        "{} directives: {} done, {} without effect, {} warned about, {} refused.",
        all.len(),
        count(Support::Supported),
        count(Support::Silent),
        count(Support::Warned),
        count(Support::Refused)
    )
    .unwrap();
    for (section, title) in sections {
        let mut rows: Vec<_> = all.iter().filter(|info| info.section == section).collect();
        rows.sort_by_key(|info| info.key);
        write!(out, "\n## {title}\n\n| directive | |\n|---|---|\n").unwrap();
        for row in rows {
            writeln!(out, "| `{}` | {} |", row.key, word(row.support)).unwrap();
        }
    }
    assert_eq!(all.iter().filter(|info| !sections.iter().any(|(section, _)| *section == info.section)).count(), 0, "a section is missing");
    out.push_str("\n## Dependencies, as `systemctl show -p` names them\n\n");
    let kinds: Vec<String> = DependencyKind::ALL.iter().map(|kind| format!("`{}`", kind.as_str())).collect();
    writeln!(out, "{}.", kinds.join(", ")).unwrap();
    out
}

#[test]
fn the_page_of_directives_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/units.md");
    let page = page();
    if std::env::var_os("GARBOARD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page, "docs/units.md is stale: run GARBOARD_WRITE_DOCS=1 cargo test --workspace --test units_page");
}
