//! `journalctl`: shows the log store. There is no pager; the terminal's own scrolling or `| less` is.

mod args;
mod cursor;
#[cfg(test)]
mod filter_tests;
mod output;
pub mod times;
mod vacuum;

use super::format::BootId;
use super::query::{self, Filter, Line, Position};
use super::segments::{self, STORE};
use args::{Action, BootChoice, Request};
use cursor::Cursor;
use output::{Format, Style};
use rustix::fs::inotify;
use std::io::{self, IsTerminal, Write};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Bytes collected before they are written.
const CHUNK: usize = 64 * 1024;

/// The last lines of a unit in this boot as `systemctl status` shows them, oldest first.
pub fn status_lines(unit: &str, count: usize) -> Vec<String> {
    let Some(boot) = current_boot() else { return Vec::new() };
    let style = Style { hostname: hostname(), ..Style::default() };
    let lines = query::last_lines(Path::new("/"), unit, boot, count).unwrap_or_default();
    let mut shown = Vec::new();
    for line in &lines {
        let mut out = Vec::new();
        output::print(&mut out, line, &style);
        shown.push(String::from_utf8_lossy(&out).trim_end().to_owned());
    }
    shown
}

/// The front-end.
pub fn main(args: &[String]) -> ExitCode {
    let request = match args::parse(args, super::intake::Now::read().realtime) {
        Ok(request) => request,
        Err(message) => {
            eprintln!("journalctl: {message}");
            return ExitCode::from(2);
        }
    };
    let store = request.directory.as_ref().map_or_else(|| Path::new("/").join(STORE), PathBuf::from);
    match run(request, &store) {
        Ok(code) => code,
        // The reader of our output went away (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("journalctl: may not read {}: use sudo, or be in group 'adm'", store.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("journalctl: cannot read {}: {error}", store.display());
            ExitCode::FAILURE
        }
    }
}

