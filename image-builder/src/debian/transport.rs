//! Reading a URL from some offset on: http and https with `Range`, and `file:` for mirrors on a disk.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use thiserror::Error;
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;

use super::names::Names;

/// Why nothing can be read.
#[derive(Debug, Error)]
pub enum TransportError {
    /// Not there.
    #[error("{url} is not there (404)")]
    NotFound {
        /// Where.
        url: String,
    },
    /// The server refuses.
    #[error("{url}: the server answers {status}")]
    Status {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// No connection, or it broke.
    #[error("{url}: {source}; check the network and the mirror")]
    Io {
        /// Where.
        url: String,
        /// Why.
        source: io::Error,
    },
}

impl TransportError {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NotFound { .. } => false,
            Self::Status { status, .. } => *status >= 500 || *status == 429 || *status == 408,
            Self::Io { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
        }
    }
}

/// A body from `offset` on, which is where the server agreed to start: 0 when it does not do ranges.
pub struct Opened {
    /// The bytes.
    pub body: Box<dyn Read + Send>,
    /// Where they start.
    pub offset: u64,
}

/// Opens URLs; shared by all threads of a build.
#[derive(Clone, Debug)]
pub struct Transport {
    agent: Agent,
}

impl Default for Transport {
    fn default() -> Self {
        Self::new()
    }
}

impl Transport {
    /// A transport that honours `http_proxy` and its kin, and takes the certificates of `SSL_CERT_FILE`, as other programs
    /// do, in place of the public ones.
    #[must_use]
    pub fn new() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .user_agent(concat!("garboard/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(root_certificates()).build())
            .build();
        Self { agent: Agent::with_parts(config, DefaultConnector::default(), Names) }
    }

    /// Opens a URL. `limit` bounds the time for the whole body.
    ///
    /// # Errors
    /// When it is not there or cannot be reached.
    pub fn open(&self, url: &str, offset: u64, limit: Duration) -> Result<Opened, TransportError> {
        if let Some(path) = url.strip_prefix("file://") {
            return open_file(url, path, offset);
        }
        let fail = |source: io::Error| TransportError::Io { url: url.to_owned(), source };
        let mut request = self.agent.get(url).config().timeout_recv_body(Some(limit)).build();
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        let response = request.call().map_err(|error| fail(error.into_io()))?;
        let (parts, body) = response.into_parts();
        let offset = match parts.status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => {
                let range = parts.headers.get("Content-Range").and_then(|value| value.to_str().ok()).and_then(range_start);
                range.filter(|&start| start == offset).ok_or_else(|| fail(io::Error::other("the server answers with another range")))?
            }
            // What is there already is not shorter than the whole: start again.
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => return self.open(url, 0, limit),
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(TransportError::NotFound { url: url.to_owned() }),
            status => return Err(TransportError::Status { url: url.to_owned(), status: status.as_u16() }),
        };
        Ok(Opened { body: Box::new(body.into_reader()), offset })
    }

    /// The whole body, at most `max` bytes of it.
    ///
    /// # Errors
    /// As [`Transport::open`], and when there is more.
    pub fn read(&self, url: &str, max: u64) -> Result<Vec<u8>, TransportError> {
        let opened = self.open(url, 0, Duration::from_secs(120))?;
        let fail = |source: io::Error| TransportError::Io { url: url.to_owned(), source };
        let mut bytes = Vec::new();
        opened.body.take(max + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > max {
            return Err(fail(io::Error::other(format!("more than {max} bytes, which cannot be right"))));
        }
        Ok(bytes)
    }
}

fn root_certificates() -> RootCerts {
    let bytes = env::var_os("SSL_CERT_FILE").and_then(|path| fs::read(path).ok()).unwrap_or_default();
    let certificates: Vec<Certificate<'static>> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() { RootCerts::WebPki } else { RootCerts::from(certificates) }
}

fn range_start(header: &str) -> Option<u64> {
    header.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

fn open_file(url: &str, path: &str, offset: u64) -> Result<Opened, TransportError> {
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => TransportError::NotFound { url: url.to_owned() },
        _ => TransportError::Io { url: url.to_owned(), source },
    };
    let mut file = File::open(path).map_err(fail)?;
    let len = file.metadata().map_err(fail)?.len();
    let offset = if offset < len { offset } else { 0 };
    file.seek(SeekFrom::Start(offset)).map_err(fail)?;
    Ok(Opened { body: Box::new(file), offset })
}
