//! A store in memory, for tests: one process, no clock of its own, and it breaks when told to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Committed, Compare, Entry, Event, Keys, Page, Store, StoreError, Watch, Write};

/// What happens to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Somebody else was first: the conditions do not hold.
    Conflict,
    /// It never arrives.
    LostRequest,
    /// It is done, and nobody hears of it.
    LostAnswer,
    /// It is done, and arrives once more.
    Duplicate,
    /// The answer does not come; it arrives at [`Memory::deliver_late`].
    Late,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<String, (Entry, i64)>,
    revision: i64,
    log: Vec<(i64, Event)>,
    leases: HashMap<i64, (Duration, Duration)>,
    now: Duration,
    down: bool,
    no_watches: bool,
    faults: VecDeque<Fault>,
    late: Vec<(Vec<Compare>, Vec<Write>)>,
    requests: u64,
}

/// The store. Clones are the same store.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<i64>,
}

impl Default for Memory {
    fn default() -> Self {
        let inner = Inner { revision: 1, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), changed: watch::Sender::new(1) }
    }
}

impl Memory {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn tell(&self, inner: &Inner) {
        self.changed.send_replace(inner.revision);
    }

    /// What happens to the transactions that come next, one fault each.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner().faults.extend(faults);
    }

    /// The transactions that were [`Fault::Late`] arrive now.
    pub fn deliver_late(&self) {
        let mut inner = self.inner();
        for (compares, writes) in std::mem::take(&mut inner.late) {
            if !inner.lacks_lease(&writes) {
                inner.commit(&compares, &writes);
            }
        }
        self.tell(&inner);
    }

    /// While down, every call fails and watches break.
    pub fn set_down(&self, down: bool) {
        let mut inner = self.inner();
        inner.down = down;
        self.tell(&inner);
    }

    /// While it has too much to do for watches, calls work and none can be begun.
    pub fn set_no_watches(&self, refuse: bool) {
        self.inner().no_watches = refuse;
    }

    /// Time passes: leases end.
    pub fn advance(&self, by: Duration) {
        let mut inner = self.inner();
        inner.now += by;
        let ended: Vec<i64> = inner.leases.iter().filter(|(_, (_, end))| *end <= inner.now).map(|(id, _)| *id).collect();
        for lease in ended {
            inner.end_lease(lease);
        }
        self.tell(&inner);
    }

    /// Calls so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.inner().requests
    }

    /// All changes so far, oldest first, with their revisions.
    #[must_use]
    pub fn history(&self) -> Vec<(i64, Event)> {
        self.inner().log.clone()
    }

    fn call(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let mut inner = self.inner();
        inner.requests += 1;
        if inner.down { Err(StoreError::Unreachable { reason: "it was taken down".to_owned() }) } else { Ok(inner) }
    }
}

impl Inner {
    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::ModRevision(key, revision) => self.entries.get(key).map_or(0, |(entry, _)| entry.mod_revision) == *revision,
            Compare::CreateRevision(key, revision) => self.entries.get(key).map_or(0, |(entry, _)| entry.create_revision) == *revision,
        }
    }

    fn commit(&mut self, compares: &[Compare], writes: &[Write]) -> bool {
        if !compares.iter().all(|compare| self.holds(compare)) {
            return false;
        }
        let revision = self.revision + 1;
        let mut changed = false;
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    let create_revision = self.entries.get(key).map_or(revision, |(entry, _)| entry.create_revision);
                    let entry = Entry { key: key.clone(), value: value.clone(), create_revision, mod_revision: revision };
                    self.log.push((revision, Event::Put(entry.clone())));
                    self.entries.insert(key.clone(), (entry, *lease));
                    changed = true;
                }
                Write::Delete(key) => {
                    if self.entries.remove(key).is_some() {
                        self.log.push((revision, Event::Delete { key: key.clone(), revision }));
                        changed = true;
                    }
                }
            }
        }
        if changed {
            self.revision = revision;
        }
        true
    }

    /// etcd refuses writes with a lease that it does not have.
    fn lacks_lease(&self, writes: &[Write]) -> bool {
        writes.iter().any(|write| matches!(write, Write::Put { lease, .. } if *lease != 0 && !self.leases.contains_key(lease)))
    }

    fn end_lease(&mut self, lease: i64) {
        self.leases.remove(&lease);
        let gone: Vec<Write> = self.entries.iter().filter(|(_, (_, of))| *of == lease).map(|(key, _)| Write::Delete(key.clone())).collect();
        self.commit(&[], &gone);
    }
}

