//! `garboard bundle`: a release in one file.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use disk_layout::Version;
use publisher::keys::Keys;
use publisher::repository::Repository;
use release_format::Name;

use super::publish::human_bytes;
use super::report::Report;

/// Arguments of `garboard bundle`.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The repository
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    /// The channel
    #[arg(long, value_name = "NAME", default_value = "stable")]
    channel: Name,
    /// The image, where the channel is there for several
    #[arg(long, value_name = "NAME")]
    image: Option<Name>,
    /// The version; else the newest
    #[arg(long, value_name = "V")]
    version: Option<Version>,
    /// Directory of the keys; private keys are not needed
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn main(args: &BundleArgs, report: &Report) -> Result<()> {
    let keys = Keys::open(&args.keys)?;
    let repository = Repository::open(&args.repo, &keys)?;
    let bundled = publisher::bundle::bundle(&repository, &args.channel, args.image.as_ref(), args.version.as_ref(), &args.out)?;
    let text = format!("{}: version {}, {}", args.out.display(), bundled.version, human_bytes(bundled.bytes));
    report.result(&text, &bundled);
    Ok(())
}
