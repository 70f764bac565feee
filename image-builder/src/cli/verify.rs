//! `garboard verify`: what a host would say of unit files, before they are on one.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use unit_files::diagnostic::Diagnostic;
use unit_files::{FsSource, HostFacts, Loader, UnitName};

use super::report::Report;

/// Arguments of `garboard verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Unit files; each is read as the unit that it is named after
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Says what is not supported, refused or wrong; fails when there is anything to say.
pub(super) fn main(args: &VerifyArgs, report: &Report) -> Result<()> {
    let mut found: Vec<Diagnostic> = Vec::new();
    for file in &args.files {
        let path = file.display().to_string();
        let base = file.file_name().unwrap_or_default().to_string_lossy();
        let name = UnitName::parse(&base).with_context(|| path.clone())?;
        let bytes = fs::read(file).with_context(|| path.clone())?;
        found.extend(Loader::<FsSource>::load_text(&name, &path, &bytes, &HostFacts::default()).diagnostics);
    }
    let lines: Vec<String> = found.iter().map(|diagnostic| format!("{}: {diagnostic}", diagnostic.severity.as_str())).collect();
    if found.is_empty() {
        report.result("nothing to say", &found);
    } else {
        report.result(&lines.join("\n"), &found);
    }
    if !found.is_empty() {
        bail!("what is written in {} lines would not be done: see above", found.len());
    }
    Ok(())
}
