//! The record of one host, and how locks end: given back, or out of time. Neither touches the semaphore, so that however many hosts come back at once, they
//! do not get into each other's way: a record is a key of its own, and its end is one transaction on that key.

use std::sync::Arc;

use crate::audit::{Act, Actor, Record};
use crate::backoff::Backoff;
use crate::error::LockError;
use crate::lock::{RebootLock, Snapshot, UNANSWERED};
use crate::quorum::Guard;
use crate::semaphore::{Holder, Standing};
use crate::store::{self, Compare, Entry, Write};

/// A note of [`crate::keys::Keys::expiring`] whose lock is gone.
#[derive(Clone, Debug)]
pub(crate) struct RanOut {
    pub(crate) key: String,
    pub(crate) mod_revision: i64,
    pub(crate) fence: u64,
    pub(crate) id: String,
}

impl RebootLock {
    /// A holder as it was read; its key and its id must be the same.
    pub(crate) fn holder_of(&self, entry: &Entry) -> Result<Holder, LockError> {
        let read = Holder::decode(&entry.value).and_then(|holder| {
            let right = self.keys.holder(&holder.id) == entry.key;
            if right { Ok(holder) } else { Err(format!("it is the record of {}", holder.id)) }
        });
        read.map_err(|reason| LockError::Foreign { key: entry.key.clone(), reason })
    }

    /// The record of a host, and the revision that wrote it.
    pub(crate) async fn record(&self, id: &str) -> Result<Option<(Holder, i64)>, LockError> {
        let page = self.store.range(&store::Keys::One(self.keys.holder(id)), 1).await?;
        page.entries.first().map(|entry| Ok((self.holder_of(entry)?, entry.mod_revision))).transpose()
    }

    /// The record of a host, if it is the lock that was taken at `fence`. To be asked right before the reboot, with the version that is to be
    /// booted.
    ///
    /// # Errors
    /// [`LockError::Lost`] when the host does not have that lock (any more), [`LockError::Quarantined`].
    pub async fn verify(&self, id: &str, fence: u64, version: Option<&str>) -> Result<Holder, LockError> {
        self.check_quarantine(version).await?;
        let record = self.record(id).await?.map(|(holder, _)| holder);
        match Standing::of(record.as_ref(), fence) {
            Standing::Held(holder) => Ok(holder.clone()),
            Standing::NotHeld | Standing::Other(_) => Err(self.lost(id, fence)),
        }
    }

    fn lost(&self, id: &str, fence: u64) -> LockError {
        LockError::Lost { group: self.group.to_string(), id: id.to_owned(), fence }
    }

    /// Gives a slot back; whether there was one. Without a fence, whichever lock the host has: for people and FleetLock.
    ///
    /// The record is removed if it is the very one that was read: a lock that is asked for again writes its record again, so that an unlock that is late
    /// finds another revision and does nothing.
    ///
    /// # Errors
    /// [`LockError::Lost`] when the host has another lock than that of `fence`.
    pub async fn unlock(&self, id: &str, fence: Option<u64>, actor: &Actor) -> Result<bool, LockError> {
        let mut backoff = Backoff::conflicts();
        let mut unanswered = false;
        loop {
            // Our own write, whose answer was lost, may be what we see.
            let Some((holder, revision)) = self.record(id).await? else { return Ok(unanswered) };
            if let Some(fence) = fence.filter(|fence| *fence != holder.fence) {
                return if unanswered { Ok(true) } else { Err(self.lost(id, fence)) };
            }
            let audit = Record::new(holder.fence, self.now(), Act::Unlock, id, actor);
            let compares = [Compare::ModRevision(self.keys.holder(id), revision)];
            let mut writes = vec![
                Write::Delete(self.keys.holder(id)),
                Write::Put { key: self.keys.audit_end(holder.fence), value: audit.encode(), lease: 0 },
            ];
            if holder.expires {
                writes.push(Write::Delete(self.keys.expiring(holder.fence)));
            }
            if self.is_done(&compares, &writes, &mut backoff, &mut unanswered).await? {
                return Ok(true);
            }
        }
    }

    /// Whether writes were done; if not, after a wait, what is there now tells why, and whether one was done whose answer was lost.
    async fn is_done(
        &self,
        compares: &[Compare],
        writes: &[Write],
        backoff: &mut Backoff,
        unanswered: &mut bool,
    ) -> Result<bool, LockError> {
        match self.store.txn(compares, writes).await {
            Ok(committed) if committed.succeeded => return Ok(true),
            Ok(_) => {}
            Err(error) if error.may_have_happened() && backoff.attempts() < UNANSWERED => *unanswered = true,
            Err(error) => return Err(error.into()),
        }
        self.again(backoff).await?;
        Ok(false)
    }

