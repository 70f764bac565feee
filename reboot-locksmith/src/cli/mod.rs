//! `locksmithctl`: the old names, with what they lacked. Exit codes: 0 done, 1 failed (one line), 2 bad usage.

pub mod inhibit;
mod lasting;
mod shared;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use plain_output::{causes, say};

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
    #[command(flatten)]
    etcd: EtcdArgs,
}

/// What else than the settings say.
#[derive(Args, Clone, Debug, Default)]
struct EtcdArgs {
    /// The group; else that of the settings
    #[arg(long, global = true)]
    group: Option<String>,
    /// etcd's URL, several with commas; else those of the settings
    #[arg(long, global = true, value_name = "URL", value_delimiter = ',')]
    endpoint: Vec<String>,
    /// PEM file of the certificates that etcd's is checked with
    #[arg(long, global = true, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// PEM file of our certificate
    #[arg(long, global = true, value_name = "FILE")]
    etcd_certfile: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, global = true, value_name = "FILE")]
    etcd_keyfile: Option<PathBuf>,
    /// User
    #[arg(long, global = true, value_name = "NAME")]
    etcd_username: Option<String>,
    /// Password
    #[arg(long, global = true, value_name = "TEXT")]
    etcd_password: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Who has the lock, and how this host stands
    Status,
    /// What this host waits for, in plain words
    Why,
    /// Take a slot by hand; it stays taken until `unlock`
    Lock {
        /// Whose; this host's when not there
        id: Option<String>,
        /// For the others
        #[arg(long, default_value = "taken by hand")]
        why: String,
    },
    /// Give a slot back, and the reservation to take an etcd member down
    Unlock {
        /// Whose; this host's when not there
        id: Option<String>,
        /// For the audit trail
        #[arg(long, default_value = "given back by hand")]
        why: String,
    },
    /// How many hosts may reboot at once
    SetMax {
        /// Slots
        max: u32,
    },
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
    /// Versions that failed on a host
    Quarantine {
        #[command(subcommand)]
        command: Quarantine,
    },
    /// Who took, gave back and changed what, oldest first
    Audit,
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

#[derive(Subcommand, Clone)]
enum Quarantine {
    /// Show them
    List,
    /// Let hosts take this version again
    Clear {
        /// The version
        version: String,
        /// For the audit trail
        #[arg(long, default_value = "cleared by hand")]
        why: String,
    },
}

fn parse_span(text: &str) -> Result<u64, String> {
    unit_files::value::parse_finite_span(text).map(|span| span.as_secs()).map_err(|error| error.to_string())
}

impl EtcdArgs {
    /// What the environment says where no option does: `LOCKSMITHCTL_ENDPOINT` and so on, as ever.
    fn or_environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let of = |name: &str| variable(&format!("LOCKSMITHCTL_{name}")).filter(|value| !value.is_empty());
        if self.endpoint.is_empty() {
            self.endpoint = of("ENDPOINT").map(|urls| urls.split(',').map(str::to_owned).collect()).unwrap_or_default();
        }
        self.group = self.group.or_else(|| of("GROUP"));
        self.etcd_cafile = self.etcd_cafile.or_else(|| of("ETCD_CAFILE").map(PathBuf::from));
        self.etcd_certfile = self.etcd_certfile.or_else(|| of("ETCD_CERTFILE").map(PathBuf::from));
        self.etcd_keyfile = self.etcd_keyfile.or_else(|| of("ETCD_KEYFILE").map(PathBuf::from));
        self.etcd_username = self.etcd_username.or_else(|| of("ETCD_USERNAME"));
        self.etcd_password = self.etcd_password.or_else(|| of("ETCD_PASSWORD"));
        self
    }
}

/// Old scripts write options with one dash, as Go's flags take them.
fn with_two_dashes(args: &[String]) -> Vec<String> {
    const OLD: [&str; 7] = ["endpoint", "etcd-cafile", "etcd-certfile", "etcd-keyfile", "etcd-username", "etcd-password", "group"];
    let is_old = |arg: &String| arg.strip_prefix('-').is_some_and(|rest| OLD.contains(&rest.split('=').next().unwrap_or_default()));
    args.iter().map(|arg| if is_old(arg) { format!("-{arg}") } else { arg.clone() }).collect()
}

fn finish(name: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", causes(&*error));
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().context("cannot start")
}

/// `reboot-locksmith`, which is `reboot-locksmith daemon`; the first word is the program's name.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    if args.get(1).is_some_and(|word| word == "daemon") {
        return daemon();
    }
    eprintln!("usage: reboot-locksmith daemon\nFor people there are locksmithctl and systemd-inhibit: see their --help.");
    ExitCode::from(2)
}

fn daemon() -> ExitCode {
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
    let cli = match Cli::try_parse_from(with_two_dashes(args)) {
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
    let etcd = cli.etcd.or_environment(|name| std::env::var(name).ok());
    let by = || format!("locksmithctl ({})", person());
    match cli.command {
        Command::Why => {
            let status = status(&paths).await?;
            if cli.json {
                return print_json(&status);
            }
            plain_output::print(&status.why());
            Ok(())
        }
        Command::Status => shared::status(&paths, &etcd, cli.json).await,
        Command::Lock { id, why } => shared::lock(&paths, &etcd, id, &why, cli.json).await,
        Command::Unlock { id, why } => shared::unlock(&paths, &etcd, id, &why, cli.json).await,
        Command::SetMax { max } => shared::set_max(&paths, &etcd, max, cli.json).await,
        Command::Quarantine { command } => shared::quarantine(&paths, &etcd, command, cli.json).await,
        Command::Audit => shared::audit(&paths, &etcd, cli.json).await,
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
    say!("{}", serde_json::to_string_pretty(value)?);
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
            say!("{}", reply.message);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_command_lines_are_understood() {
        let parse = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Cli::try_parse_from(with_two_dashes(&args)).map_err(|error| error.to_string())
        };
        let cli = parse("locksmithctl -endpoint=http://a:1,http://b:2 -group db status").unwrap();
        assert_eq!((cli.etcd.endpoint.len(), cli.etcd.group.as_deref()), (2, Some("db")));
        let environment = |name: &str| match name {
            "LOCKSMITHCTL_GROUP" => Some("web".to_owned()),
            "LOCKSMITHCTL_ETCD_USERNAME" => Some("ann".to_owned()),
            _ => None,
        };
        let etcd = cli.etcd.or_environment(environment);
        assert_eq!((etcd.endpoint.len(), etcd.group.as_deref(), etcd.etcd_username.as_deref()), (2, Some("db"), Some("ann")));
        for line in
            ["lock", "lock abc", "unlock abc", "set-max 3", "reboot", "send-need-reboot", "status --json", "why", "extend", "extend 30m"]
        {
            assert!(parse(&format!("locksmithctl {line}")).is_ok(), "{line}");
        }
        for line in
            ["quarantine list", "quarantine clear 1.2", "audit", "inhibit --why x --for 2h", "inhibit --why x", "uninhibit a", "cancel"]
        {
            assert!(parse(&format!("locksmithctl {line}")).is_ok(), "{line}");
        }
        for line in ["", "frobnicate", "set-max", "set-max -1", "inhibit", "inhibit --why x --for 2h --until 5", "extend soon"] {
            assert!(parse(&format!("locksmithctl {line}")).is_err(), "{line}");
        }
    }
}
