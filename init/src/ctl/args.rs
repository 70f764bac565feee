//! The command line of `systemctl`.

use std::path::PathBuf;

use crate::engine::protocol::{JobMode, Order, Whom};

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub verb: String,
    pub operands: Vec<String>,
    pub options: Options,
}

/// Options; every verb takes those that mean something to it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub all: bool,
    pub failed: bool,
    pub force: u8,
    pub full: bool,
    pub ignore_inhibitors: bool,
    pub json: bool,
    pub lines: Option<usize>,
    pub mode: JobMode,
    pub no_block: bool,
    pub no_legend: bool,
    pub no_reload: bool,
    pub now: bool,
    pub order: Option<Order>,
    pub plain: bool,
    pub properties: Vec<String>,
    pub quiet: bool,
    pub reverse: bool,
    pub root: Option<PathBuf>,
    pub runtime: bool,
    pub signal: Option<i32>,
    pub states: Vec<String>,
    pub types: Vec<String>,
    pub value: bool,
    pub wait: bool,
    pub whom: Whom,
}

/// What `--help` prints.
pub(super) const HELP: &str = "\
usage: systemctl [OPTIONS] VERB [UNIT...]

Units:     list-units list-sockets list-timers list-jobs list-dependencies status show
           is-active is-failed is-system-running cat verify FILE|UNIT
           start stop restart reload try-restart reload-or-restart try-reload-or-restart
           isolate kill reset-failed cancel
Files:     list-unit-files is-enabled enable disable reenable preset mask unmask link
           add-wants add-requires get-default set-default
Machine:   daemon-reload analyze [blame|critical-chain|calendar EXPR] poweroff reboot halt kexec
           rescue emergency default show-environment set-environment unset-environment

  -t --type=TYPE        -a --all           --state=STATE     --failed
  -p --property=NAME    -P NAME  --value   -n --lines=N      -l --full
  -q --quiet            --json             --no-legend       --plain     --no-pager
     --now              --no-block         --wait            --no-reload --runtime
  -f --force            --reverse          --after --before  --job-mode=MODE
  -s --signal=SIGNAL    --kill-whom=main|control|all         --root=DIR
  -i --ignore-inhibitors (poweroff, reboot, halt)
";

/// Verbs that people may know from systemd and that are not here, with what to do instead.
const UNSUPPORTED: [(&str, &str); 28] = [
    ("edit", "write the file below /etc/systemd/system (or UNIT.d/NAME.conf there), then 'systemctl daemon-reload'"),
    ("revert", "remove the unit's files below /etc/systemd/system, then 'systemctl daemon-reload'"),
    ("set-property", "write a drop-in below /etc/systemd/system/UNIT.d, then 'systemctl daemon-reload'"),
    ("import-environment", "use 'systemctl set-environment NAME=VALUE'"),
    ("preset-all", "use 'systemctl preset UNIT...'"),
    ("list-paths", "use 'systemctl list-units --type=path'"),
    ("list-automounts", "use 'systemctl list-units --type=automount'"),
    ("list-machines", "there are no machines registered here"),
    ("soft-reboot", "use 'systemctl reboot'"),
    ("switch-root", "the root is the verified image; use 'update-agent' to change it"),
    ("suspend", "a container host does not sleep"),
    ("hibernate", "a container host does not sleep"),
    ("hybrid-sleep", "a container host does not sleep"),
    ("suspend-then-hibernate", "a container host does not sleep"),
    ("sleep", "a container host does not sleep"),
    ("exit", "use 'systemctl poweroff'"),
    ("freeze", "use 'systemctl kill --signal=STOP UNIT'"),
    ("thaw", "use 'systemctl kill --signal=CONT UNIT'"),
    ("clean", "remove the unit's directories by hand"),
    ("bind", "write BindPaths= into the unit"),
    ("mount-image", "write RootImage= into the unit"),
    ("whoami", "read /proc/PID/cgroup"),
    ("log-level", "PID 1 logs what happens to units; see 'journalctl -u UNIT'"),
    ("log-target", "PID 1 logs to the log store"),
    ("service-log-level", "services set their own log levels"),
    ("service-log-target", "services set their own log targets"),
    ("service-watchdogs", "set WatchdogSec= in the unit"),
    ("start-limit", "use 'systemctl reset-failed UNIT'"),
];

