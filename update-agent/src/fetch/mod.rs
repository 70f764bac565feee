//! Where releases come from: a web server (any that serves files), or a bundle. Both give whole files and parts of files; what comes is
//! not trusted here, but every way in which it can fail to come has a name.

mod body;
pub mod bundle;
pub mod http;

use std::io;
use std::time::Duration;

use thiserror::Error;

use body::Pace;
pub use body::{Body, Meter};
use bundle::Bundle;
use http::Http;

/// Why bytes did not come. [`FetchError::kind`] is stable.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The address is no URL, or of a kind that is not spoken.
    #[error("{0} is no address that can be fetched")]
    Address(String),
    /// No connection: the name, the network, the proxy, or TLS.
    #[error("cannot reach {url}: {reason}")]
    Connect {
        /// What was asked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// The file is not there.
    #[error("{0} does not exist")]
    NotFound(String),
    /// Another status.
    #[error("the server answers {status} for {url}")]
    Status {
        /// What was asked for.
        url: String,
        /// Its answer.
        status: u16,
    },
    /// The server wants to be left alone for a while (429 or 503).
    #[error("the server answers {status} for {url}{}", .after.map_or(String::new(), |after| format!(" and asks to come back in {} s", after.as_secs())))]
    Busy {
        /// What was asked for.
        url: String,
        /// Its answer.
        status: u16,
        /// How long.
        after: Option<Duration>,
    },
    /// Redirects that lead nowhere.
    #[error("{url} redirects too often or in a circle")]
    Redirects {
        /// What was asked for.
        url: String,
    },
    /// The answer to a range is of another range, or of a file with another size.
    #[error("{url}: asked for the bytes from {asked} on of a file of {size}, and got {got}")]
    Range {
        /// What was asked for.
        url: String,
        /// First byte.
        asked: u64,
        /// Bytes the file should have.
        size: u64,
        /// What the answer says.
        got: String,
    },
    /// The answer is longer or shorter than it should be: an error page, a file that has changed.
    #[error("{url} has {got} bytes instead of {size}")]
    Length {
        /// What was asked for.
        url: String,
        /// Bytes it should have.
        size: u64,
        /// Bytes it has.
        got: u64,
    },
    /// More than may be taken.
    #[error("{url} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// The line broke.
    #[error("the connection for {url} broke: {reason}")]
    Dropped {
        /// What was asked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// Nothing came for a while.
    #[error("nothing has come for {url} for {} s", .after.as_secs())]
    Stalled {
        /// What was asked for.
        url: String,
        /// How long.
        after: Duration,
    },
    /// Less comes than is worth waiting for.
    #[error("{url} comes with {rate} bytes a second, less than {least}")]
    TooSlow {
        /// What was asked for.
        url: String,
        /// How fast.
        rate: u64,
        /// How fast it must be.
        least: u64,
    },
    /// The bundle cannot be read.
    #[error("the bundle: {0}")]
    Bundle(#[from] io::Error),
    /// The bundle is no archive of a repository.
    #[error("the bundle is not one that can be used: {0}")]
    BadBundle(String),
}

impl FetchError {
    /// The error's stable name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Connect { .. } => "connect",
            Self::NotFound(_) => "not-found",
            Self::Status { .. } => "http-status",
            Self::Busy { .. } => "server-busy",
            Self::Redirects { .. } => "redirects",
            Self::Range { .. } => "range",
            Self::Length { .. } => "length",
            Self::TooLarge { .. } => "too-large",
            Self::Dropped { .. } => "dropped",
            Self::Stalled { .. } => "stalled",
            Self::TooSlow { .. } => "too-slow",
            Self::Bundle(_) => "bundle-read",
            Self::BadBundle(_) => "bundle",
        }
    }

    /// Whether the same request may well succeed a little later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Dropped { .. } | Self::Stalled { .. } | Self::TooSlow { .. } | Self::Busy { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// How long the server asked to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }
}

/// Where files come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A repository on a web server.
    Http(Http),
    /// A repository in one file.
    Bundle(Bundle),
}

impl Source {
    /// The first pause after a line broke.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.pace().pause
    }

    /// Measures whether a download as a whole comes too slowly, over longer spans than a single answer.
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter::new(&self.pace(), 3)
    }

    fn pace(&self) -> Pace {
        match self {
            Self::Http(http) => http.pace(),
            Self::Bundle(_) => bundle::PACE,
        }
    }

    /// A whole file of the repository, of at most `limit` bytes.
    ///
    /// # Errors
    /// When it does not come, or is larger.
    pub async fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let mut body = match self {
            Self::Http(http) => http.open_whole(path).await?,
            Self::Bundle(bundle) => bundle.open(path, 0)?,
        };
        let too_large = || FetchError::TooLarge { url: path.to_owned(), limit };
        if body.len().is_some_and(|len| len > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await? {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// The bytes of a file of `size` bytes from `offset` up to `end`. What comes may begin before `offset`, where the server does not do
    /// ranges ([`Body::position`]), and go on behind `end`.
    ///
    /// # Errors
    /// When it does not come, or is of another file.
    pub async fn open(&self, path: &str, offset: u64, end: u64, size: u64) -> Result<Body, FetchError> {
        match self {
            Self::Http(http) => http.open_range(path, offset, end, size).await,
            Self::Bundle(bundle) => {
                let body = bundle.open(path, offset)?;
                let got = offset + body.len().unwrap_or(0);
                if got == size { Ok(body) } else { Err(FetchError::Length { url: path.to_owned(), size, got }) }
            }
        }
    }
}
