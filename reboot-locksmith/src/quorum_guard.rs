//! The quorum of the etcd cluster that this host is a member of, as [`crate::permission`] wants it: one reservation for the whole cluster, then
//! the members' word that the rest is well, then the leadership moved away.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reboot_lock::etcd::Etcd;
use reboot_lock::quorum::{self, Reservation, Reserved, Verdict};
use reboot_rules::{show_time, system_clock};
use url::Url;

use crate::etcd_lock::refusal;
use crate::host::Identity;
use crate::permission::{Guard, Refusal};
use crate::policy::QuorumFact;
use crate::watch::uptime;

/// The guard of this host's member.
pub struct QuorumGuard {
    /// The reservation.
    pub guard: quorum::Guard,
    /// The cluster.
    pub etcd: Arc<Etcd>,
    /// The client URL of this host's member.
    pub local: Url,
    /// This host.
    pub identity: Identity,
    /// How long a reservation lasts whose host has vanished.
    pub expire_after: Option<Duration>,
}

fn down(why: String) -> QuorumFact {
    QuorumFact::Down { since: uptime(), why }
}

impl QuorumGuard {
    fn verdict(verdict: Verdict) -> QuorumFact {
        match verdict {
            Verdict::NotAMember => QuorumFact::NotMember,
            Verdict::Allow { warning, .. } => QuorumFact::Reserved(warning),
            Verdict::Refuse { why } => QuorumFact::Refused(why),
        }
    }
}

#[async_trait]
impl Guard for QuorumGuard {
    async fn reserve(&self) -> QuorumFact {
        let Identity { machine_id, hostname, boot_id, .. } = &self.identity;
        let mine = Reservation::new(machine_id, hostname, boot_id, system_clock());
        match self.guard.reserve(&mine, self.expire_after).await {
            Ok(Reserved::Ours) => {}
            Ok(Reserved::Taken { by, .. }) => {
                let why = format!("host {} takes its etcd member down, since {}", by.hostname, show_time(by.since));
                return QuorumFact::Refused(why);
            }
            Err(error) => {
                return match refusal(&error) {
                    Refusal::Down(why) => down(why),
                    Refusal::Quarantined(why) | Refusal::No(why) => QuorumFact::Refused(why),
                };
            }
        }
        let fact = match quorum::prepare(&self.etcd, Some(&self.local)).await {
            Ok(verdict) => Self::verdict(verdict),
            Err(error) if error.passes() => down(error.to_string()),
            Err(error) => QuorumFact::Refused(error.to_string()),
        };
        // Others may go down meanwhile, as far as we are concerned.
        if !matches!(fact, QuorumFact::Reserved(_)) {
            let _ = self.guard.release(machine_id).await;
        }
        fact
    }

    async fn confirm(&self) -> QuorumFact {
        match self.guard.reservation().await {
            Ok((Some((reservation, _)), _)) if reservation.id == self.identity.machine_id => {}
            Ok(_) => return QuorumFact::Refused("the reservation to take this etcd member down is gone".to_owned()),
            Err(error) => return down(error.to_string()),
        }
        match quorum::prepare(&self.etcd, Some(&self.local)).await {
            Ok(verdict) => Self::verdict(verdict),
            Err(error) => down(error.to_string()),
        }
    }

    async fn give_back(&self) -> Result<(), Refusal> {
        self.guard.release(&self.identity.machine_id).await.map(drop).map_err(|error| refusal(&error))
    }
}
