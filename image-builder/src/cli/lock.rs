//! `garboard lock`: choose packages, write the lock.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::SourceArgs;
use super::report::Report;
use crate::build::{self, Sources};

/// Arguments of `garboard lock`.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// The recipe
    recipe: PathBuf,
    #[command(flatten)]
    sources: SourceArgs,
}

#[derive(Serialize)]
struct Locked {
    lock: PathBuf,
    packages: usize,
}

pub(super) fn main(args: &LockArgs, report: &Report) -> Result<()> {
    let recipe = crate::recipe::load(&args.recipe)?;
    let (path, packages) = build::lock(&recipe, &Sources::from(&args.sources), report)?;
    let text = format!("{} ({packages} packages)", path.display());
    report.result(&text, &Locked { lock: path, packages });
    Ok(())
}

impl From<&SourceArgs> for Sources {
    fn from(args: &SourceArgs) -> Self {
        Self { mirror: args.mirror.clone(), cache: args.cache.clone(), offline: args.offline }
    }
}
