//! Resource knobs.

use std::time::Duration;

use crate::resources::{CgroupConfig, CpuWeight, Delegate, DevicePolicy, DeviceRule, DeviceValue};
use crate::value::{self, AddressRange, ValueError, expected, parse_bool, parse_number_set, parse_per_myriad, parse_size};
use crate::words::{Escapes, split};

use super::setters::{choice, clean_path, expand, limit, list, list_with, optional_number, optional_span, optional_text, optional_unit};
use super::{Effect, Input, Outcome, Table, ignored, refuse, silent, warn, yes};

fn cpu_weight(slot: &mut Option<CpuWeight>, input: &Input<'_>) -> Outcome {
    *slot = match input.value {
        "" => None,
        "idle" => Some(CpuWeight::Idle),
        text => Some(CpuWeight::Weight(weight(text)?)),
    };
    Ok(Effect::from(slot.is_some()))
}

fn weight(text: &str) -> Result<u64, ValueError> {
    text.parse().ok().filter(|weight| (1..=10_000).contains(weight)).ok_or_else(|| expected(text, "a weight from 1 to 10000"))
}

/// `CPUShares=` of old: 1024 shares are the default weight of 100.
fn cpu_shares(slot: &mut Option<CpuWeight>, input: &Input<'_>) -> Outcome {
    let shares: u64 = input.value.parse().map_err(|_| expected(input.value, "a number of shares"))?;
    *slot = Some(CpuWeight::Weight((shares.saturating_mul(100) / 1024).clamp(1, 10_000)));
    Ok(Effect::Active)
}

/// `BlockIOWeight=` of old: 500 is the default weight of 100.
fn block_io_weight(slot: &mut Option<u64>, input: &Input<'_>) -> Outcome {
    let old: u64 = input.value.parse().map_err(|_| expected(input.value, "a weight from 10 to 1000"))?;
    *slot = Some((old.saturating_mul(100) / 500).clamp(1, 10_000));
    Ok(Effect::Active)
}

fn quota(slot: &mut Option<Duration>, input: &Input<'_>) -> Outcome {
    *slot = if input.value.is_empty() {
        None
    } else {
        let part = parse_per_myriad(input.value)?;
        if part == 0 {
            return Err(expected(input.value, "a percentage above zero"));
        }
        // 100 % is one second of processor time per second.
        Some(Duration::from_micros(u64::from(part) * 100))
    };
    Ok(Effect::from(slot.is_some()))
}

fn numbers(slot: &mut Vec<u32>, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    slot.extend(parse_number_set(&expand(input)?)?);
    slot.sort_unstable();
    slot.dedup();
    Ok(Effect::Active)
}

fn device_values(slot: &mut Vec<DeviceValue>, input: &Input<'_>, parse: fn(&str) -> Result<u64, ValueError>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    let text = expand(input)?;
    let words = split(&text, Escapes::C)?;
    let [path, value] = words.as_slice() else { return Err(expected(&text, "a device and a value")) };
    slot.push(DeviceValue { path: clean_path(path)?, value: parse(value)? });
    Ok(Effect::Active)
}

fn rate(text: &str) -> Result<u64, ValueError> {
    if text == "infinity" { Ok(u64::MAX) } else { parse_size(text, 1000) }
}

fn microseconds(text: &str) -> Result<u64, ValueError> {
    Ok(u64::try_from(value::parse_finite_span(text)?.as_micros()).unwrap_or(u64::MAX))
}

fn delegate(slot: &mut Delegate, input: &Input<'_>) -> Outcome {
    *slot = match parse_bool(input.value) {
        Ok(true) => Delegate::All,
        Ok(false) => Delegate::No,
        Err(_) => Delegate::Controllers(split(input.value, Escapes::C)?),
    };
    Ok(Effect::from(slot.is_on()))
}

