//! What PID 1 tells the exec helper, as JSON in a memory file.

use serde::{Deserialize, Serialize};
use unit_files::exec::{ExecCommand, ExecContext};

/// fd of the spec in the helper.
pub const SPEC_FD: i32 = 3;
/// fd of the pipe on which the helper says why it could not execute; closed by the exec itself.
pub const ERROR_FD: i32 = 4;
/// fd of the pipe that ends when `Type=idle` services may go; there only if [`Spec::idle`].
pub const EXTRA_FD: i32 = 5;

/// Everything about one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Unit name.
    pub unit: String,
    /// The command line.
    pub command: ExecCommand,
    /// What it runs in.
    pub context: ExecContext,
    /// Variables that PID 1 knows: `MAINPID`, `NOTIFY_SOCKET`, ...
    pub environment: Vec<(String, String)>,
    /// Names of the passed sockets, from fd 5 (or 6 with `idle`) on.
    pub fd_names: Vec<String>,
    /// Sockets are passed as `LISTEN_FDS` rather than only as stdin or stdout.
    pub listen: bool,
    /// `NonBlocking=`.
    pub non_blocking: bool,
    /// Microseconds for `WATCHDOG_USEC`.
    pub watchdog: Option<u64>,
    /// Wait on [`EXTRA_FD`], at most five seconds.
    pub idle: bool,
    /// Invocation, 32 hexadecimal digits.
    pub invocation: String,
    /// Log daemon's stream socket.
    pub log_stream: String,
    /// Roots of `RuntimeDirectory=`, `StateDirectory=`, `CacheDirectory=`, `LogsDirectory=`, `ConfigurationDirectory=`.
    pub roots: [String; 5],
    /// Path of the control group's `cgroup.procs` to write to first, where the kernel could not place the process itself.
    pub join_cgroup: Option<String>,
    /// Only `ExecStart=` runs as `User=` (`PermissionsStartOnly=`), and this is not it.
    pub keep_identity: bool,
}

/// Why the helper could not execute, on [`ERROR_FD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code, systemd's numbers.
    pub code: i32,
    /// What and why, one line.
    pub message: String,
}

/// systemd's exit codes for what goes wrong before a program runs.
pub mod exit {
    #![allow(missing_docs)]
    pub const CHDIR: i32 = 200;
    pub const NICE: i32 = 201;
    pub const FDS: i32 = 202;
    pub const EXEC: i32 = 203;
    pub const LIMITS: i32 = 205;
    pub const OOM_ADJUST: i32 = 206;
    pub const STDIN: i32 = 208;
    pub const STDOUT: i32 = 209;
    pub const IOPRIO: i32 = 211;
    pub const CPUAFFINITY: i32 = 212;
    pub const SETSCHEDULER: i32 = 214;
    pub const GROUP: i32 = 216;
    pub const USER: i32 = 217;
    pub const CAPABILITIES: i32 = 218;
    pub const CGROUP: i32 = 219;
    pub const STDERR: i32 = 222;
    pub const NAMESPACE: i32 = 226;
    pub const PERSONALITY: i32 = 230;
    pub const NO_NEW_PRIVILEGES: i32 = 227;
    pub const NETWORK: i32 = 225;
    pub const SECCOMP: i32 = 228;
    pub const RUNTIME_DIRECTORY: i32 = 233;
    pub const STATE_DIRECTORY: i32 = 238;
    pub const CACHE_DIRECTORY: i32 = 239;
    pub const LOGS_DIRECTORY: i32 = 240;
    pub const CONFIGURATION_DIRECTORY: i32 = 241;
    pub const CREDENTIALS: i32 = 243;
}
