//! Calls over HTTP: one of several endpoints, TLS, a token that is renewed, a deadline. A call that changes something is never sent twice unless
//! the first certainly did nothing.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use reqwest::{Certificate, Client, ClientBuilder, Identity, Response};
use serde_json::Value;
use url::Url;

use super::{Config, gateway};
use crate::store::StoreError;

/// No answer is larger: a semaphore with all its slots taken stays far below.
const MAX_ANSWER: usize = 16 << 20;
/// A connection that is dead without a word is found by the kernel, which wakes nobody for its probes.
const PROBE_AFTER: Duration = Duration::from_secs(20);
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Certificates, as PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Who may have signed etcd's certificate; without it, the host's own list.
    pub ca: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub identity: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files, and makes a client of them: what is only PEM by its looks, or a key of another certificate, is found here and not when they
    /// are needed. A certificate needs its key and the other way around; a CA alone is fine.
    ///
    /// # Errors
    /// Says which file, or that one of two is missing.
    pub fn load(ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>) -> Result<Self, StoreError> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| StoreError::Configuration(format!("{}: {error}", path.display())));
        let identity = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let mut pem = read(certificate)?;
                pem.push(b'\n');
                pem.extend(read(key)?);
                Identity::from_pem(&pem).map_err(|_| {
                    let files = format!("{} and {}", certificate.display(), key.display());
                    StoreError::Configuration(format!("{files} are not a certificate and its key in PEM"))
                })?;
                let works = Self { ca: None, identity: Some(pem.clone()) }.builder(true).and_then(ClientBuilder::build);
                works.map_err(|error| {
                    let files = format!("{} and {}", certificate.display(), key.display());
                    StoreError::Configuration(format!("{files} cannot be used together: {}", chain(&error)))
                })?;
                Some(pem)
            }
            (Some(path), None) => return Err(StoreError::Configuration(format!("the key of certificate {} is not given", path.display()))),
            (None, Some(path)) => return Err(StoreError::Configuration(format!("the certificate of key {} is not given", path.display()))),
        };
        let ca = ca.map(|path| {
            let pem = read(path)?;
            match Certificate::from_pem_bundle(&pem) {
                Ok(found) if !found.is_empty() => {}
                _ => return Err(StoreError::Configuration(format!("{} has no certificate in PEM", path.display()))),
            }
            match (Self { ca: Some(pem.clone()), identity: None }).builder(true).and_then(ClientBuilder::build) {
                Ok(_) => Ok(pem),
                Err(error) => Err(StoreError::Configuration(format!("{} cannot be used: {}", path.display(), chain(&error)))),
            }
        });
        Ok(Self { ca: ca.transpose()?, identity })
    }

    /// A client with these certificates that goes nowhere but where it is sent. `plain`: it never speaks TLS.
    pub(crate) fn builder(&self, plain: bool) -> Result<ClientBuilder, reqwest::Error> {
        let mut builder = Client::builder().redirect(reqwest::redirect::Policy::none()).hickory_dns(true).no_proxy();
        if let Some(ca) = &self.ca {
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(ca)?);
        } else if plain {
            // The host's list takes memory, and nobody looks at it.
            builder = builder.tls_certs_only([]);
        }
        match &self.identity {
            Some(identity) => Ok(builder.identity(Identity::from_pem(identity)?)),
            None => Ok(builder),
        }
    }
}

/// Whether a call may be sent again when it is not known what became of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Safety {
    Repeatable,
    Once,
}

/// A good answer.
pub(super) struct Answer {
    pub(super) endpoint: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn nonsense(&self, reason: String) -> StoreError {
        StoreError::Protocol { endpoint: self.endpoint.clone(), reason }
    }
}

pub(super) struct Transport {
    client: Client,
    config: Config,
    preferred: AtomicUsize,
    token: Mutex<Option<String>>,
}

/// An endpoint, as errors name it.
pub(super) fn name(base: &Url) -> String {
    base.as_str().trim_end_matches('/').to_owned()
}