fn device_allow(slot: &mut Vec<DeviceRule>, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    let text = expand(input)?;
    let words = split(&text, Escapes::C)?;
    let (device, rights) = match words.as_slice() {
        [device] => (device, "rwm"),
        [device, rights] => (device, rights.as_str()),
        _ => return Err(expected(&text, "a device and rights out of r, w, m")),
    };
    if !(device.starts_with("/dev/")
        || device.starts_with("char-")
        || device.starts_with("block-")
        || device.starts_with("/run/systemd/inaccessible/"))
    {
        return Err(expected(device, "a device node below /dev, char-NAME or block-NAME"));
    }
    if rights.is_empty() || !rights.chars().all(|right| "rwm".contains(right)) {
        return Err(expected(rights, "rights out of r, w, m"));
    }
    let has = |right| rights.contains(right);
    slot.push(DeviceRule { device: device.clone(), read: has('r'), write: has('w'), mknod: has('m') });
    Ok(Effect::Active)
}

fn addresses(slot: &mut Vec<AddressRange>, input: &Input<'_>) -> Outcome {
    let mut words = Vec::new();
    list_with(&mut words, input, Escapes::C, value::parse_address_ranges)?;
    if input.value.is_empty() {
        slot.clear();
    }
    slot.extend(words.into_iter().flatten());
    Ok(Effect::from(!slot.is_empty()))
}

fn managed_oom(slot: &mut bool, input: &Input<'_>) -> Outcome {
    match input.value {
        "auto" | "" => Ok(Effect::None),
        "kill" => {
            *slot = true;
            Ok(Effect::Active)
        }
        other => Err(expected(other, "'auto' or 'kill'")),
    }
}