#[async_trait]
impl Store for Memory {
    async fn range(&self, keys: &Keys, limit: u32) -> Result<Page, StoreError> {
        let inner = self.call()?;
        let found: Vec<&Entry> = inner.entries.values().map(|(entry, _)| entry).filter(|entry| keys.contain(&entry.key)).collect();
        let most = if limit == 0 { usize::MAX } else { limit as usize };
        Ok(Page { count: found.len() as u64, entries: found.into_iter().take(most).cloned().collect(), revision: inner.revision })
    }

    async fn count(&self, keys: &Keys) -> Result<u64, StoreError> {
        Ok(self.range(keys, 1).await?.count)
    }

    async fn txn(&self, compares: &[Compare], writes: &[Write]) -> Result<Committed, StoreError> {
        let mut inner = self.call()?;
        if inner.lacks_lease(writes) {
            return Err(StoreError::LeaseGone);
        }
        let deadline = || StoreError::Deadline { after: Duration::from_secs(5), detail: String::new() };
        match inner.faults.pop_front() {
            Some(Fault::Conflict) => return Ok(Committed { succeeded: false, revision: inner.revision }),
            Some(Fault::LostRequest) => return Err(deadline()),
            Some(Fault::Late) => {
                inner.late.push((compares.to_vec(), writes.to_vec()));
                return Err(deadline());
            }
            Some(Fault::LostAnswer) => {
                inner.commit(compares, writes);
                self.tell(&inner);
                return Err(StoreError::Broken { endpoint: "memory".to_owned(), reason: "the answer was lost".to_owned() });
            }
            Some(Fault::Duplicate) => {
                let succeeded = inner.commit(compares, writes);
                inner.commit(compares, writes);
                self.tell(&inner);
                return Ok(Committed { succeeded, revision: inner.revision });
            }
            None => {}
        }
        let succeeded = inner.commit(compares, writes);
        self.tell(&inner);
        Ok(Committed { succeeded, revision: inner.revision })
    }

    async fn watch(&self, keys: &Keys, from: i64) -> Result<Box<dyn Watch>, StoreError> {
        if self.call()?.no_watches {
            return Err(StoreError::Deadline { after: Duration::from_secs(5), detail: String::new() });
        }
        Ok(Box::new(MemoryWatch { store: self.clone(), keys: keys.clone(), next: from, changed: self.changed.subscribe() }))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<i64, StoreError> {
        let mut inner = self.call()?;
        let lease = i64::try_from(inner.requests).unwrap_or(i64::MAX);
        let end = inner.now + ttl;
        inner.leases.insert(lease, (ttl, end));
        Ok(lease)
    }

    async fn keep_alive(&self, lease: i64) -> Result<(), StoreError> {
        let mut inner = self.call()?;
        let now = inner.now;
        let (ttl, end) = inner.leases.get_mut(&lease).ok_or(StoreError::LeaseGone)?;
        *end = now + *ttl;
        Ok(())
    }

    async fn revoke_lease(&self, lease: i64) -> Result<(), StoreError> {
        let mut inner = self.call()?;
        inner.end_lease(lease);
        self.tell(&inner);
        Ok(())
    }
}

struct MemoryWatch {
    store: Memory,
    keys: Keys,
    next: i64,
    changed: watch::Receiver<i64>,
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        loop {
            self.changed.borrow_and_update();
            {
                let inner = self.store.inner();
                if inner.down {
                    return Err(StoreError::Broken { endpoint: "memory".to_owned(), reason: "it was taken down".to_owned() });
                }
                let first = inner.log.partition_point(|(revision, _)| *revision < self.next);
                let key = |event: &Event| match event {
                    Event::Put(entry) => self.keys.contain(&entry.key),
                    Event::Delete { key, .. } => self.keys.contain(key),
                };
                let events: Vec<Event> = inner.log.iter().skip(first).map(|(_, event)| event.clone()).filter(key).collect();
                self.next = inner.revision + 1;
                if !events.is_empty() {
                    return Ok(events);
                }
            }
            if self.changed.changed().await.is_err() {
                return Err(StoreError::Broken { endpoint: "memory".to_owned(), reason: "it is gone".to_owned() });
            }
        }
    }
}
