//! Waiting for a slot in turn. Who waits has a place (a key, on a lease, so that a dead host's place goes away) and watches only the place before
//! its own; the first watches the semaphore. So each host is woken once or twice and a change wakes one host, however many wait.
//!
//! A place sorts by the revision that etcd had when its host came: no clock, no counter. Two hosts may each be first for a moment, since a place can
//! be put before another that already is; then both try, and compare-and-swap decides as always.
//!
//! Who wants a slot always makes a place first, and the lock demands it as it was made: to make sure that a lock which is still under way can never
//! come, it is enough to leave or to make the place again. That is the host's own business, and writes no semaphore.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::audit::Actor;
use crate::backoff::Backoff;
use crate::error::LockError;
use crate::lock::{Held, RebootLock, Snapshot, UNANSWERED};
use crate::semaphore::{Claim, Semaphore};
use crate::store::{Compare, Event, Keys, StoreError, Watch, Write};

/// How waiting goes, for logs and `why`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Others come first.
    Queued {
        /// Who has the lock meanwhile, if that could be read.
        holders: Option<Holders>,
    },
    /// It is this host's turn as soon as one of these holders gives its slot back.
    First {
        /// Who has the lock.
        holders: Holders,
    },
    /// etcd does not work; it is tried again.
    Trouble(StoreError),
}

/// Who has the lock: a host that does not come back keeps it, and those who wait must be able to say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders {
    /// Their names, a few of them.
    pub names: String,
    /// How many they are.
    pub count: usize,
    /// Since when the first of them has it, by its clock.
    pub since: Option<u64>,
}

impl Holders {
    fn of(semaphore: &Semaphore) -> Self {
        let since = semaphore.holders.iter().map(|holder| holder.since).min();
        Self { names: semaphore.names(), count: semaphore.holders.len(), since }
    }
}

/// A place in the queue.
pub(crate) struct Place {
    pub(crate) key: String,
    /// Where it is noted, and the revision that noted it.
    pub(crate) waiter: String,
    pub(crate) noted: i64,
    lease: i64,
    renew: Instant,
}

/// What we do not know about our own lock.
#[derive(Default)]
struct Doubt {
    /// An answer is missing, so a lock may be there or still come.
    now: bool,
    /// An answer was missing at some time.
    ever: bool,
    /// The fence of the lock that the host had before all that.
    before: Option<u64>,
}

impl RebootLock {
    /// Takes a slot, waiting in turn as long as it takes: also while etcd is away. Can be dropped at any time; call [`RebootLock::settle`] then, since the lock
    /// may just have been got.
    ///
    /// # Errors
    /// [`LockError::Quarantined`], and what waiting cannot mend: [`LockError::Foreign`], bad names, refused credentials.
    pub async fn acquire(&self, claim: &Claim, actor: &Actor, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<Held, LockError> {
        let mut place = None;
        let mut outages = Backoff::outages();
        let mut doubt = Doubt::default();
        loop {
            match self.attempt(claim, actor, &mut place, &mut doubt, progress, &mut outages).await {
                Ok(held) => {
                    self.give_up(place).await;
                    return Ok(held);
                }
                Err(LockError::Store(error)) if error.passes() => {
                    progress(Progress::Trouble(error));
                    sleep(outages.wait()).await;
                }
                // The place was too long unheard of.
                Err(LockError::Store(StoreError::LeaseGone)) => place = None,
                // It looks for its own record when it joins again, at the same place.
                Err(LockError::Contended { .. } | LockError::Full { .. }) => {
                    place = None;
                    sleep(outages.wait()).await;
                }
                Err(error) => {
                    if doubt.ever {
                        self.give_back(&claim.id, doubt.before, actor).await?;
                    }
                    self.give_up(place).await;
                    return Err(error);
                }
            }
        }
    }

    /// Gives back a lock that was got without our hearing of it; not one from before.
    async fn give_back(&self, id: &str, before: Option<u64>, actor: &Actor) -> Result<(), LockError> {
        if let Some(holder) = self.settle(id).await?
            && Some(holder.fence) != before
        {
            self.unlock(id, Some(holder.fence), actor).await?;
        }
        Ok(())
    }

    /// Leaves the queue; the place of an earlier life of this host, too.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn leave(&self, id: &str) -> Result<(), LockError> {
        let waiter = self.keys.waiter(id);
        let mut backoff = Backoff::conflicts();
        while let Some(entry) = self.store.range(&Keys::One(waiter.clone()), 1).await?.entries.pop() {
            let mut writes = vec![Write::Delete(waiter.clone())];
            writes.extend(self.noted_place(&entry.value).map(Write::Delete));
            if self.store.txn(&[Compare::ModRevision(waiter.clone(), entry.mod_revision)], &writes).await?.succeeded {
                break;
            }
            self.again(&mut backoff).await?;
        }
        Ok(())
    }

