//! Staged roll-out: which hosts may take a release when.
//!
//! A roll-out is a curve: so many percent of the hosts until so many seconds after its start, straight lines between. A
//! host's position on it is a hash of its machine id and the version, so hosts are spread evenly over the whole
//! curve, and it is other hosts that go first each time.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::FormatError;
use crate::limits::MAX_WAVES;

/// When a release is offered to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Seconds since 1970 at which the first host may take it.
    pub start: u64,
    /// The curve, from nothing at `start`. What it leaves out after the last point gets nothing.
    pub waves: Vec<Wave>,
    /// While true nobody takes it.
    #[serde(default)]
    pub paused: bool,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// So many percent of all hosts, 1 to 100, more than the point before...
    pub percent: u8,
    /// ... have been offered it so many seconds after the start, not before the point before.
    pub until: u64,
}

/// Where a host stands on the curve, from 0 to 2^64, for one version.
#[must_use]
pub fn host_position(machine_id: &str, version: &disk_layout::Version) -> u64 {
    let digest = Digest::of(format!("garboard-wave-v1\n{}\n{version}\n", machine_id.trim()).as_bytes());
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl Rollout {
    /// When, in seconds since 1970, a host at this position may take the release; `None` when not before the publisher
    /// says more.
    #[must_use]
    pub fn ready_at(&self, position: u64) -> Option<u64> {
        if self.paused {
            return None;
        }
        let bound = |percent: u8| u128::from(percent) * (1 << 64) / 100;
        let position = u128::from(position);
        let (mut low, mut from) = (0, 0);
        for wave in &self.waves {
            let high = bound(wave.percent);
            if position < high {
                let inside = u128::from(wave.until.saturating_sub(from)) * (position - low) / (high - low).max(1);
                return Some(self.start.saturating_add(from).saturating_add(u64::try_from(inside).unwrap_or(u64::MAX)));
            }
            (low, from) = (high, wave.until);
        }
        None
    }

    /// Whether the curve rises.
    pub(crate) fn check(&self) -> Result<(), FormatError> {
        let bad = |reason: &str| Err(FormatError::Syntax { what: "channel", reason: format!("roll-out: {reason}") });
        if self.waves.len() > MAX_WAVES {
            let (found, limit) = (self.waves.len() as u64, MAX_WAVES as u64);
            return Err(FormatError::TooMany { what: "channel", things: "waves", found, limit });
        }
        let (mut percent, mut until) = (0, 0);
        for wave in &self.waves {
            if wave.percent <= percent || wave.percent > 100 {
                return bad("percentages must rise and end at 100 or before");
            }
            if wave.until < until {
                return bad("times must not go back");
            }
            (percent, until) = (wave.percent, wave.until);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rollout(waves: &[(u8, u64)]) -> Rollout {
        let waves = waves.iter().map(|&(percent, until)| Wave { percent, until }).collect();
        Rollout { start: 1000, waves, paused: false }
    }

    #[test]
    fn hosts_follow_the_curve() {
        let curve = rollout(&[(10, 100), (50, 200), (90, 1200)]);
        let at = |percent: u128| curve.ready_at((percent * (1 << 64) / 100) as u64);
        assert_eq!(at(0), Some(1000));
        assert_eq!(at(5), Some(1049));
        assert_eq!(at(10), Some(1100));
        assert_eq!(at(30), Some(1149));
        assert_eq!(at(70), Some(1700));
        assert_eq!(at(90), None);
        assert_eq!(Rollout { paused: true, ..curve }.ready_at(0), None);
    }

    /// 10,000 hosts, ten equal windows of time on a straight line: each window has a tenth, as chance would have it.
    #[test]
    fn hosts_are_spread_evenly() {
        let curve = rollout(&[(1, 10), (20, 200), (100, 1000)]);
        let mut counts = [0_u32; 10];
        for host in 0..10_000 {
            let position = host_position(&format!("{host:032x}"), &"1.1".parse().unwrap());
            let after = curve.ready_at(position).unwrap() - 1000;
            counts[usize::try_from(after / 100).unwrap().min(9)] += 1;
        }
        // Six standard deviations of a binomial distribution, n = 10000, p = 0.1, are 180.
        assert!(counts.iter().all(|&count| (820..=1180).contains(&count)), "{counts:?}");
    }

    #[test]
    fn other_versions_begin_with_other_hosts() {
        let first = |version: &str| (0..1000).min_by_key(|host| host_position(&host.to_string(), &version.parse().unwrap()));
        assert_ne!(first("1.1"), first("1.2"));
        // As `printf 'garboard-wave-v1\\n...\\n1.1\\n' | sha256sum` has it.
        assert_eq!(host_position("0123456789abcdef0123456789abcdef\n", &"1.1".parse().unwrap()), 0x67fe_a126_ac7c_d1f3);
    }

    #[test]
    fn a_curve_that_falls_is_refused() {
        for waves in [&[(10, 5), (10, 6)][..], &[(10, 5), (20, 4)], &[(0, 5)], &[(101, 5)]] {
            assert!(matches!(rollout(waves).check(), Err(FormatError::Syntax { .. })), "{waves:?}");
        }
        assert!(rollout(&[]).check().is_ok() && rollout(&[(100, 0)]).check().is_ok());
    }

    proptest! {
        #[test]
        fn later_positions_wait_longer(a: u64, b: u64, until in 0_u64..100_000, more in 0_u64..100_000) {
            let curve = rollout(&[(30, until), (100, until + more)]);
            if a <= b {
                prop_assert!(curve.ready_at(a) <= curve.ready_at(b));
            }
            prop_assert!(curve.ready_at(u64::MAX) <= Some(1000 + until + more));
        }
    }
}
