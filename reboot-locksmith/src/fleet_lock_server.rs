//! The FleetLock server for other hosts, on the same semaphores.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reboot_lock::fleetlock::{Listener, ServerTls, Service};
use reboot_rules::settings::{FleetLockServer, Settings};
use tokio::sync::watch;

use crate::connect;

/// The setting that makes it, by which troubles are told.
pub const SETTING: &str = "fleet_lock_server";
/// How often an address that is not there yet, or still taken, is tried.
const AGAIN: Duration = Duration::from_secs(2);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    task: tokio::task::JoinHandle<()>,
    trouble: watch::Receiver<Option<String>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves as settings say, if they do. An address that cannot be bound is tried again: the network may not be up.
    ///
    /// # Errors
    /// One line: which setting cannot be followed.
    pub fn start(settings: &Settings, host: &str) -> Result<Option<Self>, String> {
        let Some(server) = &settings.fleet_lock_server else { return Ok(None) };
        let tls = tls(server)?;
        let service = Service::new(Arc::new(connect::etcd(&settings.etcd)?), connect::options(settings), None, host);
        let (said, trouble) = watch::channel(None);
        Ok(Some(Self { task: tokio::spawn(serve(server.listen, tls, service, said)), trouble }))
    }

    /// Why it does not serve, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }
}

/// The certificates that settings name, loaded; none where they name none.
///
/// # Errors
/// One line: which file cannot be read, or which certificate or key cannot be used.
pub fn tls(server: &FleetLockServer) -> Result<Option<ServerTls>, String> {
    let read = |file: &String| std::fs::read(file).map_err(|error| format!("{file}: {error}"));
    let (Some(certificate), Some(key)) = (&server.cert_file, &server.key_file) else { return Ok(None) };
    let client_ca = server.client_ca_file.as_ref().map(read).transpose()?;
    ServerTls::new(&read(certificate)?, &read(key)?, client_ca.as_deref()).map(Some).map_err(|error| error.to_string())
}

async fn serve(address: SocketAddr, tls: Option<ServerTls>, service: Service, said: watch::Sender<Option<String>>) {
    let listener = loop {
        match Listener::bind(address, tls.clone(), service.clone()).await {
            Ok(listener) => break listener,
            Err(error) => {
                let why = format!("{address}: {error}");
                if said.borrow().as_ref() != Some(&why) {
                    eprintln!("reboot-locksmith: {SETTING}: {why}; it is tried again");
                    said.send_replace(Some(why));
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    };
    said.send_replace(None);
    match listener.serve().await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_is_said_and_tried_again() {
        assert!(Server::start(&Settings::default(), "a").unwrap().is_none());
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = taken.local_addr().unwrap();
        let server = FleetLockServer { listen, cert_file: None, key_file: None, client_ca_file: None };
        let settings = Settings { fleet_lock_server: Some(server.clone()), ..Settings::default() };
        let running = Server::start(&settings, "a").unwrap().unwrap();
        let mut trouble = running.trouble.clone();
        trouble.wait_for(Option::is_some).await.unwrap();
        assert!(running.trouble().unwrap().contains(&listen.to_string()));
        drop(taken);
        trouble.wait_for(Option::is_none).await.unwrap();
        assert!(tokio::net::TcpStream::connect(listen).await.is_ok());
        let missing = FleetLockServer { cert_file: Some("/nonexistent".into()), key_file: Some("/nonexistent".into()), ..server };
        let settings = Settings { fleet_lock_server: Some(missing), ..Settings::default() };
        assert!(Server::start(&settings, "a").unwrap_err().contains("/nonexistent"));
    }
}
