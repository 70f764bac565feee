//! `journalctl`: shows the log store. There is no pager; the terminal's own scrolling or `| less` is.

mod args;
mod output;
pub mod times;

use super::format::BootId;
use super::query::{self, Filter, Line, Position};
use super::segments::{self, STORE};
use args::{Action, BootChoice, Request};
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
            list_boots(store, request.style.utc)?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::Show => {}
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
    let follower = if request.follow { Some(Follower::new(store)?) } else { None };
    let mut position = if request.follow { Position::end(store)? } else { Position::default() };
    if request.lines.is_some() || request.reverse {
        // What is stored between the end noted above and this would be shown twice: up to that end only.
        let mut lines = query::backward(store, &request.filter, request.lines.unwrap_or(usize::MAX), u64::MAX)?;
        if request.follow {
            lines.retain(|line| position.is_behind(line.place));
        }
        if !request.reverse {
            lines.reverse();
        }
        lines.iter().try_for_each(|line| printer.show(line))?;
    } else {
        position = Position::default();
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
    printer.flush()?;
    Ok(ExitCode::SUCCESS)
}

struct Printer {
    style: Style,
    out: Vec<u8>,
    boot: Option<BootId>,
    boot_marks: bool,
    shown: u64,
}

impl Printer {
    fn new(request: &Request) -> Printer {
        let style = Style { hostname: hostname(), colour: io::stdout().is_terminal(), ..request.style.clone() };
        let boot_marks = !request.quiet && !matches!(style.format, Format::Cat | Format::Json);
        Printer { style, out: Vec::new(), boot: None, boot_marks, shown: 0 }
    }

    fn show(&mut self, line: &Line) -> io::Result<()> {
        if self.boot_marks && self.boot.is_some_and(|boot| boot != line.boot) {
            self.note(&format!("-- Boot {} --", output::boot_text(&line.boot)))?;
        }
        self.boot = Some(line.boot);
        self.shown += 1;
        output::print(&mut self.out, line, &self.style);
        if self.out.len() > CHUNK { self.flush() } else { Ok(()) }
    }

    fn forward(&mut self, store: &Path, filter: &Filter, position: &mut Position) -> io::Result<()> {
        let mut result = Ok(());
        let _ = query::forward(store, filter, position, |entry, boot, place| {
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

fn list_boots(store: &Path, utc: bool) -> io::Result<()> {
    let boots = query::boots(store)?;
    let mut out = String::from("IDX BOOT ID                          FIRST ENTRY                 LAST ENTRY\n");
    let count = boots.len();
    for (at, boot) in boots.iter().enumerate() {
        let (first, last) = (output::full_time(boot.first, utc), output::full_time(boot.last, utc));
        out.push_str(&format!("{:>3} {} {first} {last}\n", at as i64 + 1 - count as i64, output::boot_text(&boot.id)));
    }
    io::stdout().write_all(out.as_bytes())
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
