//! `garboard completions` and `garboard man`: made from the command line's own definition, so they cannot drift.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Arguments of `garboard completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Arguments of `garboard man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory, which must exist
    directory: PathBuf,
}

pub(super) fn main(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "garboard", &mut script);
    match io::stdout().write_all(&script) {
        // Its reader has gone, and wants no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print the completion script"),
    }
}

pub(super) fn man(args: &ManArgs) -> Result<()> {
    clap_mangen::generate_to(super::Cli::command(), &args.directory)
        .with_context(|| format!("cannot write the manual pages to {}", args.directory.display()))
}
