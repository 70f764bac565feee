//! The reboot lock of one group: reads the semaphore, lets the pure rules decide, writes the outcome by compare-and-swap with its audit record,
//! and tries again when somebody else was first. Waiting for a slot is in `queue`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::audit::{self, Act, Actor, Record};
use crate::backoff::Backoff;
use crate::error::LockError;
use crate::keys::{Group, Keys};
use crate::quarantine::Quarantine;
use crate::semaphore::{Claim, Holder, Semaphore, Standing};
use crate::store::{self, Compare, Store, StoreError, Watch, Write};

/// A change whose answers are lost so often is given up.
const UNANSWERED: u32 = 3;

/// Seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How a lock behaves.
#[derive(Clone)]
pub struct Options {
    /// What all keys begin with.
    pub prefix: String,
    /// A holder that has not given its slot back after this time may be removed (`expire-after=`); `None` keeps it for ever. Counted by etcd,
    /// not by any host's clock, and starting again when etcd changes its leader.
    pub expire_after: Option<Duration>,
    /// A host that waits and is not heard of for so long loses its place.
    pub waiter_ttl: Duration,
    /// A change that loses against others so often is given up.
    pub attempts: u32,
    /// The time for records; tests bring their own.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: crate::keys::DEFAULT_PREFIX.to_owned(),
            expire_after: None,
            waiter_ttl: Duration::from_secs(180),
            attempts: 50,
            clock: Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
        }
    }
}

/// A lock that was got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The record in the semaphore. Its fence is what the host keeps over the reboot.
    pub holder: Holder,
    /// Of the semaphore, after the lock.
    pub generation: u64,
}

/// All there is to show about a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The semaphore.
    pub semaphore: Semaphore,
    /// How many hosts wait for a slot.
    pub waiting: u64,
    /// The versions nobody may boot.
    pub quarantines: Vec<Quarantine>,
    /// The store's revision: watch from the next one.
    pub revision: i64,
}

/// A semaphore as it was read, and what is needed to change it.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) semaphore: Semaphore,
    pub(crate) mod_revision: i64,
    pub(crate) revision: i64,
    timers: Vec<String>,
}

/// A change to write: the new semaphore, what to note, and more to compare and write in the same transaction.
pub(crate) struct Change<T> {
    pub(crate) next: Semaphore,
    pub(crate) act: Act,
    pub(crate) subject: String,
    /// Quarantines that must not be there.
    pub(crate) without: Vec<String>,
    pub(crate) writes: Vec<Write>,
    pub(crate) outcome: T,
}

/// What a look at the semaphore led to.
pub(crate) enum Step<T> {
    /// Nothing to write.
    Done(T),
    /// This is to be written.
    Write(Box<Change<T>>),
}

impl<T> Step<T> {
    /// A change that no quarantine stands in the way of.
    fn write(next: Semaphore, act: Act, subject: impl Into<String>, writes: Vec<Write>, outcome: T) -> Self {
        Self::Write(Box::new(Change { next, act, subject: subject.into(), without: Vec::new(), writes, outcome }))
    }
}

/// The reboot lock of a group.
#[derive(Clone)]
pub struct RebootLock {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) group: Group,
    pub(crate) keys: Keys,
    pub(crate) options: Options,
}

impl RebootLock {
    /// The lock of `group` in a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, group: Group, options: Options) -> Self {
        let keys = Keys::new(&options.prefix, &group);
        Self { store, group, keys, options }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    pub(crate) fn now(&self) -> u64 {
        (self.options.clock)()
    }

    pub(crate) async fn read(&self) -> Result<Snapshot, LockError> {
        let page = self.store.range(&store::Keys::Prefix(self.keys.lock()), 0).await?;
        let key = self.keys.semaphore();
        let timers_prefix = self.keys.timers();
        let mut read = Snapshot { semaphore: Semaphore::default(), mod_revision: 0, revision: page.revision, timers: Vec::new() };
        for entry in page.entries {
            if entry.key == key {
                read.semaphore = Semaphore::decode(&entry.value).map_err(|reason| LockError::Foreign { key: key.clone(), reason })?;
                read.mod_revision = entry.mod_revision;
            } else if entry.key.starts_with(&timers_prefix) {
                read.timers.push(entry.key);
            }
        }
        Ok(read)
    }