const VERBS: [&str; 52] = [
    "list-units",
    "list-unit-files",
    "list-sockets",
    "list-timers",
    "list-jobs",
    "list-dependencies",
    "status",
    "show",
    "is-active",
    "is-failed",
    "is-system-running",
    "is-enabled",
    "show-environment",
    "set-environment",
    "unset-environment",
    "cat",
    "verify",
    "enable",
    "disable",
    "reenable",
    "preset",
    "mask",
    "unmask",
    "link",
    "add-wants",
    "add-requires",
    "get-default",
    "set-default",
    "analyze",
    "poweroff",
    "reboot",
    "halt",
    "kexec",
    "rescue",
    "emergency",
    "default",
    "daemon-reload",
    "daemon-reexec",
    "reset-failed",
    "kill",
    "cancel",
    "start",
    "stop",
    "restart",
    "reload",
    "try-restart",
    "condrestart",
    "reload-or-restart",
    "force-reload",
    "try-reload-or-restart",
    "isolate",
    "help",
];

/// Reads a command line.
pub(super) fn parse(args: &[String]) -> Result<Command, String> {
    let mut options = Options::default();
    let mut words: Vec<String> = Vec::new();
    let mut special = None;
    let mut args = args.iter();
    let mut only_words = false;
    while let Some(arg) = args.next() {
        if only_words || arg == "-" || !arg.starts_with('-') {
            words.push(arg.clone());
        } else if arg == "--" {
            only_words = true;
        } else if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
            special = long_option(name, value, &mut args, &mut options)?.or(special);
        } else {
            special = short_options(arg, &mut args, &mut options)?.or(special);
        }
    }
    if let Some(verb) = special {
        return Ok(Command { verb: verb.to_owned(), operands: Vec::new(), options });
    }
    let mut words = words.into_iter();
    let verb = words.next().unwrap_or_else(|| "list-units".to_owned());
    let operands: Vec<String> = words.collect();
    if let Some((_, instead)) = UNSUPPORTED.iter().find(|(name, _)| *name == verb) {
        return Err(format!("'{verb}' is not supported: {instead}"));
    }
    if !VERBS.contains(&verb.as_str()) {
        return Err(format!("unknown verb '{verb}'; 'systemctl --help' lists them"));
    }
    Ok(Command { verb, operands, options })
}

type Args<'a> = std::slice::Iter<'a, String>;

fn needed(name: &str, value: Option<String>, args: &mut Args<'_>) -> Result<String, String> {
    value.or_else(|| args.next().cloned()).ok_or_else(|| format!("--{name} needs a value"))
}

fn list(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned)
}

