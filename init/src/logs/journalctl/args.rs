//! `journalctl`'s command line: the options people type; every other one is refused by name.

use super::cursor::Cursor;
use super::output::{Format, Style};
use super::times;
use super::vacuum::Vacuum;
use crate::glob;
use crate::logs::query::{Filter, Grep};

/// Which boot is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootChoice {
    /// By number: 0 the current (or last), -1 the one before, 1 the first that is known.
    Number(i64),
    /// By id, 32 hexadecimal digits.
    Id(String),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which entries; its `boot` is not filled in yet.
    pub filter: Filter,
    /// `-b`.
    pub boot: Option<BootChoice>,
    /// `-n`; `None` is all.
    pub lines: Option<usize>,
    /// `-f`.
    pub follow: bool,
    /// `-r`.
    pub reverse: bool,
    /// `-q`.
    pub quiet: bool,
    /// How to print.
    pub style: Style,
    /// Another store than this host's.
    pub directory: Option<String>,
    /// `--cursor=`, `--after-cursor=`, `--cursor-file=`: where to begin.
    pub from: Option<Cursor>,
    /// `--cursor-file=`: where to keep the last cursor.
    pub cursor_file: Option<String>,
    /// `--show-cursor`.
    pub show_cursor: bool,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Show entries.
    Show,
    /// `--list-boots`.
    ListBoots,
    /// `--disk-usage`.
    DiskUsage,
    /// `-F`: the values that a field has.
    Values(String),
    /// `-N`: the names of fields.
    Names,
    /// `--vacuum-...=`: remove the oldest.
    Vacuum(Vacuum),
    /// `--sync`: until what is stored is on the disk.
    Sync,
    /// `--flush`: it never is anywhere else than on the disk.
    Nothing,
    /// `--help`.
    Help,
}

/// `--help`.
pub const HELP: &str = "\
journalctl [OPTIONS] [FIELD=VALUE...]    show what this host logged

  -u, --unit=UNIT         of a unit, a pattern such as 'docker*', several times
  -t, --identifier=NAME   of a program
  -p, --priority=LEVEL    emerg, alert, crit, err, warning, notice, info, debug or 0 to 7: that and worse; A..B a range
  -k, --dmesg             of the kernel, this boot
  -b, --boot[=ID|N]       of one boot: 0 or nothing the current, -1 the one before
  -S, --since=, -U, --until=   '2026-11-22 03:00', '03:00', 'yesterday', '-1h', '1 hour ago'
  -g, --grep=PATTERN      with text that fits this regular expression; --case-sensitive
  -c, --cursor=CURSOR     from this entry on; --after-cursor=CURSOR from the one behind it
      --cursor-file=FILE  from where the last call with this file ended
      --show-cursor       print the cursor of the last entry
  -n, --lines[=N|all]     the last N (10)
  -f, --follow            and wait for more
  -r, --reverse           newest first
  -e, --pager-end         the last 1000
  -o, --output=           short, short-iso, short-precise, short-full, short-monotonic, short-unix, short-iso-precise,
                          with-unit, cat, json, json-pretty, json-sse, export, verbose; --output-fields=LIST
      --utc  -a, --all  --no-hostname  -q, --quiet  -D, --directory=DIR
      --list-boots        the boots that are known
      --disk-usage        how much the store takes
  -F, --field=FIELD       the values of a field; -N, --fields the names of fields
      --vacuum-size=BYTES, --vacuum-time=SPAN, --vacuum-files=N   remove the oldest
      --sync              until what was logged is on the disk
  _PID= _UID= _BOOT_ID= _SYSTEMD_UNIT= SYSLOG_IDENTIFIER= PRIORITY= _TRANSPORT=
";