    /// Decides on `first`, or on what it reads, and writes, until the write was the first or `step` says that there is nothing to do. `step` sees each
    /// time what is: a write whose answer was lost is found there, so it must be able to tell that it has happened.
    pub(crate) async fn change<T: Send>(
        &self,
        actor: &Actor,
        mut first: Option<Snapshot>,
        mut step: impl FnMut(&Snapshot) -> Result<Step<T>, LockError> + Send,
    ) -> Result<T, LockError> {
        let mut backoff = Backoff::conflicts();
        loop {
            let read = match first.take() {
                Some(read) => read,
                None => self.read().await?,
            };
            let change = match step(&read)? {
                Step::Done(outcome) => return Ok(outcome),
                Step::Write(change) => change,
            };
            let record = Record::new(change.next.generation, self.now(), change.act, &change.subject, actor);
            let mut compares = vec![Compare::ModRevision(self.keys.semaphore(), read.mod_revision)];
            compares.extend(change.without.iter().cloned().map(|key| Compare::CreateRevision(key, 0)));
            let put = |key, value| Write::Put { key, value, lease: 0 };
            let mut writes =
                vec![put(self.keys.semaphore(), change.next.encode()), put(self.keys.audit(change.next.generation), record.encode())];
            writes.extend(change.writes);
            match self.store.txn(&compares, &writes).await {
                Ok(committed) if committed.succeeded => return Ok(change.outcome),
                Ok(_) => {
                    for key in &change.without {
                        self.check_absent(key).await?;
                    }
                }
                // What is there now tells whether it was done.
                Err(error) if error.may_have_happened() && backoff.attempts() < UNANSWERED => {}
                Err(error) => return Err(error.into()),
            }
            if backoff.attempts() >= self.options.attempts {
                return Err(LockError::Contended { group: self.group.to_string(), attempts: backoff.attempts() });
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    async fn check_absent(&self, key: &str) -> Result<(), LockError> {
        let page = self.store.range(&store::Keys::One(key.to_owned()), 1).await?;
        let version = key.strip_prefix(&self.keys.quarantines()).unwrap_or(key);
        page.entries.first().map_or(Ok(()), |entry| Err(Quarantine::decode(version, &entry.value).refusal()))
    }

    /// Refuses a claim for a quarantined version.
    pub(crate) async fn check_quarantine(&self, version: Option<&str>) -> Result<(), LockError> {
        match version {
            Some(version) => self.check_absent(&self.keys.quarantine(version)).await,
            None => Ok(()),
        }
    }

    /// Whether holders of `read` have run out of time.
    pub(crate) fn expired(&self, read: &Snapshot) -> Option<(Semaphore, Vec<Holder>)> {
        read.semaphore.expire(|fence| read.timers.contains(&self.keys.timer(fence)))
    }

    /// Removes the holders that have run out of time; who they were.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn remove_expired(&self, actor: &Actor) -> Result<Vec<Holder>, LockError> {
        let step = |read: &Snapshot| match self.expired(read) {
            None => Ok(Step::Done(Vec::new())),
            Some((next, gone)) => {
                let subject = gone.iter().map(|holder| holder.id.as_str()).collect::<Vec<_>>().join(" ");
                Ok(Step::write(next, Act::Expire, subject, Vec::new(), gone))
            }
        };
        self.change(actor, None, step).await
    }

    /// Takes a slot now, or says why not. A host that has one keeps it, with its fence, for what it wants now.
    ///
    /// # Errors
    /// [`LockError::Full`], [`LockError::Quarantined`] and the others.
    pub async fn try_lock(&self, claim: &Claim, actor: &Actor) -> Result<Held, LockError> {
        self.check_quarantine(claim.version.as_deref()).await?;
        let mut read = self.read().await?;
        if self.expired(&read).is_some() {
            self.remove_expired(actor).await?;
            read = self.read().await?;
        }
        self.lock_from(read, claim, actor, &[]).await
    }

    /// Takes a slot, decided on `read`, and removes the keys `and_delete` in the same transaction.
    pub(crate) async fn lock_from(&self, read: Snapshot, claim: &Claim, actor: &Actor, and_delete: &[String]) -> Result<Held, LockError> {
        // Refused before anything is asked of the store.
        read.semaphore.lock(&self.group, claim, 0, false)?;
        // A timer runs from before the lock on, so that a holder that expires is never without one.
        let timer = match self.options.expire_after {
            Some(after) => Some(self.store.grant_lease(after).await?),
            None => None,
        };
        let step = |read: &Snapshot| {
            let before = read.semaphore.holder(&claim.id);
            let next = read.semaphore.lock(&self.group, claim, self.now(), timer.is_some())?;
            let Some(holder) = next.holder(&claim.id).cloned() else {
                return Err(LockError::BadId { id: claim.id.clone(), reason: "got no record" });
            };
            let mut writes: Vec<Write> = and_delete.iter().cloned().map(Write::Delete).collect();
            let old_timer = before.filter(|before| before.expires).map(|before| before.fence);
            let new_timer = timer.filter(|_| holder.expires);
            writes.extend(new_timer.map(|lease| Write::Put { key: self.keys.timer(holder.fence), value: Vec::new(), lease }));
            if old_timer.is_some_and(|fence| new_timer.is_none() || fence != holder.fence) {
                writes.extend(old_timer.map(|fence| Write::Delete(self.keys.timer(fence))));
            }
            let act = if before.is_some() { Act::Relock } else { Act::Lock };
            let without = claim.version.iter().map(|version| self.keys.quarantine(version)).collect();
            let outcome = Held { holder, generation: next.generation };
            Ok(Step::Write(Box::new(Change { next, act, subject: claim.id.clone(), without, writes, outcome })))
        };
        let outcome = self.change(actor, Some(read), step).await;
        if let (Some(lease), Err(error)) = (timer, &outcome) {
            // Not when the lock may be there after all, with this timer. Else it would end by itself, too.
            if !matches!(error, LockError::Store(_)) {
                let _ = self.store.revoke_lease(lease).await;
            }
        }
        outcome
    }

    /// The record of a host, and whether it is the lock that was taken at `fence`. To be asked right before the reboot, with the version that
    /// is to be booted.
    ///
    /// # Errors
    /// [`LockError::Lost`] when the host does not have that lock (any more), [`LockError::Quarantined`].
    pub async fn verify(&self, id: &str, fence: u64, version: Option<&str>) -> Result<Holder, LockError> {
        self.check_quarantine(version).await?;
        let read = self.read().await?;
        match read.semaphore.standing(id, fence) {
            Standing::Held(holder) => Ok(holder.clone()),
            Standing::NotHeld | Standing::Other(_) => Err(LockError::Lost { group: self.group.to_string(), id: id.to_owned(), fence }),
        }
    }

    /// Gives a slot back; whether there was one. Without a fence, whichever lock the host has: for people and FleetLock.
    ///
    /// # Errors
    /// [`LockError::Lost`] when the host has another lock than that of `fence`.
    pub async fn unlock(&self, id: &str, fence: Option<u64>, actor: &Actor) -> Result<bool, LockError> {
        let mut sent = false;
        let step = |read: &Snapshot| match read.semaphore.unlock(&self.group, id, fence) {
            // Our own write, whose answer was lost, may be what we see.
            Ok(None) => Ok(Step::Done(sent)),
            Err(LockError::Lost { .. }) if sent => Ok(Step::Done(true)),
            Err(error) => Err(error),
            Ok(Some(next)) => {
                sent = true;
                let writes = self.end_timer(read, id);
                Ok(Step::write(next, Act::Unlock, id, writes, true))
            }
        };
        self.change(actor, None, step).await
    }

    fn end_timer(&self, read: &Snapshot, id: &str) -> Vec<Write> {
        let holder = read.semaphore.holder(id).filter(|holder| holder.expires);
        holder.map(|holder| Write::Delete(self.keys.timer(holder.fence))).into_iter().collect()
    }

    /// The lock that the host has from an earlier life, to be called when the daemon starts and when it gives up an [`RebootLock::acquire`]
    /// half-way. When there is none, requests that are still under way from before are made to fail, so that they cannot lock later. The host
    /// is no longer in the queue after this.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn settle(&self, id: &str, actor: &Actor) -> Result<Option<Holder>, LockError> {
        self.leave(id).await?;
        self.certain(id, actor).await
    }

    /// The lock of a host; when it has none, none can come any more from what was sent before.
    pub(crate) async fn certain(&self, id: &str, actor: &Actor) -> Result<Option<Holder>, LockError> {
        let step = |read: &Snapshot| match read.semaphore.holder(id) {
            Some(holder) => Ok(Step::Done(Some(holder.clone()))),
            None => Ok(Step::write(read.semaphore.touched(), Act::Withdraw, id, Vec::new(), None)),
        };
        self.change(actor, None, step).await
    }

    /// Changes the number of slots; the old one.
    ///
    /// # Errors
    /// [`LockError::BadMax`] and the others.
    pub async fn set_max(&self, max: u32, actor: &Actor) -> Result<u32, LockError> {
        let mut old = None;
        let step = |read: &Snapshot| {
            let next = read.semaphore.set_max(max)?;
            let was = *old.get_or_insert(read.semaphore.max);
            if read.mod_revision != 0 && read.semaphore.max == max {
                return Ok(Step::Done(was));
            }
            Ok(Step::write(next, Act::SetMax, max.to_string(), Vec::new(), was))
        };
        self.change(actor, None, step).await
    }

    /// Quarantines a version: nobody takes a lock for it from now on. The first record stays.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn quarantine(&self, record: &Quarantine, actor: &Actor) -> Result<(), LockError> {
        let key = self.keys.quarantine(&record.version);
        if !self.store.range(&store::Keys::One(key.clone()), 1).await?.entries.is_empty() {
            return Ok(());
        }
        let step = |read: &Snapshot| {
            let writes = vec![Write::Put { key: key.clone(), value: record.encode(), lease: 0 }];
            let (next, subject) = (read.semaphore.touched(), record.version.clone());
            Ok(Step::Write(Box::new(Change { next, act: Act::Quarantine, subject, without: vec![key.clone()], writes, outcome: () })))
        };
        match self.change(actor, None, step).await {
            // Another host was first.
            Err(LockError::Quarantined { .. }) => Ok(()),
            other => other,
        }
    }