/// All that an error says, innermost last.
fn chain(error: &dyn std::error::Error) -> String {
    crate::keys::shortened(&plain_output::causes(error), 300)
}

impl Transport {
    pub(super) fn new(config: Config) -> Result<Self, StoreError> {
        let bad = |error: reqwest::Error| StoreError::Configuration(format!("TLS for etcd cannot be set up: {}", chain(&error)));
        let plain = config.endpoints.iter().all(|url| url.scheme() == "http");
        let builder = config
            .tls
            .builder(plain)
            .map_err(bad)?
            .connect_timeout(config.timeout.min(Duration::from_secs(3)))
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_keepalive(PROBE_AFTER)
            .tcp_keepalive_interval(PROBE_EVERY)
            .tcp_keepalive_retries(4);
        let client = builder.build().map_err(bad)?;
        Ok(Self { client, config, preferred: AtomicUsize::new(0), token: Mutex::new(None) })
    }

    /// What an endpoint's work comes to, if it is done in the time that a call has.
    pub(super) async fn within<T>(&self, endpoint: &str, work: impl Future<Output = T>) -> Result<T, StoreError> {
        let after = self.config.timeout;
        tokio::time::timeout(after, work).await.map_err(|_| StoreError::Deadline { after, detail: format!(" ({endpoint})") })
    }

    fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Sends to one endpoint and waits for the head of the answer.
    pub(super) async fn send(&self, base: &Url, path: &str, body: &Value, token: Option<&str>) -> Result<Response, StoreError> {
        let endpoint = name(base);
        let url = base.join(path).map_err(|error| StoreError::Configuration(format!("{endpoint}: {error}")))?;
        // Without a leader etcd would let a watch wait for ever.
        let mut request = self.client.post(url).header("Grpc-Metadata-hasleader", "true").body(gateway::bytes(body));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let response = match self.within(&endpoint, request.send()).await? {
            Err(error) if error.is_connect() || error.is_builder() => {
                return Err(StoreError::Unreachable { reason: format!("{endpoint}: {}", chain(&error)) });
            }
            Err(error) => return Err(StoreError::Broken { endpoint, reason: chain(&error) }),
            Ok(response) => response,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = self.within(&endpoint, collect(response)).await.ok().and_then(Result::ok).unwrap_or_default();
        Err(gateway::refusal(&endpoint, status, &body))
    }

    /// The same with our token, which is made or renewed where etcd wants one.
    pub(super) async fn send_as_user(&self, base: &Url, path: &str, body: &Value) -> Result<Response, StoreError> {
        let Some((user, password)) = &self.config.user else { return self.send(base, path, body, None).await };
        let had = self.token();
        if had.is_some() {
            match self.send(base, path, body, had.as_deref()).await {
                // Refused for the token, so not done.
                Err(error) if gateway::wants_token(&error) => {}
                other => return other,
            }
        }
        let token = match self.send(base, "v3/auth/authenticate", &gateway::authenticate(user, password), None).await {
            Ok(response) => {
                let endpoint = name(base);
                let collected = self.within(&endpoint, collect(response)).await?;
                let body = collected.map_err(|reason| StoreError::Broken { endpoint: endpoint.clone(), reason })?;
                Some(gateway::token(&body).map_err(|reason| StoreError::Protocol { endpoint, reason })?)
            }
            // Users are set up here before they are switched on there.
            Err(StoreError::Protocol { reason, .. }) if reason.contains("authentication is not enabled") => None,
            Err(error) => return Err(error),
        };
        self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone_from(&token);
        self.send(base, path, body, token.as_deref()).await
    }

    /// Asks one endpoint.
    pub(super) async fn ask(&self, base: &Url, path: &str, body: &Value) -> Result<Answer, StoreError> {
        let endpoint = name(base);
        let response = self.send_as_user(base, path, body).await?;
        match self.within(&endpoint, collect(response)).await? {
            Err(reason) => Err(StoreError::Broken { endpoint, reason }),
            Ok(body) => Ok(Answer { endpoint, body }),
        }
    }

    /// Asks the endpoints until one answers; what the others said is in the error.
    pub(super) async fn call(&self, path: &str, body: &Value, safety: Safety) -> Result<Answer, StoreError> {
        let mut round = self.round(safety);
        loop {
            let base = round.next(self)?;
            match self.ask(&base, path, body).await {
                Ok(answer) => return Ok(answer),
                Err(error) => round.failed(self, error)?,
            }
        }
    }

    /// All endpoints once, beginning with the one that last worked.
    pub(super) fn round(&self, safety: Safety) -> Round {
        Round { safety, first: self.preferred.load(Ordering::Relaxed), tried: 0, said: Vec::new(), last: None }
    }

    /// What `GET path` of one endpoint says, whatever its status.
    pub(super) async fn get(&self, base: &Url, path: &str) -> Result<Vec<u8>, StoreError> {
        let endpoint = name(base);
        let url = base.join(path).map_err(|error| StoreError::Configuration(format!("{endpoint}: {error}")))?;
        let got = async {
            let response = self.client.get(url).send().await.map_err(|error| chain(&error))?;
            collect(response).await
        };
        self.within(&endpoint, got).await?.map_err(|reason| StoreError::Unreachable { reason: format!("{endpoint}: {reason}") })
    }
}

/// One endpoint after the other.
pub(super) struct Round {
    safety: Safety,
    first: usize,
    tried: usize,
    said: Vec<String>,
    last: Option<StoreError>,
}

impl Round {
    /// The next endpoint; when none is left, why all failed.
    pub(super) fn next(&mut self, transport: &Transport) -> Result<Url, StoreError> {
        let endpoints = &transport.config.endpoints;
        let index = (self.first + self.tried) % endpoints.len().max(1);
        match endpoints.get(index) {
            Some(base) if self.tried < endpoints.len() => {
                self.tried += 1;
                Ok(base.clone())
            }
            _ => Err(match self.last.take() {
                Some(StoreError::Unreachable { .. }) | None => StoreError::Unreachable { reason: self.said.join("; ") },
                Some(error) => error,
            }),
        }
    }

