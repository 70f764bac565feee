//! What the host's daemons offer on their sockets: requests and answers of one line of JSON each ([`ask`]), and metrics over HTTP
//! ([`serve_metrics`], [`Metrics`]); and what they do before they sleep ([`rest`]).
//!
//! Relies on tokio and serde. Promises: a socket that is bound ([`listen`]) stays served ([`accept`]) whatever single clients do, and a client
//! of the metrics has no more than a few KiB kept for it, for ten seconds. How long a request may be and take is for the daemons to say.

#![deny(unsafe_code, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, clippy::expect_used))]

mod metrics;
#[allow(unsafe_code)]
mod sys;

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

pub use metrics::{Metrics, label, labels};
pub use sys::rest;

/// The longest head of an HTTP request that is read.
const MAX_HEAD: usize = 16 << 10;
/// How long a client of the metrics may take.
const HTTP_PATIENCE: Duration = Duration::from_secs(10);
/// After an `accept` that failed: what it lacks, descriptors or memory, comes back with time only.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes a socket anew, with this mode, and its directory where that is missing.
///
/// # Errors
/// When its directory cannot be written.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// The next client of a listener, asked for as `accept(|| listener.accept())`. An attempt that fails is followed by another: a daemon that
/// had no descriptor left for a moment must not be deaf for ever.
pub async fn accept<S, A, F: Future<Output = io::Result<(S, A)>>>(next: impl Fn() -> F) -> S {
    loop {
        match next().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Serves metrics over HTTP for as long as it is awaited. `next` is as for [`accept`]; `text` is asked for each client.
pub async fn serve_metrics<S, A, F>(next: impl Fn() -> F, text: impl Fn() -> String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<(S, A)>>,
{
    loop {
        let stream = accept(&next).await;
        let text = text();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(HTTP_PATIENCE, http(stream, &text)).await;
        });
    }
}

/// Answers one HTTP request, whatever its path, with a text in Prometheus' format.
async fn http(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MAX_HEAD {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Asks the daemon at a socket; `None` when there is none. `patience`: how long the answer may take; without it, as long as it takes.
///
/// # Errors
/// When the daemon goes away before it has answered, or takes too long, or answers something unknown.
pub async fn ask<Q: Serialize, R: DeserializeOwned>(path: &Path, request: &Q, patience: Option<Duration>) -> io::Result<Option<R>> {
    let Ok(mut stream) = UnixStream::connect(path).await else { return Ok(None) };
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut text = String::new();
    let mut reader = BufReader::new(stream);
    let read = reader.read_line(&mut text);
    match patience {
        Some(patience) => tokio::time::timeout(patience, read).await??,
        None => read.await?,
    };
    if text.is_empty() {
        return Err(io::Error::other("the daemon ended before it had answered"));
    }
    Ok(Some(serde_json::from_str(&text)?))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn an_accept_that_fails_is_tried_again() {
        let failures = Cell::new(3);
        let next = || {
            let left = failures.replace(failures.get() - 1);
            async move { if left > 0 { Err(io::Error::from_raw_os_error(24)) } else { Ok(("a client", ())) } }
        };
        assert_eq!(accept(next).await, "a client");
        assert_eq!(failures.get(), -1);
    }

    #[tokio::test]
    async fn one_line_each_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control");
        assert_eq!(ask::<_, String>(&path, &"nobody", None).await.unwrap(), None);
        let listener = listen(&path, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        tokio::spawn(async move {
            loop {
                let mut stream = BufReader::new(accept(|| listener.accept()).await);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                match line.as_str() {
                    "\"wait\"\n" => drop(tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_secs(60)).await;
                        drop(stream);
                    })),
                    "\"leave\"\n" => {}
                    _ => stream.write_all(line.to_uppercase().as_bytes()).await.unwrap(),
                }
            }
        });
        assert_eq!(ask::<_, String>(&path, &"hello", None).await.unwrap().as_deref(), Some("HELLO"));
        assert!(ask::<_, u32>(&path, &"hello", None).await.is_err());
        assert!(ask::<_, String>(&path, &"leave", None).await.unwrap_err().to_string().contains("ended before"));
        let late = ask::<_, String>(&path, &"wait", Some(Duration::from_millis(50))).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
