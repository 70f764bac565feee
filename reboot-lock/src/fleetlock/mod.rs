//! The FleetLock protocol, version 1 (<https://coreos.github.io/zincati/development/fleetlock/protocol/>): `protocol` is what is said, `service` answers it from
//! our semaphore, `server` carries that over HTTP and TLS, `client` asks another server.

mod client;
mod protocol;
mod server;
mod service;

pub use client::{Client, ClientError};
pub use protocol::{Call, Incoming, MAX_BODY, Refusal, Reply, Request, parse};
pub use server::{Listener, ServerTls, TlsError};
pub use service::Service;

#[cfg(test)]
mod tests;
