//! What a process is started with: command lines, identity, limits, streams, directories and sandboxing.
//!
//! Data only. Values are as written, with specifiers replaced; user and group names are not looked up, environment
//! variables in command lines are expanded by [`ExecCommand::expand`] just before the exec.

mod restrictions;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use restrictions::{
    AllowDenyList, BindPath, CapabilitySet, CpuSchedulingPolicy, Credential, CredentialSource, IoSchedulingClass, KeyringMode,
    MountPropagation, PathRule, PrivateTmp, ProtectHome, ProtectProc, ProtectSystem, RestrictNamespaces, SyscallRule,
};

/// With whose rights a command runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    /// With everything that the unit sets.
    #[default]
    Unit,
    /// `+`: as root, without user, capability, namespace or path restrictions.
    Full,
    /// `!`: without `User=`, `Group=`, `SupplementaryGroups=`, with the rest.
    KeepIdentity,
    /// `!!`: like `!` only where the kernel has no ambient capabilities, so like nothing at all here.
    KeepIdentityWithoutAmbient,
}

/// One command of an `Exec...=` line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecCommand {
    /// The program: absolute, or a bare name to look up in [`EXEC_SEARCH_PATH`] (or `ExecSearchPath=`).
    pub path: String,
    /// The words, `argv[0]` first. `$` is not expanded yet.
    pub argv: Vec<String>,
    /// `-`: a failure counts as success.
    pub ignore_failure: bool,
    /// `:`: `$` means nothing.
    pub no_expansion: bool,
    /// `+`, `!`, `!!`.
    pub privilege: Privilege,
    /// `|`: through the user's shell.
    pub via_shell: bool,
}

/// Where bare program names are looked up, unless `ExecSearchPath=` says otherwise.
pub const EXEC_SEARCH_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// `StandardInput=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputKind {
    /// `/dev/null`.
    #[default]
    Null,
    /// The unit's terminal, waited for.
    Tty,
    /// The terminal, taken from whoever has it.
    TtyForce,
    /// The terminal, or failure.
    TtyFail,
    /// Bytes from `StandardInputText=` and `StandardInputData=`.
    Data,
    /// A file or a socket file.
    File(String),
    /// The socket that activated the unit.
    Socket,
    /// A named socket fd.
    Fd(String),
}

/// `StandardOutput=`, `StandardError=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputKind {
    /// What stdin is, when that is a terminal or socket, else the log; for stderr: what stdout is.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// The terminal.
    Tty,
    /// The log (`journal`, `syslog` and the default).
    Log,
    /// The log and the console.
    LogConsole,
    /// The kernel log.
    Kmsg,
    /// The kernel log and the console.
    KmsgConsole,
    /// A file, written from its start.
    File(String),
    /// A file, appended to.
    Append(String),
    /// A file, emptied first.
    Truncate(String),
    /// The socket that activated the unit.
    Socket,
    /// A named socket fd.
    Fd(String),
}

/// A resource limit: soft and hard; `None` is infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// The soft limit.
    pub soft: Option<u64>,
    /// The hard limit.
    pub hard: Option<u64>,
}

/// Which limit, numbered as Linux does (`RLIMIT_...`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub enum LimitKind {
    Cpu = 0,
    Fsize = 1,
    Data = 2,
    Stack = 3,
    Core = 4,
    Rss = 5,
    Nproc = 6,
    Nofile = 7,
    Memlock = 8,
    As = 9,
    Locks = 10,
    Sigpending = 11,
    Msgqueue = 12,
    Nice = 13,
    Rtprio = 14,
    Rttime = 15,
}

/// `EnvironmentFile=`: read just before the exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentFile {
    /// A path, or a glob.
    pub path: String,
    /// `-`: a missing file is no error.
    pub optional: bool,
}

/// One kind of directory that is made for a unit: `RuntimeDirectory=` and its siblings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryConfig {
    /// Paths below the kind's root (`/run`, `/var/lib`, ...).
    pub paths: Vec<ManagedDirectory>,
    /// Mode of the last component.
    pub mode: u32,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self { paths: Vec::new(), mode: 0o755 }
    }
}

/// One directory of [`DirectoryConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedDirectory {
    /// Relative path.
    pub path: String,
    /// Symbolic links to make to it (`name:link`), relative to the same root.
    pub links: Vec<String>,
}

