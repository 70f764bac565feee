//! The command line of `garboard`: one file per command, each with its arguments and what it does with them.

mod build;
mod bundle;
mod cluster;
mod completions;
mod diff;
mod inspect;
mod keys;
mod lock;
mod publish;
mod report;
mod run;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use report::{Report, Style};

/// Build, inspect and start images of Garboard, an immutable host for containers.
#[derive(Debug, Parser)]
#[command(name = "garboard", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// Report progress and results as JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "json")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Choose the packages of a recipe and write RECIPE.lock
    Lock(lock::LockArgs),
    /// Build an image
    Build(build::BuildArgs),
    /// Show what is in an image
    Inspect(inspect::InspectArgs),
    /// Start an image, or the image of a recipe, in QEMU
    Run(run::RunArgs),
    /// Start several machines of an image in QEMU, as one etcd cluster
    Cluster(Box<cluster::ClusterArgs>),
    /// Make, replace and show the keys that releases are signed with
    Keys(keys::KeysArgs),
    /// Sign releases and put them into a repository that any web server can serve
    Publish(Box<publish::PublishArgs>),
    /// Say where the bytes of an update from one version to another go, by package and file
    Diff(diff::DiffArgs),
    /// Write a release with its signatures into one file, for hosts without network
    Bundle(bundle::BundleArgs),
    /// Say what a host would not do of unit files, or would refuse
    Verify(verify::VerifyArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual pages into a directory
    Man(completions::ManArgs),
}

/// Where packages come from and are kept.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    /// Package mirror, for example http://HOST/debian; else GARBOARD_MIRROR, the recipe's, or this host's own
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Where packages are kept; else GARBOARD_CACHE, or garboard/ in the user's cache directory
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Use only what is in the cache
    #[arg(long)]
    offline: bool,
}

/// Runs the command line: 0 done, 1 failed, 2 bad usage (by clap itself).
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let report = Report::new(Style::choose(cli.output.json, cli.output.quiet));
    let result = match cli.command {
        Command::Lock(args) => lock::main(&args, &report),
        Command::Build(args) => build::main(&args, &report),
        Command::Inspect(args) => inspect::main(&args, &report),
        Command::Run(args) => run::main(&args, &report),
        Command::Cluster(args) => cluster::main(&args, &report),
        Command::Keys(args) => keys::main(&args, &report),
        Command::Publish(args) => publish::main(&args, &report),
        Command::Diff(args) => diff::main(&args, &report),
        Command::Bundle(args) => bundle::main(&args, &report),
        Command::Verify(args) => verify::main(&args, &report),
        Command::Completions(args) => completions::main(&args),
        Command::Man(args) => completions::man(&args),
    };
    report.finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("garboard: {}", plain_output::causes(&*error));
            ExitCode::FAILURE
        }
    }
}
