//! Answers requests from the semaphores in etcd. A FleetLock client's lock is marked as such: it can neither take over nor give back the lock of a host that
//! uses etcd itself, though both count in the same semaphore.

use std::sync::Arc;
use std::time::Duration;

use super::protocol::{Call, Incoming, Refusal, Reply, Request, parse};
use crate::audit::Actor;
use crate::error::LockError;
use crate::keys::Group;
use crate::lock::{Options, RebootLock};
use crate::semaphore::{Claim, Purpose};
use crate::store::Store;

/// A request that takes longer is given up; what was sent to etcd by then is guarded by its revision.
const DEADLINE: Duration = Duration::from_secs(30);

/// Serves FleetLock from a store.
#[derive(Clone)]
pub struct Service {
    store: Arc<dyn Store>,
    options: Options,
    groups: Option<Vec<Group>>,
    host: String,
}

impl Service {
    /// On this `host` (for the audit trail); for `groups` only, or for any.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, options: Options, groups: Option<Vec<Group>>, host: &str) -> Self {
        Self { store, options, groups, host: host.to_owned() }
    }

    /// Answers a request of `peer`. Bad ones never reach a lock.
    pub async fn answer(&self, incoming: &Incoming<'_>, peer: &str) -> Reply {
        let outcome = match parse(incoming) {
            Ok(request) => self.act(&request, peer).await,
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(()) => Reply { status: 200, body: String::new() },
            Err(refusal) => refusal.reply(),
        }
    }

    async fn act(&self, request: &Request, peer: &str) -> Result<(), Refusal> {
        if self.groups.as_ref().is_some_and(|groups| !groups.contains(&request.group)) {
            return Err(Refusal::new(400, "unknown_group", format!("group {} is not served here", request.group)));
        }
        let lock = RebootLock::new(Arc::clone(&self.store), request.group.clone(), self.options.clone());
        let why = match request.call {
            Call::PreReboot => "asked for a reboot",
            Call::SteadyState => "is in steady state",
        };
        let actor = Actor { host: self.host.clone(), by: format!("fleet-lock {peer}"), why: why.to_owned() };
        let done = async {
            match request.call {
                Call::PreReboot => lock.try_lock(&claim(&request.id), &actor).await.map(|_| ()),
                Call::SteadyState => steady(&lock, &request.id, &actor).await,
            }
        };
        match tokio::time::timeout(DEADLINE, done).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Refusal::from(&error)),
            Err(_) => Err(Refusal::new(503, "deadline", format!("etcd did not do it within {} s", DEADLINE.as_secs()))),
        }
    }
}

fn claim(id: &str) -> Claim {
    Claim {
        id: id.to_owned(),
        hostname: String::new(),
        boot_id: String::new(),
        purpose: Purpose::FleetLock,
        reason: "FleetLock client".to_owned(),
        version: None,
    }
}

/// Gives back the lock that the client has now. When it asks for another one meanwhile, that has another fence and stays.
async fn steady(lock: &RebootLock, id: &str, actor: &Actor) -> Result<(), LockError> {
    let record = lock.record(id).await?.map(|(holder, _)| holder);
    let Some(holder) = record.filter(|holder| holder.purpose == Purpose::FleetLock) else { return Ok(()) };
    match lock.unlock(id, Some(holder.fence), actor).await {
        Ok(_) | Err(LockError::Lost { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
