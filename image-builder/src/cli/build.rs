//! `garboard build`: recipe and lock in, images out.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use disk_layout::Version;

use super::SourceArgs;
use super::report::Report;
use crate::build::{self, BuildRequest, Built, Sources};
use crate::image::output::Format;

/// Arguments of `garboard build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The recipe
    recipe: PathBuf,
    /// The image's version: 0-9, a-z and . ~ ^ -, at most 20 characters
    #[arg(long, default_value = "0.1.0")]
    version: Version,
    /// Where the files are written
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Formats instead of the recipe's: raw, raw.zst, qcow2
    #[arg(long, value_name = "FORMATS", value_delimiter = ',')]
    format: Vec<Format>,
    /// Fail when the lock is missing or does not fit the recipe, instead of writing it anew
    #[arg(long)]
    locked: bool,
    /// Fail when a maintainer script is new or has changed since it was reviewed
    #[arg(long)]
    strict: bool,
    /// The root.json whose signatures the image's updates must have, instead of the recipe's
    #[arg(long, value_name = "FILE")]
    update_root: Option<PathBuf>,
    /// Where the programs of the host (init, cloud-config) are; else GARBOARD_PROGRAMS, or beside this program
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    #[command(flatten)]
    sources: SourceArgs,
}

pub(super) fn main(args: &BuildArgs, report: &Report) -> Result<()> {
    let built = build(args, report)?;
    report.result(&describe(&built), &built.summary());
    Ok(())
}

fn build(args: &BuildArgs, report: &Report) -> Result<Built> {
    let recipe = crate::recipe::load(&args.recipe)?;
    let formats = if args.format.is_empty() {
        let parse = |name: &String| name.parse().map_err(|error| anyhow!("{}: {error}", args.recipe.display()));
        recipe.formats.iter().map(parse).collect::<Result<_>>()?
    } else {
        args.format.clone()
    };
    let request = BuildRequest {
        version: args.version.clone(),
        out: args.out.clone(),
        formats,
        locked: args.locked,
        strict: args.strict,
        update_root: args.update_root.clone(),
        programs: args.programs.clone(),
        sources: Sources::from(&args.sources),
    };
    build::build(&recipe, &request, report)
}

/// Builds a recipe as `garboard build RECIPE` does, for other commands.
pub(super) fn build_default(recipe: PathBuf, out: PathBuf, report: &Report) -> Result<Built> {
    let sources = SourceArgs { mirror: None, cache: None, offline: false };
    let version = "0.1.0".parse()?;
    build(
        &BuildArgs {
            recipe,
            version,
            out,
            format: vec![Format::Raw],
            locked: false,
            strict: false,
            update_root: None,
            programs: None,
            sources,
        },
        report,
    )
}

fn describe(built: &Built) -> String {
    let mut lines: Vec<String> = built.files.iter().map(|path| path.display().to_string()).collect();
    lines.insert(0, format!("root hash {}", built.root_hash));
    lines.join("\n")
}
