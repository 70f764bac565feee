//! Asks a FleetLock server. Both calls may be repeated at will; the client keeps no state.

use std::time::Duration;

use thiserror::Error;
use url::Url;

use super::protocol::{Call, HEADER, body, is_group, refusal};
use crate::etcd::Tls;
use crate::keys::{check_id, shortened};

const MAX_ANSWER: usize = 64 << 10;

/// Why a server did not grant something.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClientError {
    /// It said no.
    #[error("FleetLock server {server} refuses ({status}, {kind}): {value}")]
    Denied {
        /// Which.
        server: String,
        /// HTTP status.
        status: u16,
        /// The server's word.
        kind: String,
        /// Its words.
        value: String,
    },
    /// It cannot be reached, or does not answer in time.
    #[error("FleetLock server {server} does not answer: {reason}")]
    Unreachable {
        /// Which.
        server: String,
        /// Why not.
        reason: String,
    },
    /// URL, certificates, group or id cannot be used.
    #[error("{0}")]
    Configuration(String),
}

impl ClientError {
    /// A stable word for each case; not the server's, which may be anything.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "fleetlock_denied",
            Self::Unreachable { .. } => "fleetlock_unreachable",
            Self::Configuration(_) => "fleetlock_configuration",
        }
    }
}

/// A client of one server, for one host.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    group: String,
    id: String,
    timeout: Duration,
}

impl Client {
    /// Of the server at `base`, which may have a path.
    ///
    /// # Errors
    /// [`ClientError::Configuration`].
    pub fn new(base: &str, tls: &Tls, group: &str, id: &str, timeout: Duration) -> Result<Self, ClientError> {
        let bad = |why: String| ClientError::Configuration(format!("FleetLock server '{base}': {why}"));
        let mut url = Url::parse(base).map_err(|error| bad(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) || url.query().is_some() {
            return Err(bad("is no http or https URL of a server".to_owned()));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        if !is_group(group) {
            return Err(bad(format!("group '{group}' may have letters, digits, dots and dashes only")));
        }
        check_id(id).map_err(|error| bad(error.to_string()))?;
        let tls_error = |error: reqwest::Error| bad(format!("TLS cannot be set up: {error}"));
        let builder = tls.builder(url.scheme() == "http").map_err(tls_error)?;
        let http = builder.connect_timeout(Duration::from_secs(10)).pool_max_idle_per_host(0).build().map_err(tls_error)?;
        Ok(Self { http, base: url, group: group.to_owned(), id: id.to_owned(), timeout })
    }

    /// Asks for a slot; asked again, it is kept.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pre_reboot(&self) -> Result<(), ClientError> {
        self.call(Call::PreReboot).await
    }

    /// Gives the slot back, if there is one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn steady_state(&self) -> Result<(), ClientError> {
        self.call(Call::SteadyState).await
    }

    async fn call(&self, call: Call) -> Result<(), ClientError> {
        let server = self.base.to_string();
        let unreachable = |reason: String| ClientError::Unreachable { server: server.clone(), reason: shortened(&reason, 300) };
        let url = self.base.join(call.path()).map_err(|error| unreachable(error.to_string()))?;
        let request = self
            .http
            .post(url)
            .header(HEADER, "true")
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body(&self.group, &self.id));
        let asked = async {
            let mut response = request.send().await.map_err(|error| error.to_string())?;
            let mut said = Vec::new();
            // What more a server says is not worth reading.
            while let Some(piece) = response.chunk().await.map_err(|error| error.to_string())? {
                said.extend_from_slice(&piece);
                if said.len() > MAX_ANSWER {
                    break;
                }
            }
            Ok::<_, String>((response.status(), said))
        };
        let (status, said) = match tokio::time::timeout(self.timeout, asked).await {
            Err(_) => return Err(unreachable(format!("not within {} s", self.timeout.as_secs()))),
            Ok(Err(reason)) => return Err(unreachable(reason)),
            Ok(Ok(answer)) => answer,
        };
        if status.is_success() {
            return Ok(());
        }
        let (kind, value) = refusal(&said).unwrap_or_else(|| ("unknown".to_owned(), shortened(&String::from_utf8_lossy(&said), 200)));
        Err(ClientError::Denied { server, status: status.as_u16(), kind, value })
    }
}