const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Understands the arguments; the error is one line for people.
pub fn parse(args: &[String], now: u64) -> Result<Request, String> {
    let mut request = Request {
        filter: Filter::default(),
        boot: None,
        lines: None,
        follow: false,
        reverse: false,
        quiet: false,
        style: Style::default(),
        directory: None,
        from: None,
        cursor_file: None,
        show_cursor: false,
        action: Action::Show,
    };
    let utc = args.iter().any(|arg| arg == "--utc");
    let mut asked_lines = None;
    let mut no_tail = false;
    let mut end = false;
    let mut grep: Option<String> = None;
    let mut case_sensitive: Option<bool> = None;
    let mut words = Words { args, at: 0, rest: None };
    while let Some(word) = words.next()? {
        let Word::Option(name, attached) = word else {
            let Word::Plain(text) = word else { continue };
            field_match(&mut request, text)?;
            continue;
        };
        let attached_flag = attached.is_some();
        let mut value = || words.value(&name, attached.clone());
        match name.as_str() {
            "-u" | "--unit" => request.filter.units.push(unit_name(&value()?)),
            "-t" | "--identifier" => request.filter.identifiers.push(value()?),
            "-p" | "--priority" => {
                let text = value()?;
                request.filter.priorities =
                    Some(priorities(&text).ok_or_else(|| format!("'{text}' is no priority: give emerg..debug, 0..7 or a range A..B"))?);
            }
            "-S" | "--since" => {
                let text = value()?;
                request.filter.since = Some(times::parse(&text, now, utc).ok_or_else(|| bad_time(&text))?);
            }
            "-U" | "--until" => {
                let text = value()?;
                request.filter.until = Some(times::parse(&text, now, utc).ok_or_else(|| bad_time(&text))?);
            }
            "-g" | "--grep" => grep = Some(value()?),
            "-c" | "--cursor" | "--after-cursor" => {
                let text = value()?;
                let cursor = Cursor::parse(&text, name != "--after-cursor");
                request.from = Some(cursor.ok_or_else(|| format!("'{text}' is no cursor: take one that --show-cursor or -o json prints"))?);
            }
            "--cursor-file" => {
                let path = value()?;
                if let Ok(text) = std::fs::read_to_string(&path) {
                    request.from = Cursor::parse(text.trim(), false).or(request.from);
                }
                request.cursor_file = Some(path);
            }
            "-F" | "--field" => request.action = Action::Values(value()?),
            "--output-fields" => request.style.fields = value()?.split(',').map(|name| name.trim().to_owned()).collect(),
            "--vacuum-size" | "--vacuum-time" | "--vacuum-files" => {
                let text = value()?;
                let mut vacuum = if let Action::Vacuum(vacuum) = &request.action { *vacuum } else { Vacuum::default() };
                if !vacuum.set(&name, &text) {
                    return Err(format!("{name} wants a size such as 100M, a time such as 2weeks or a number, not '{text}'"));
                }
                request.action = Action::Vacuum(vacuum);
            }
            "--case-sensitive" => case_sensitive = Some(!matches!(attached.as_deref(), Some("no" | "false" | "0"))),
            "-o" | "--output" => {
                let text = value()?;
                request.style.format = Format::from_name(&text)
                    .ok_or_else(|| format!("output '{text}' is not supported: give one of {}", Format::NAMES.join(", ")))?;
            }
            "-D" | "--directory" => request.directory = Some(value()?),
            "-n" | "--lines" => {
                let text = words.optional_value(attached, |text| text == "all" || text.parse::<usize>().is_ok());
                asked_lines = Some(match text.as_deref() {
                    None => Some(10),
                    Some("all") => None,
                    Some(text) => Some(text.parse().map_err(|_| format!("-n wants a number or 'all', not '{text}'"))?),
                });
            }
            "-b" | "--boot" => {
                let text = words.optional_value(attached, |text| text == "all" || boot_choice(text).is_some());
                let text = text.unwrap_or_else(|| "0".into());
                if text == "all" {
                    request.boot = None;
                    continue;
                }
                request.boot =
                    Some(boot_choice(&text).ok_or_else(|| format!("'{text}' is no boot: give a number or an id of --list-boots"))?);
            }
            _ if attached_flag && name.starts_with("--") => return Err(unsupported(&name)),
            "-f" | "--follow" => request.follow = true,
            "-r" | "--reverse" => request.reverse = true,
            "-e" | "--pager-end" => end = true,
            "-q" | "--quiet" => request.quiet = true,
            "-a" | "--all" => request.style.raw = true,
            "-k" | "--dmesg" => {
                request.filter.transports.push("kernel".into());
                request.boot.get_or_insert(BootChoice::Number(0));
            }
            "--utc" => request.style.utc = true,
            "--no-hostname" => request.style.no_hostname = true,
            "--no-tail" => no_tail = true,
            "--list-boots" => request.action = Action::ListBoots,
            "--disk-usage" => request.action = Action::DiskUsage,
            "--show-cursor" => request.show_cursor = true,
            "-N" | "--fields" => request.action = Action::Names,
            "--sync" => request.action = Action::Sync,
            "--flush" => request.action = Action::Nothing,
            "-h" | "--help" => request.action = Action::Help,
            // They change nothing here: there is no pager, no catalog, one journal, and nothing is cut to the terminal.
            "--no-pager" | "-x" | "--catalog" | "-l" | "--full" | "-m" | "--merge" | "--system" => {}
            _ => return Err(unsupported(&name)),
        }
    }
    if let Some(text) = grep {
        let case_sensitive = case_sensitive.unwrap_or(text.chars().any(char::is_uppercase));
        let made = Grep::new(&text, case_sensitive);
        request.filter.grep = Some(made.map_err(|why| format!("'{text}' is no regular expression: {why}"))?);
    }
    request.lines = match asked_lines {
        Some(lines) => lines,
        None if request.follow && !no_tail => Some(10),
        None if end => Some(1000),
        None => None,
    };
    if request.follow && request.reverse {
        return Err("-f and -r exclude each other".into());
    }
    Ok(request)
}