    /// Lifts the quarantine of a version; whether there was one.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn clear_quarantine(&self, version: &str, actor: &Actor) -> Result<bool, LockError> {
        let key = self.keys.quarantine(version);
        if self.store.range(&store::Keys::One(key.clone()), 1).await?.entries.is_empty() {
            return Ok(false);
        }
        let step = |read: &Snapshot| {
            let writes = vec![Write::Delete(key.clone())];
            Ok(Step::write(read.semaphore.touched(), Act::ClearQuarantine, version, writes, true))
        };
        self.change(actor, None, step).await
    }

    /// The quarantined versions.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn quarantines(&self) -> Result<Vec<Quarantine>, LockError> {
        let prefix = self.keys.quarantines();
        let page = self.store.range(&store::Keys::Prefix(prefix.clone()), 0).await?;
        let record = |entry: &store::Entry| Quarantine::decode(entry.key.strip_prefix(&prefix).unwrap_or_default(), &entry.value);
        Ok(page.entries.iter().map(record).collect())
    }

    /// The audit trail of the group, oldest first.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn audit(&self) -> Result<Vec<Record>, LockError> {
        let page = self.store.range(&store::Keys::Prefix(self.keys.audits()), 0).await?;
        Ok(audit::in_order(page.entries.iter().map(|entry| entry.value.as_slice())))
    }

    /// All there is to show.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn status(&self) -> Result<Status, LockError> {
        let quarantines = self.quarantines().await?;
        let waiting = self.waiting().await?;
        let read = self.read().await?;
        Ok(Status { semaphore: read.semaphore, waiting, quarantines, revision: read.revision })
    }

    /// Tells when the semaphore or the timers of its holders change after `revision`; its events need not be looked at.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn watch_lock(&self, revision: i64) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(&store::Keys::Prefix(self.keys.lock()), revision.saturating_add(1)).await
    }

    /// Ends when a version is quarantined, with the refusal that says so. For who waits in the queue, which looks again only when its turn comes.
    pub async fn until_quarantined(&self, version: &str) -> LockError {
        let key = store::Keys::One(self.keys.quarantine(version));
        let mut outages = Backoff::outages();
        loop {
            let look = async {
                let page = self.store.range(&key, 1).await?;
                if let Some(entry) = page.entries.first() {
                    return Ok(Some(Quarantine::decode(version, &entry.value).refusal()));
                }
                self.store.watch(&key, page.revision.saturating_add(1)).await?.next().await.map(|_| None)
            };
            match look.await {
                Ok(Some(refusal)) => return refusal,
                Ok(None) => outages.reset(),
                Err::<_, StoreError>(_) => tokio::time::sleep(outages.wait()).await,
            }
        }
    }

    /// Tells when quarantines change after `revision`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn watch_quarantines(&self, revision: i64) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(&store::Keys::Prefix(self.keys.quarantines()), revision.saturating_add(1)).await
    }
}