    /// Gives back the reservation to take an etcd member down for host `id`, which may never come back to do it; whether it had one. Another host's is not
    /// touched. The trail is the group's, since people look for it where they look for the unlock.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn unreserve(&self, id: &str, actor: &Actor) -> Result<bool, LockError> {
        let guard = Guard::new(Arc::clone(&self.store), &self.options.prefix);
        let mut backoff = Backoff::conflicts();
        let mut unanswered = false;
        loop {
            // The host may be back and reserve again: only what was read goes.
            let Some((_, revision)) = guard.reservation().await?.0.filter(|(held, _)| held.id == id) else { return Ok(unanswered) };
            let read = self.read().await?;
            let next = read.semaphore.touched();
            let audit = Record::new(next.generation, self.now(), Act::Unreserve, id, actor);
            let (reservation, semaphore) = (self.keys.reservation(), self.keys.semaphore());
            let compares =
                [Compare::ModRevision(reservation.clone(), revision), Compare::ModRevision(semaphore.clone(), read.mod_revision)];
            let put = |key, value| Write::Put { key, value, lease: 0 };
            let asking = self.keys.asking(id);
            let audited = put(self.keys.audit(next.generation), audit.encode());
            let writes = [Write::Delete(reservation), Write::Delete(asking), put(semaphore, next.encode()), audited];
            if self.is_done(&compares, &writes, &mut backoff, &mut unanswered).await? {
                return Ok(true);
            }
        }
    }

    /// The lock that the host has from an earlier life, to be called when the daemon starts and when it gives up an [`RebootLock::acquire`]
    /// half-way. The host is no longer in the queue after this, so that requests of `acquire` which are still under way from before fail: they demand the
    /// place that they were decided on.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn settle(&self, id: &str) -> Result<Option<Holder>, LockError> {
        self.leave(id).await?;
        Ok(self.record(id).await?.map(|(holder, _)| holder))
    }

    /// Notes in the audit trail which locks have ended since their time ran out.
    ///
    /// A note without its lock stays so, since no fence is used twice: whoever removes the note first writes the record.
    pub(crate) async fn note_ran_out(&self, read: &Snapshot, actor: &Actor) -> Result<(), LockError> {
        for ended in &read.ran_out {
            let audit = Record::new(ended.fence, self.now(), Act::Expire, &ended.id, actor);
            let compares = [Compare::ModRevision(ended.key.clone(), ended.mod_revision)];
            let put = Write::Put { key: self.keys.audit_end(ended.fence), value: audit.encode(), lease: 0 };
            self.store.txn(&compares, &[Write::Delete(ended.key.clone()), put]).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Group;
    use crate::lock::Options;
    use crate::quorum::{Reservation, Reserved};
    use crate::store::Memory;

    #[tokio::test]
    async fn the_reservation_of_a_host_that_never_returns_is_freed_by_hand_and_noted() {
        let store = Arc::new(Memory::default());
        let lock = RebootLock::new(Arc::<Memory>::clone(&store), Group::default(), Options::default());
        let guard = Guard::new(store, crate::keys::DEFAULT_PREFIX);
        let mine = |id: &str| Reservation::new(id, id, "one", 0);
        let actor = Actor { host: "c".into(), by: "locksmithctl (ann)".into(), why: "its disk died".into() };
        assert!(!lock.unreserve("a", &actor).await.unwrap());
        assert_eq!(guard.reserve(&mine("a"), None).await.unwrap(), Reserved::Ours);
        assert!(!lock.unreserve("b", &actor).await.unwrap(), "it is another host's");
        assert!(matches!(guard.reserve(&mine("b"), None).await.unwrap(), Reserved::Taken { .. }));
        assert!(lock.audit().await.unwrap().is_empty());
        assert!(lock.unreserve("a", &actor).await.unwrap());
        assert!(!lock.unreserve("a", &actor).await.unwrap(), "once is enough");
        let trail = lock.audit().await.unwrap();
        let noted: Vec<_> = trail.iter().map(|record| (record.act, record.subject.as_str(), record.why.as_str())).collect();
        assert_eq!(noted, [(Act::Unreserve, "a", "its disk died")]);
        assert_eq!(guard.reserve(&mine("b"), None).await.unwrap(), Reserved::Ours);
    }
}
