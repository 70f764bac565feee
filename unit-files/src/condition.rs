//! Conditions and asserts as data. Testing them needs the machine and is the engine's work.

use serde::{Deserialize, Serialize};

/// What is asked about the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the directive of the same name")]
pub enum ConditionKind {
    Architecture,
    Firmware,
    Virtualization,
    Host,
    KernelCommandLine,
    KernelVersion,
    KernelModuleLoaded,
    Version,
    Credential,
    Environment,
    Security,
    Capability,
    AcPower,
    NeedsUpdate,
    FirstBoot,
    PathExists,
    PathExistsGlob,
    PathIsDirectory,
    PathIsSymbolicLink,
    PathIsMountPoint,
    PathIsReadWrite,
    PathIsEncrypted,
    PathIsSocket,
    DirectoryNotEmpty,
    FileNotEmpty,
    FileIsExecutable,
    User,
    Group,
    ControlGroupController,
    Memory,
    Cpus,
    CpuFeature,
    OsRelease,
    MemoryPressure,
    CpuPressure,
    IoPressure,
}

impl ConditionKind {
    /// The directives, without `Condition` or `Assert` in front.
    pub const NAMES: [(&'static str, Self); 36] = [
        ("Architecture", Self::Architecture),
        ("Firmware", Self::Firmware),
        ("Virtualization", Self::Virtualization),
        ("Host", Self::Host),
        ("KernelCommandLine", Self::KernelCommandLine),
        ("KernelVersion", Self::KernelVersion),
        ("KernelModuleLoaded", Self::KernelModuleLoaded),
        ("Version", Self::Version),
        ("Credential", Self::Credential),
        ("Environment", Self::Environment),
        ("Security", Self::Security),
        ("Capability", Self::Capability),
        ("ACPower", Self::AcPower),
        ("NeedsUpdate", Self::NeedsUpdate),
        ("FirstBoot", Self::FirstBoot),
        ("PathExists", Self::PathExists),
        ("PathExistsGlob", Self::PathExistsGlob),
        ("PathIsDirectory", Self::PathIsDirectory),
        ("PathIsSymbolicLink", Self::PathIsSymbolicLink),
        ("PathIsMountPoint", Self::PathIsMountPoint),
        ("PathIsReadWrite", Self::PathIsReadWrite),
        ("PathIsEncrypted", Self::PathIsEncrypted),
        ("PathIsSocket", Self::PathIsSocket),
        ("DirectoryNotEmpty", Self::DirectoryNotEmpty),
        ("FileNotEmpty", Self::FileNotEmpty),
        ("FileIsExecutable", Self::FileIsExecutable),
        ("User", Self::User),
        ("Group", Self::Group),
        ("ControlGroupController", Self::ControlGroupController),
        ("Memory", Self::Memory),
        ("CPUs", Self::Cpus),
        ("CPUFeature", Self::CpuFeature),
        ("OSRelease", Self::OsRelease),
        ("MemoryPressure", Self::MemoryPressure),
        ("CPUPressure", Self::CpuPressure),
        ("IOPressure", Self::IoPressure),
    ];

    /// The directive, without `Condition` or `Assert` in front.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Whether the argument is a path.
    #[must_use]
    pub fn takes_path(self) -> bool {
        self >= Self::PathExists && self <= Self::FileIsExecutable
    }
}

/// One condition. All plain ones must hold, and, when there are any marked `|`, at least one of those.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What is asked.
    pub kind: ConditionKind,
    /// The argument, specifiers replaced, `|` and `!` taken off.
    pub argument: String,
    /// `!`: the answer must be no.
    pub negate: bool,
    /// `|`: one of a group of which one must hold.
    pub trigger: bool,
}
