//! The command `cloud-config`: validate, render, apply and status, and the final stage that its unit calls.
//!
//! Exit codes: 0 done, 1 something was wrong (everything valid was applied all the same), 2 bad usage.

use crate::apply::{Host, Outcome};
use crate::boot;
use crate::diagnostics::Diagnostics;
use crate::pipeline::{Understood, understand};
use crate::plan::{self, Facts};
use crate::source::Detected;
use crate::status::Record;
use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use plain_output::{causes, print, say};
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A bootcmd that hangs must not hang the boot.
const BOOT_SCRIPT_LIMIT: Duration = Duration::from_secs(300);
/// More lines than this do not help anybody on a console.
const CONSOLE_LINES: usize = 20;

/// What one host is to be, from one file.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a file; nothing is changed. Exits 1 if anything in it would be left out
    Validate {
        /// The user-data; `-` is standard input
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what would be done, files as a diff against what is there
    Render {
        /// The user-data; without it, this host's source
        #[arg(long)]
        file: Option<PathBuf>,
        /// Compare with the files below this directory
        #[arg(long, default_value = "/")]
        root: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Do it, item by item; what is broken is reported and left out
    Apply {
        /// The user-data; without it, this host's source
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Say what was applied, from where, when, and how it went
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the scripts of the final stage (called by cloud-config-final.service)
    #[command(hide = true)]
    RunScripts,
}

/// `cloud-config`, with the words that it was called with.
#[must_use]
pub fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cloud-config: {}", causes(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Validate { file, json } => validate(&file, json),
        Command::Render { file, root, json } => render(file, &root, json),
        Command::Apply { file } => apply(file),
        Command::Status { json } => status(json),
        Command::RunScripts => Ok(run_scripts()),
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).context("standard input")?;
        return Ok(bytes);
    }
    std::fs::read(file).with_context(|| file.display().to_string())
}

fn validate(file: &Path, json: bool) -> Result<bool> {
    let bytes = read(file)?;
    let facts = Facts { hostname: "localhost".to_owned() };
    let understood = understand(&bytes, &[], &boot::example_metadata(), &facts, Diagnostics::default());
    let valid = !understood.has_errors();
    if json {
        let value = json!({"valid": valid, "diagnostics": understood.diagnostics});
        print(&format!("{value:#}\n"));
    } else {
        understood.diagnostics.iter().for_each(|d| print(&format!("{d}\n")));
        if valid {
            print(&format!("{}: valid, {} steps\n", file.display(), understood.plan.steps.len()));
        } else {
            eprintln!("cloud-config: {}: items with errors would be left out", file.display());
        }
    }
    Ok(valid)
}

fn render(file: Option<PathBuf>, root: &Path, json: bool) -> Result<bool> {
    let mut diagnostics = Diagnostics::default();
    let understood: Understood = match file {
        Some(file) => {
            let facts = Facts { hostname: boot::current_hostname(root) };
            understand(&read(&file)?, &[], &boot::example_metadata(), &facts, diagnostics)
        }
        None => {
            let detected = Detected::gather(root);
            let sources = crate::source::all();
            let Some(source) = sources.iter().find(|s| s.is_present(&detected)) else {
                eprintln!("cloud-config: no source found on this host; name a file with --file");
                return Ok(false);
            };
            let delivered = source.fetch(&detected, &mut diagnostics)?;
            let facts = Facts { hostname: boot::current_hostname(root) };
            let mut metadata = delivered.metadata.clone();
            metadata.addresses = boot::known_addresses(root, &delivered);
            understand(&delivered.user_data, &delivered.vendor_data, &metadata, &facts, diagnostics)
        }
    };
    if json {
        print(&format!("{:#}\n", json!({"plan": understood.plan, "diagnostics": understood.diagnostics})));
    } else {
        print(&plan::render(&understood.plan, &|path| std::fs::read(root.join(path.trim_start_matches('/'))).ok()));
        understood.diagnostics.iter().for_each(|d| eprintln!("{d}"));
    }
    Ok(!understood.has_errors())
}

fn apply(file: Option<PathBuf>) -> Result<bool> {
    let record = boot::apply_source(file, &mut Host::new("/", Some(BOOT_SCRIPT_LIMIT)));
    report(&record);
    Ok(record.is_good())
}

/// To the unit's log, and, what is an error, to the consoles: a person without a login sees only those.
fn report(record: &Record) {
    let complaints = record.complaints();
    complaints.iter().for_each(|line| eprintln!("{line}"));
    match &record.source {
        Some(source) => say!("{source} ({}): {} steps, {} problems", record.place, record.steps.len(), record.faults()),
        None => say!("no source found"),
    }
    let errors: Vec<&String> = complaints.iter().filter(|l| l.contains("error: ")).collect();
    if errors.is_empty() {
        return;
    }
    let mut lines: Vec<String> = errors.iter().take(CONSOLE_LINES).map(|l| format!("cloud-config: {l}")).collect();
    if errors.len() > CONSOLE_LINES {
        lines.push(format!("cloud-config: and {} more: cloud-config status", errors.len() - CONSOLE_LINES));
    }
    // Priority 3 is shown even with `quiet`; a write is one record.
    if let Ok(mut kmsg) = std::fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        for line in lines {
            let _ = kmsg.write_all(format!("<3>{line}\n").as_bytes());
        }
    }
}

fn status(json: bool) -> Result<bool> {
    let Some(record) = boot::load_record(Path::new("/")) else {
        eprintln!("cloud-config: nothing was applied on this host, or you are not allowed to see it (try sudo)");
        return Ok(false);
    };
    if json {
        let mut value = serde_json::to_value(&record)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("good".to_owned(), json!(record.is_good()));
        }
        print(&format!("{value:#}\n"));
    } else {
        print(&record.render());
    }
    Ok(record.is_good())
}

fn run_scripts() -> bool {
    let done = boot::run_scripts(&mut Host::new("/", None));
    for failed in done.iter().filter(|d| d.outcome == Outcome::Failed) {
        eprintln!("error: {}: {}", failed.what, failed.detail.as_deref().unwrap_or("failed"));
    }
    done.iter().all(|d| d.outcome != Outcome::Failed)
}
