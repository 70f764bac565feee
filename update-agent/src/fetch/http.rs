//! Files of a web server, whole or from some byte on. Names are looked up by our own resolver, since a static program must not use the
//! C library's; addresses in answers are followed a few times and never from https to http.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderMap, RANGE, RETRY_AFTER};
use reqwest::{Client, Proxy, Response, StatusCode};
use url::Url;

use super::FetchError;
use super::body::{Body, Pace};
use crate::settings::Settings;

const CONNECT: Duration = Duration::from_secs(20);
const REDIRECTS: usize = 5;
/// Skipping so much of what was not asked for is better than asking again.
const WORTH_SKIPPING: u64 = 64 << 10;

/// A repository on a web server.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
    base: Url,
    pace: Pace,
}

impl Http {
    /// For the repository at `base`, which ends with a slash.
    ///
    /// # Errors
    /// When the proxy is no URL or TLS cannot be set up.
    pub fn new(base: &Url, settings: &Settings) -> Result<Self, FetchError> {
        let bad = |error: reqwest::Error| FetchError::Connect { url: base.to_string(), reason: chain(&error) };
        let redirects = reqwest::redirect::Policy::custom(|attempt| {
            let downgrade = attempt.previous().last().is_some_and(|from| from.scheme() == "https") && attempt.url().scheme() != "https";
            if downgrade || attempt.previous().len() > REDIRECTS || attempt.previous().contains(attempt.url()) {
                attempt.error("the redirect is not followed")
            } else {
                attempt.follow()
            }
        });
        let mut builder = Client::builder()
            .user_agent(concat!("garboard-update-agent/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .redirect(redirects)
            .hickory_dns(true)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(Duration::from_secs(30))
            .no_proxy();
        if let Some(proxy) = &settings.proxy {
            builder = builder.proxy(Proxy::all(proxy).map_err(bad)?);
        }
        let pace = Pace { stall: Duration::from_secs(settings.stall), least: settings.min_rate, most: settings.limit };
        // A limit below the least rate would never let anything through.
        let pace = Pace { least: pace.least.min(pace.most.map_or(u64::MAX, |most| most / 2)), ..pace };
        Ok(Self { client: builder.build().map_err(bad)?, base: base.clone(), pace })
    }

    /// The URL of a file of the repository.
    ///
    /// # Errors
    /// When it would lead out of the repository.
    pub fn url(&self, path: &str) -> Result<Url, FetchError> {
        let url = self.base.join(path).map_err(|_| FetchError::Address(path.to_owned()))?;
        if url.as_str().starts_with(self.base.as_str()) { Ok(url) } else { Err(FetchError::Address(path.to_owned())) }
    }

    async fn send(&self, url: &Url, range: Option<(u64, u64)>) -> Result<Response, FetchError> {
        let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some((first, last)) = range {
            request = request.header(RANGE, format!("bytes={first}-{last}"));
        }
        let answered = tokio::time::timeout(self.pace.stall.max(CONNECT), request.send()).await;
        let response = match answered {
            Err(_) => return Err(FetchError::Stalled { url: url.to_string(), after: self.pace.stall }),
            Ok(Err(error)) if error.is_redirect() => return Err(FetchError::Redirects { url: url.to_string() }),
            Ok(Err(error)) => return Err(FetchError::Connect { url: url.to_string(), reason: chain(&error) }),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => Err(FetchError::NotFound(url.to_string())),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(FetchError::Busy { url: url.to_string(), status: status.as_u16(), after: retry_after(response.headers()) })
            }
            _ => Err(FetchError::Status { url: url.to_string(), status: status.as_u16() }),
        }
    }

    fn body(&self, url: &Url, response: Response, at: u64) -> Body {
        let end = response.content_length().map(|len| at.saturating_add(len));
        let pieces = response.bytes_stream().map(|piece| piece.map_err(|error| chain(&error)));
        Body::new(url.to_string(), Box::pin(pieces), at, end, self.pace)
    }

    /// A whole file.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn open_whole(&self, path: &str) -> Result<Body, FetchError> {
        let url = self.url(path)?;
        let response = self.send(&url, None).await?;
        Ok(self.body(&url, response, 0))
    }

    /// See [`super::Source::open`].
    pub(super) async fn open_range(&self, path: &str, offset: u64, end: u64, size: u64) -> Result<Body, FetchError> {
        let url = self.url(path)?;
        let whole = offset <= WORTH_SKIPPING && end == size;
        let range = (!whole).then_some((offset, end.saturating_sub(1)));
        let response = self.send(&url, range).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let text = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or("no range at all").to_owned();
            let wrong = || FetchError::Range { url: url.to_string(), asked: offset, size, got: text.clone() };
            let (first, _, total) = content_range(&text).ok_or_else(wrong)?;
            if range.is_none() || first != offset || total.is_some_and(|total| total != size) {
                return Err(wrong());
            }
            return Ok(self.body(&url, response, first));
        }
        // The server does not do ranges, or was not asked to: all of the file comes, from its first byte.
        if let Some(got) = response.content_length().filter(|got| *got != size) {
            return Err(FetchError::Length { url: url.to_string(), size, got });
        }
        Ok(self.body(&url, response, 0))
    }
}

/// `bytes 5-9/100`: first, last, and the size unless it is `*`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, total))
}

/// Seconds; the form with a date is not worth a parser, as clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An error with what is behind it: the outer one alone says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/100"), Some((5, 9, Some(100))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0, 0, None)));
        for bad in ["", "bytes */100", "bytes 5-/9", "items 1-2/3", "bytes a-b/c"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn paths_stay_in_the_repository() {
        let http = Http::new(&"http://127.0.0.1:1/repo/".parse().unwrap(), &Settings::default()).unwrap();
        assert_eq!(http.url("objects/a.map").unwrap().as_str(), "http://127.0.0.1:1/repo/objects/a.map");
        for bad in ["../x", "/etc/passwd", "http://127.0.0.2/x", "//other/x"] {
            assert!(http.url(bad).is_err(), "{bad}");
        }
    }
}