/// `RuntimeDirectoryPreserve=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "systemd's own values")]
pub enum PreserveMode {
    #[default]
    No,
    Yes,
    Restart,
}

/// Everything a unit says about how its processes run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecContext {
    /// `User=`: a name or a number.
    pub user: Option<String>,
    /// `Group=`.
    pub group: Option<String>,
    /// `SupplementaryGroups=`.
    pub supplementary_groups: Vec<String>,
    /// `DynamicUser=`.
    pub dynamic_user: bool,
    /// `SetLoginEnvironment=`.
    pub set_login_environment: Option<bool>,
    /// `PAMName=`.
    pub pam_name: Option<String>,
    /// `Environment=`, in the order written (later wins).
    pub environment: Vec<(String, String)>,
    /// `EnvironmentFile=`.
    pub environment_files: Vec<EnvironmentFile>,
    /// `PassEnvironment=`.
    pub pass_environment: Vec<String>,
    /// `UnsetEnvironment=`: names, or `NAME=VALUE`.
    pub unset_environment: Vec<String>,
    /// `ExecSearchPath=`.
    pub exec_search_path: Vec<String>,
    /// `WorkingDirectory=`; `~` is the user's home.
    pub working_directory: Option<String>,
    /// `-` before it: a missing directory is no error.
    pub working_directory_optional: bool,
    /// `RootDirectory=`.
    pub root_directory: Option<String>,
    /// `RootImage=`.
    pub root_image: Option<String>,
    /// `UMask=`.
    pub umask: u32,
    /// `Limit...=`.
    pub limits: BTreeMap<LimitKind, ResourceLimit>,
    /// `Nice=`.
    pub nice: Option<i32>,
    /// `OOMScoreAdjust=`.
    pub oom_score_adjust: Option<i32>,
    /// `CPUSchedulingPolicy=`.
    pub cpu_scheduling_policy: Option<CpuSchedulingPolicy>,
    /// `CPUSchedulingPriority=`.
    pub cpu_scheduling_priority: Option<i32>,
    /// `CPUSchedulingResetOnFork=`.
    pub cpu_scheduling_reset_on_fork: bool,
    /// `CPUAffinity=`: processor numbers.
    pub cpu_affinity: Vec<u32>,
    /// `IOSchedulingClass=`.
    pub io_scheduling_class: Option<IoSchedulingClass>,
    /// `IOSchedulingPriority=`.
    pub io_scheduling_priority: Option<u32>,
    /// `TimerSlackNSec=`.
    pub timer_slack: Option<Duration>,
    /// `CoredumpFilter=`.
    pub coredump_filter: Option<String>,
    /// `Personality=`.
    pub personality: Option<String>,
    /// `IgnoreSIGPIPE=`.
    pub ignore_sigpipe: bool,
    /// `StandardInput=`.
    pub standard_input: InputKind,
    /// `StandardInputText=` and `StandardInputData=`.
    pub standard_input_data: Vec<u8>,
    /// `StandardOutput=`.
    pub standard_output: OutputKind,
    /// `StandardError=`.
    pub standard_error: OutputKind,
    /// `TTYPath=`.
    pub tty_path: Option<String>,
    /// `TTYReset=`.
    pub tty_reset: bool,
    /// `TTYVHangup=`.
    pub tty_vhangup: bool,
    /// `TTYVTDisallocate=`.
    pub tty_vt_disallocate: bool,
    /// `TTYRows=`, `TTYColumns=`.
    pub tty_size: (Option<u16>, Option<u16>),
    /// `SyslogIdentifier=`.
    pub syslog_identifier: Option<String>,
    /// `SyslogFacility=`, as its number.
    pub syslog_facility: u8,
    /// `SyslogLevel=`, as its number.
    pub syslog_level: u8,
    /// `SyslogLevelPrefix=`.
    pub syslog_level_prefix: bool,
    /// `LogLevelMax=`, as its number.
    pub log_level_max: Option<u8>,
    /// `LogExtraFields=`.
    pub log_extra_fields: Vec<String>,
    /// `LogRateLimitIntervalSec=`.
    pub log_rate_limit_interval: Option<Duration>,
    /// `LogRateLimitBurst=`.
    pub log_rate_limit_burst: Option<u32>,
    /// `RuntimeDirectory=`.
    pub runtime_directory: DirectoryConfig,
    /// `RuntimeDirectoryPreserve=`.
    pub runtime_directory_preserve: PreserveMode,
    /// `StateDirectory=`.
    pub state_directory: DirectoryConfig,
    /// `CacheDirectory=`.
    pub cache_directory: DirectoryConfig,
    /// `LogsDirectory=`.
    pub logs_directory: DirectoryConfig,
    /// `ConfigurationDirectory=`.
    pub configuration_directory: DirectoryConfig,
    /// `TimeoutCleanSec=`.
    pub timeout_clean: Option<Duration>,
    /// `LoadCredential=`, `SetCredential=`, `ImportCredential=`.
    pub credentials: Vec<Credential>,
    /// `NoNewPrivileges=`, also set where a seccomp filter needs it for an ordinary user.
    pub no_new_privileges: bool,
    /// `SecureBits=`.
    pub secure_bits: Vec<String>,
    /// `CapabilityBoundingSet=`; `None` is all.
    pub capability_bounding_set: Option<CapabilitySet>,
    /// `AmbientCapabilities=`.
    pub ambient_capabilities: Option<CapabilitySet>,
    /// `ProtectSystem=`.
    pub protect_system: ProtectSystem,
    /// `ProtectHome=`.
    pub protect_home: ProtectHome,
    /// `ProtectProc=`.
    pub protect_proc: ProtectProc,
    /// `ProcSubset=pid`.
    pub proc_subset_pid: bool,
    /// `ProtectKernelTunables=`.
    pub protect_kernel_tunables: bool,
    /// `ProtectKernelModules=`.
    pub protect_kernel_modules: bool,
    /// `ProtectKernelLogs=`.
    pub protect_kernel_logs: bool,
    /// `ProtectControlGroups=`.
    pub protect_control_groups: bool,
    /// `ProtectClock=`.
    pub protect_clock: bool,
    /// `ProtectHostname=`.
    pub protect_hostname: bool,
    /// `PrivateTmp=`.
    pub private_tmp: PrivateTmp,
    /// `PrivateDevices=`.
    pub private_devices: bool,
    /// `PrivateNetwork=`.
    pub private_network: bool,
    /// `NetworkNamespacePath=`.
    pub network_namespace_path: Option<String>,
    /// `PrivateIPC=`.
    pub private_ipc: bool,
    /// `IPCNamespacePath=`.
    pub ipc_namespace_path: Option<String>,
    /// `PrivatePIDs=`.
    pub private_pids: bool,
    /// `PrivateUsers=`: anything but no.
    pub private_users: Option<String>,
    /// `PrivateMounts=`.
    pub private_mounts: bool,
    /// `MountAPIVFS=`.
    pub mount_api_vfs: bool,
    /// `MountFlags=`.
    pub mount_flags: Option<MountPropagation>,
    /// `ReadWritePaths=`.
    pub read_write_paths: Vec<PathRule>,
    /// `ReadOnlyPaths=`.
    pub read_only_paths: Vec<PathRule>,
    /// `InaccessiblePaths=`.
    pub inaccessible_paths: Vec<PathRule>,
    /// `ExecPaths=`.
    pub exec_paths: Vec<PathRule>,
    /// `NoExecPaths=`.
    pub no_exec_paths: Vec<PathRule>,
    /// `TemporaryFileSystem=`: path and mount options.
    pub temporary_file_systems: Vec<(String, String)>,
    /// `BindPaths=`, `BindReadOnlyPaths=`.
    pub bind_paths: Vec<BindPath>,
    /// `SystemCallFilter=`.
    pub system_call_filter: Vec<SyscallRule>,
    /// `SystemCallErrorNumber=`: an errno name, `kill`, or nothing (kill).
    pub system_call_error_number: Option<String>,
    /// `SystemCallArchitectures=`.
    pub system_call_architectures: Vec<String>,
    /// `SystemCallLog=`.
    pub system_call_log: Vec<SyscallRule>,
    /// `RestrictAddressFamilies=`.
    pub restrict_address_families: Option<AllowDenyList>,
    /// `RestrictFileSystems=`.
    pub restrict_file_systems: Option<AllowDenyList>,
    /// `RestrictNamespaces=`.
    pub restrict_namespaces: Option<RestrictNamespaces>,
    /// `RestrictRealtime=`.
    pub restrict_realtime: bool,
    /// `RestrictSUIDSGID=`.
    pub restrict_suid_sgid: bool,
    /// `MemoryDenyWriteExecute=`.
    pub memory_deny_write_execute: bool,
    /// `LockPersonality=`.
    pub lock_personality: bool,
    /// `RemoveIPC=`.
    pub remove_ipc: bool,
    /// `KeyringMode=`.
    pub keyring_mode: KeyringMode,
    /// `SELinuxContext=`, `AppArmorProfile=`, `SmackProcessLabel=`: directive and value.
    pub security_labels: Vec<(String, String)>,
    /// `UtmpIdentifier=`.
    pub utmp_identifier: Option<String>,
}