fn run(mut request: Request, store: &Path) -> io::Result<ExitCode> {
    let mut printer = Printer::new(&request);
    match request.action {
        Action::Help => {
            io::stdout().write_all(args::HELP.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::DiskUsage => {
            let bytes: u64 = segments::list(store)?.iter().map(|segment| segment.size).sum();
            writeln!(io::stdout(), "The logs take {:.1} MiB in {}.", bytes as f64 / 1048576.0, store.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::ListBoots => {
            list_boots(store, &request.style)?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::Vacuum(vacuum) => {
            let (files, bytes) = vacuum.run(store, std::time::SystemTime::now())?;
            let mib = bytes as f64 / 1048576.0;
            writeln!(io::stdout(), "Removed {files} old segments, {mib:.1} MiB, from {}.", store.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::Sync => {
            if let Some(newest) = segments::list(store)?.last() {
                std::fs::File::open(&newest.path)?.sync_all()?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        Action::Nothing => return Ok(ExitCode::SUCCESS),
        Action::Show | Action::Values(_) | Action::Names => {}
    }
    if let Some(choice) = &request.boot {
        match find_boot(store, choice, request.directory.is_none())? {
            Ok(boot) => request.filter.boot = Some(boot),
            Err(message) => {
                eprintln!("journalctl: {message}");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    if let Action::Values(_) | Action::Names = &request.action {
        list_fields(&request, store)?;
        return Ok(ExitCode::SUCCESS);
    }
    printer.from = request.from;
    if let Some(cursor) = request.from.filter(|cursor| segments::list(store).is_ok_and(|all| all.iter().all(|s| s.number < cursor.segment)))
    {
        // A cursor of a store that is not there any more: what was logged since is what is meant.
        request.filter.since = request.filter.since.max(Some(cursor.realtime));
        printer.from = None;
    }
    let follower = if request.follow { Some(Follower::new(store)?) } else { None };
    let mut position = if request.follow { Position::end(store)? } else { Position::default() };
    if request.lines.is_some() || request.reverse {
        // What is stored between the end noted above and this would be shown twice: up to that end only.
        let mut lines = query::backward(store, &request.filter, request.lines.unwrap_or(usize::MAX), u64::MAX)?;
        lines.retain(|line| printer.from.is_none_or(|cursor| cursor.admits(line.place)));
        if request.follow {
            lines.retain(|line| position.is_behind(line.place));
        }
        if !request.reverse {
            lines.reverse();
        }
        lines.iter().try_for_each(|line| printer.show(line))?;
    } else {
        position = printer.from.map_or_else(Position::default, |cursor| Position::at_segment(cursor.segment));
        printer.forward(store, &request.filter, &mut position)?;
    }
    if let Some(follower) = follower {
        loop {
            printer.flush()?;
            follower.wait()?;
            printer.forward(store, &request.filter, &mut position)?;
        }
    }
    if printer.shown == 0 && !request.quiet {
        printer.note("-- No entries --")?;
    }
    if let Some(cursor) = printer.last {
        if request.show_cursor {
            printer.note(&format!("-- cursor: {cursor}"))?;
        }
        if let Some(path) = &request.cursor_file {
            crate::network::published::write_whole(Path::new(path), &format!("{cursor}\n"))?;
        }
    }
    printer.flush()?;
    Ok(ExitCode::SUCCESS)
}

struct Printer {
    style: Style,
    out: Vec<u8>,
    boot: Option<BootId>,
    boot_marks: bool,
    shown: u64,
    from: Option<Cursor>,
    last: Option<Cursor>,
}

impl Printer {
    fn new(request: &Request) -> Printer {
        let style = Style { hostname: hostname(), colour: io::stdout().is_terminal(), ..request.style.clone() };
        let boot_marks =
            !request.quiet && !matches!(style.format, Format::Cat | Format::Json | Format::JsonPretty | Format::JsonSse | Format::Export);
        Printer { style, out: Vec::new(), boot: None, boot_marks, shown: 0, from: None, last: None }
    }

    fn show(&mut self, line: &Line) -> io::Result<()> {
        if self.boot_marks && self.boot.is_some_and(|boot| boot != line.boot) {
            self.note(&format!("-- Boot {} --", output::boot_text(&line.boot)))?;
        }
        self.boot = Some(line.boot);
        self.last = Some(Cursor::of(line));
        self.shown += 1;
        output::print(&mut self.out, line, &self.style);
        if self.out.len() > CHUNK { self.flush() } else { Ok(()) }
    }

    fn forward(&mut self, store: &Path, filter: &Filter, position: &mut Position) -> io::Result<()> {
        let mut result = Ok(());
        let from = self.from;
        let _ = query::forward(store, filter, position, |entry, boot, place| {
            if from.is_some_and(|cursor| !cursor.admits(place)) {
                return ControlFlow::Continue(());
            }
            result = self.show(&query::to_line(entry, boot, place));
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'\n');
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout();
        stdout.write_all(&self.out)?;
        self.out.clear();
        stdout.flush()
    }
}

/// Waits until something is added to the store.
struct Follower {
    inotify: std::os::fd::OwnedFd,
}

impl Follower {
    fn new(store: &Path) -> io::Result<Follower> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, store, flags)?;
        Ok(Follower { inotify })
    }

    fn wait(&self) -> io::Result<()> {
        // What changed does not matter: all that happened so far is read in one go.
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        loop {
            match rustix::io::read(&self.inotify, &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

fn list_boots(store: &Path, style: &Style) -> io::Result<()> {
    let boots = query::boots(store)?;
    let count = boots.len();
    let numbered = || boots.iter().enumerate().map(|(at, boot)| (at as i64 + 1 - count as i64, boot));
    if matches!(style.format, Format::Json | Format::JsonPretty) {
        let object = |(index, boot): (i64, &query::BootSpan)| {
            let id = output::boot_text(&boot.id);
            serde_json::json!({"index": index, "boot_id": id, "first_entry": boot.first, "last_entry": boot.last})
        };
        return writeln!(io::stdout(), "{}", serde_json::Value::Array(numbered().map(object).collect()));
    }
    let mut out = String::from("IDX BOOT ID                          FIRST ENTRY                 LAST ENTRY\n");
    for (index, boot) in numbered() {
        let (first, last) = (output::full_time(boot.first, style.utc), output::full_time(boot.last, style.utc));
        out.push_str(&format!("{index:>3} {} {first} {last}\n", output::boot_text(&boot.id)));
    }
    io::stdout().write_all(out.as_bytes())
}

/// `-F` and `-N`: each value or name once.
fn list_fields(request: &Request, store: &Path) -> io::Result<()> {
    let mut found = std::collections::BTreeSet::new();
    let _ = query::forward(store, &request.filter, &mut Position::default(), |entry, boot, place| {
        for (name, value) in output::fields(&query::to_line(entry, boot, place)) {
            match &request.action {
                Action::Values(wanted) if *wanted == name => drop(found.insert(value)),
                Action::Names => drop(found.insert(name)),
                _ => {}
            }
        }
        ControlFlow::Continue(())
    })?;
    let text: String = found.iter().map(|one| format!("{one}\n")).collect();
    io::stdout().write_all(text.as_bytes())
}

/// The id of the boot that is asked for; the inner error is a line for people.
fn find_boot(store: &Path, choice: &BootChoice, this_host: bool) -> io::Result<Result<BootId, String>> {
    if let (BootChoice::Number(0), Some(boot), true) = (choice, current_boot(), this_host) {
        return Ok(Ok(boot));
    }
    let boots = query::boots(store)?;
    let found = match choice {
        BootChoice::Id(id) => super::daemon::parse_boot_id(id).filter(|id| boots.iter().any(|boot| boot.id == *id)),
        BootChoice::Number(number) => {
            let at = if *number > 0 { number - 1 } else { boots.len() as i64 - 1 + number };
            usize::try_from(at).ok().and_then(|at| boots.get(at)).map(|boot| boot.id)
        }
    };
    Ok(found.ok_or_else(|| match choice {
        BootChoice::Id(id) => format!("no boot {id} in the logs; see --list-boots"),
        BootChoice::Number(number) => format!("no boot {number} in the logs, {} are known; see --list-boots", boots.len()),
    }))
}

fn current_boot() -> Option<BootId> {
    super::daemon::parse_boot_id(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim())
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