    /// How many hosts wait.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn waiting(&self) -> Result<u64, LockError> {
        Ok(self.store.count(&Keys::Prefix(self.keys.queue())).await?)
    }

    fn noted_place(&self, value: &[u8]) -> Option<String> {
        std::str::from_utf8(value).ok().filter(|key| key.starts_with(&self.keys.queue())).map(str::to_owned)
    }

    async fn give_up(&self, place: Option<Place>) {
        if let Some(place) = place {
            // It ends by itself when this fails.
            let _ = self.store.revoke_lease(place.lease).await;
        }
    }

    async fn attempt(
        &self,
        claim: &Claim,
        actor: &Actor,
        place: &mut Option<Place>,
        doubt: &mut Doubt,
        progress: &(dyn Fn(Progress) + Send + Sync),
        outages: &mut Backoff,
    ) -> Result<Held, LockError> {
        self.check_quarantine(claim.version.as_deref()).await?;
        let own = match place {
            Some(own) if !doubt.now => own,
            _ => {
                // A lock that lands while we sleep behind somebody would stop both for ever: after this it is there or never comes.
                let joined = self.join(&claim.id).await?;
                let mine = self.record(&claim.id).await?;
                if !doubt.ever {
                    doubt.before = mine.as_ref().map(|(holder, _)| holder.fence);
                }
                doubt.now = false;
                let own = place.insert(joined);
                if mine.is_some() {
                    return self.take(self.read().await?, claim, actor, own, doubt).await;
                }
                own
            }
        };
        let (mut first, mut next) = (false, false);
        loop {
            let mut read = None;
            if !first {
                let behind = Keys::After { key: own.key.clone(), prefix: self.keys.queue() };
                // When the one before went, it most likely is our turn: what we then need to know is asked for at the same time.
                let (others, lock) =
                    tokio::join!(self.store.range(&behind, 1), async { if next { Some(self.read().await) } else { None } });
                let others = others?;
                if let Some(before) = others.entries.into_iter().next() {
                    // For people; the wait does not hang on it.
                    let holders = self.read().await.ok().map(|read| Holders::of(&read.semaphore));
                    progress(Progress::Queued { holders });
                    let mut watch = self.store.watch(&Keys::One(before.key), others.revision.saturating_add(1)).await?;
                    outages.reset();
                    next = self.sleep_until(own, watch.as_mut(), |event| matches!(event, Event::Delete { .. })).await?;
                    continue;
                }
                read = lock.transpose()?;
            }
            let read = match read {
                Some(read) => read,
                None => self.read().await?,
            };
            self.note_ran_out(&read, actor).await?;
            if read.semaphore.holder(&claim.id).is_some() || read.semaphore.free() > 0 {
                match self.take(read, claim, actor, own, doubt).await {
                    Err(LockError::Full { .. } | LockError::Contended { .. }) => continue,
                    other => return other,
                }
            }
            progress(Progress::First { holders: Holders::of(&read.semaphore) });
            let mut watch = self.watch_lock(read.revision).await?;
            outages.reset();
            first = self.sleep_until(own, watch.as_mut(), |_| true).await?;
        }
    }

    /// Locks; when the answer is missing, that is in doubt.
    async fn take(&self, read: Snapshot, claim: &Claim, actor: &Actor, own: &Place, doubt: &mut Doubt) -> Result<Held, LockError> {
        let outcome = self.lock_from(read, claim, actor, Some(own)).await;
        if matches!(&outcome, Err(LockError::Store(error)) if error.may_have_happened()) {
            (doubt.now, doubt.ever) = (true, true);
        }
        outcome
    }

    /// Sleeps until an event that counts, or until the place must be renewed (`false`): then all is looked at again, since a watch on a member that was cut
    /// off says nothing for as long as the kernel believes in the connection.
    async fn sleep_until(&self, place: &mut Place, watch: &mut dyn Watch, counts: impl Fn(&Event) -> bool) -> Result<bool, LockError> {
        loop {
            match timeout_at(place.renew, watch.next()).await {
                Err(_) => {
                    self.store.keep_alive(place.lease).await?;
                    place.renew = Instant::now() + self.renewal();
                    return Ok(false);
                }
                Ok(events) => {
                    if events?.iter().any(&counts) {
                        return Ok(true);
                    }
                }
            }
        }
    }

    fn renewal(&self) -> Duration {
        self.options.waiter_ttl / 3
    }

    /// A place at the end of the queue, or the one that this host has from before, noted anew.
    pub(crate) async fn join(&self, id: &str) -> Result<Place, LockError> {
        let lease = self.store.grant_lease(self.options.waiter_ttl).await?;
        let renew = Instant::now() + self.renewal();
        let waiter = self.keys.waiter(id);
        let mut backoff = Backoff::conflicts();
        loop {
            let mut page = self.store.range(&Keys::One(waiter.clone()), 1).await?;
            let noted = page.entries.pop();
            let key = noted.as_ref().and_then(|entry| self.noted_place(&entry.value)).unwrap_or_else(|| self.keys.place(page.revision, id));
            let compares = [Compare::ModRevision(waiter.clone(), noted.map_or(0, |entry| entry.mod_revision))];
            let put = |key: &str, value: &str| Write::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease };
            let writes = [put(&waiter, &key), put(&key, id)];
            match self.store.txn(&compares, &writes).await {
                Ok(committed) if committed.succeeded => return Ok(Place { key, waiter, noted: committed.revision, lease, renew }),
                Ok(_) => {}
                Err(error) if error.may_have_happened() && backoff.attempts() < UNANSWERED => {}
                Err(error) => return Err(error.into()),
            }
            self.again(&mut backoff).await?;
        }
    }
}
