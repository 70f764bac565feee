//! `garboard diff`: where the bytes of an update from one release to another go.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use publisher::diff::{Bytes, Difference, diff, one};

use super::publish::human_bytes;
use super::report::Report;

/// Arguments of `garboard diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Release parts of the older version: where 'garboard build' wrote it, or one of the '.release' directories there
    older: PathBuf,
    /// Of the newer version
    newer: PathBuf,
    /// How many packages and files are listed; with --json all are
    #[arg(long, value_name = "N", default_value_t = 15)]
    top: usize,
}

pub(super) fn main(args: &DiffArgs, report: &Report) -> Result<()> {
    let difference = diff(&one(&args.older)?, &one(&args.newer)?)?;
    report.result(&render(&difference, args.top), &difference);
    Ok(())
}

fn render(difference: &Difference, top: usize) -> String {
    let row = |bytes: &Bytes, name: &str| {
        format!("  {:>9}  {:>9}  {:>9}  {name}", human_bytes(bytes.patch), human_bytes(bytes.chunks), human_bytes(bytes.new))
    };
    let mut lines = vec![
        format!("{} to {}: of {}", difference.from, difference.to, human_bytes(difference.image)),
        format!("  {:>9}  {:>9}  {:>9}", "by patch", "by chunks", "new bytes"),
        row(&difference.total, "in all"),
        "by package or build step:".to_owned(),
    ];
    lines.extend(difference.packages.iter().take(top).map(|(package, bytes)| row(bytes, package)));
    lines.push("by file:".to_owned());
    lines.extend(difference.files.iter().take(top).map(|file| row(&file.bytes, &file.path)));
    let hidden = difference.files.len().saturating_sub(top);
    if hidden > 0 {
        lines.push(format!("  and {hidden} more files (--top, or --json)"));
    }
    lines.join("\n")
}