enum Word<'a> {
    Option(String, Option<String>),
    Plain(&'a str),
}

struct Words<'a> {
    args: &'a [String],
    at: usize,
    /// What is left of a group of short options, such as `fu docker` of `-fu docker`.
    rest: Option<String>,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<Option<Word<'a>>, String> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(self.short(&rest)));
        }
        let Some(arg) = self.args.get(self.at) else { return Ok(None) };
        self.at += 1;
        if let Some(long) = arg.strip_prefix("--") {
            return Ok(Some(match long.split_once('=') {
                Some((name, value)) => Word::Option(format!("--{name}"), Some(value.into())),
                None => Word::Option(arg.clone(), None),
            }));
        }
        match arg.strip_prefix('-') {
            Some("") | None => Ok(Some(Word::Plain(arg))),
            Some(group) => Ok(Some(self.short(group))),
        }
    }

    fn short(&mut self, group: &str) -> Word<'a> {
        let mut letters = group.chars();
        let letter = letters.next().unwrap_or_default();
        let rest = letters.as_str();
        let attached = (!rest.is_empty()).then(|| rest.to_owned());
        let name = format!("-{letter}");
        if "utpSUgoDnbcF".contains(letter) {
            return Word::Option(name, attached);
        }
        self.rest = attached;
        Word::Option(name, None)
    }

    fn value(&mut self, name: &str, attached: Option<String>) -> Result<String, String> {
        if let Some(value) = attached {
            return Ok(value);
        }
        let value = self.args.get(self.at).cloned().ok_or_else(|| format!("{name} wants a value"))?;
        self.at += 1;
        Ok(value)
    }

    /// The value of an option that may stand alone: attached, or the next word when it looks like one.
    fn optional_value(&mut self, attached: Option<String>, fits: impl Fn(&str) -> bool) -> Option<String> {
        attached.or_else(|| {
            let next = self.args.get(self.at).filter(|next| fits(next))?;
            self.at += 1;
            Some(next.clone())
        })
    }
}

fn unsupported(name: &str) -> String {
    format!("option {name} is not supported on this system; 'journalctl --help' lists what is")
}

fn bad_time(text: &str) -> String {
    format!("cannot read the time '{text}': give '2026-11-22 03:00', '03:00', 'yesterday', '-1h' or '1 hour ago'")
}

/// The unit that a word stands for: a name without a suffix is a service's.
pub fn unit_name(word: &str) -> String {
    const SUFFIXES: [&str; 10] = [".service", ".socket", ".target", ".mount", ".timer", ".path", ".slice", ".scope", ".swap", ".device"];
    if SUFFIXES.iter().any(|suffix| word.ends_with(suffix)) || (glob::is_pattern(word) && word.ends_with('*')) {
        word.to_owned()
    } else {
        format!("{word}.service")
    }
}

fn boot_choice(text: &str) -> Option<BootChoice> {
    if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(BootChoice::Id(text.to_ascii_lowercase()));
    }
    // Numbers and an id together (`ID-1`) are rare enough to be refused.
    text.strip_prefix('+').unwrap_or(text).parse().ok().map(BootChoice::Number)
}

fn level(text: &str) -> Option<u8> {
    let text = match text {
        "error" => "err",
        "warn" => "warning",
        "panic" => "emerg",
        other => other,
    };
    let named = LEVELS.iter().position(|name| *name == text).and_then(|at| u8::try_from(at).ok());
    named.or_else(|| text.parse().ok().filter(|level| *level < 8))
}

fn priorities(text: &str) -> Option<std::ops::RangeInclusive<u8>> {
    match text.split_once("..") {
        Some((from, to)) => {
            let (from, to) = (level(from)?, level(to)?);
            Some(from.min(to)..=from.max(to))
        }
        None => Some(0..=level(text)?),
    }
}

