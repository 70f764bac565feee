//! How much one unit may log: so many lines per interval, then only a count of what was suppressed.

use std::collections::HashMap;

/// A limit; a burst of 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Length of the window in microseconds.
    pub interval: u64,
    /// Lines in one window.
    pub burst: u64,
}

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Store it; first say that this many before it were suppressed.
    Store {
        /// Lines suppressed in the window before.
        suppressed: u64,
    },
    /// Drop it.
    Suppress,
}

#[derive(Default)]
struct Window {
    begun: u64,
    stored: u64,
    suppressed: u64,
}

/// The windows of all units.
#[derive(Default)]
pub struct RateLimiter {
    windows: HashMap<String, Window>,
}

impl RateLimiter {
    /// Accounts for one line of `unit` at `now` (monotonic microseconds).
    pub fn check(&mut self, unit: &str, limit: RateLimit, now: u64) -> Verdict {
        if limit.burst == 0 || limit.interval == 0 {
            return Verdict::Store { suppressed: 0 };
        }
        // An entry for each name that anyone ever sent would be a leak.
        if self.windows.len() > 4096 {
            self.windows.retain(|_, window| window.suppressed > 0 || now < window.begun + limit.interval);
        }
        let window = match self.windows.get_mut(unit) {
            Some(window) => window,
            None => self.windows.entry(unit.to_owned()).or_insert(Window { begun: now, ..Window::default() }),
        };
        let mut suppressed = 0;
        if now >= window.begun.saturating_add(limit.interval) {
            suppressed = window.suppressed;
            *window = Window { begun: now, ..Window::default() };
        }
        if window.stored < limit.burst {
            window.stored += 1;
            Verdict::Store { suppressed }
        } else {
            window.suppressed += 1;
            Verdict::Suppress
        }
    }

    /// Whether any unit has suppressed lines that nothing was said about yet.
    pub fn any_suppressed(&self) -> bool {
        self.windows.values().any(|window| window.suppressed > 0)
    }

    /// Units whose window is over and that have said nothing since: their counts, to be reported.
    pub fn expired(&mut self, limit: RateLimit, now: u64) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for (unit, window) in &mut self.windows {
            if window.suppressed > 0 && now >= window.begun.saturating_add(limit.interval) {
                found.push((unit.clone(), std::mem::take(&mut window.suppressed)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { interval: 30, burst: 3 };

    #[test]
    fn a_noisy_unit_is_cut_and_counted_and_a_quiet_one_is_not() {
        let mut limiter = RateLimiter::default();
        for _ in 0..3 {
            assert_eq!(limiter.check("noisy", LIMIT, 0), Verdict::Store { suppressed: 0 });
        }
        for now in 1..6 {
            assert_eq!(limiter.check("noisy", LIMIT, now), Verdict::Suppress);
        }
        assert_eq!(limiter.check("quiet", LIMIT, 5), Verdict::Store { suppressed: 0 });
        assert_eq!(limiter.check("noisy", LIMIT, 30), Verdict::Store { suppressed: 5 });
    }

    #[test]
    fn what_was_suppressed_is_reported_even_if_the_unit_falls_silent() {
        let mut limiter = RateLimiter::default();
        for _ in 0..5 {
            limiter.check("noisy", LIMIT, 0);
        }
        assert_eq!(limiter.expired(LIMIT, 29), []);
        assert_eq!(limiter.expired(LIMIT, 30), [("noisy".to_string(), 2)]);
        assert_eq!(limiter.expired(LIMIT, 31), []);
    }

    #[test]
    fn zero_is_unlimited() {
        let mut limiter = RateLimiter::default();
        assert!((0..100_000).all(|_| limiter.check("u", RateLimit { interval: 30, burst: 0 }, 0) == Verdict::Store { suppressed: 0 }));
    }
}
