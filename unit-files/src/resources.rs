//! Resource knobs: what a unit wants of its cgroup.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::UnitName;
use crate::value::AddressRange;

/// A weight for the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuWeight {
    /// 1 to 10000.
    Weight(u64),
    /// `cpu.idle`.
    Idle,
}

/// A memory or task limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// None.
    Infinity,
    /// Bytes, or tasks.
    Absolute(u64),
    /// Hundredths of a percent of what the machine has.
    PerMyriad(u32),
}

impl Limit {
    /// The number to write, given the machine's total; `None` is `max`.
    #[must_use]
    pub fn resolve(self, total: u64) -> Option<u64> {
        match self {
            Self::Infinity => None,
            Self::Absolute(value) => Some(value),
            Self::PerMyriad(part) => Some(u64::try_from(u128::from(total) * u128::from(part) / 10_000).unwrap_or(u64::MAX)),
        }
    }
}

/// `DevicePolicy=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DevicePolicy {
    /// All, unless `DeviceAllow=` is used.
    #[default]
    Auto,
    /// The pseudo devices and those listed.
    Closed,
    /// Only those listed.
    Strict,
}

/// `DeviceAllow=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// A device node, or `char-NAME`, `block-NAME` (NAME may be a glob).
    pub device: String,
    /// Read.
    pub read: bool,
    /// Write.
    pub write: bool,
    /// Make the node.
    pub mknod: bool,
}

/// A per-device limit or weight: a path and a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceValue {
    /// A device node, or a file whose device is meant.
    pub path: String,
    /// Weight, bytes or operations per second, microseconds.
    pub value: u64,
}

/// `Delegate=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delegate {
    /// The subtree is ours.
    #[default]
    No,
    /// The unit manages it, with every controller.
    All,
    /// The unit manages it, with these controllers.
    Controllers(Vec<String>),
}

impl Delegate {
    /// Whether the unit manages its own subtree.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !matches!(self, Self::No)
    }
}

/// Everything a unit says about its cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupConfig {
    /// `Slice=`; `None` is `system.slice`.
    pub slice: Option<UnitName>,
    /// `Delegate=`.
    pub delegate: Delegate,
    /// `DelegateSubgroup=`.
    pub delegate_subgroup: Option<String>,
    /// `CPUWeight=`, or what `CPUShares=` comes to.
    pub cpu_weight: Option<CpuWeight>,
    /// `StartupCPUWeight=`.
    pub startup_cpu_weight: Option<CpuWeight>,
    /// `CPUQuota=`: time per second; `None` is no limit.
    pub cpu_quota_per_sec: Option<Duration>,
    /// `CPUQuotaPeriodSec=`; `None` is 100 ms.
    pub cpu_quota_period: Option<Duration>,
    /// `AllowedCPUs=`: processor numbers.
    pub allowed_cpus: Vec<u32>,
    /// `AllowedMemoryNodes=`.
    pub allowed_memory_nodes: Vec<u32>,
    /// `MemoryMin=`.
    pub memory_min: Option<Limit>,
    /// `MemoryLow=`.
    pub memory_low: Option<Limit>,
    /// `MemoryHigh=`.
    pub memory_high: Option<Limit>,
    /// `MemoryMax=`, or the old `MemoryLimit=`.
    pub memory_max: Option<Limit>,
    /// `MemorySwapMax=`.
    pub memory_swap_max: Option<Limit>,
    /// `MemoryZSwapMax=`.
    pub memory_zswap_max: Option<Limit>,
    /// `TasksMax=`; `None` is the default, 15 % of what the machine allows.
    pub tasks_max: Option<Limit>,
    /// `IOWeight=`.
    pub io_weight: Option<u64>,
    /// `StartupIOWeight=`.
    pub startup_io_weight: Option<u64>,
    /// `IODeviceWeight=`.
    pub io_device_weight: Vec<DeviceValue>,
    /// `IOReadBandwidthMax=`.
    pub io_read_bandwidth_max: Vec<DeviceValue>,
    /// `IOWriteBandwidthMax=`.
    pub io_write_bandwidth_max: Vec<DeviceValue>,
    /// `IOReadIOPSMax=`.
    pub io_read_iops_max: Vec<DeviceValue>,
    /// `IOWriteIOPSMax=`.
    pub io_write_iops_max: Vec<DeviceValue>,
    /// `IODeviceLatencyTargetSec=`, in microseconds.
    pub io_device_latency_target: Vec<DeviceValue>,
    /// `DevicePolicy=`.
    pub device_policy: DevicePolicy,
    /// `DeviceAllow=`.
    pub device_allow: Vec<DeviceRule>,
    /// `IPAddressAllow=`.
    pub ip_address_allow: Vec<AddressRange>,
    /// `IPAddressDeny=`; what is allowed as well is allowed.
    pub ip_address_deny: Vec<AddressRange>,
    /// `SocketBindAllow=`, as written.
    pub socket_bind_allow: Vec<String>,
    /// `SocketBindDeny=`, as written.
    pub socket_bind_deny: Vec<String>,
    /// `RestrictNetworkInterfaces=`, as written.
    pub restrict_network_interfaces: Vec<String>,
    /// `DisableControllers=`.
    pub disable_controllers: Vec<String>,
    /// `ManagedOOMSwap=`, `ManagedOOMMemoryPressure=`: set to `kill`.
    pub managed_oom: bool,
}
