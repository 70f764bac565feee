//! What to do, as a pure function of what is known: metadata, slots, history, settings and the time.

use disk_layout::Version;
use release_format::{Channel, ChannelRelease, Release, host_position};

use crate::recovery::Standing;
use crate::settings::Window;

/// The name of waiting for other members of the etcd cluster.
pub const ETCD_MEMBERS: &str = "etcd-members";

/// What the decision rests on.
pub struct World<'a> {
    /// Seconds since 1970.
    pub now: u64,
    /// The version that runs.
    pub running: &'a Version,
    /// A version that waits for the reboot.
    pub pending: Option<&'a Version>,
    /// The only version that may be taken.
    pub pin: Option<&'a Version>,
    /// Identifies this host in waves.
    pub machine_id: &'a str,
    /// Somebody has asked for it: waves and windows do not count.
    pub asked: bool,
    /// When downloads may happen; any time when there are none.
    pub windows: &'a [Window],
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing newer is offered to this host.
    UpToDate,
    /// The version waits for the reboot already.
    Pending(Version),
    /// This release is to be installed.
    Take(Box<ChannelRelease>),
    /// There is something newer, and it is not to be taken, at least not yet.
    Wait {
        /// Which version.
        version: Version,
        /// Since when or why; in words for people.
        why: Wait,
    },
}

/// Why a release is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its wave reaches this host at that time.
    Wave(u64),
    /// Its roll-out is paused, or does not reach this host.
    NotOffered,
    /// Another version is pinned.
    Pinned(Version),
    /// It failed here.
    Failed(String),
    /// Somebody went back from it.
    SetAside(String),
    /// The publisher has taken it back.
    Withdrawn,
    /// This agent does not read its format, and there is no stepping stone.
    Format(u32),
    /// The next download window opens at that time.
    Window(u64),
}

impl Wait {
    /// A name that stays the same.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Wave(_) => "wave",
            Self::NotOffered => "not-offered",
            Self::Pinned(_) => "pinned",
            Self::Failed(_) => "failed-before",
            Self::SetAside(_) => "set-aside",
            Self::Withdrawn => "withdrawn",
            Self::Format(_) => "format",
            Self::Window(_) => "download-window",
        }
    }

    /// When it may be over by itself.
    #[must_use]
    pub fn until(&self) -> Option<u64> {
        match self {
            Self::Wave(at) | Self::Window(at) => Some(*at),
            _ => None,
        }
    }

    /// A sentence for people.
    #[must_use]
    pub fn explain(&self, version: &Version) -> String {
        match self {
            Self::Wave(_) => format!("version {version} reaches this host later in its roll-out"),
            Self::NotOffered => format!("the roll-out of version {version} is paused, or does not reach this host yet"),
            Self::Pinned(pin) => format!("version {version} is not taken since version {pin} is pinned (update-agent pin --clear)"),
            Self::Failed(reason) => {
                format!("version {version} failed on this host and is not tried again: {reason} (update-agent update --retry {version})")
            }
            Self::SetAside(reason) => {
                format!("version {version} was set aside: {reason} (update-agent update --retry {version} takes it again)")
            }
            Self::Withdrawn => format!("version {version} was withdrawn by its publisher"),
            Self::Format(format) => format!("version {version} needs release format {format}, which this agent does not read"),
            Self::Window(_) => format!("version {version} waits for the next download window"),
        }
    }
}

/// Why a release is not for this host now.
fn hindrance(world: &World<'_>, release: &ChannelRelease, standing: &(Standing, String)) -> Option<Wait> {
    if !release.is_offered() {
        return Some(Wait::Withdrawn);
    }
    if release.format > Release::FORMAT {
        return Some(Wait::Format(release.format));
    }
    if let Some(pin) = world.pin.filter(|pin| **pin != release.version) {
        return Some(Wait::Pinned(pin.clone()));
    }
    match standing {
        (Standing::Failed, reason) => return Some(Wait::Failed(reason.clone())),
        (Standing::SetAside, reason) => return Some(Wait::SetAside(reason.clone())),
        _ => {}
    }
    let rollout = release.rollout.as_ref().filter(|_| !world.asked)?;
    match rollout.ready_at(host_position(world.machine_id, &release.version)) {
        None => Some(Wait::NotOffered),
        Some(at) if at > world.now => Some(Wait::Wave(at)),
        Some(_) => None,
    }
}

