//! How long to wait before the next attempt: doubling, with jitter, so that those who collided do not collide again.

use std::time::Duration;

use rand::Rng;

/// Waits between attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait is between half of this and this.
    pub first: Duration,
    /// No wait is longer.
    pub most: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts with `first` and doubles up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempts: 0 }
    }

    /// After a lost compare-and-swap. Those who queue lock one after the other, so there are few to lose against.
    #[must_use]
    pub fn conflicts() -> Self {
        Self::new(Duration::from_millis(20), Duration::from_millis(2560))
    }

    /// After the store did not answer.
    #[must_use]
    pub fn outages() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(30))
    }

    /// How often [`Self::wait`] was asked since the start or [`Self::reset`].
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Begins again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next wait, with jitter from `random` in 0..1.
    pub fn wait_with(&mut self, random: f64) -> Duration {
        let whole = self.first.saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX)).min(self.most);
        self.attempts = self.attempts.saturating_add(1);
        whole.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        self.wait_with(rand::thread_rng().r#gen::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_never_overflow() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
        let waits: Vec<u128> = (0..40).map(|_| backoff.wait_with(1.0).as_millis()).collect();
        assert_eq!(waits[..5], [10, 20, 40, 50, 50]);
        assert_eq!(waits[39], 50);
        backoff.reset();
        assert_eq!(backoff.wait_with(0.0), Duration::from_millis(5));
    }
}
