//! Small facts about this host and its links that are read where they are needed.

use super::netlink::Link;
use std::path::Path;

/// Milliseconds since the kernel started, sleep included: a lease runs out while the host sleeps, too.
pub fn now_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a link is a network card rather than something made by software.
pub fn is_hardware(link: &Link) -> bool {
    link.ethernet && link.kind.is_none() && !link.loopback
}

/// A link's hardware address as people write it.
pub fn mac_text(link: &Link) -> String {
    link.mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")).unwrap_or_default()
}

/// The driver of a link, where it has one.
pub fn driver_of(root: &Path, link: &str) -> Option<String> {
    let target = std::fs::read_link(root.join("sys/class/net").join(link).join("device/driver")).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// The name that somebody gave this host; the image's own default is nobody's.
pub fn own_hostname(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join("etc/hostname")).ok()?;
    let name = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    (!["garboard", "localhost", "(none)"].contains(&name)).then(|| name.to_owned())
}

/// A number that differs from start to start.
pub fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    u64::from_ne_bytes(bytes) ^ now_ms()
}
