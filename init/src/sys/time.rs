//! Clocks.

/// Seconds since the kernel started, by `CLOCK_MONOTONIC`.
#[must_use]
pub fn uptime() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    #[allow(clippy::cast_precision_loss)]
    let seconds = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    (seconds * 1000.0).round() / 1000.0
}

/// Whether the kernel has been told that the clock is kept in step.
#[must_use]
pub fn is_synchronized() -> bool {
    // SAFETY: all-zero is a valid `timex`, and with no mode set the call only fills it in.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live value of the right type.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    answer >= 0 && state.status & libc::STA_UNSYNC == 0
}
