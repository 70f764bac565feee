//! Waiting for a slot in turn. Who waits has a place (a key, on a lease, so that a dead host's place goes away) and watches only the place before
//! its own; the first watches the semaphore. So each host is woken once or twice and a change wakes one host, however many wait.
//!
//! A place sorts by the revision that etcd had when its host came: no clock, no counter. Two hosts may each be first for a moment, since a place can
//! be put before another that already is; then both try, and compare-and-swap decides as always.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::audit::Actor;
use crate::backoff::Backoff;
use crate::error::LockError;
use crate::lock::{Held, RebootLock};
use crate::semaphore::Claim;
use crate::store::{Compare, Event, Keys, StoreError, Watch, Write};

/// How waiting goes, for logs and `why`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Others come first.
    Queued,
    /// It is this host's turn as soon as one of these holders gives its slot back.
    First {
        /// Their names.
        holders: String,
    },
    /// etcd does not work; it is tried again.
    Trouble(StoreError),
}

/// A place in the queue.
struct Place {
    key: String,
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
                    doubt.now |= error.may_have_happened();
                    doubt.ever |= doubt.now;
                    progress(Progress::Trouble(error));
                    sleep(outages.wait()).await;
                }
                // The place was too long unheard of.
                Err(LockError::Store(StoreError::LeaseGone)) => place = None,
                Err(LockError::Contended { .. } | LockError::Full { .. }) => sleep(outages.wait()).await,
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
        if let Some(holder) = self.certain(id, actor).await?
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
        if let Some(entry) = self.store.range(&Keys::One(waiter.clone()), 1).await?.entries.pop() {
            let mut writes = vec![Write::Delete(waiter.clone())];
            writes.extend(self.noted_place(&entry.value).map(Write::Delete));
            // When the note has changed meanwhile, it is of a later life of the host, whose place it is.
            self.store.txn(&[Compare::ModRevision(waiter, entry.mod_revision)], &writes).await?;
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
        if doubt.now {
            // A lock that lands while we sleep behind somebody would stop both for ever: it must be there now or never come.
            let landed = self.certain(&claim.id, actor).await?.is_some();
            doubt.now = false;
            if landed {
                return self.lock_from(self.read().await?, claim, actor, &self.done_with(place.as_ref(), &claim.id)).await;
            }
        }
        loop {
            let behind = match place {
                Some(place) => Some(Keys::After { key: place.key.clone(), prefix: self.keys.queue() }),
                None => None,
            };
            // Whoever is before us, or waits at all.
            let others = match &behind {
                Some(behind) => self.store.range(behind, 1).await?,
                None => self.store.range(&Keys::Prefix(self.keys.queue()), 1).await?,
            };
            outages.reset();
            let before = others.entries.into_iter().next();
            if let (Some(before), Some(place)) = (&before, place.as_mut()) {
                progress(Progress::Queued);
                let mut watch = self.store.watch(&Keys::One(before.key.clone()), others.revision.saturating_add(1)).await?;
                self.sleep_until(place, watch.as_mut(), |event| matches!(event, Event::Delete { .. })).await?;
                continue;
            }
            let read = self.read().await?;
            if self.expired(&read).is_some() {
                self.remove_expired(actor).await?;
                continue;
            }
            let mine = read.semaphore.holder(&claim.id);
            if !doubt.ever {
                doubt.before = mine.map(|holder| holder.fence);
            }
            let mine = mine.is_some();
            let first = mine || before.is_none();
            if first && (mine || read.semaphore.free() > 0) {
                match self.lock_from(read, claim, actor, &self.done_with(place.as_ref(), &claim.id)).await {
                    Err(LockError::Full { .. } | LockError::Contended { .. }) => continue,
                    other => return other,
                }
            }
            match place {
                None => *place = Some(self.join(&claim.id, read.revision).await?),
                Some(place) => {
                    progress(Progress::First { holders: read.semaphore.names() });
                    let mut watch = self.watch_lock(read.revision).await?;
                    self.sleep_until(place, watch.as_mut(), |_| true).await?;
                }
            }
        }
    }

    /// What goes when the lock is got.
    fn done_with(&self, place: Option<&Place>, id: &str) -> Vec<String> {
        place.iter().flat_map(|place| [place.key.clone(), self.keys.waiter(id)]).collect()
    }

    /// Sleeps until an event that counts, or until the place must be renewed: then all is looked at again, since a watch on a member that was cut off says
    /// nothing for as long as the kernel believes in the connection.
    async fn sleep_until(&self, place: &mut Place, watch: &mut dyn Watch, counts: impl Fn(&Event) -> bool) -> Result<(), LockError> {
        loop {
            match timeout_at(place.renew, watch.next()).await {
                Err(_) => {
                    self.store.keep_alive(place.lease).await?;
                    place.renew = Instant::now() + self.renewal();
                    return Ok(());
                }
                Ok(events) => {
                    if events?.iter().any(&counts) {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn renewal(&self) -> Duration {
        self.options.waiter_ttl / 3
    }

    /// A place at the end of the queue, or the one that this host has from before.
    async fn join(&self, id: &str, revision: i64) -> Result<Place, LockError> {
        let lease = self.store.grant_lease(self.options.waiter_ttl).await?;
        let renew = Instant::now() + self.renewal();
        let waiter = self.keys.waiter(id);
        let mut backoff = Backoff::conflicts();
        loop {
            let noted = self.store.range(&Keys::One(waiter.clone()), 1).await?.entries.pop();
            let key = noted.as_ref().and_then(|entry| self.noted_place(&entry.value)).unwrap_or_else(|| self.keys.place(revision, id));
            let compares = [Compare::ModRevision(waiter.clone(), noted.map_or(0, |entry| entry.mod_revision))];
            let put = |key: &str, value: &str| Write::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease };
            let writes = [put(&waiter, &key), put(&key, id)];
            match self.store.txn(&compares, &writes).await {
                Ok(committed) if committed.succeeded => return Ok(Place { key, lease, renew }),
                Ok(_) => {}
                Err(error) if error.may_have_happened() && backoff.attempts() < 3 => {}
                Err(error) => return Err(error.into()),
            }
            sleep(backoff.wait()).await;
        }
    }
}
