//! The reboot lock of one group: reads the semaphore, lets the pure rules decide, writes the outcome by compare-and-swap with its audit record,
//! and tries again when somebody else was first. Waiting for a slot is in `queue`, giving it back in `ends`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::audit::{self, Act, Actor, Record};
use crate::backoff::Backoff;
use crate::ends::RanOut;
use crate::error::LockError;
use crate::keys::{Group, Keys};
use crate::quarantine::Quarantine;
use crate::queue::Place;
use crate::semaphore::{Claim, Holder, Semaphore};
use crate::store::{self, Compare, Store, StoreError, Watch, Write};

/// A change whose answers are lost so often is given up.
pub(crate) const UNANSWERED: u32 = 3;

/// Seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How a lock behaves.
#[derive(Clone)]
pub struct Options {
    /// What all keys begin with.
    pub prefix: String,
    /// A holder that has not given its slot back after this time loses it (`expire-after=`); `None` keeps it for ever. Counted by etcd,
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
    /// The revisions that wrote the holders' records, by id.
    written: HashMap<String, i64>,
    /// Locks that ended since their time ran out, and are not in the audit trail yet.
    pub(crate) ran_out: Vec<RanOut>,
}

/// A change to write: the new semaphore, what to note, and more to compare and write in the same transaction.
pub(crate) struct Change<T> {
    pub(crate) next: Semaphore,
    pub(crate) act: Act,
    pub(crate) subject: String,
    /// More that must be so.
    pub(crate) compares: Vec<Compare>,
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
    pub(crate) fn write(next: Semaphore, act: Act, subject: impl Into<String>, writes: Vec<Write>, outcome: T) -> Self {
        Self::Write(Box::new(Change { next, act, subject: subject.into(), compares: Vec::new(), without: Vec::new(), writes, outcome }))
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

    /// How long a lock lasts whose host has vanished; none: for ever.
    #[must_use]
    pub fn expire_after(&self) -> Option<Duration> {
        self.options.expire_after
    }

    pub(crate) fn now(&self) -> u64 {
        (self.options.clock)()
    }

    pub(crate) async fn read(&self) -> Result<Snapshot, LockError> {
        let page = self.store.range(&store::Keys::Prefix(self.keys.lock()), 0).await?;
        let (key, holders, expirings) = (self.keys.semaphore(), self.keys.holders(), self.keys.expirings());
        let foreign = |key: &str, reason| LockError::Foreign { key: key.to_owned(), reason };
        let (mut semaphore, mut mod_revision) = (Semaphore::default(), 0);
        if let Some(entry) = page.entries.iter().find(|entry| entry.key == key) {
            semaphore = Semaphore::decode(&entry.value).map_err(|reason| foreign(&key, reason))?;
            mod_revision = entry.mod_revision;
        }
        let mut read = Snapshot { semaphore, mod_revision, revision: page.revision, written: HashMap::new(), ran_out: Vec::new() };
        for entry in &page.entries {
            if entry.key.starts_with(&holders) {
                let holder = self.holder_of(entry)?;
                read.written.insert(holder.id.clone(), entry.mod_revision);
                read.semaphore.add(holder).map_err(|reason| foreign(&entry.key, reason))?;
            } else if let Some(Ok(fence)) = entry.key.strip_prefix(&expirings).map(str::parse) {
                let id = String::from_utf8_lossy(&entry.value).into_owned();
                read.ran_out.push(RanOut { key: entry.key.clone(), mod_revision: entry.mod_revision, fence, id });
            }
        }
        let fences: HashSet<u64> = read.semaphore.holders.iter().map(|holder| holder.fence).collect();
        read.ran_out.retain(|ended| !fences.contains(&ended.fence));
        Ok(read)
    }

    /// Decides on `first`, or on what it reads, and writes, until the write was the first or `step` says that there is nothing to do. `step` sees each
    /// time what is: a write whose answer was lost is found there, so it must be able to tell that it has happened. With a place in the queue, the
    /// write demands that it is still there as it was joined.
    ///
    /// That the semaphore was not written since it was read is enough to count on: only a write of the semaphore adds a holder, so there can only be
    /// fewer holders than were read, and more slots free.
    pub(crate) async fn change<T: Send>(
        &self,
        actor: &Actor,
        mut first: Option<Snapshot>,
        place: Option<&Place>,
        mut step: impl FnMut(&Snapshot) -> Result<Step<T>, LockError> + Send,
    ) -> Result<T, LockError> {
        let mut backoff = Backoff::conflicts();
        let mut unanswered: Option<StoreError> = None;
        loop {
            let read = match first.take() {
                Some(read) => read,
                // A store that is away does not make known what became of the write before.
                None => self.read().await.map_err(|error| match (error, unanswered.take()) {
                    (LockError::Store(_), Some(before)) => before.into(),
                    (error, _) => error,
                })?,
            };
            let change = match step(&read)? {
                Step::Done(outcome) => return Ok(outcome),
                Step::Write(change) => change,
            };
            let record = Record::new(change.next.generation, self.now(), change.act, &change.subject, actor);
            let mut compares = vec![Compare::ModRevision(self.keys.semaphore(), read.mod_revision)];
            compares.extend(change.compares);
            compares.extend(change.without.iter().cloned().map(|key| Compare::CreateRevision(key, 0)));
            compares.extend(place.map(|place| Compare::ModRevision(place.waiter.clone(), place.noted)));
            let put = |key, value| Write::Put { key, value, lease: 0 };
            let mut writes =
                vec![put(self.keys.semaphore(), change.next.encode()), put(self.keys.audit(change.next.generation), record.encode())];
            writes.extend(change.writes);
            match self.store.txn(&compares, &writes).await {
                Ok(committed) if committed.succeeded => return Ok(change.outcome),
                Ok(_) => {
                    if let Err(refused) = self.still_possible(place, &change.without).await {
                        // A write before this one may be why: who queues looks for it then.
                        return Err(unanswered.filter(|_| place.is_some()).map_or(refused, LockError::from));
                    }
                }
                // What is there now tells whether it was done.
                Err(error) if error.may_have_happened() && backoff.attempts() < UNANSWERED => unanswered = Some(error),
                Err(error) => return Err(unanswered.unwrap_or(error).into()),
            }
            self.again(&mut backoff).await?;
        }
    }

    /// Waits for the next attempt, or gives up.
    pub(crate) async fn again(&self, backoff: &mut Backoff) -> Result<(), LockError> {
        if backoff.attempts() >= self.options.attempts {
            return Err(LockError::Contended { group: self.group.to_string(), attempts: backoff.attempts() });
        }
        tokio::time::sleep(backoff.wait()).await;
        Ok(())
    }

    /// Whether reading again can help: not without the place in the queue, and not with a quarantine.
    async fn still_possible(&self, place: Option<&Place>, without: &[String]) -> Result<(), LockError> {
        if let Some(place) = place {
            let page = self.store.range(&store::Keys::One(place.waiter.clone()), 1).await?;
            if page.entries.first().is_none_or(|entry| entry.mod_revision != place.noted) {
                return Err(StoreError::LeaseGone.into());
            }
        }
        for key in without {
            self.check_absent(key).await?;
        }
        Ok(())
    }

    /// Takes a slot now, or says why not. A host that has one keeps it, with its fence, for what it wants now.
    ///
    /// # Errors
    /// [`LockError::Full`], [`LockError::Quarantined`] and the others.
    pub async fn try_lock(&self, claim: &Claim, actor: &Actor) -> Result<Held, LockError> {
        self.check_quarantine(claim.version.as_deref()).await?;
        let read = self.read().await?;
        self.note_ran_out(&read, actor).await?;
        self.lock_from(read, claim, actor, None).await
    }

    /// Takes a slot, decided on `read`; the place in the queue goes in the same transaction.
    pub(crate) async fn lock_from(&self, read: Snapshot, claim: &Claim, actor: &Actor, place: Option<&Place>) -> Result<Held, LockError> {
        // Refused before anything is asked of the store.
        read.semaphore.lock(&self.group, claim, 0, false)?;
        // The time runs from before the lock on.
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
            let lease = timer.filter(|_| holder.expires).unwrap_or(0);
            // Without this a record that is given back in this moment would be there again, with its old fence.
            let as_read = read.written.get(&claim.id).copied().unwrap_or(0);
            let compares = vec![Compare::ModRevision(self.keys.holder(&claim.id), as_read)];
            let mut writes = vec![Write::Put { key: self.keys.holder(&claim.id), value: holder.encode(), lease }];
            if holder.expires {
                writes.push(Write::Put { key: self.keys.expiring(holder.fence), value: claim.id.clone().into_bytes(), lease: 0 });
            }
            let old = before.filter(|before| before.expires && !(holder.expires && before.fence == holder.fence));
            writes.extend(old.map(|old| Write::Delete(self.keys.expiring(old.fence))));
            writes.extend(place.into_iter().flat_map(|place| [Write::Delete(place.key.clone()), Write::Delete(place.waiter.clone())]));
            let act = if before.is_some() { Act::Relock } else { Act::Lock };
            let without = claim.version.iter().map(|version| self.keys.quarantine(version)).collect();
            let outcome = Held { holder, generation: next.generation };
            Ok(Step::Write(Box::new(Change { next, act, subject: claim.id.clone(), compares, without, writes, outcome })))
        };
        let outcome = self.change(actor, Some(read), place, step).await;
        if let (Some(lease), Err(error)) = (timer, &outcome) {
            // Not when the lock may be there after all, on this lease. Else it would end by itself, too.
            if !matches!(error, LockError::Store(_)) {
                let _ = self.store.revoke_lease(lease).await;
            }
        }
        outcome
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
        self.change(actor, None, None, step).await
    }

    /// The audit trail of the group, oldest first.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn audit(&self) -> Result<Vec<Record>, LockError> {
        let page = self.store.range(&store::Keys::Prefix(self.keys.audits()), 0).await?;
        Ok(audit::in_order(page.entries))
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

    /// Tells when the semaphore or its holders change after `revision`; its events need not be looked at.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn watch_lock(&self, revision: i64) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(&store::Keys::Prefix(self.keys.lock()), revision.saturating_add(1)).await
    }

    /// Ends when the lock that this host holds now was given back, or is held anew. Never where it holds none.
    pub async fn until_released(&self, id: &str) {
        let key = self.keys.holder(id);
        let mut outages = Backoff::outages();
        loop {
            let look = async {
                let read = self.read().await?;
                if !read.semaphore.holders.iter().any(|holder| holder.id == id) {
                    std::future::pending::<()>().await;
                }
                let mut watch = self.store.watch(&store::Keys::One(key.clone()), read.revision.saturating_add(1)).await?;
                Ok::<(), LockError>(watch.next().await.map(drop)?)
            };
            match look.await {
                Ok(()) => return,
                Err(_) => tokio::time::sleep(outages.wait()).await,
            }
        }
    }
}
