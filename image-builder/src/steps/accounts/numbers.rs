//! Which number an account gets: the one asked for, the one pinned in the lock, the well-known one, or a free one.

use std::collections::{BTreeMap, BTreeSet};

use crate::steps::StepsError;

/// Numbers of well-known system accounts, so that two recipes agree without sharing a lock. `core`, `etcd` and `docker`
/// have the numbers that they have on Container Linux.
const WELL_KNOWN: &[(&str, u32)] = &[("sshd", 204), ("_ssh", 205), ("_chrony", 206), ("etcd", 232), ("docker", 233), ("core", 500)];

/// Where numbers are taken from for accounts that nobody knows yet.
const FREE_IDS: std::ops::Range<u32> = 300..500;

/// Numbers for all names: asked for, pinned, well known, the number in `like` (a user takes its group's), then free ones.
pub(super) fn assign(
    kind: &'static str,
    wanted: &BTreeMap<String, Option<u32>>,
    pinned: &BTreeMap<String, u32>,
    like: &BTreeMap<String, u32>,
) -> Result<BTreeMap<String, u32>, StepsError> {
    let mut taken: BTreeMap<u32, String> = BTreeMap::new();
    let mut result = BTreeMap::new();
    let mut later = Vec::new();
    for (name, id) in wanted {
        let known = || WELL_KNOWN.iter().find(|(known, _)| known == name).map(|&(_, id)| id);
        let Some(id) = id.or_else(|| pinned.get(name).copied()).or_else(known) else {
            later.push(name);
            continue;
        };
        if let Some(other) = taken.insert(id, name.clone()) {
            return Err(StepsError::Account { kind, name: name.clone(), id, reason: format!("'{other}' has it") });
        }
        result.insert(name.clone(), id);
    }
    // Pins of accounts that are gone stay reserved: a host's files may still belong to them.
    let reserved: BTreeSet<u32> = pinned.values().copied().chain(WELL_KNOWN.iter().map(|&(_, id)| id)).collect();
    for name in later {
        let same = like.get(name).copied().filter(|id| !taken.contains_key(id));
        let free =
            || FREE_IDS.into_iter().find(|id| !taken.contains_key(id) && !reserved.contains(id) && !like.values().any(|other| other == id));
        let id = same.or_else(free).ok_or_else(|| StepsError::Account {
            kind,
            name: name.clone(),
            id: FREE_IDS.start,
            reason: "no number is free in the range for system accounts".to_owned(),
        })?;
        taken.insert(id, name.clone());
        result.insert(name.clone(), id);
    }
    Ok(result)
}
