//! The other end of the control socket: what `systemctl` and its kin use.
//!
//! Blocking, for programs other than PID 1.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{Reply, Request};

/// Where PID 1 listens.
pub const CONTROL_SOCKET: &str = "/run/garboard/control";

/// Why PID 1 could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("{}: cannot reach PID 1: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to PID 1 broke: {0}")]
    Broken(#[from] std::io::Error),
    /// PID 1 said something that this program does not know.
    #[error("PID 1 answered something unknown: {0}")]
    Unknown(#[from] serde_json::Error),
    /// The answer ended too early.
    #[error("PID 1 closed the connection before its answer was complete")]
    Truncated,
}

/// A connection that has asked something.
#[derive(Debug)]
pub struct Exchange {
    reader: BufReader<UnixStream>,
    finished: bool,
}

/// Asks PID 1 at `socket`; replies come from [`Exchange::next_reply`]. No answer within `timeout` is an error; `None` waits for ever.
pub fn ask(socket: &Path, request: &Request, timeout: Option<Duration>) -> Result<Exchange, ClientError> {
    let mut stream = UnixStream::connect(socket).map_err(|source| ClientError::Connect { path: socket.to_owned(), source })?;
    stream.set_read_timeout(timeout)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(Exchange { reader: BufReader::new(stream), finished: false })
}

/// Asks and collects the whole answer; its last element is [`Reply::Done`] or [`Reply::Error`].
pub fn ask_all(socket: &Path, request: &Request, timeout: Option<Duration>) -> Result<Vec<Reply>, ClientError> {
    let mut exchange = ask(socket, request, timeout)?;
    let mut replies = Vec::new();
    while let Some(reply) = exchange.next_reply()? {
        replies.push(reply);
    }
    Ok(replies)
}

impl Exchange {
    /// The next line of the answer; `None` after the last.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ClientError> {
        if self.finished {
            return Ok(None);
        }
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(ClientError::Truncated);
        }
        let reply: Reply = serde_json::from_str(&line)?;
        self.finished = reply.is_last();
        Ok(Some(reply))
    }
}
