//! A group's semaphore and its transitions: pure functions from value to value. `format` says how it is stored: the number of slots and the generation in
//! one key, and each holder in a key of its own, which goes when the lock is given back or its lease ends.
//!
//! Each change but the end of a lock raises `generation`; a holder's `fence` is the generation it was granted at, never used twice: a host that comes
//! back finds its record with its own fence, or has lost the lock.

mod format;

use serde::{Deserialize, Serialize};

use crate::error::LockError;
use crate::keys::{Group, check_id, shortened};

/// The most slots a group can have: its value must stay far below what etcd takes in one request (1.5 MiB).
pub const MAX_SLOTS: u32 = 1000;
const MAX_TEXT: usize = 200;

/// What a lock was taken for: it decides who gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// To boot another version: given back when the host is healthy in it.
    Update,
    /// To boot again: given back when the host is healthy after that.
    Reboot,
    /// By a person: given back by a person.
    Manual,
    /// By a FleetLock client, which gives it back itself.
    FleetLock,
}

/// A host that has a slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Its identity: the machine id, or what a FleetLock client calls itself.
    pub id: String,
    /// For people.
    pub hostname: String,
    /// The boot that took the lock; empty for FleetLock.
    pub boot_id: String,
    /// What for.
    pub purpose: Purpose,
    /// Why, for people.
    pub reason: String,
    /// The version that it wants to boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When it got the slot, in seconds since 1970 by its own clock: to show, never to decide.
    pub since: u64,
    /// The generation at which it got the slot.
    pub fence: u64,
    /// Its record is on a lease (`expire-after=`), and ends with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expires: bool,
}

/// What a host says when it asks for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// See [`Holder::id`].
    pub id: String,
    /// See [`Holder::hostname`].
    pub hostname: String,
    /// See [`Holder::boot_id`].
    pub boot_id: String,
    /// See [`Holder::purpose`].
    pub purpose: Purpose,
    /// See [`Holder::reason`]; cut to 200 characters.
    pub reason: String,
    /// See [`Holder::version`].
    pub version: Option<String>,
}

/// The slots of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Semaphore {
    /// How many hosts may hold it.
    pub max: u32,
    /// Raised by each change but the end of a lock.
    pub generation: u64,
    /// Who holds it, in the order they got it. More than `max` only after `max` was lowered.
    pub holders: Vec<Holder>,
}

/// What became of a host's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It has it.
    Held(&'a Holder),
    /// It has none.
    NotHeld,
    /// It has one, but not the one it took: that was lost, and this one is of another try.
    Other(&'a Holder),
}

impl<'a> Standing<'a> {
    /// Whether a host that has this record still has the lock that it took at `fence`.
    #[must_use]
    pub fn of(record: Option<&'a Holder>, fence: u64) -> Self {
        match record {
            None => Self::NotHeld,
            Some(holder) if holder.fence == fence => Self::Held(holder),
            Some(holder) => Self::Other(holder),
        }
    }
}

impl Default for Semaphore {
    fn default() -> Self {
        Self { max: 1, generation: 0, holders: Vec::new() }
    }
}

impl Semaphore {
    /// The record of a host.
    #[must_use]
    pub fn holder(&self, id: &str) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.id == id)
    }

    /// Slots that nobody has.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.max.saturating_sub(u32::try_from(self.holders.len()).unwrap_or(u32::MAX))
    }

    /// Whether `id` still has the lock that it took at `fence`; for the model, which has all records in one value.
    #[cfg(test)]
    pub fn standing(&self, id: &str, fence: u64) -> Standing<'_> {
        Standing::of(self.holder(id), fence)
    }

    /// The same with a new generation: written, it makes every lock that was decided on the old value fail.
    #[must_use]
    pub fn touched(&self) -> Self {
        Self { generation: self.generation.saturating_add(1), ..self.clone() }
    }

    /// Gives a slot to a host. A host that has one keeps it, with its fence, for what it wants now: asking again is never refused, and writes its
    /// record again, so that an unlock still under way from before fails. A lock taken by hand stays one.
    ///
    /// # Errors
    /// [`LockError::Full`], [`LockError::BadId`], or [`LockError::IdInUse`] between FleetLock clients and other hosts.
    pub fn lock(&self, group: &Group, claim: &Claim, now: u64, expires: bool) -> Result<Self, LockError> {
        check_id(&claim.id)?;
        let mut next = self.touched();
        let fence = next.generation;
        if let Some(holder) = next.holders.iter_mut().find(|holder| holder.id == claim.id) {
            if (holder.purpose == Purpose::FleetLock) != (claim.purpose == Purpose::FleetLock) {
                return Err(LockError::IdInUse { id: claim.id.clone() });
            }
            // A FleetLock client has no record of its own: each of its requests is a new lock, so that an older unlock cannot end it.
            let kept_fence = if claim.purpose == Purpose::FleetLock { fence } else { holder.fence };
            let by_hand = holder.purpose == Purpose::Manual && claim.purpose != Purpose::Manual;
            let kept = Holder { since: holder.since, ..record(claim, now, kept_fence, expires) };
            *holder =
                if by_hand { Holder { purpose: Purpose::Manual, reason: holder.reason.clone(), expires: false, ..kept } } else { kept };
            return Ok(next);
        }
        if self.free() == 0 {
            return Err(LockError::Full { group: group.to_string(), max: self.max, holders: self.names() });
        }
        next.holders.push(record(claim, now, fence, expires));
        Ok(next)
    }

    /// Without a host's lock; its generation stays. For the model, too.
    #[cfg(test)]
    pub fn without(&self, id: &str) -> Self {
        Self { holders: self.holders.iter().filter(|holder| holder.id != id).cloned().collect(), ..*self }
    }

    /// Changes the number of slots; those who hold one keep it.
    ///
    /// # Errors
    /// [`LockError::BadMax`] for 0 and for more than [`MAX_SLOTS`].
    pub fn set_max(&self, max: u32) -> Result<Self, LockError> {
        if max == 0 || max > MAX_SLOTS {
            return Err(LockError::BadMax { max });
        }
        Ok(Self { max, ..self.touched() })
    }

    /// The holders for a message: a few names.
    #[must_use]
    pub fn names(&self) -> String {
        const SHOWN: usize = 3;
        let mut names: Vec<&str> = self
            .holders
            .iter()
            .take(SHOWN)
            .map(|holder| if holder.hostname.is_empty() { &holder.id } else { &holder.hostname }.as_str())
            .collect();
        let more = self.holders.len().saturating_sub(SHOWN);
        let tail = format!("{more} more");
        if more > 0 {
            names.push(&tail);
        }
        names.join(", ")
    }
}

fn record(claim: &Claim, now: u64, fence: u64, expires: bool) -> Holder {
    Holder {
        id: claim.id.clone(),
        hostname: shortened(&claim.hostname, 64),
        boot_id: shortened(&claim.boot_id, 64),
        purpose: claim.purpose,
        reason: shortened(&claim.reason, MAX_TEXT),
        version: claim.version.as_deref().map(|version| shortened(version, 64)),
        since: now,
        fence,
        // What a person took, a person gives back.
        expires: expires && claim.purpose != Purpose::Manual,
    }
}

#[cfg(test)]
mod tests;
