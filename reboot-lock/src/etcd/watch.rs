//! A watch: one request whose answer goes on, a line of JSON for each piece of news. It wakes nobody while nothing changes: the kernel looks after the
//! connection, and etcd ends the watch when its member has lost the others.

use async_trait::async_trait;
use reqwest::Response;
use serde_json::Value;
use url::Url;

use super::gateway::{self, Heard};
use super::transport::{Safety, Transport, name};
use crate::store::{Event, Keys, StoreError, Watch};

/// No line is longer.
const MAX_LINE: usize = 16 << 20;

pub(super) struct Running {
    endpoint: String,
    response: Response,
    rest: Vec<u8>,
}

/// Starts a watch, and waits until etcd says that it stands.
pub(super) async fn open(transport: &Transport, keys: &Keys, from: i64) -> Result<Running, StoreError> {
    let body = gateway::watch(keys, from);
    let mut round = transport.round(Safety::Repeatable);
    loop {
        let base = round.next(transport)?;
        match open_at(transport, &base, &body).await {
            Ok(running) => return Ok(running),
            Err(error) => round.failed(transport, error)?,
        }
    }
}

async fn open_at(transport: &Transport, base: &Url, body: &Value) -> Result<Running, StoreError> {
    let response = transport.send_as_user(base, "v3/watch", body).await?;
    let endpoint = name(base);
    let mut running = Running { endpoint: endpoint.clone(), response, rest: Vec::new() };
    match transport.within(&endpoint, running.hear()).await?? {
        Heard::Created => Ok(running),
        Heard::Ended(error) => Err(error),
        Heard::Events(_) => Err(StoreError::Protocol { endpoint, reason: "a watch begins with events".to_owned() }),
    }
}

impl Running {
    async fn hear(&mut self) -> Result<Heard, StoreError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let line = line.trim_ascii();
                if line.is_empty() {
                    continue;
                }
                return gateway::heard(line, &self.endpoint)
                    .map_err(|reason| StoreError::Protocol { endpoint: self.endpoint.clone(), reason });
            }
            let broken = |reason: String| StoreError::Broken { endpoint: self.endpoint.clone(), reason };
            match self.response.chunk().await {
                Ok(Some(piece)) => self.rest.extend_from_slice(&piece),
                Ok(None) => return Err(broken("the watch ended".to_owned())),
                Err(error) => return Err(broken(error.to_string())),
            }
            if self.rest.len() > MAX_LINE {
                return Err(broken("a line of the watch has no end".to_owned()));
            }
        }
    }
}

#[async_trait]
impl Watch for Running {
    async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        loop {
            match self.hear().await? {
                Heard::Events(events) if !events.is_empty() => return Ok(events),
                Heard::Events(_) | Heard::Created => {}
                Heard::Ended(error) => return Err(error),
            }
        }
    }
}
