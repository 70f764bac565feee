//! `[Mount]`, `[Automount]` and `[Swap]`.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exec::ExecContext;
use crate::resources::CgroupConfig;
use crate::service::{DEFAULT_TIMEOUT, KillConfig};

/// Everything in `[Mount]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountConfig {
    /// `What=`.
    pub what: String,
    /// `Where=`; always what the unit's name says.
    pub mount_point: String,
    /// `Type=`.
    pub file_system: Option<String>,
    /// `Options=`, joined by commas.
    pub options: String,
    /// `SloppyOptions=`.
    pub sloppy_options: bool,
    /// `LazyUnmount=`.
    pub lazy_unmount: bool,
    /// `ForceUnmount=`.
    pub force_unmount: bool,
    /// `ReadWriteOnly=`.
    pub read_write_only: bool,
    /// `DirectoryMode=`.
    pub directory_mode: u32,
    /// `TimeoutSec=`; `None` is for ever.
    pub timeout: Option<Duration>,
    /// How processes are killed.
    pub kill: KillConfig,
    /// What mount helpers run in.
    pub exec: Arc<ExecContext>,
    /// Resource knobs.
    pub cgroup: Arc<CgroupConfig>,
}

impl Default for MountConfig {
    fn default() -> Self {
        Self {
            what: String::new(),
            mount_point: String::new(),
            file_system: None,
            options: String::new(),
            sloppy_options: false,
            lazy_unmount: false,
            force_unmount: false,
            read_write_only: false,
            directory_mode: 0o755,
            timeout: Some(DEFAULT_TIMEOUT),
            kill: KillConfig::default(),
            exec: Arc::default(),
            cgroup: Arc::default(),
        }
    }
}

/// Everything in `[Automount]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutomountConfig {
    /// `Where=`.
    pub mount_point: String,
    /// `ExtraOptions=`.
    pub extra_options: String,
    /// `DirectoryMode=`; zero is 0755.
    pub directory_mode: u32,
    /// `TimeoutIdleSec=`; `None` is never.
    pub timeout_idle: Option<Duration>,
}

/// Everything in `[Swap]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapConfig {
    /// `What=`.
    pub what: String,
    /// `Priority=`.
    pub priority: Option<i32>,
    /// `Options=`.
    pub options: String,
    /// `TimeoutSec=`; `None` is for ever.
    pub timeout: Option<Duration>,
    /// How processes are killed.
    pub kill: KillConfig,
    /// What helpers run in.
    pub exec: Arc<ExecContext>,
    /// Resource knobs.
    pub cgroup: Arc<CgroupConfig>,
}

impl Default for SwapConfig {
    fn default() -> Self {
        Self {
            what: String::new(),
            priority: None,
            options: String::new(),
            timeout: Some(DEFAULT_TIMEOUT),
            kill: KillConfig::default(),
            exec: Arc::default(),
            cgroup: Arc::default(),
        }
    }
}
