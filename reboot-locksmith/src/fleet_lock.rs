//! The permission of a FleetLock server, as [`crate::permission`] wants it. The protocol keeps nothing at the client and both its calls may be
//! repeated; what this host knows about its last reboot is in the journal.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use reboot_lock::fleetlock::{Client, ClientError};
use reboot_lock::release::Decision;
use reboot_rules::inhibitors::clean;
use reboot_rules::settings::{Settings, Strategy};

use crate::connect;
use crate::etcd_lock::{decision, record_of};
use crate::host::Identity;
use crate::journal::Claimed;
use crate::permission::{Claim, Earlier, Failure, HostState, Lock, Refusal, Report};
use crate::policy::LockFact;

/// Seconds between questions while the server says no: the protocol has no other way to wait.
const EVERY: u64 = 60;

/// The lock.
pub struct FleetLock {
    client: Client,
    identity: Identity,
    /// What an earlier boot asked for.
    earlier: Option<Claimed>,
    /// Whether the server knows that this host is up.
    steady: Mutex<bool>,
}

impl FleetLock {
    /// A client for the server that settings name; `claimed`: what the journal knows of an earlier life.
    ///
    /// # Errors
    /// One line: which setting cannot be followed.
    pub fn new(settings: &Settings, identity: &Identity, claimed: Option<&Claimed>) -> Result<Self, String> {
        let server = settings.fleet_lock.as_ref().ok_or("`fleet_lock` names no server")?;
        let client = connect::fleet_lock(server, &settings.group, &identity.machine_id)?;
        let earlier = Claimed::earlier(claimed, &[Strategy::FleetLock], &identity.boot_id);
        Ok(Self { client, identity: identity.clone(), earlier, steady: Mutex::new(false) })
    }

    fn set_steady(&self, steady: bool) {
        if let Ok(mut now) = self.steady.lock() {
            *now = steady;
        }
    }
}

/// A server that says no may say yes later; only what it said is certain.
fn refusal(error: &ClientError) -> Refusal {
    match error {
        ClientError::Unreachable { .. } => Refusal::Down(error.to_string()),
        ClientError::Denied { kind, value, .. } => Refusal::No(format!("the server says {} ({})", clean(value), clean(kind))),
        ClientError::Configuration(_) => Refusal::No(error.to_string()),
    }
}

#[async_trait]
impl Lock for FleetLock {
    async fn acquire(&self, _: &Claim, news: &(dyn Fn(LockFact) + Send + Sync)) -> Result<Option<u64>, Refusal> {
        self.set_steady(false);
        loop {
            match self.client.pre_reboot().await {
                Ok(()) => return Ok(None),
                Err(error @ ClientError::Denied { .. }) => {
                    if let Refusal::No(why) = refusal(&error) {
                        news(LockFact::Waiting(why));
                    }
                    // Spread a little, by the identity: hosts that were refused together do not come back together.
                    let spread = self.identity.number(None) % (EVERY / 4);
                    tokio::time::sleep(Duration::from_secs(EVERY + spread)).await;
                }
                Err(error) => return Err(refusal(&error)),
            }
        }
    }

    async fn confirm(&self, _: &Claim, _: Option<u64>) -> Result<(), Refusal> {
        self.client.pre_reboot().await.map_err(|error| refusal(&error))
    }

    async fn settle(&self, host: &HostState) -> Result<Earlier, Refusal> {
        if self.steady.lock().is_ok_and(|steady| *steady) {
            return Ok(Earlier::Nothing);
        }
        let Some(claimed) = &self.earlier else {
            // Nothing is known of an earlier life, and the server is told once that this host is up, as the protocol wants it.
            return Ok(match host.healthy {
                true => Earlier::Release { why: "this host is up".to_owned() },
                false => Earlier::Keep { why: "the host is not healthy yet".to_owned(), failed: None },
            });
        };
        Ok(match decision(&record_of(claimed, &self.identity), &self.identity, host, false) {
            Decision::Release { why } => Earlier::Release { why },
            Decision::Keep { why } => Earlier::Keep { why, failed: None },
            Decision::FellBack { version, reason } => {
                let what = format!("version {version} failed on this host ({reason})");
                let why = format!("{what}; the FleetLock server's operator frees the lock, or a newer release does");
                let report = Report { version, boot_id: claimed.boot_id.clone() };
                Earlier::Keep { why, failed: Some(Failure { report, reason }) }
            }
        })
    }

