//! Which restrictions the exec helper of `init` really enforces.

/// Directives of the classes [`Warned`](super::Support::Warned) and [`Refused`](super::Support::Refused) that are done.
/// Add one here in the same change that teaches the exec helper to do it, never before.
pub const ENFORCED: &[&str] = &[
    "User",
    "Group",
    "SupplementaryGroups",
    "NoNewPrivileges",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateMounts",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectControlGroups",
    "ProtectKernelLogs",
    "CPUAffinity",
    "TimerSlackNSec",
    "TTYPath",
    "ReadWritePaths",
    "ReadOnlyPaths",
    "InaccessiblePaths",
    // The names that these three had before.
    "ReadWriteDirectories",
    "ReadOnlyDirectories",
    "InaccessibleDirectories",
];
