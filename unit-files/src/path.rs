//! `[Path]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::UnitName;

/// What about a path starts the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathWatchKind {
    /// `PathExists=`: while it exists.
    Exists,
    /// `PathExistsGlob=`: while anything matches.
    ExistsGlob,
    /// `PathChanged=`: when a file was written and closed.
    Changed,
    /// `PathModified=`: also at each write.
    Modified,
    /// `DirectoryNotEmpty=`: while it has entries.
    DirectoryNotEmpty,
}

/// One watched path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathWatch {
    /// What counts.
    pub kind: PathWatchKind,
    /// The path.
    pub path: String,
}

/// Everything in `[Path]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathConfig {
    /// What is watched.
    pub watches: Vec<PathWatch>,
    /// `Unit=`; else the service of the same name.
    pub unit: Option<UnitName>,
    /// `MakeDirectory=`.
    pub make_directory: bool,
    /// `DirectoryMode=`.
    pub directory_mode: u32,
    /// `TriggerLimitIntervalSec=`.
    pub trigger_limit_interval: Option<Duration>,
    /// `TriggerLimitBurst=`.
    pub trigger_limit_burst: Option<u32>,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            watches: Vec::new(),
            unit: None,
            make_directory: false,
            directory_mode: 0o755,
            trigger_limit_interval: None,
            trigger_limit_burst: None,
        }
    }
}
