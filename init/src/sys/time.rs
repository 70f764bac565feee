//! Clocks.

/// Seconds since the kernel started, by `CLOCK_MONOTONIC`.
#[must_use]
pub fn uptime() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    #[allow(clippy::cast_precision_loss)]
    let seconds = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    (seconds * 1000.0).round() / 1000.0
}
