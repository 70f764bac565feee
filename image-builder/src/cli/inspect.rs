//! `garboard inspect`: what is in an image.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::report::Report;
use crate::image::inspect;

/// Arguments of `garboard inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image
    image: PathBuf,
    /// Hash every slot again and compare with its root hash
    #[arg(long)]
    verify: bool,
}

pub(super) fn main(args: &InspectArgs, report: &Report) -> Result<()> {
    let image = inspect::inspect(&args.image, args.verify, report)?;
    report.result(&image.to_string(), &image);
    if !image.is_sound() {
        bail!("{} is not sound: see above", args.image.display());
    }
    Ok(())
}