/// Takes one long option; a word that is given back stands in place of the verb.
fn long_option(name: &str, value: Option<String>, args: &mut Args<'_>, options: &mut Options) -> Result<Option<&'static str>, String> {
    match name {
        "help" => return Ok(Some("help")),
        "version" => return Ok(Some("version")),
        "all" | "recursive" => options.all = true,
        "failed" => options.failed = true,
        "force" => options.force = options.force.saturating_add(1),
        "full" => options.full = true,
        "json" => options.json = !matches!(value.as_deref(), Some("off")),
        "output" => set_output(&needed(name, value, args)?, options)?,
        "lines" => options.lines = Some(number(&needed(name, value, args)?)?),
        "job-mode" => options.mode = job_mode(&needed(name, value, args)?)?,
        "fail" => options.mode = JobMode::Fail,
        "irreversible" => options.mode = JobMode::ReplaceIrreversibly,
        "ignore-dependencies" => options.mode = JobMode::IgnoreDependencies,
        "no-block" => options.no_block = true,
        "no-legend" => options.no_legend = true,
        "legend" => options.no_legend = matches!(needed(name, value, args)?.as_str(), "no" | "false" | "0"),
        "no-reload" => options.no_reload = true,
        "now" => options.now = true,
        "after" => options.order = Some(Order::After),
        "before" => options.order = Some(Order::Before),
        "plain" => options.plain = true,
        "property" => options.properties.extend(list(&needed(name, value, args)?)),
        "quiet" => options.quiet = true,
        "reverse" => options.reverse = true,
        "root" => options.root = Some(PathBuf::from(needed(name, value, args)?)),
        "runtime" => options.runtime = true,
        "signal" => options.signal = Some(signal(&needed(name, value, args)?)?),
        "state" => options.states.extend(list(&needed(name, value, args)?)),
        "type" => options.types.extend(list(&needed(name, value, args)?)),
        "value" => options.value = true,
        "wait" => options.wait = true,
        "kill-whom" | "kill-who" => options.whom = whom(&needed(name, value, args)?)?,
        // They change nothing here: there is no pager, no polkit, no bus, and lines are as long as they are.
        "no-pager" | "no-ask-password" | "no-wall" | "system" | "no-warn" | "show-types" | "show-transaction" | "no-sync" => {}
        "ignore-inhibitors" => options.ignore_inhibitors = true,
        "check-inhibitors" => match needed(name, value, args)?.as_str() {
            "no" | "false" | "0" => options.ignore_inhibitors = true,
            "yes" | "true" | "1" | "auto" => options.ignore_inhibitors = false,
            other => return Err(format!("--check-inhibitors={other}: yes, no or auto")),
        },
        "preset-mode" | "what" | "message" | "when" | "boot-loader-menu" | "boot-loader-entry" | "reboot-argument" => {
            return Err(format!("--{name} is not supported"));
        }
        "user" | "global" => return Err(format!("--{name} is not supported: there is no manager per user")),
        "host" | "machine" => return Err(format!("--{name} is not supported: use 'ssh HOST systemctl ...'")),
        other => return Err(format!("unknown option --{other}")),
    }
    Ok(None)
}

fn short_options(arg: &str, args: &mut Args<'_>, options: &mut Options) -> Result<Option<&'static str>, String> {
    let mut rest = arg.chars().skip(1);
    while let Some(letter) = rest.next() {
        let mut value = |name: &str| {
            let attached: String = rest.by_ref().collect();
            let attached = attached.strip_prefix('=').map_or_else(|| attached.clone(), str::to_owned);
            needed(name, Some(attached).filter(|text| !text.is_empty()), args)
        };
        match letter {
            'h' => return Ok(Some("help")),
            'a' => options.all = true,
            'f' => options.force = options.force.saturating_add(1),
            'l' => options.full = true,
            'q' => options.quiet = true,
            'i' => options.ignore_inhibitors = true,
            'r' | 'T' => {}
            'n' => options.lines = Some(number(&value("lines")?)?),
            'o' => set_output(&value("output")?, options)?,
            'p' => options.properties.extend(list(&value("property")?)),
            'P' => {
                options.properties.extend(list(&value("property")?));
                options.value = true;
            }
            's' => options.signal = Some(signal(&value("signal")?)?),
            't' => options.types.extend(list(&value("type")?)),
            'H' | 'M' => return Err(format!("-{letter} is not supported: use 'ssh HOST systemctl ...'")),
            other => return Err(format!("unknown option -{other}")),
        }
    }
    Ok(None)
}

fn set_output(format: &str, options: &mut Options) -> Result<(), String> {
    match format {
        "json" | "json-pretty" => options.json = true,
        "short" | "cat" | "short-full" => {}
        other => return Err(format!("--output={other} is not supported: 'short' and 'json' are")),
    }
    Ok(())
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("'{text}' is not a number"))
}

fn signal(text: &str) -> Result<i32, String> {
    unit_files::value::parse_signal(text).map_err(|error| error.to_string())
}

fn job_mode(text: &str) -> Result<JobMode, String> {
    match text {
        "replace" => Ok(JobMode::Replace),
        "replace-irreversibly" => Ok(JobMode::ReplaceIrreversibly),
        "fail" => Ok(JobMode::Fail),
        "ignore-dependencies" => Ok(JobMode::IgnoreDependencies),
        other => Err(format!("--job-mode={other} is not supported")),
    }
}

fn whom(text: &str) -> Result<Whom, String> {
    match text {
        "main" => Ok(Whom::Main),
        "control" => Ok(Whom::Control),
        "all" => Ok(Whom::All),
        other => Err(format!("--kill-whom={other} is unknown: 'main', 'control' or 'all'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&args)
    }

    #[test]
    fn options_stand_anywhere() {
        let command = parsed("enable --now -q web a@b.service").unwrap();
        assert_eq!((command.verb.as_str(), command.operands.len()), ("enable", 2));
        assert!(command.options.now && command.options.quiet);
        let command = parsed("-p MainPID,Id show --value x -n5").unwrap();
        assert_eq!(command.options.properties, ["MainPID", "Id"]);
        assert_eq!(command.options.lines, Some(5));
        assert_eq!(parsed("kill -s HUP x").unwrap().options.signal, Some(1));
        assert_eq!(parsed("kill -- -x").unwrap().operands, ["-x"]);
    }

    #[test]
    fn nothing_means_list_units() {
        assert_eq!(parsed("").unwrap().verb, "list-units");
        assert_eq!(parsed("--failed").unwrap().verb, "list-units");
        assert_eq!(parsed("status --help").unwrap().verb, "help");
    }

    #[test]
    fn what_is_not_here_is_refused_by_name() {
        for (line, part) in [
            ("edit x", "'edit' is not supported"),
            ("frobnicate", "unknown verb 'frobnicate'"),
            ("--user start x", "--user"),
            ("-H other status", "-H"),
            ("--frob", "unknown option --frob"),
            ("show -p", "needs a value"),
        ] {
            let message = parsed(line).unwrap_err();
            assert!(message.contains(part), "{line}: {message}");
        }
    }
}
