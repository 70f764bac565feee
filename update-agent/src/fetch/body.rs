//! The bytes of an answer as they come, watched: they must not stop, must not come too slowly, and must not come faster than
//! the operator wants.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout};

use super::FetchError;

/// How bytes may come.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The longest silence.
    pub stall: Duration,
    /// Bytes a second at least.
    pub least: u64,
    /// Over this time that is measured.
    pub span: Duration,
    /// Bytes a second at most.
    pub most: Option<u64>,
    /// The first pause after a line broke.
    pub pause: Duration,
}

/// Measures a rate over spans of time. A span that was fast enough is forgotten, so that an hour of haste does not excuse a slow day.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    least: u64,
    span: Duration,
    since: Instant,
    bytes: u64,
}

impl Meter {
    /// For spans that are so many times as long as the pace says.
    #[must_use]
    pub fn new(pace: &Pace, spans: u32) -> Self {
        Self { least: pace.least, span: pace.span.saturating_mul(spans), since: Instant::now(), bytes: 0 }
    }

    /// Begins a new span.
    pub fn restart(&mut self) {
        (self.since, self.bytes) = (Instant::now(), 0);
    }

    /// Counts what came.
    pub fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.since.elapsed() >= self.span && self.too_slow().is_none() {
            self.restart();
        }
    }

    /// Bytes a second, when a span has passed with too few of them; and how many it should have been.
    #[must_use]
    pub fn too_slow(&self) -> Option<(u64, u64)> {
        let passed = self.since.elapsed();
        let rate = (self.bytes as f64 / passed.as_secs_f64().max(0.001)) as u64;
        (passed >= self.span && rate < self.least).then_some((rate, self.least))
    }
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
    meter: Meter,
    received: u64,
}

impl Body {
    /// Bytes from `at` on, up to `end` if the answer says so.
    pub fn new(url: String, pieces: Pieces, at: u64, end: Option<u64>, pace: Pace) -> Self {
        let now = Instant::now();
        Self { url, pieces, at, end, pace, began: now, meter: Meter::new(&pace, 1), received: 0 }
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
        self.meter.add(count);
        if let Some((rate, least)) = self.meter.too_slow() {
            return Err(FetchError::TooSlow { url: url(), rate, least });
        }
        if let Some(most) = self.pace.most {
            let due = Duration::from_secs_f64(self.received as f64 / most.max(1) as f64);
            let early = due.saturating_sub(self.began.elapsed());
            if !early.is_zero() {
                sleep(early).await;
            }
        }
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: Vec<(u64, usize)>, pace: Pace) -> Body {
        let stream = futures_util::stream::unfold(pieces.into_iter(), |mut pieces| async move {
            let (pause, len) = pieces.next()?;
            sleep(Duration::from_millis(pause)).await;
            Some((Ok(Bytes::from(vec![0; len])), pieces))
        });
        Body::new("x".to_owned(), Box::pin(stream), 0, None, pace)
    }

    async fn end(mut body: Body) -> Result<u64, FetchError> {
        while body.next().await?.is_some() {}
        Ok(body.position())
    }

    fn pace() -> Pace {
        Pace { stall: Duration::from_millis(300), least: 0, span: Duration::from_millis(100), most: None, pause: Duration::ZERO }
    }

    #[tokio::test]
    async fn a_drip_is_too_slow_though_it_never_stops() {
        let slow = Pace { least: 10_000, ..pace() };
        let error = end(body(vec![(20, 10); 100], slow)).await.unwrap_err();
        assert_eq!(error.kind(), "too-slow", "{error}");
        assert_eq!(end(body(vec![(20, 10); 10], pace())).await.unwrap(), 100, "with no least rate it may take its time");
        // Fast first and slow then: what was fast does not count for ever.
        let error = end(body([vec![(0, 1 << 20), (110, 1)], vec![(20, 10); 100]].concat(), slow)).await.unwrap_err();
        assert_eq!(error.kind(), "too-slow", "{error}");
    }

    #[tokio::test]
    async fn silence_is_a_stall_and_a_limit_holds_back() {
        let error = end(body(vec![(0, 10), (2000, 10)], pace())).await.unwrap_err();
        assert_eq!(error.kind(), "stalled", "{error}");
        let began = Instant::now();
        let limited = Pace { most: Some(100_000), ..pace() };
        assert_eq!(end(body(vec![(0, 10_000); 5], limited)).await.unwrap(), 50_000);
        assert!(began.elapsed() >= Duration::from_millis(490), "{:?}", began.elapsed());
    }
}
