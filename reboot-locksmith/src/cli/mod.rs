//! `locksmithctl`: the old names, with what they lacked. Exit codes: 0 done, 1 failed (one line), 2 bad usage.

pub mod inhibit;
mod lasting;

use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{Parser, Subcommand};

use crate::connect;
use crate::control::{Reply, Request, ask};
use crate::daemon::Daemon;
use crate::paths::Paths;
use crate::status::Status;

/// When may this host reboot, and why not now.
#[derive(Parser)]
#[command(name = "locksmithctl", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// How this host stands
    Status,
    /// What this host waits for, in plain words
    Why,
    /// Reboot as soon as lock, inhibitors and quorum allow it, whatever windows say
    Reboot {
        /// For the others
        #[arg(long, default_value = "asked for by hand")]
        why: String,
    },
    /// As if an update were in place: the reboot comes when the whole policy allows it
    SendNeedReboot {
        /// For the others
        #[arg(long, default_value = "asked for by hand")]
        why: String,
    },
    /// Forget what `reboot` or `send-need-reboot` asked for
    Cancel,
    /// Put the reboot that is about to come off
    Extend {
        /// By how long: 15m
        #[arg(default_value = "15m", value_parser = parse_span)]
        by: u64,
    },
    /// Forbid this host to go down, also after a reboot, until it ends or is removed
    Inhibit(lasting::InhibitArgs),
    /// Remove what `inhibit` made
    Uninhibit {
        /// The name that `inhibit` printed
        id: String,
    },
    /// All inhibitors of this host
    Inhibitors,
}

fn parse_span(text: &str) -> Result<u64, String> {
    unit_files::value::parse_finite_span(text).map(|span| span.as_secs()).map_err(|error| error.to_string())
}

fn finish(name: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().context("cannot start")
}

/// `reboot-locksmith daemon`.
#[must_use]
pub fn daemon() -> ExitCode {
    let run = || {
        runtime()?.block_on(async {
            let daemon = Daemon::new(Paths::default(), Box::new(connect::connect)).await.map_err(|why| anyhow!(why))?;
            daemon.run().await.context("the daemon")
        })
    };
    finish("reboot-locksmith", run())
}

/// `locksmithctl`; the first word is the program's name.
#[must_use]
pub fn locksmithctl(args: &[String]) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    finish("locksmithctl", runtime().and_then(|runtime| runtime.block_on(run(cli))))
}

/// Who types: for the audit trail.
fn person() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "root".to_owned());
    reboot_rules::inhibitors::clean(&user)
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let paths = Paths::default();
    let by = || format!("locksmithctl ({})", person());
    match cli.command {
        Command::Why => {
            let status = status(&paths).await?;
            show(&status, &status.why(), cli.json)
        }
        Command::Status => {
            let status = status(&paths).await?;
            show(&status, &status.render(), cli.json)
        }
        Command::Reboot { why } => tell(&paths, &Request::Reboot { reason: why, by: by() }, cli.json).await,
        Command::SendNeedReboot { why } => tell(&paths, &Request::NeedReboot { reason: why, by: by() }, cli.json).await,
        Command::Cancel => tell(&paths, &Request::Cancel, cli.json).await,
        Command::Extend { by } => tell(&paths, &Request::Extend { seconds: by }, cli.json).await,
        Command::Inhibit(args) => lasting::inhibit(&paths, &args, cli.json),
        Command::Uninhibit { id } => lasting::uninhibit(&paths, &id, cli.json),
        Command::Inhibitors => lasting::list(&paths, cli.json),
    }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

fn show(value: &impl serde::Serialize, text: &str, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(value);
    }
    print!("{text}");
    Ok(())
}

/// The daemon's status: asked, or, for those who may not ask, from its file.
async fn status(paths: &Paths) -> anyhow::Result<Status> {
    if let Some(reply) = ask(&paths.control(), &Request::Status).await? {
        return Ok(reply.status);
    }
    let path = paths.status();
    let text =
        std::fs::read(&path).with_context(|| format!("the daemon does not run: systemctl status reboot-locksmith ({})", path.display()))?;
    let mut status: Status = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    if rustix::process::geteuid().is_root() {
        status.warnings.push("the daemon does not run: this is how it stood when it ended (systemctl status reboot-locksmith)".to_owned());
    }
    Ok(status)
}

async fn tell(paths: &Paths, request: &Request, json: bool) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() && paths.control().exists() {
        bail!("only root may do that: use sudo");
    }
    let reply: Reply = ask(&paths.control(), request)
        .await?
        .ok_or_else(|| anyhow!("the daemon does not run: systemctl status reboot-locksmith (`systemctl reboot` reboots without it)"))?;
    if json {
        print_json(&reply)?;
    }
    match reply.error {
        Some(error) => bail!(error),
        None if json => Ok(()),
        None => {
            println!("{}", reply.message);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let parse = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Cli::try_parse_from(&args).map_err(|error| error.to_string())
        };
        for line in ["reboot", "send-need-reboot", "status --json", "why", "extend", "extend 30m"] {
            assert!(parse(&format!("locksmithctl {line}")).is_ok(), "{line}");
        }
        for line in ["inhibit --why x --for 2h", "inhibit --why x", "uninhibit a", "cancel"] {
            assert!(parse(&format!("locksmithctl {line}")).is_ok(), "{line}");
        }
        for line in ["", "frobnicate", "inhibit", "inhibit --why x --for 2h --until 5", "extend soon"] {
            assert!(parse(&format!("locksmithctl {line}")).is_err(), "{line}");
        }
    }
}
