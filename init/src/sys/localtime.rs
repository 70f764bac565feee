//! Local time as `/etc/localtime` says, which the C library reads itself.

/// A time on the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CivilTime {
    /// Year, such as 2026.
    pub year: i32,
    /// 1 to 12.
    pub month: i32,
    /// 1 to 31.
    pub day: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 60.
    pub second: i32,
    /// Seconds east of Greenwich.
    pub offset: i64,
}

/// The calendar's time for seconds since 1970, local or UTC.
pub fn civil(seconds: i64, utc: bool) -> CivilTime {
    // SAFETY: all-zero is a valid `tm`.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values; on failure `parts` stays zero, which is what a time out of range gets.
    unsafe {
        if utc {
            libc::gmtime_r(&raw const seconds, &raw mut parts);
        } else {
            libc::localtime_r(&raw const seconds, &raw mut parts);
        }
    }
    CivilTime {
        year: parts.tm_year + 1900,
        month: parts.tm_mon + 1,
        day: parts.tm_mday,
        hour: parts.tm_hour,
        minute: parts.tm_min,
        second: parts.tm_sec,
        offset: parts.tm_gmtoff,
    }
}

/// Seconds since 1970 of a time on the calendar; fields out of range are carried over (day 0 is the last of the month before).
pub fn seconds(time: &CivilTime, utc: bool) -> i64 {
    // SAFETY: all-zero is a valid `tm`.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    parts.tm_year = time.year - 1900;
    parts.tm_mon = time.month - 1;
    parts.tm_mday = time.day;
    parts.tm_hour = time.hour;
    parts.tm_min = time.minute;
    parts.tm_sec = time.second;
    parts.tm_isdst = -1;
    // SAFETY: `parts` is a live, wholly initialised value.
    unsafe { if utc { libc::timegm(&raw mut parts) } else { libc::mktime(&raw mut parts) } }
}
