//! What going from one version to another does to data on state: whether the way back is open, and a copy of what it would close it for.

use disk_layout::Version;
use release_format::{Channel, ChannelRelease, StateFloor};

use super::{Agent, AgentError, Wish, in_place};
use crate::etcd;
use crate::fetch::Source;
use crate::floor::{changes, goes_up, older, skipped};
use crate::policy::Decision;
use crate::recovery::Standing;
use crate::slots::{Content, Slots};
use crate::status::AgentState;
use crate::verity::hex;

/// The component of which a snapshot is taken.
const ETCD: &str = "etcd";
/// How many releases in a row are passed over at most on the way to one that skips nothing.
const PASSED_MOST: usize = 15;

impl Agent {
    /// What this host's state has been used with.
    fn floor(&self) -> StateFloor {
        StateFloor { layout: self.state.layout(), components: self.host.floor.components.clone() }
    }

    /// Whether an older version could read what this one has made of the state.
    pub(super) fn may_go_back(&self, version: &Version, release: &StateFloor) -> Result<(), AgentError> {
        match older(&self.floor(), release) {
            Some(older) => Err(AgentError::StateFloor { version: version.clone(), older }),
            None => Ok(()),
        }
    }

    /// Whether a newer version's etcd could take over the data here, and join the other members; any could where none runs.
    pub(super) async fn may_go_on(&self, version: &Version, release: &StateFloor) -> Result<(), AgentError> {
        // Where nobody can tell whether one runs, one may.
        if !goes_up(&self.host.floor, release, ETCD) || self.etcd.runs().await.is_ok_and(|runs| !runs) {
            return Ok(());
        }
        let running = self.host.floor.components.get(ETCD);
        if let Some(first) = running.and_then(|running| skipped(running, release, ETCD)) {
            return Err(AgentError::StateSkip { version: version.clone(), first });
        }
        // A member may be ahead of the others by one minor version only, and a member that does not answer may be in any.
        let wait = |reason: String| AgentError::EtcdMembers { version: version.clone(), reason };
        let cluster = self.etcd.cluster().await;
        let cluster = cluster.map_err(|error| wait(format!("which version all of them have cannot be asked: {error}")))?;
        match skipped(&cluster, release, ETCD) {
            Some(first) => Err(wait(format!("not all of them run etcd {first} yet, the cluster is at {cluster}"))),
            None => Ok(()),
        }
    }

    /// Installs the release that was chosen or, where its etcd skips a minor version, the newest one before it that does not: the members that
    /// are ahead wait for this one, which would otherwise wait for a release that nobody publishes. Returns what was put in place, if anything.
    pub(super) async fn install_or_earlier(
        &mut self,
        source: &Source,
        list: &Channel,
        mut entry: ChannelRelease,
        wish: &Wish,
    ) -> Result<Option<Version>, AgentError> {
        let mut left = list.clone();
        let mut first = None;
        loop {
            let version = entry.version.clone();
            let skips = match self.install(source, list, &entry, wish.downgrade).await {
                Err(error @ AgentError::StateSkip { .. }) => error,
                installed => return installed.map(|()| Some(version)),
            };
            left.releases.retain(|release| release.version != version);
            let next = match self.decision(&left, wish.asked)? {
                // Who names a version does not want another one.
                _ if wish.retry.as_ref() == Some(&version) || list.releases.len() - left.releases.len() > PASSED_MOST => None,
                Decision::Take(next) => Some(next),
                Decision::Pending(pending) => {
                    self.say(AgentState::PendingReboot, Some(&pending), in_place(&pending));
                    return Ok(None);
                }
                Decision::UpToDate | Decision::Wait { .. } => None,
            };
            // What is said is why the newest one is not taken.
            let skips = first.unwrap_or(skips);
            let Some(next) = next else { return Err(skips) };
            eprintln!("update-agent: version {} comes first: {skips}", next.version);
            (entry, first) = (*next, Some(skips));
        }
    }

    /// Saves etcd's data before another etcd gets them; nothing where none runs.
    pub(super) async fn save_etcd(&mut self, version: &Version, release: &StateFloor) -> Result<(), AgentError> {
        if !changes(&self.host.floor, release, ETCD) {
            return Ok(());
        }
        let name = format!("{}-to-{version}", self.host.running.version);
        match etcd::snapshot(&*self.etcd, &self.state.etcd_snapshots(), &name).await {
            Ok(Some(path)) => self.event("etcd-snapshot", version.as_str(), &path.display().to_string()),
            Ok(None) => Ok(()),
            Err(reason) => Err(AgentError::Snapshot { version: version.clone(), reason }),
        }
    }

    /// Notes what the running version does to state, and lets go of layouts that no version which this host may fall back to reads.
    pub(super) fn note_floors(&self, slots: &Slots) -> Result<(), AgentError> {
        let running = hex(&self.host.running.root_hash);
        let other = match slots.get(self.host.running.slot.other()) {
            Content::Image { version, root_hash } => Some((version.clone(), *root_hash)),
            _ => None,
        };
        let mut floors = self.state.versions()?.floors;
        let before = floors.clone();
        floors.retain(|hash, _| *hash == running || other.as_ref().is_some_and(|(_, other)| *hash == hex(other)));
        floors.insert(running, self.floor());
        if floors != before {
            self.state.change_versions(|versions| versions.floors.clone_from(&floors))?;
        }
        if self.on_trial() {
            return Ok(());
        }
        let oldest = match other {
            Some((version, hash)) if matches!(self.standing(&version, &hash).0, Standing::Good | Standing::Untried) => {
                floors.get(&hex(&hash)).map_or(1, |floor| floor.layout)
            }
            _ => self.state.layout(),
        };
        Ok(self.state.drop_layouts_below(oldest)?)
    }
}