/// Decides.
#[must_use]
pub fn decide(world: &World<'_>, channel: &Channel, standing: &dyn Fn(&ChannelRelease) -> (Standing, String)) -> Decision {
    let acceptable = |release: &ChannelRelease| hindrance(world, release, &standing(release)).is_none();
    match channel.next(world.running, Release::FORMAT, acceptable) {
        Some(next) if Some(&next.version) == world.pending => Decision::Pending(next.version.clone()),
        Some(next) => match next_opening(world.windows, world.now).filter(|_| !world.asked) {
            Some(at) => Decision::Wait { version: next.version.clone(), why: Wait::Window(at) },
            None => Decision::Take(Box::new(next.clone())),
        },
        None => {
            let newest = channel.releases.iter().rev().find(|release| release.version > *world.running && !release.retired);
            match newest {
                // What waits already stays, whatever became of newer ones.
                _ if world.pending.is_some_and(|pending| channel.release(pending).is_some_and(ChannelRelease::is_offered)) => {
                    world.pending.map_or(Decision::UpToDate, |pending| Decision::Pending(pending.clone()))
                }
                Some(release) => match hindrance(world, release, &standing(release)) {
                    Some(why) => Decision::Wait { version: release.version.clone(), why },
                    None => Decision::Wait { version: release.version.clone(), why: Wait::Format(release.format) },
                },
                None => Decision::UpToDate,
            }
        }
    }
}

/// When the next window opens; `None` when one is open or there are none.
fn next_opening(windows: &[Window], now: u64) -> Option<u64> {
    if windows.is_empty() || windows.iter().any(|window| window.contains(now)) {
        return None;
    }
    windows.iter().map(|window| window.next_start(now)).min()
}