pub(super) static RESOURCES: Table<CgroupConfig> = Table::new(&[
    yes("Slice", |c, i| {
        let outcome = optional_unit(&mut c.slice, i)?;
        if let Some(slice) = c.slice.take_if(|slice| slice.kind() != crate::UnitKind::Slice) {
            return Err(expected(slice.as_str(), "a slice unit"));
        }
        Ok(outcome)
    }),
    yes("Delegate", |c, i| delegate(&mut c.delegate, i)),
    yes("DelegateSubgroup", |c, i| {
        let name = expand(i)?;
        if name.contains('/') || matches!(name.as_str(), "." | "..") {
            return Err(expected(&name, "the name of a group"));
        }
        optional_text(&mut c.delegate_subgroup, i)
    }),
    yes("CPUWeight", |c, i| cpu_weight(&mut c.cpu_weight, i)),
    yes("StartupCPUWeight", |c, i| cpu_weight(&mut c.startup_cpu_weight, i)),
    yes("CPUShares", |c, i| cpu_shares(&mut c.cpu_weight, i)),
    yes("StartupCPUShares", |c, i| cpu_shares(&mut c.startup_cpu_weight, i)),
    yes("CPUQuota", |c, i| quota(&mut c.cpu_quota_per_sec, i)),
    yes("CPUQuotaPeriodSec", |c, i| optional_span(&mut c.cpu_quota_period, i)),
    yes("AllowedCPUs", |c, i| numbers(&mut c.allowed_cpus, i)),
    yes("AllowedMemoryNodes", |c, i| numbers(&mut c.allowed_memory_nodes, i)),
    ignored("StartupAllowedCPUs"),
    ignored("StartupAllowedMemoryNodes"),
    yes("MemoryMin", |c, i| limit(&mut c.memory_min, i)),
    yes("MemoryLow", |c, i| limit(&mut c.memory_low, i)),
    yes("MemoryHigh", |c, i| limit(&mut c.memory_high, i)),
    yes("MemoryMax", |c, i| limit(&mut c.memory_max, i)),
    yes("MemoryLimit", |c, i| limit(&mut c.memory_max, i)),
    yes("MemorySwapMax", |c, i| limit(&mut c.memory_swap_max, i)),
    yes("MemoryZSwapMax", |c, i| limit(&mut c.memory_zswap_max, i)),
    ignored("DefaultMemoryMin"),
    ignored("DefaultMemoryLow"),
    ignored("StartupMemoryLow"),
    ignored("StartupMemoryHigh"),
    ignored("StartupMemoryMax"),
    ignored("StartupMemorySwapMax"),
    ignored("MemoryZSwapWriteback"),
    yes("TasksMax", |c, i| limit(&mut c.tasks_max, i)),
    yes("IOWeight", |c, i| optional_number(&mut c.io_weight, i, 1..=10_000, "a weight from 1 to 10000")),
    yes("StartupIOWeight", |c, i| optional_number(&mut c.startup_io_weight, i, 1..=10_000, "a weight from 1 to 10000")),
    yes("BlockIOWeight", |c, i| block_io_weight(&mut c.io_weight, i)),
    yes("StartupBlockIOWeight", |c, i| block_io_weight(&mut c.startup_io_weight, i)),
    yes("IODeviceWeight", |c, i| device_values(&mut c.io_device_weight, i, weight)),
    yes("IOReadBandwidthMax", |c, i| device_values(&mut c.io_read_bandwidth_max, i, rate)),
    yes("IOWriteBandwidthMax", |c, i| device_values(&mut c.io_write_bandwidth_max, i, rate)),
    yes("BlockIOReadBandwidth", |c, i| device_values(&mut c.io_read_bandwidth_max, i, rate)),
    yes("BlockIOWriteBandwidth", |c, i| device_values(&mut c.io_write_bandwidth_max, i, rate)),
    yes("IOReadIOPSMax", |c, i| device_values(&mut c.io_read_iops_max, i, rate)),
    yes("IOWriteIOPSMax", |c, i| device_values(&mut c.io_write_iops_max, i, rate)),
    yes("IODeviceLatencyTargetSec", |c, i| device_values(&mut c.io_device_latency_target, i, microseconds)),
    ignored("BlockIODeviceWeight"),
    refuse("DevicePolicy", |c, i| {
        let policies = [("auto", DevicePolicy::Auto), ("closed", DevicePolicy::Closed), ("strict", DevicePolicy::Strict)];
        choice(&mut c.device_policy, i, &policies, "a device policy (auto, closed, strict)")
    }),
    refuse("DeviceAllow", |c, i| device_allow(&mut c.device_allow, i)),
    warn("IPAddressAllow", |c, i| addresses(&mut c.ip_address_allow, i)),
    refuse("IPAddressDeny", |c, i| addresses(&mut c.ip_address_deny, i)),
    warn("SocketBindAllow", |c, i| list(&mut c.socket_bind_allow, i)),
    refuse("SocketBindDeny", |c, i| list(&mut c.socket_bind_deny, i)),
    refuse("RestrictNetworkInterfaces", |c, i| list(&mut c.restrict_network_interfaces, i)),
    refuse("IPIngressFilterPath", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    refuse("IPEgressFilterPath", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    refuse("BPFProgram", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    ignored("NFTSet"),
    ignored("CoredumpReceive"),
    warn("DisableControllers", |c, i| list(&mut c.disable_controllers, i)),
    warn("ManagedOOMSwap", |c, i| managed_oom(&mut c.managed_oom, i)),
    warn("ManagedOOMMemoryPressure", |c, i| managed_oom(&mut c.managed_oom, i)),
    silent("ManagedOOMMemoryPressureLimit"),
    silent("ManagedOOMMemoryPressureDurationSec"),
    silent("ManagedOOMPreference"),
    // Always on.
    silent("CPUAccounting"),
    silent("MemoryAccounting"),
    silent("TasksAccounting"),
    silent("IOAccounting"),
    silent("BlockIOAccounting"),
    silent("IPAccounting"),
    silent("MemoryPressureWatch"),
    silent("MemoryPressureThresholdSec"),
]);
