//! Files of a web server, whole or from some byte on. Names are looked up by our own resolver, since a static program must not use the
//! C library's; addresses in answers are followed a few times and never from https to http.

use std::time::Duration;

use futures_util::StreamExt;
use plain_output::causes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, DATE, HeaderMap, RANGE, RETRY_AFTER};
use reqwest::{Client, Proxy, Response, StatusCode};
use url::Url;

use super::FetchError;
use super::body::{Body, Pace};
use crate::settings::Settings;

const CONNECT: Duration = Duration::from_secs(20);
const REDIRECTS: usize = 5;
/// A file that is wanted to its end from about its beginning is asked for as a whole. Not from farther on: what broke off there would come
/// again from its beginning, and might break off there again.
const WORTH_SKIPPING: u64 = 4 << 10;

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
        let bad = |error: reqwest::Error| FetchError::Connect { url: base.to_string(), reason: causes(&error) };
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
        let (stall, span) = (Duration::from_secs(settings.stall), Duration::from_secs(settings.rate_span));
        let pause = Duration::from_millis(settings.retry_pause);
        let pace = Pace { stall, least: settings.min_rate, span, most: settings.limit, pause };
        // A limit below the least rate would never let anything through.
        let pace = Pace { least: pace.least.min(pace.most.map_or(u64::MAX, |most| most / 2)), ..pace };
        Ok(Self { client: builder.build().map_err(bad)?, base: base.clone(), pace })
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace
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
            Ok(Err(error)) => return Err(FetchError::Connect { url: url.to_string(), reason: causes(&error) }),
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

    /// `end` is where the answer has to end to be whole; without, its length is believed. An answer without a length that just stops is
    /// no end but a broken line.
    fn body(&self, url: &Url, response: Response, at: u64, end: Option<u64>) -> Body {
        let end = end.or(response.content_length().map(|len| at.saturating_add(len)));
        let pieces = response.bytes_stream().map(|piece| piece.map_err(|error| causes(&error)));
        Body::new(url.to_string(), Box::pin(pieces), at, end, self.pace)
    }

    /// A whole file.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn open_whole(&self, path: &str) -> Result<Body, FetchError> {
        let url = self.url(path)?;
        let response = self.send(&url, None).await?;
        Ok(self.body(&url, response, 0, None))
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
            let (first, last, total) = content_range(&text).ok_or_else(wrong)?;
            if range.is_none() || first != offset || last < first || total.is_some_and(|total| total != size) {
                return Err(wrong());
            }
            return Ok(self.body(&url, response, first, Some(last.saturating_add(1))));
        }
        // The server does not do ranges, or was not asked to: all of the file comes, from its first byte.
        if let Some(got) = response.content_length().filter(|got| *got != size) {
            return Err(FetchError::Length { url: url.to_string(), size, got });
        }
        Ok(self.body(&url, response, 0, Some(size)))
    }
}

/// `bytes 5-9/100`: first, last, and the size unless it is `*`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, total))
}

/// Seconds, or a date: then what is left until it by the server's own clock, if it says that, since this host's may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text(RETRY_AFTER)?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = text(DATE).and_then(http_date).unwrap_or_else(|| jiff::Timestamp::now().as_second());
    Some(Duration::from_secs(u64::try_from(http_date(after)?.saturating_sub(now)).unwrap_or(0)))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, or of one of the two older forms that HTTP still allows.
fn http_date(text: &str) -> Option<i64> {
    let parsed = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .into_iter()
        .find_map(|form| jiff::civil::DateTime::strptime(form, text).ok())?;
    Some(parsed.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
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
    fn a_busy_server_may_say_until_when_in_seconds_or_as_a_date() {
        let after = |retry: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            retry_after(&headers).map(|after| after.as_secs())
        };
        // The server's clock counts, however wrong ours is.
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(after("120", now), Some(120));
        for date in ["Sun, 06 Nov 1994 09:49:37 GMT", "Sunday, 06-Nov-94 09:49:37 GMT", "Sun Nov  6 09:49:37 1994"] {
            assert_eq!(after(date, now), Some(3600), "{date}");
        }
        assert_eq!(after("Sun, 06 Nov 1994 07:49:37 GMT", now), Some(0), "over already");
        assert_eq!(after("Sun, 06 Nov 1994 09:49:37 GMT", None), Some(0), "by our clock");
        assert!(after("Tue, 31 Dec 2199 23:59:59 GMT", Some("nonsense")).unwrap() > 1_000_000_000);
        for bad in ["soon", "-5", "", "Sun, 06 Nov 1994 09:49:37 CET"] {
            assert_eq!(after(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn paths_stay_in_the_repository() {
        let http = Http::new(&"http://127.0.0.1:1/repo/".parse().unwrap(), &Settings::default()).unwrap();
        assert_eq!(http.url("objects/a.map").unwrap().as_str(), "http://127.0.0.1:1/repo/objects/a.map");
        for bad in ["../x", "/etc/passwd", "http://127.0.0.2/x", "//other/x"] {
            assert_eq!(http.url(bad).unwrap_err().kind(), "address", "{bad}");
        }
    }
}
