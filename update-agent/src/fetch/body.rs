//! The bytes of an answer as they come, watched: they must not stop, must not come too slowly, and must not come faster than
//! the operator wants.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout};

use super::FetchError;

/// Over this time the rate is measured.
const RATE_SPAN: Duration = Duration::from_secs(60);

/// How bytes may come.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The longest silence.
    pub stall: Duration,
    /// Bytes a second at least.
    pub least: u64,
    /// Bytes a second at most.
    pub most: Option<u64>,
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// An answer.
pub struct Body {
    url: String,
    pieces: Pieces,
    /// Where in the file the next byte is.
    at: u64,
    /// Where it ends, by the answer's own words.
    end: Option<u64>,
    pace: Pace,
    began: Instant,
    /// Of the span over which the rate is measured.
    span: (Instant, u64),
    received: u64,
}

impl Body {
    /// Bytes from `at` on, up to `end` if the answer says so.
    pub fn new(url: String, pieces: Pieces, at: u64, end: Option<u64>, pace: Pace) -> Self {
        let now = Instant::now();
        Self { url, pieces, at, end, pace, began: now, span: (now, 0), received: 0 }
    }

    /// Where in the file the next piece begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Bytes that are still to come, if that was said.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.at))
    }

    /// Whether nothing is to come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the line breaks or falls silent, when too little comes, or when the answer ends before what it promised.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let url = || self.url.clone();
        let dropped = |reason: String| FetchError::Dropped { url: url(), reason };
        let stalled = |_| FetchError::Stalled { url: url(), after: self.pace.stall };
        let piece = match timeout(self.pace.stall, self.pieces.next()).await.map_err(stalled)? {
            Some(piece) => piece.map_err(dropped)?,
            None => {
                return match self.len() {
                    Some(missing) if missing > 0 => Err(dropped(format!("{missing} bytes are missing"))),
                    _ => Ok(None),
                };
            }
        };
        let count = piece.len() as u64;
        self.at += count;
        self.received += count;
        self.span.1 += count;
        let now = Instant::now();
        let passed = now - self.span.0;
        if passed >= RATE_SPAN {
            let rate = self.span.1 / passed.as_secs().max(1);
            self.span = (now, 0);
            if rate < self.pace.least {
                return Err(FetchError::TooSlow { url: url(), rate, least: self.pace.least });
            }
        }
        if let Some(most) = self.pace.most {
            let due = Duration::from_secs_f64(self.received as f64 / most.max(1) as f64);
            let early = due.saturating_sub(now - self.began);
            if !early.is_zero() {
                sleep(early).await;
            }
        }
        Ok(Some(piece))
    }
}
