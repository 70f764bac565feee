//! The bytes of spans of objects in order, over as few requests as will do: spans that are near each other come with one request, and what
//! lies between is thrown away.

use bytes::Bytes;

use crate::fetch::{Body, FetchError, Meter, Source};

/// Spans that are so near are asked for together in any case.
const NEAR: u64 = 32 << 10;
/// Reading past so much is better than asking again.
const SKIP: u64 = 256 << 10;

/// A run of bytes of an object.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Number of the object.
    pub object: usize,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// What is to be read.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    /// Path and size of each object.
    pub objects: Vec<(String, u64)>,
    /// The spans in the order in which they are read, those of an object by offset.
    pub spans: Vec<Span>,
    /// Spans that are no further apart are asked for together.
    pub max_gap: u64,
    /// Bytes that are asked for together at most, unless a span is longer.
    pub answer: u64,
}

/// Reads spans.
pub struct Reader<'a> {
    /// Where from.
    pub source: &'a Source,
    spans: &'a Spans,
    /// The object that it reads, and the answer.
    body: Option<(usize, Body)>,
    /// What came and was not handed out.
    rest: Bytes,
    /// The server does not do ranges, so asking again means starting at the first byte.
    whole: bool,
    /// Bytes that have come.
    pub received: u64,
    /// Of all answers together.
    pub meter: Meter,
}

impl<'a> Reader<'a> {
    /// A reader of which nothing is asked yet; so many bytes have come before.
    pub fn new(source: &'a Source, spans: &'a Spans, received: u64) -> Self {
        Self { source, spans, body: None, rest: Bytes::new(), whole: false, received, meter: source.meter() }
    }

    /// Some bytes of the object of a span from exactly `at` on, up to the end of the span.
    ///
    /// # Errors
    /// When they do not come. The next call asks anew.
    pub async fn piece(&mut self, number: usize, at: u64) -> Result<Bytes, FetchError> {
        let result = self.try_piece(number, at).await;
        if result.is_err() {
            self.forget();
        }
        result
    }

    async fn try_piece(&mut self, number: usize, at: u64) -> Result<Bytes, FetchError> {
        let Some(&span) = self.spans.spans.get(number) else { return Err(FetchError::NotFound(format!("span {number}"))) };
        let end = span.offset + span.len;
        let skip = SKIP.max(self.spans.max_gap);
        loop {
            let from =
                self.body.as_ref().filter(|(object, _)| *object == span.object).map(|(_, body)| body.position() - self.rest.len() as u64);
            match from {
                Some(from) if from <= at && (at - from <= skip || self.whole) => {
                    // Of what is not wanted nothing is kept: gaps, and from a server without ranges all that is before.
                    let skip = usize::try_from(at - from).unwrap_or(usize::MAX).min(self.rest.len());
                    let _ = self.rest.split_to(skip);
                    if !self.rest.is_empty() {
                        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.rest.len());
                        return Ok(self.rest.split_to(wanted));
                    }
                    let Some((_, body)) = &mut self.body else { continue };
                    match body.next().await? {
                        Some(piece) => {
                            self.received += piece.len() as u64;
                            self.meter.add(piece.len() as u64);
                            self.rest = piece;
                        }
                        // The answer ended where it said it would; the rest has to be asked for.
                        None => self.forget(),
                    }
                }
                _ => self.open(number, span, at).await?,
            }
        }
    }

    async fn open(&mut self, number: usize, span: Span, at: u64) -> Result<(), FetchError> {
        self.forget();
        let (path, size) = self.spans.objects.get(span.object).ok_or_else(|| FetchError::NotFound(format!("object {}", span.object)))?;
        let mut end = span.offset + span.len;
        // What has no bytes is nowhere.
        let later = self.spans.spans.iter().skip(number.saturating_add(1)).filter(|next| next.len > 0);
        for next in later.take_while(|next| next.object == span.object) {
            let is_far = next.offset > end.saturating_add(NEAR.max(self.spans.max_gap));
            if is_far || next.offset + next.len > at.saturating_add(self.spans.answer) {
                break;
            }
            end = end.max(next.offset + next.len);
        }
        let body = self.source.open(path, at, end, *size).await?;
        if body.position() > at {
            let got = format!("bytes from {}", body.position());
            return Err(FetchError::Range { url: path.clone(), asked: at, size: *size, got });
        }
        self.whole = body.position() < at;
        self.body = Some((span.object, body));
        Ok(())
    }

    /// Gives up the answer that is being read.
    pub fn forget(&mut self) {
        self.body = None;
        self.rest = Bytes::new();
    }
}
