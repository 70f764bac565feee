//! What processes may be kept from, and how they are scheduled: the values of those directives.

use serde::{Deserialize, Serialize};

/// `ProtectSystem=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectSystem {
    /// Nothing.
    #[default]
    No,
    /// `/usr`, `/boot`, `/efi` read-only.
    Yes,
    /// and `/etc`.
    Full,
    /// Everything but `/dev`, `/proc`, `/sys`.
    Strict,
}

/// `ProtectHome=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectHome {
    /// Nothing.
    #[default]
    No,
    /// `/home`, `/root`, `/run/user` are not accessible.
    Yes,
    /// They are read-only.
    ReadOnly,
    /// They are empty.
    Tmpfs,
}

/// `ProtectProc=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "systemd's own values")]
pub enum ProtectProc {
    #[default]
    Default,
    Noaccess,
    Invisible,
    Ptraceable,
}

/// `PrivateTmp=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrivateTmp {
    /// Shared.
    #[default]
    No,
    /// Own directories below the real `/tmp` and `/var/tmp`.
    Connected,
    /// An own tmpfs.
    Disconnected,
}

/// A path of `ReadOnlyPaths=` and its siblings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRule {
    /// The path.
    pub path: String,
    /// `-`: a missing path is no error.
    pub optional: bool,
    /// `+`: relative to `RootDirectory=`.
    pub in_root: bool,
}

/// `BindPaths=`, `BindReadOnlyPaths=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindPath {
    /// What.
    pub source: String,
    /// Where.
    pub destination: String,
    /// `-`: a missing source is no error.
    pub optional: bool,
    /// With everything mounted below it.
    pub recursive: bool,
    /// `BindReadOnlyPaths=`.
    pub read_only: bool,
}

/// A list that either allows or denies what it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowDenyList {
    /// Whether the names are allowed (and everything else denied) or the other way round.
    pub allow: bool,
    /// Names, in the order written; a name from a later `~` line is taken out again.
    pub names: Vec<String>,
}

/// `SystemCallFilter=`, kept as written: groups are resolved by the exec helper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyscallRule {
    /// `~`: the names are denied.
    pub deny: bool,
    /// Calls and `@groups`, each with an optional `:errno` or `:kill`.
    pub names: Vec<String>,
}

/// Capabilities as a bit set, bit N being capability number N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySet(pub u64);

/// `LoadCredential=` and `SetCredential=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Its id.
    pub id: String,
    /// A path to load it from, or the literal value.
    pub source: CredentialSource,
    /// Whether the data is encrypted.
    pub encrypted: bool,
}

/// Where a credential comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialSource {
    /// `LoadCredential=`.
    Path(String),
    /// `SetCredential=`.
    Literal(String),
    /// `ImportCredential=`: a glob over the machine's credentials.
    Import,
}

/// Namespaces of `RestrictNamespaces=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestrictNamespaces {
    /// None may be made.
    All,
    /// Allow or deny list of names such as `net`.
    List(AllowDenyList),
}

/// `CPUSchedulingPolicy=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the kernel's own names")]
pub enum CpuSchedulingPolicy {
    Other,
    Batch,
    Idle,
    Fifo,
    Rr,
}

/// `IOSchedulingClass=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the kernel's own names")]
pub enum IoSchedulingClass {
    None,
    Realtime,
    BestEffort,
    Idle,
}

/// `KeyringMode=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "systemd's own values")]
pub enum KeyringMode {
    Inherit,
    #[default]
    Private,
    Shared,
}

/// `MountFlags=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the kernel's own names")]
pub enum MountPropagation {
    Shared,
    Slave,
    Private,
}