/// Seconds until the next check: the interval, spread by a quarter of it, doubled for each failure in a row up to four hours; never
/// before what the server asked for. `random` is any number.
#[must_use]
pub fn next_check(interval: u64, failures: u32, retry_after: Option<u64>, random: u64) -> u64 {
    const MOST: u64 = 4 * 3600;
    let base = if failures == 0 { interval } else { (30_u64 << failures.min(10)).clamp(60, MOST) };
    let spread = (base / 4).max(1);
    let jittered = base - spread / 2 + random % spread;
    jittered.max(retry_after.map_or(0, |asked| asked.min(24 * 3600)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use release_format::{Digest, Name, ObjectRef, Rollout, Wave};

    fn entry(version: &str) -> ChannelRelease {
        ChannelRelease {
            version: version.parse().unwrap(),
            root_hash: Digest::of(version.as_bytes()),
            release: ObjectRef::of(version.as_bytes()),
            format: 1,
            stepping_stone: None,
            rollout: None,
            withdrawn: false,
            retired: false,
        }
    }

    fn channel(releases: &[ChannelRelease]) -> Channel {
        let name = |text: &str| text.parse::<Name>().unwrap();
        Channel { format: 1, channel: name("stable"), image: name("tiny"), architecture: name("x86_64"), releases: releases.to_vec() }
    }

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn world(running: &Version) -> World<'_> {
        World { now: 1000, running, pending: None, pin: None, machine_id: "0123456789abcdef0123456789abcdef", asked: false, windows: &[] }
    }

    fn untried(_: &ChannelRelease) -> (Standing, String) {
        (Standing::Untried, String::new())
    }

    #[test]
    fn the_newest_is_taken_and_a_newer_one_replaces_a_pending_one() {
        let running = v("1.0");
        let list = channel(&[entry("1.0"), entry("1.1"), entry("1.2")]);
        assert!(matches!(decide(&world(&running), &list, &untried), Decision::Take(next) if next.version == v("1.2")));
        let pending = v("1.1");
        let with_pending = World { pending: Some(&pending), ..world(&running) };
        assert!(matches!(decide(&with_pending, &list, &untried), Decision::Take(next) if next.version == v("1.2")));
        let pending = v("1.2");
        let with_pending = World { pending: Some(&pending), ..world(&running) };
        assert_eq!(decide(&with_pending, &list, &untried), Decision::Pending(v("1.2")));
        assert_eq!(decide(&world(&v("1.2")), &list, &untried), Decision::UpToDate);
    }

    #[test]
    fn a_version_that_failed_is_passed_over_and_named() {
        let running = v("1.1");
        let failed = |release: &ChannelRelease| {
            if release.version == v("1.2") { (Standing::Failed, "docker.service is failed".to_owned()) } else { untried(release) }
        };
        let list = channel(&[entry("1.1"), entry("1.2")]);
        let decision = decide(&world(&running), &list, &failed);
        let Decision::Wait { version, why } = decision else { panic!("{decision:?}") };
        assert_eq!((version.as_str(), why.kind()), ("1.2", "failed-before"));
        assert!(why.explain(&version).contains("docker.service is failed"));
        // Somebody who asks does not change that; a good newer one does.
        assert!(matches!(decide(&World { asked: true, ..world(&running) }, &list, &failed), Decision::Wait { .. }));
        let list = channel(&[entry("1.1"), entry("1.2"), entry("1.3")]);
        assert!(matches!(decide(&world(&running), &list, &failed), Decision::Take(next) if next.version == v("1.3")));
    }

    #[test]
    fn waves_are_waited_for_unless_somebody_asks() {
        let running = v("1.0");
        let mut release = entry("1.1");
        release.rollout = Some(Rollout { start: 5000, waves: vec![Wave { percent: 100, until: 1000 }], paused: false });
        let list = channel(&[release.clone()]);
        let Decision::Wait { why: Wait::Wave(at), .. } = decide(&world(&running), &list, &untried) else { panic!() };
        assert!((5000..=6000).contains(&at));
        assert!(matches!(decide(&World { now: at, ..world(&running) }, &list, &untried), Decision::Take(_)));
        assert!(matches!(decide(&World { asked: true, ..world(&running) }, &list, &untried), Decision::Take(_)));
        release.rollout.as_mut().unwrap().paused = true;
        let decision = decide(&world(&running), &channel(&[release]), &untried);
        assert!(matches!(decision, Decision::Wait { why: Wait::NotOffered, .. }));
    }

    #[test]
    fn a_pin_holds_back_all_others_and_nothing_goes_down() {
        let (running, pin) = (v("1.0"), v("1.1"));
        let list = channel(&[entry("0.9"), entry("1.1"), entry("1.2")]);
        let pinned = World { pin: Some(&pin), ..world(&running) };
        assert!(matches!(decide(&pinned, &list, &untried), Decision::Take(next) if next.version == pin));
        assert_eq!(
            decide(&World { pin: Some(&pin), ..world(&v("1.1")) }, &list, &untried),
            Decision::Wait { version: v("1.2"), why: Wait::Pinned(pin.clone()) }
        );
        assert_eq!(decide(&world(&v("2.0")), &list, &untried), Decision::UpToDate);
    }

    #[test]
    fn downloads_wait_for_their_window() {
        let running = v("1.0");
        let list = channel(&[entry("1.1")]);
        // 1970-01-01 was a Thursday; 1000 s is 00:16:40.
        let windows = ["Thu 02:00-03:00".parse::<Window>().unwrap()];
        let waiting = World { windows: &windows, ..world(&running) };
        assert_eq!(decide(&waiting, &list, &untried), Decision::Wait { version: v("1.1"), why: Wait::Window(7200) });
        assert!(matches!(decide(&World { now: 7200, windows: &windows, ..world(&running) }, &list, &untried), Decision::Take(_)));
    }

    #[test]
    fn checks_are_spread_and_back_off() {
        for random in 0..1000 {
            let at = next_check(3600, 0, None, random);
            assert!((3600 - 450..=3600 + 450).contains(&at), "{at}");
            assert!(next_check(3600, 1, None, random) <= 120);
            assert!(next_check(3600, 30, None, random) <= 4 * 3600 + 1800);
            assert!(next_check(3600, 0, Some(9000), random) >= 9000);
        }
    }
}
