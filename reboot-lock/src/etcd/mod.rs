//! etcd v3 through its JSON gateway: `gateway` is what is said, `transport` says it over HTTP to one of several endpoints, `watch` listens to changes,
//! `members` asks about the cluster itself. No gRPC: a host's daemon has to be small.

mod gateway;
mod members;
mod transport;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use url::Url;

pub use members::{Health, Member};
pub use transport::Tls;

use crate::store::{Committed, Compare, Keys, Page, Store, StoreError, Watch, Write};
use transport::{Safety, Transport};

/// Where etcd is and how to speak to it.
#[derive(Clone)]
pub struct Config {
    /// Client URLs of members; tried in this order, beginning with the one that last worked.
    pub endpoints: Vec<Url>,
    /// Certificates for `https`.
    pub tls: Tls,
    /// User and password. The gateway does not know users by their certificates.
    pub user: Option<(String, String)>,
    /// No call to one endpoint takes longer.
    pub timeout: Duration,
}

impl Config {
    /// Without certificates and user, 5 s for each call.
    ///
    /// # Errors
    /// When an endpoint is no `http` or `https` URL, or there is none.
    pub fn new(endpoints: &[&str]) -> Result<Self, StoreError> {
        let endpoints = endpoints.iter().map(|text| endpoint(text)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(StoreError::Configuration("no etcd endpoint is given".to_owned()));
        }
        Ok(Self { endpoints, tls: Tls::default(), user: None, timeout: Duration::from_secs(5) })
    }
}

/// Reads the URL of an endpoint: scheme, host and port only.
///
/// # Errors
/// When it is something else.
pub fn endpoint(text: &str) -> Result<Url, StoreError> {
    let bad = |why: &str| StoreError::Configuration(format!("etcd endpoint '{text}' {why}; write it like http://127.0.0.1:2379"));
    let url = Url::parse(text.trim()).map_err(|error| bad(&format!("is no URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("is neither http nor https"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("has no host"));
    }
    if url.path() != "/" || url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(bad("has more than a host and a port"));
    }
    Ok(url)
}

/// An etcd cluster.
pub struct Etcd {
    transport: Transport,
}

impl Etcd {
    /// Does not connect yet.
    ///
    /// # Errors
    /// When certificates cannot be used.
    pub fn new(config: Config) -> Result<Self, StoreError> {
        Ok(Self { transport: Transport::new(config)? })
    }

    async fn read(&self, path: &'static str, body: &Value) -> Result<transport::Answer, StoreError> {
        self.transport.call(path, body, Safety::Repeatable).await
    }
}

#[async_trait]
impl Store for Etcd {
    async fn range(&self, keys: &Keys, limit: u32) -> Result<Page, StoreError> {
        let answer = self.read("v3/kv/range", &gateway::range(keys, limit, false)).await?;
        gateway::page(&answer.body).map_err(|reason| answer.nonsense(reason))
    }

    async fn count(&self, keys: &Keys) -> Result<u64, StoreError> {
        let answer = self.read("v3/kv/range", &gateway::range(keys, 0, true)).await?;
        Ok(gateway::page(&answer.body).map_err(|reason| answer.nonsense(reason))?.count)
    }

    async fn txn(&self, compares: &[Compare], writes: &[Write]) -> Result<Committed, StoreError> {
        let answer = self.transport.call("v3/kv/txn", &gateway::txn(compares, writes), Safety::Once).await?;
        gateway::committed(&answer.body).map_err(|reason| answer.nonsense(reason))
    }

    async fn watch(&self, keys: &Keys, from: i64) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(watch::open(&self.transport, keys, from).await?))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<i64, StoreError> {
        let answer = self.read("v3/lease/grant", &gateway::grant(ttl)).await?;
        gateway::lease(&answer.body).map_err(|reason| answer.nonsense(reason))
    }

    async fn keep_alive(&self, lease: i64) -> Result<(), StoreError> {
        let answer = self.read("v3/lease/keepalive", &gateway::lease_id(lease)).await?;
        match gateway::remaining(&answer.body).map_err(|reason| answer.nonsense(reason))? {
            0 => Err(StoreError::LeaseGone),
            _ => Ok(()),
        }
    }

    async fn revoke_lease(&self, lease: i64) -> Result<(), StoreError> {
        match self.read("v3/lease/revoke", &gateway::lease_id(lease)).await {
            Ok(_) | Err(StoreError::LeaseGone) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
