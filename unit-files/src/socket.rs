//! `[Socket]`.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exec::{ExecCommand, ExecContext};
use crate::name::UnitName;
use crate::resources::CgroupConfig;
use crate::service::{DEFAULT_TIMEOUT, KillConfig};

/// What is listened on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listen {
    /// `ListenStream=`.
    Stream(SocketAddress),
    /// `ListenDatagram=`.
    Datagram(SocketAddress),
    /// `ListenSequentialPacket=`.
    SequentialPacket(SocketAddress),
    /// `ListenFIFO=`.
    Fifo(String),
    /// `ListenSpecial=`.
    Special(String),
    /// `ListenNetlink=`: family and multicast group.
    Netlink(String, u32),
    /// `ListenMessageQueue=`.
    MessageQueue(String),
    /// `ListenUSBFunction=`.
    UsbFunction(String),
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketAddress {
    /// A path.
    Unix(String),
    /// `@name`.
    Abstract(String),
    /// A port on all addresses (IPv6 and IPv4 by default).
    Port(u16),
    /// An address and a port, with an interface for link-local ones.
    Inet(std::net::SocketAddr, Option<String>),
    /// `vsock:CID:PORT`; no CID is any.
    Vsock(Option<u32>, u32),
}

/// `BindIPv6Only=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "systemd's own values")]
pub enum BindIpv6Only {
    #[default]
    Default,
    Both,
    Ipv6Only,
}

/// Everything in `[Socket]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketConfig {
    /// `Listen...=`, in order: the order of the passed fds.
    pub listen: Vec<Listen>,
    /// `SocketProtocol=`.
    pub protocol: Option<String>,
    /// `BindIPv6Only=`.
    pub bind_ipv6_only: BindIpv6Only,
    /// `Backlog=`.
    pub backlog: u32,
    /// `BindToDevice=`.
    pub bind_to_device: Option<String>,
    /// `SocketUser=`.
    pub socket_user: Option<String>,
    /// `SocketGroup=`.
    pub socket_group: Option<String>,
    /// `SocketMode=`.
    pub socket_mode: u32,
    /// `DirectoryMode=`.
    pub directory_mode: u32,
    /// `Accept=`.
    pub accept: bool,
    /// `Writable=`.
    pub writable: bool,
    /// `FlushPending=`.
    pub flush_pending: bool,
    /// `MaxConnections=`.
    pub max_connections: u32,
    /// `MaxConnectionsPerSource=`; zero is no limit.
    pub max_connections_per_source: u32,
    /// `KeepAlive=`.
    pub keep_alive: bool,
    /// `KeepAliveTimeSec=`.
    pub keep_alive_time: Option<Duration>,
    /// `KeepAliveIntervalSec=`.
    pub keep_alive_interval: Option<Duration>,
    /// `KeepAliveProbes=`.
    pub keep_alive_probes: Option<u32>,
    /// `NoDelay=`.
    pub no_delay: bool,
    /// `Priority=`.
    pub priority: Option<i32>,
    /// `DeferAcceptSec=`.
    pub defer_accept: Option<Duration>,
    /// `ReceiveBuffer=`.
    pub receive_buffer: Option<u64>,
    /// `SendBuffer=`.
    pub send_buffer: Option<u64>,
    /// `IPTOS=`.
    pub ip_tos: Option<i32>,
    /// `IPTTL=`.
    pub ip_ttl: Option<i32>,
    /// `Mark=`.
    pub mark: Option<u32>,
    /// `ReusePort=`.
    pub reuse_port: bool,
    /// `FreeBind=`.
    pub free_bind: bool,
    /// `Transparent=`.
    pub transparent: bool,
    /// `Broadcast=`.
    pub broadcast: bool,
    /// `PassCredentials=`.
    pub pass_credentials: bool,
    /// `PassSecurity=`.
    pub pass_security: bool,
    /// `PassPacketInfo=`.
    pub pass_packet_info: bool,
    /// `TCPCongestion=`.
    pub tcp_congestion: Option<String>,
    /// `PipeSize=`.
    pub pipe_size: Option<u64>,
    /// `MessageQueueMaxMessages=`, `MessageQueueMessageSize=`.
    pub message_queue: (Option<u64>, Option<u64>),
    /// `Service=`; else the service of the same name (`name@.service` with `accept`).
    pub service: Option<UnitName>,
    /// `RemoveOnStop=`.
    pub remove_on_stop: bool,
    /// `Symlinks=`.
    pub symlinks: Vec<String>,
    /// `FileDescriptorName=`; else the unit's name (`connection` with `accept`).
    pub fd_name: Option<String>,
    /// `TriggerLimitIntervalSec=`.
    pub trigger_limit_interval: Option<Duration>,
    /// `TriggerLimitBurst=`.
    pub trigger_limit_burst: Option<u32>,
    /// `ExecStartPre=`.
    pub exec_start_pre: Vec<ExecCommand>,
    /// `ExecStartPost=`.
    pub exec_start_post: Vec<ExecCommand>,
    /// `ExecStopPre=`.
    pub exec_stop_pre: Vec<ExecCommand>,
    /// `ExecStopPost=`.
    pub exec_stop_post: Vec<ExecCommand>,
    /// `TimeoutSec=`; `None` is for ever.
    pub timeout: Option<Duration>,
    /// How processes are killed.
    pub kill: KillConfig,
    /// What the commands run in.
    pub exec: Arc<ExecContext>,
    /// Resource knobs.
    pub cgroup: Arc<CgroupConfig>,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            protocol: None,
            bind_ipv6_only: BindIpv6Only::Default,
            backlog: 4096,
            bind_to_device: None,
            socket_user: None,
            socket_group: None,
            socket_mode: 0o666,
            directory_mode: 0o755,
            accept: false,
            writable: false,
            flush_pending: false,
            max_connections: 64,
            max_connections_per_source: 0,
            keep_alive: false,
            keep_alive_time: None,
            keep_alive_interval: None,
            keep_alive_probes: None,
            no_delay: false,
            priority: None,
            defer_accept: None,
            receive_buffer: None,
            send_buffer: None,
            ip_tos: None,
            ip_ttl: None,
            mark: None,
            reuse_port: false,
            free_bind: false,
            transparent: false,
            broadcast: false,
            pass_credentials: false,
            pass_security: false,
            pass_packet_info: false,
            tcp_congestion: None,
            pipe_size: None,
            message_queue: (None, None),
            service: None,
            remove_on_stop: false,
            symlinks: Vec::new(),
            fd_name: None,
            trigger_limit_interval: None,
            trigger_limit_burst: None,
            exec_start_pre: Vec::new(),
            exec_start_post: Vec::new(),
            exec_stop_pre: Vec::new(),
            exec_stop_post: Vec::new(),
            timeout: Some(DEFAULT_TIMEOUT),
            kill: KillConfig::default(),
            exec: Arc::default(),
            cgroup: Arc::default(),
        }
    }
}
