//! The reservation to take one member down, and the questions to the members. One key for a whole etcd cluster, taken by compare-and-swap.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Picture, Verdict, decide};
use crate::error::LockError;
use crate::etcd::Etcd;
use crate::keys::{self, Group, shortened};
use crate::lock::UNANSWERED;
use crate::store::{Compare, Keys, Store, StoreError, Watch, Write};

const FORMAT: u32 = 1;

/// Who takes a member down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    format: u32,
    /// Identity of the host.
    pub id: String,
    /// Its name.
    pub hostname: String,
    /// The boot that took it.
    pub boot_id: String,
    /// When, by the host's clock, in seconds since 1970.
    pub since: u64,
}

impl Reservation {
    /// Of a host, in this boot.
    #[must_use]
    pub fn new(id: &str, hostname: &str, boot_id: &str, since: u64) -> Self {
        Self { format: FORMAT, id: id.to_owned(), hostname: shortened(hostname, 64), boot_id: shortened(boot_id, 64), since }
    }
}

/// What came of asking for the reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is ours.
    Ours,
    /// Another host has it; watch from the revision on.
    Taken {
        /// Who.
        by: Reservation,
        /// The store's revision at that time.
        revision: i64,
    },
}

/// Looks after the quorum of one etcd cluster.
#[derive(Clone)]
pub struct Guard {
    store: Arc<dyn Store>,
    keys: keys::Keys,
    key: String,
}

impl Guard {
    /// With the keys below `prefix`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, prefix: &str) -> Self {
        let keys = keys::Keys::new(prefix, &Group::default());
        Self { store, key: keys.reservation(), keys }
    }

    /// Who has the reservation, with its revision, and the store's.
    ///
    /// # Errors
    /// [`LockError::Foreign`] for a value that is not ours, and those of the store.
    pub async fn reservation(&self) -> Result<(Option<(Reservation, i64)>, i64), LockError> {
        let page = self.store.range(&Keys::One(self.key.clone()), 1).await?;
        let Some(entry) = page.entries.into_iter().next() else { return Ok((None, page.revision)) };
        let foreign = |reason: String| LockError::Foreign { key: self.key.clone(), reason };
        let read: Reservation =
            serde_json::from_slice(&entry.value).map_err(|error| foreign(format!("its value cannot be read ({error})")))?;
        if read.format != FORMAT {
            return Err(foreign(format!("its format is {}, and this program knows {FORMAT}", read.format)));
        }
        Ok((Some((read, entry.mod_revision)), page.revision))
    }

    /// Takes the reservation if nobody else has it. Asking again is fine, and makes a late release of ours fail. With `expire_after`, etcd drops it
    /// when the host has not come back by then.
    ///
    /// The host notes first that it asks, and the reservation demands that note as it was written: what is still under way from a try that was given up
    /// never comes after the next try, or after a release, which takes the note away. A reservation that nobody knows of would stop all members.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn reserve(&self, mine: &Reservation, expire_after: Option<Duration>) -> Result<Reserved, LockError> {
        let mut unanswered = 0;
        let asking = self.keys.asking(&mine.id);
        loop {
            let (held, revision) = self.reservation().await?;
            let before = match held {
                Some((by, _)) if by.id != mine.id => return Ok(Reserved::Taken { by, revision }),
                Some((_, before)) => before,
                None => 0,
            };
            let note = Write::Put { key: asking.clone(), value: mine.boot_id.clone().into_bytes(), lease: 0 };
            let Some(noted) = self.done(&[], &[note], &mut unanswered).await? else { continue };
            let lease = match expire_after {
                Some(after) => self.store.grant_lease(after).await?,
                None => 0,
            };
            let value = serde_json::to_vec(mine).unwrap_or_default();
            let compares = [Compare::ModRevision(self.key.clone(), before), Compare::ModRevision(asking.clone(), noted)];
            if self.done(&compares, &[Write::Put { key: self.key.clone(), value, lease }], &mut unanswered).await?.is_some() {
                return Ok(Reserved::Ours);
            }
        }
    }

    /// The revision at which writes were done; none where they were not, or no answer came: what is there now has to be looked at.
    async fn done(&self, compares: &[Compare], writes: &[Write], unanswered: &mut u32) -> Result<Option<i64>, LockError> {
        match self.store.txn(compares, writes).await {
            Ok(committed) => Ok(committed.succeeded.then_some(committed.revision)),
            Err(error) if error.may_have_happened() && *unanswered < UNANSWERED => {
                *unanswered += 1;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the reservation back if it is of host `id`; whether it was. What that host has asked for never comes after this.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn release(&self, id: &str) -> Result<bool, LockError> {
        let mut unanswered = 0;
        let mut had = false;
        loop {
            let (there, revision) = self.reservation().await?.0.map_or((None, 0), |(held, revision)| (Some(held.id), revision));
            let own = there.is_some_and(|holder| holder == id);
            had |= own;
            let mut writes = vec![Write::Delete(self.keys.asking(id))];
            writes.extend(own.then(|| Write::Delete(self.key.clone())));
            if self.done(&[Compare::ModRevision(self.key.clone(), revision)], &writes, &mut unanswered).await?.is_some() {
                return Ok(had);
            }
        }
    }

    /// Tells when the reservation changes after `revision`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn watch(&self, revision: i64) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(&Keys::One(self.key.clone()), revision.saturating_add(1)).await
    }
}

/// Asks all members how they are. `local` is the client URL of this host's member; `None` when it has none.
///
/// # Errors
/// When the list of members cannot be had. A member that does not answer is part of the picture.
pub async fn survey(etcd: &Etcd, local: Option<&Url>) -> Result<Picture, StoreError> {
    let Some(local) = local else { return Ok(Picture { own: None, members: Vec::new() }) };
    let members = etcd.members().await?;
    let own = own_member(etcd, local, &members).await?;
    let mut picture = Picture { own, members: Vec::new() };
    for member in members {
        let mut health = Err("it has no client URL".to_owned());
        for url in &member.client_urls {
            health = etcd.health(url).await.map_err(|error| error.to_string());
            if health.is_ok() {
                break;
            }
        }
        picture.members.push((member, health));
    }
    Ok(picture)
}

/// Which member this host is. When it does not answer, its URL in the list tells; when that does not either, it is not known, which is an error: a host that
/// may be a member must not pass for none.
async fn own_member(etcd: &Etcd, local: &Url, members: &[crate::etcd::Member]) -> Result<Option<u64>, StoreError> {
    match etcd.health(local).await {
        Ok(health) => Ok(Some(health.member)),
        Err(error) => match members.iter().find(|member| member.client_urls.contains(local)) {
            Some(member) => Ok(Some(member.id)),
            None => Err(error),
        },
    }
}

/// Surveys the members, decides, and moves the leadership away where this host has it; looks again after that.
///
/// # Errors
/// When the members cannot be asked, or the leadership does not move.
pub async fn prepare(etcd: &Etcd, local: Option<&Url>) -> Result<Verdict, StoreError> {
    let verdict = decide(&survey(etcd, local).await?);
    let (Verdict::Allow { move_leader_to: Some(to), .. }, Some(local)) = (&verdict, local) else { return Ok(verdict) };
    etcd.move_leader(local, *to).await?;
    Ok(match decide(&survey(etcd, Some(local)).await?) {
        Verdict::Allow { move_leader_to: Some(_), .. } => Verdict::Refuse { why: "the leadership of etcd did not move away".to_owned() },
        verdict => verdict,
    })
}
