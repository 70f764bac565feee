//! What the daemon is asked over its socket for the command line (a line of JSON each way), and its socket for Prometheus.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon_socket::{accept, listen};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::status::Status;

const MAX_REQUEST: u64 = 64 << 10;
/// How long a request and its answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the daemon is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// As if an update were in place.
    NeedReboot {
        /// Why.
        reason: String,
        /// Who.
        by: String,
    },
    /// Reboot as soon as lock, inhibitors and quorum allow it.
    Reboot {
        /// Why.
        reason: String,
        /// Who.
        by: String,
    },
    /// Forget what was asked for by the two above.
    Cancel,
    /// Put the reboot that users were warned of off.
    Extend {
        /// By so many seconds.
        seconds: u64,
    },
    /// Say how it stands, looking again.
    Status,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// What went wrong.
    pub error: Option<String>,
    /// One sentence.
    pub message: String,
    /// How it stands now.
    pub status: Status,
}

/// A request and where its answer goes.
pub type Asked = (Request, oneshot::Sender<Reply>);

/// Serves requests; root's only.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(path: &Path, sender: mpsc::Sender<Asked>) -> std::io::Result<()> {
    let listener = listen(path, 0o600)?;
    tokio::spawn(async move {
        loop {
            let stream = accept(|| listener.accept()).await;
            let sender = sender.clone();
            tokio::spawn(async move {
                let _ = timeout(PATIENCE, answer(stream, sender)).await;
            });
        }
    });
    Ok(())
}

async fn answer(stream: UnixStream, sender: mpsc::Sender<Asked>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    timeout(Duration::from_secs(10), BufReader::new(reader.take(MAX_REQUEST)).read_line(&mut line)).await??;
    let reply = match serde_json::from_str::<Request>(&line) {
        Err(error) => Reply { error: Some(format!("the request is not understood: {error}")), ..Reply::default() },
        Ok(request) => {
            let (answer, reply) = oneshot::channel();
            if sender.send((request, answer)).await.is_err() {
                return Ok(());
            }
            reply.await.unwrap_or(Reply { error: Some("the daemon ended".to_owned()), ..Reply::default() })
        }
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

/// Asks the daemon; `None` when there is none.
///
/// # Errors
/// When it goes away before it has answered.
pub async fn ask(path: &Path, request: &Request) -> std::io::Result<Option<Reply>> {
    daemon_socket::ask(path, request, Some(PATIENCE)).await
}

/// Serves metrics over HTTP: one request, one answer, whatever the path.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve_metrics(path: &Path, status: Arc<Mutex<Status>>) -> std::io::Result<()> {
    let listener = listen(path, 0o644)?;
    let text = move || status.lock().map(|status| status.metrics()).unwrap_or_default();
    tokio::spawn(async move { daemon_socket::serve_metrics(|| listener.accept(), text).await });
    Ok(())
}
