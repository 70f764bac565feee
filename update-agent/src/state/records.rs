//! What the files of state hold, and what `init` leaves beside them. Members that are new have defaults, so that files of older agents are read.

use std::collections::BTreeMap;

use release_format::{Digest, ObjectRef, StateFloor};
use serde::{Deserialize, Serialize};

use crate::download::{Position, Taken};

/// An update from its beginning to the reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Of which version.
    pub version: String,
    /// Its root hash.
    pub root_hash: Digest,
    /// Its metadata.
    pub release: ObjectRef,
    /// Into which slot.
    pub slot: String,
    /// How far it is.
    pub phase: Phase,
    /// How far the download is.
    #[serde(flatten)]
    pub position: Position,
}

/// How far an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The root is being written.
    Writing,
    /// The root is whole and verified; the UKI is missing.
    Filled,
    /// The UKI is in place: the next boot is the trial.
    Committed,
}

/// What became of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// Its root hash; a version built again is another one.
    pub root_hash: String,
    /// `failed` or `set-aside`.
    pub fate: String,
    /// Why.
    pub reason: String,
    /// Seconds since 1970.
    pub time: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since 1970.
    pub time: u64,
    /// `installed`, `good`, `failed`, `rolled-back`, `replaced`, `etcd-snapshot`.
    pub what: String,
    /// Which version.
    pub version: String,
    /// More, for people.
    pub detail: String,
}

/// `versions.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Versions that must not be taken, by version.
    pub fates: BTreeMap<String, Fate>,
    /// The latest events, oldest first.
    pub events: Vec<Event>,
    /// What versions of both slots that have run read and have changed for good, by root hash.
    #[serde(default)]
    pub floors: BTreeMap<String, StateFloor>,
    /// Which way the version came that was fetched last.
    #[serde(default)]
    pub came: Option<Came>,
}

/// Which way an update came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// Its version.
    pub version: String,
    /// What it took.
    #[serde(flatten)]
    pub taken: Taken,
}

/// `policy.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The only version that may be taken.
    pub pin: Option<String>,
}

/// What `init` says about a version; see its module `trial`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Which version.
    pub version: String,
    /// Its root hash.
    pub root_hash: String,
    /// `good` or `failed`.
    pub verdict: String,
    /// Why it failed.
    pub reason: String,
    /// Seconds since 1970.
    pub time: u64,
}