impl Default for ExecContext {
    fn default() -> Self {
        Self {
            user: None,
            group: None,
            supplementary_groups: Vec::new(),
            dynamic_user: false,
            set_login_environment: None,
            pam_name: None,
            environment: Vec::new(),
            environment_files: Vec::new(),
            pass_environment: Vec::new(),
            unset_environment: Vec::new(),
            exec_search_path: Vec::new(),
            working_directory: None,
            working_directory_optional: false,
            root_directory: None,
            root_image: None,
            umask: 0o022,
            limits: BTreeMap::new(),
            nice: None,
            oom_score_adjust: None,
            cpu_scheduling_policy: None,
            cpu_scheduling_priority: None,
            cpu_scheduling_reset_on_fork: false,
            cpu_affinity: Vec::new(),
            io_scheduling_class: None,
            io_scheduling_priority: None,
            timer_slack: None,
            coredump_filter: None,
            personality: None,
            ignore_sigpipe: true,
            standard_input: InputKind::Null,
            standard_input_data: Vec::new(),
            standard_output: OutputKind::Inherit,
            standard_error: OutputKind::Inherit,
            tty_path: None,
            tty_reset: false,
            tty_vhangup: false,
            tty_vt_disallocate: false,
            tty_size: (None, None),
            syslog_identifier: None,
            syslog_facility: 3,
            syslog_level: 6,
            syslog_level_prefix: true,
            log_level_max: None,
            log_extra_fields: Vec::new(),
            log_rate_limit_interval: None,
            log_rate_limit_burst: None,
            runtime_directory: DirectoryConfig::default(),
            runtime_directory_preserve: PreserveMode::No,
            state_directory: DirectoryConfig::default(),
            cache_directory: DirectoryConfig::default(),
            logs_directory: DirectoryConfig::default(),
            configuration_directory: DirectoryConfig::default(),
            timeout_clean: None,
            credentials: Vec::new(),
            no_new_privileges: false,
            secure_bits: Vec::new(),
            capability_bounding_set: None,
            ambient_capabilities: None,
            protect_system: ProtectSystem::No,
            protect_home: ProtectHome::No,
            protect_proc: ProtectProc::Default,
            proc_subset_pid: false,
            protect_kernel_tunables: false,
            protect_kernel_modules: false,
            protect_kernel_logs: false,
            protect_control_groups: false,
            protect_clock: false,
            protect_hostname: false,
            private_tmp: PrivateTmp::No,
            private_devices: false,
            private_network: false,
            network_namespace_path: None,
            private_ipc: false,
            ipc_namespace_path: None,
            private_pids: false,
            private_users: None,
            private_mounts: false,
            mount_api_vfs: false,
            mount_flags: None,
            read_write_paths: Vec::new(),
            read_only_paths: Vec::new(),
            inaccessible_paths: Vec::new(),
            exec_paths: Vec::new(),
            no_exec_paths: Vec::new(),
            temporary_file_systems: Vec::new(),
            bind_paths: Vec::new(),
            system_call_filter: Vec::new(),
            system_call_error_number: None,
            system_call_architectures: Vec::new(),
            system_call_log: Vec::new(),
            restrict_address_families: None,
            restrict_file_systems: None,
            restrict_namespaces: None,
            restrict_realtime: false,
            restrict_suid_sgid: false,
            memory_deny_write_execute: false,
            lock_personality: false,
            remove_ipc: false,
            keyring_mode: KeyringMode::Private,
            security_labels: Vec::new(),
            utmp_identifier: None,
        }
    }
}