    async fn give_back(&self, _: &str) -> Result<(), Refusal> {
        self.client.steady_state().await.map_err(|error| refusal(&error))?;
        self.set_steady(true);
        Ok(())
    }

    async fn quarantine(&self, _: &str, _: &str) -> Result<(), Refusal> {
        // The protocol has no word for it: that the lock stays taken is what others see.
        Ok(())
    }

    async fn changed(&self) {
        tokio::time::sleep(Duration::from_secs(EVERY)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reboot_lock::fleetlock::{Listener, Service};
    use reboot_lock::lock::Options;
    use reboot_lock::store::Memory;
    use reboot_rules::settings;
    use std::sync::Arc;

    fn host(url: &str, id: &str, boot: &str, version: &str, claimed: Option<&Claimed>) -> FleetLock {
        let server = settings::FleetLock { url: url.to_owned(), ca_file: None };
        let settings = Settings { fleet_lock: Some(server), ..Settings::default() };
        let identity = Identity { machine_id: id.into(), boot_id: boot.into(), hostname: id.into(), version: version.into() };
        FleetLock::new(&settings, &identity, claimed).unwrap()
    }

    #[tokio::test]
    async fn the_server_is_asked_again_after_a_no_and_told_when_the_host_is_healthy_on_the_version() {
        let service = Service::new(Arc::new(Memory::default()), Options::default(), None, "server");
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None, service).await.unwrap();
        let url = format!("http://{}", listener.address().unwrap());
        let server = tokio::spawn(async move { listener.serve().await });
        let claim = Claim { version: Some("1.1".into()), reason: "an update".into() };
        let (healthy, starting) = (HostState { healthy: true, ..HostState::default() }, HostState::default());
        let first = host(&url, "a", "one", "1.0", None);
        assert_eq!(first.acquire(&claim, &|_| {}).await, Ok(None));
        assert_eq!(first.confirm(&claim, None).await, Ok(()));
        let second = host(&url, "b", "one", "1.0", None);
        let said = Mutex::new(Vec::new());
        let hear = |fact| said.lock().unwrap().push(fact);
        let waits = tokio::time::timeout(Duration::from_millis(500), second.acquire(&claim, &hear)).await;
        assert!(waits.is_err());
        let heard = said.lock().unwrap().clone();
        let [LockFact::Waiting(why)] = heard.as_slice() else { panic!("{heard:?}") };
        assert!(why.contains("failed_lock_semaphore_full"), "{why}");
        assert!(matches!(second.confirm(&claim, None).await, Err(Refusal::No(_))));
        // The first host comes back.
        let claimed = Claimed { claim: claim.clone(), boot_id: "one".into(), strategy: "fleet-lock".into(), fence: None };
        let back = host(&url, "a", "two", "1.1", Some(&claimed));
        assert!(matches!(back.settle(&starting).await, Ok(Earlier::Keep { failed: None, .. })));
        let fell = host(&url, "a", "two", "1.0", Some(&claimed));
        assert!(matches!(fell.settle(&healthy).await, Ok(Earlier::Keep { failed: Some(_), .. })));
        assert!(matches!(back.settle(&healthy).await, Ok(Earlier::Release { .. })));
        back.give_back("healthy").await.unwrap();
        assert_eq!(back.settle(&healthy).await, Ok(Earlier::Nothing));
        assert_eq!(second.confirm(&claim, None).await, Ok(()));
        server.abort();
        let _ = server.await;
        assert!(matches!(second.give_back("x").await, Err(Refusal::Down(_))));
    }
}