fn field_match(request: &mut Request, text: &str) -> Result<(), String> {
    let Some((field, value)) = text.split_once('=') else {
        return Err(format!("'{text}' is no match: give FIELD=VALUE, or -u {text} for a unit"));
    };
    let number = || value.parse().map_err(|_| format!("{field}= wants a number, not '{value}'"));
    let filter = &mut request.filter;
    match field {
        "_PID" | "SYSLOG_PID" => filter.pids.push(number()?),
        "_UID" => filter.uids.push(number()?),
        "_SYSTEMD_UNIT" | "UNIT" => filter.units.push(value.into()),
        "SYSLOG_IDENTIFIER" => filter.identifiers.push(value.into()),
        "_TRANSPORT" => filter.transports.push(value.into()),
        "PRIORITY" => {
            let one = level(value).ok_or_else(|| format!("'{value}' is no priority"))?;
            filter.priorities = Some(one..=one);
        }
        "_BOOT_ID" => request.boot = Some(boot_choice(value).ok_or_else(|| format!("'{value}' is no boot id"))?),
        _ => return Err(format!("field {field} is not stored on this system; 'journalctl --help' lists those that are")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        parse(&args, 1_000_000_000_000_000)
    }

    #[test]
    fn what_fingers_type() {
        let request = parsed("-fu docker").unwrap();
        assert_eq!((request.follow, request.filter.units, request.lines), (true, vec!["docker.service".into()], Some(10)));
        let request = parsed("-u etcd.service -u containerd* -n 50 --no-pager -xe").unwrap();
        assert_eq!((request.filter.units, request.lines), (vec!["etcd.service".to_string(), "containerd*".into()], Some(50)));
        assert_eq!(parsed("-xe").unwrap().lines, Some(1000));
        assert_eq!(parsed("-n").unwrap().lines, Some(10));
        assert_eq!(parsed("-n20 -f").unwrap().lines, Some(20));
        assert_eq!(parsed("-n all -f").unwrap().lines, None);
        assert_eq!(parsed("-f --no-tail").unwrap().lines, None);
        assert_eq!(parsed("-b").unwrap().boot, Some(BootChoice::Number(0)));
        assert_eq!(parsed("-b -1").unwrap().boot, Some(BootChoice::Number(-1)));
        assert_eq!(parsed("-b-1").unwrap().boot, Some(BootChoice::Number(-1)));
        assert_eq!(parsed("-b -u x").unwrap().boot, Some(BootChoice::Number(0)));
        assert_eq!(
            parsed("-b 0123456789abcdef0123456789abcdef").unwrap().boot,
            Some(BootChoice::Id("0123456789abcdef0123456789abcdef".into()))
        );
        let request = parsed("-k").unwrap();
        assert_eq!((request.filter.transports, request.boot), (vec!["kernel".to_string()], Some(BootChoice::Number(0))));
        assert_eq!(parsed("-p err").unwrap().filter.priorities, Some(0..=3));
        assert_eq!(parsed("-p warning..err").unwrap().filter.priorities, Some(3..=4));
        assert_eq!(parsed("--since=-1h").unwrap().filter.since, Some(999_996_400_000_000));
        assert_eq!(parsed("-F _PID").unwrap().action, Action::Values("_PID".into()));
        assert_eq!(parsed("-b -1 -b all").unwrap().boot, None);
        assert!(matches!(parsed("--vacuum-time=2d --vacuum-size=10M").unwrap().action, Action::Vacuum(v) if v.size == Some(10 << 20)));
        assert_eq!(parsed("_PID=7 -t sshd").unwrap().filter.pids, [7]);
        assert_eq!(parsed("-g Oops").unwrap().filter.grep, Some(Grep::new("Oops", true).unwrap()));
    }

    #[test]
    fn what_we_do_not_do_is_named() {
        for (line, name) in [
            ("--vacuum-size=much", "--vacuum-size"),
            ("--rotate", "--rotate"),
            ("-g (", "("),
            ("--after-cursor=here", "here"),
            ("--user", "--user"),
            ("-o json-seq", "json-seq"),
            ("-p loud", "loud"),
            ("--since nonsense", "nonsense"),
            ("docker", "docker"),
            ("_EXE=/bin/sh", "_EXE"),
            ("-u", "-u"),
            ("--follow=yes", "--follow"),
        ] {
            let message = parsed(line).unwrap_err();
            assert!(message.contains(name), "{line}: {message}");
        }
    }
}
