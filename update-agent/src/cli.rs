//! `update-agent`: the daemon, and the command line that talks to it. Without a daemon the command does the work itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::agent::{Agent, Paths, system_clock};
use crate::daemon::{self, Reply, Request};
use crate::esp::mounted::MountedEsp;
use crate::etcd::HostEtcd;
use crate::host::{Host, HostDisk};
use crate::kernel::{self, HostKernels};
use crate::settings::Settings;
use crate::state::State;
use crate::status::{AgentState, Status};
use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use plain_output::{causes, say};

const SETTINGS: &str = "/var/lib/cloud-config/settings.json";
const STATE: &str = "/media/state/garboard/update";
const BOOT: &str = "/boot";

/// Brings signed releases into the other slot, on trial, and back when they fail.
#[derive(Parser)]
#[command(name = "update-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// What is going on.
    Status,
    /// Look for a newer version, without installing it.
    Check,
    /// Install the newest version for this host now, whatever its wave and the download windows.
    Update {
        /// Take this version although it failed here or was set aside.
        #[arg(long, value_name = "VERSION")]
        retry: Option<String>,
        /// With --retry: even if it is older than the one that runs.
        #[arg(long, requires = "retry")]
        downgrade: bool,
    },
    /// Install from a bundle, with no network.
    Apply {
        /// The bundle.
        file: PathBuf,
        /// Take this version although it failed here or was set aside.
        #[arg(long, value_name = "VERSION")]
        retry: Option<String>,
        /// Even if it is older than the one that runs.
        #[arg(long)]
        downgrade: bool,
    },
    /// Go back to the version in the other slot.
    Rollback,
    /// What has happened to versions on this host.
    History,
    /// What it waits for, in plain words.
    Why,
    /// Take one version only.
    Pin {
        /// The version; the running one when not there.
        version: Option<String>,
        /// Take all versions again.
        #[arg(long, conflicts_with = "version")]
        clear: bool,
    },
    /// Make a kernel of another one; `rebuild-kernel.service` runs this.
    #[command(hide = true)]
    RebuildKernel {
        /// Where the files are.
        #[arg(default_value = kernel::DIRECTORY)]
        directory: PathBuf,
    },
    /// Run as the daemon.
    Daemon {
        /// Serve metrics at this address too, besides the unix socket.
        #[arg(long, value_name = "ADDRESS:PORT")]
        metrics: Option<std::net::SocketAddr>,
    },
}

/// `update-agent`, with the words that it was called with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
    let result = runtime.context("cannot start").and_then(|runtime| runtime.block_on(run(cli)));
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("update-agent: {}", causes(&*error));
            ExitCode::FAILURE
        }
    }
}

fn agent() -> anyhow::Result<Agent> {
    if !rustix::process::geteuid().is_root() {
        bail!("only root may do that: use sudo");
    }
    let host = Host::read()?;
    let target = HostDisk::open(&host)?;
    let esp = MountedEsp::new(&host.partition(disk_layout::PartitionRole::Esp)?, Path::new(BOOT));
    let state = State::open(Path::new(STATE))?;
    let mut agent = Agent {
        host,
        settings: Settings::load(Path::new(SETTINGS)),
        paths: Paths::default(),
        state,
        target: Box::new(target),
        esp: Box::new(esp),
        etcd: Box::new(HostEtcd::default()),
        kernels: Box::new(HostKernels::default()),
        status: Status::default(),
        retry_after: None,
        clock: system_clock,
    };
    agent.start()?;
    Ok(agent)
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let request = match cli.command {
        Command::Daemon { metrics } => {
            daemon::run(agent()?, metrics).await.context("the daemon")?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::RebuildKernel { directory } => {
            kernel::rebuild_in(&directory).map_err(anyhow::Error::msg)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Status | Command::Why => {
            let status = current_status()?;
            if cli.json {
                say!("{}", serde_json::to_string_pretty(&status)?);
            } else if matches!(cli.command, Command::Why) {
                plain_output::print(&why(&status));
            } else {
                plain_output::print(&status.render());
            }
            return Ok(ExitCode::SUCCESS);
        }
        Command::Check => Request::Check,
        Command::Update { retry, downgrade } => Request::Update { retry, downgrade },
        Command::Apply { file, retry, downgrade } => {
            Request::Apply { file: std::path::absolute(&file).with_context(|| file.display().to_string())?, retry, downgrade }
        }
        Command::Rollback => Request::Rollback,
        Command::History => Request::History,
        Command::Pin { clear: true, .. } => Request::Pin { version: None },
        Command::Pin { version, .. } => {
            Request::Pin { version: Some(version.map_or_else(|| current_status().map(|status| status.version), Ok)?) }
        }
    };
    let reply = match daemon::ask(&Paths::default().control, &request).await? {
        Some(reply) => reply,
        None => daemon::handle(&mut agent()?, request.clone()).await,
    };
    Ok(report(&request, &reply, cli.json)?)
}

fn current_status() -> anyhow::Result<Status> {
    let path = Paths::default().status;
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| path.display().to_string()),
        Err(_) => Ok(agent()?.status),
    }
}

/// Plain words about what it waits for.
fn why(status: &Status) -> String {
    let mut text = match status.state {
        AgentState::Idle if status.why.is_empty() => "Nothing to do until the next check.\n".to_owned(),
        _ => format!("{}.\n", status.why),
    };
    let now = system_clock();
    let span = |at: u64| {
        let seconds = at.saturating_sub(now);
        if seconds >= 7200 { format!("{} h", seconds / 3600) } else { format!("{} min", seconds.div_ceil(60)) }
    };
    if let Some(until) = status.wait_until {
        text.push_str(&format!("That is in about {}.\n", span(until)));
    }
    if let Some(error) = &status.error {
        text.push_str(&format!("The last attempt failed ({}): {}.\n", error.kind, error.message));
        if matches!(error.kind.as_str(), "metadata-expired" | "clock") {
            text.push_str(&format!("This host's clock says {now} seconds since 1970: if that is wrong, the clock is the reason.\n"));
        }
    }
    if let Some(pin) = &status.pin {
        text.push_str(&format!("Version {pin} is pinned.\n"));
    }
    if let Some(next) = status.next_check {
        text.push_str(&format!("The next check is in about {}.\n", span(next)));
    }
    text
}

fn report(request: &Request, reply: &Reply, json: bool) -> serde_json::Result<ExitCode> {
    if json {
        say!("{}", serde_json::to_string_pretty(reply)?);
    } else if *request == Request::History {
        for event in &reply.history {
            say!("{}  {:<12} {:<20} {}", event.time, event.what, event.version, event.detail);
        }
    } else if reply.error.is_none() {
        say!("{}", reply.message);
    }
    match &reply.error {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => {
            if !json {
                eprintln!("update-agent: {}: {}", error.kind, error.message);
            }
            Ok(ExitCode::FAILURE)
        }
    }
}
