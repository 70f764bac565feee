//! `systemd-inhibit`: holds an inhibitor while a command runs; as people know it.

use std::process::{Command, ExitCode};

use plain_output::say;
use reboot_rules::inhibitors::{Inhibitor, Mode, hold};
use reboot_rules::system_clock;

use super::{lasting, person};
use crate::paths::Paths;

const HELP: &str = "\
usage: systemd-inhibit [--what=WHAT] [--who=TEXT] [--why=TEXT] [--mode=block|delay] COMMAND...
       systemd-inhibit --list [--json]

Holds an inhibitor as long as the command runs. `block` forbids this host to go down (shutdown -i and systemctl reboot -i
do so all the same), `delay` asks for a moment. WHAT is `shutdown` or a list with colons; of it only `shutdown` has an effect.
";

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Help,
    Version,
    List { json: bool },
    Run { inhibitor: Box<Inhibitor>, command: Vec<String> },
}

/// Kinds of logind; kept, and without effect here, except the first.
const WHATS: [&str; 8] = [
    "shutdown",
    "sleep",
    "idle",
    "handle-power-key",
    "handle-suspend-key",
    "handle-hibernate-key",
    "handle-lid-switch",
    "handle-reboot-key",
];

fn parse(args: &[String]) -> Result<Asked, String> {
    let mut inhibitor = Inhibitor { what: "idle:sleep:shutdown".to_owned(), why: "Unknown reason".to_owned(), ..Inhibitor::default() };
    let (mut list, mut json) = (false, false);
    let mut args = args.iter().skip(1);
    while let Some(arg) = args.next() {
        let (name, value) = arg.split_once('=').map_or((arg.as_str(), None), |(name, value)| (name, Some(value.to_owned())));
        let mut needed = || value.clone().or_else(|| args.next().cloned()).ok_or_else(|| format!("{name} needs a value"));
        match name {
            "--help" | "-h" => return Ok(Asked::Help),
            "--version" => return Ok(Asked::Version),
            "--list" => list = true,
            "--json" => json = value.as_deref() != Some("off"),
            "--what" => inhibitor.what = needed()?,
            "--who" => inhibitor.who = needed()?,
            "--why" => inhibitor.why = needed()?,
            "--mode" => {
                inhibitor.mode = match needed()?.as_str() {
                    "block" | "block-weak" => Mode::Block,
                    "delay" => Mode::Delay,
                    other => return Err(format!("the mode '{other}' is neither block nor delay")),
                }
            }
            "--no-pager" | "--no-legend" | "--no-ask-password" => {}
            "--" => return run(inhibitor, args.cloned().collect(), list, json),
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            _ => return run(inhibitor, std::iter::once(arg).chain(args).cloned().collect(), list, json),
        }
    }
    run(inhibitor, Vec::new(), list, json)
}

fn run(mut inhibitor: Inhibitor, command: Vec<String>, list: bool, json: bool) -> Result<Asked, String> {
    if list || command.is_empty() {
        return Ok(Asked::List { json });
    }
    if let Some(unknown) = inhibitor.what.split(':').find(|what| !WHATS.contains(what)) {
        return Err(format!("--what={unknown}: known are {}", WHATS.join(", ")));
    }
    if inhibitor.who.is_empty() {
        inhibitor.who = command.join(" ");
    }
    Ok(Asked::Run { inhibitor: Box::new(inhibitor), command })
}

/// Signals of the terminal are the command's business, which may go on after them; the inhibitor lasts as long as it does. Caught, not ignored:
/// what is ignored stays so in the command. It holds until this process ends.
fn outlive_the_terminals_signals() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = super::runtime()?;
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::quit()] {
        drop(signal(kind)?);
    }
    Ok(())
}

/// `systemd-inhibit`; the first word is the program's name.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    let fail = |message: String| {
        eprintln!("systemd-inhibit: {message}");
        ExitCode::FAILURE
    };
    match parse(args) {
        Err(message) => {
            eprintln!("systemd-inhibit: {message}");
            ExitCode::from(2)
        }
        Ok(Asked::Help) => {
            plain_output::print(HELP);
            ExitCode::SUCCESS
        }
        Ok(Asked::Version) => {
            say!("systemd-inhibit of garboard {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Asked::List { json }) => match lasting::all(&Paths::default()) {
            Err(error) => fail(error.to_string()),
            Ok(all) => {
                let text = if json { serde_json::to_string_pretty(&all).unwrap_or_default() + "\n" } else { lasting::table(&all) };
                plain_output::print(&text);
                ExitCode::SUCCESS
            }
        },
        Ok(Asked::Run { inhibitor, command }) => {
            let Some((program, rest)) = command.split_first() else { return ExitCode::from(2) };
            let uid = rustix::process::getuid().as_raw();
            let mine = Inhibitor { uid, pid: std::process::id(), since: system_clock(), ..*inhibitor };
            let held = match hold(&Paths::default().held(), &mine) {
                Ok(held) => held,
                Err(error) if uid != 0 => {
                    return fail(format!("root, and not {}, may hold inhibitors: use sudo ({error})", person()));
                }
                Err(error) => return fail(format!("cannot take the inhibitor: {error}")),
            };
            let _ = outlive_the_terminals_signals();
            let status = Command::new(program).args(rest).status();
            drop(held);
            match status {
                Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
                Err(error) => fail(format!("cannot run {program}: {error}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Asked, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines_as_people_know_them() {
        let Ok(Asked::Run { inhibitor, command }) = parsed("systemd-inhibit --what=shutdown --why=moving --mode=delay sleep --foo 600")
        else {
            panic!()
        };
        assert_eq!((inhibitor.who.as_str(), inhibitor.why.as_str(), inhibitor.mode), ("sleep --foo 600", "moving", Mode::Delay));
        assert_eq!(command, ["sleep", "--foo", "600"]);
        let Ok(Asked::Run { inhibitor, .. }) = parsed("x --who me -- ls") else { panic!() };
        assert!(inhibitor.concerns_shutdown() && inhibitor.who == "me" && inhibitor.mode == Mode::Block);
        assert_eq!(parsed("systemd-inhibit"), Ok(Asked::List { json: false }));
        assert_eq!(parsed("systemd-inhibit --list --json"), Ok(Asked::List { json: true }));
        for bad in ["x --what=tea ls", "x --mode=maybe ls", "x --frob ls", "x --why"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_interrupt_is_the_commands_business() {
        use rustix::process::{Signal, getpid, kill_process};
        outlive_the_terminals_signals().unwrap();
        // This would be the end of the tests.
        for signal in [Signal::INT, Signal::QUIT] {
            kill_process(getpid(), signal).unwrap();
        }
        // A command is not shielded from it.
        let mut command = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(command.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&command.wait().unwrap()), Some(Signal::INT.as_raw()));
    }
}