    /// The last endpoint did not work: whether to go on. The next call begins elsewhere, also when this one must not be repeated.
    pub(super) fn failed(&mut self, transport: &Transport, error: StoreError) -> Result<(), StoreError> {
        let count = transport.config.endpoints.len().max(1);
        let elsewhere = error.passes() && error != StoreError::Compacted;
        if elsewhere {
            let (was, next) = ((self.first + self.tried + count - 1) % count, (self.first + self.tried) % count);
            let _ = transport.preferred.compare_exchange(was, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        if !elsewhere || (self.safety == Safety::Once && error.may_have_happened()) {
            return Err(error);
        }
        if let StoreError::Unreachable { reason } = &error {
            self.said.push(reason.clone());
        }
        self.last = Some(error);
        Ok(())
    }
}

async fn collect(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| chain(&error))? {
        body.extend_from_slice(&piece);
        if body.len() > MAX_ANSWER {
            return Err(format!("the answer is longer than {} MiB", MAX_ANSWER >> 20));
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_token_that_stops_half_way_is_given_up_after_a_calls_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"token\":").await.unwrap();
            std::future::pending::<()>().await;
        });
        let config = Config::new(&[&endpoint]).unwrap();
        let config = Config { user: Some(("root".to_owned(), "secret".to_owned())), timeout: Duration::from_millis(300), ..config };
        let transport = Transport::new(config).unwrap();
        let asked = transport.call("v3/kv/range", &Value::Null, Safety::Repeatable);
        let error = tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap().err().unwrap();
        let expected = StoreError::Deadline { after: Duration::from_millis(300), detail: format!(" ({endpoint})") };
        assert_eq!(error, expected);
    }
}
