//! A file on the host: the operator's own cloud-config, for machines without anything else.

use super::{Delivered, Detected, Source, SourceError, read_optional};
use crate::diagnostics::Diagnostics;
use std::path::PathBuf;

/// Where it is looked for.
const PATHS: [&str; 2] = ["/media/state/cloud-config.yml", "/etc/garboard/cloud-config.yml"];

/// The first of the known paths, or one that was named.
#[derive(Clone, Debug, Default)]
pub struct File(pub Option<PathBuf>);

impl File {
    fn path(&self, facts: &Detected) -> Option<PathBuf> {
        match &self.0 {
            Some(path) => Some(path.clone()),
            None => PATHS.iter().map(|p| facts.path(p)).find(|p| p.exists()),
        }
    }
}

impl Source for File {
    fn name(&self) -> &'static str {
        "file"
    }

    fn is_present(&self, facts: &Detected) -> bool {
        self.path(facts).is_some()
    }

    fn fetch(&self, facts: &Detected, _: &mut Diagnostics) -> Result<Delivered, SourceError> {
        let Some(path) = self.path(facts) else { return Ok(Delivered::default()) };
        let missing = || SourceError::Read { path: path.clone(), source: std::io::ErrorKind::NotFound.into() };
        let user_data = read_optional(&path)?.ok_or_else(missing)?;
        Ok(Delivered { place: path.display().to_string(), user_data, ..Delivered::default() })
    }
}
