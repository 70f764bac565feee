//! HTTP/1.1 for the service, with or without TLS and client certificates. Bounded in everything that a client decides: connections, time, header, body.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming as IncomingBody;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use super::protocol::{HEADER, Incoming, MAX_BODY, Refusal, Reply};
use super::service::Service;

const MAX_CONNECTIONS: usize = 64;
const MAX_HEAD: usize = 16 << 10;
/// For the handshake and one request; the service itself takes at most 30 s.
const CONNECTION_TIME: Duration = Duration::from_secs(45);

/// What is wrong with the server's certificates.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificate is no PEM, or there is none in it.
    #[error("the FleetLock server's certificate cannot be read: {0}")]
    Certificate(String),
    /// The key is no PEM, or there is none in it.
    #[error("the FleetLock server's key cannot be read: {0}")]
    Key(String),
    /// The CA for clients is no PEM, or there is none in it.
    #[error("the CA for FleetLock clients cannot be read: {0}")]
    ClientCa(String),
    /// They do not belong together.
    #[error("the FleetLock server's certificate and key cannot be used: {0}")]
    Together(String),
}

/// Certificates of the server.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if found.is_empty() { Err("there is none in it".to_owned()) } else { Ok(found) }
}

impl ServerTls {
    /// From PEM: the certificate with its chain, its key, and who may have signed the clients' certificates; with that, clients must have one.
    ///
    /// # Errors
    /// Says which of them cannot be used.
    pub fn new(certificate: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<Self, TlsError> {
        let chain = certificates(certificate).map_err(TlsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let together = |error: tokio_rustls::rustls::Error| TlsError::Together(error.to_string());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().map_err(together)?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem).map_err(TlsError::ClientCa)? {
                    roots.add(certificate).map_err(|error| TlsError::ClientCa(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::ClientCa(error.to_string()))?)
            }
        };
        let config = builder.with_single_cert(chain, key).map_err(together)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

/// A server that listens.
pub struct Listener {
    listener: TcpListener,
    tls: Option<ServerTls>,
    service: Arc<Service>,
}

impl Listener {
    /// Listens on an address.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr, tls: Option<ServerTls>, service: Service) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, tls, service: Arc::new(service) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self) -> Infallible {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let permit = Arc::clone(&room).acquire_owned().await;
            let Ok((stream, peer)) = self.listener.accept().await else {
                // Out of descriptors, or a client that has gone again.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (service, tls) = (Arc::clone(&self.service), self.tls.clone());
            tokio::spawn(async move {
                let served = async {
                    match tls {
                        None => connection(stream, &service, peer).await,
                        // Whoever has no certificate is no business of ours.
                        Some(tls) => {
                            if let Ok(stream) = tls.acceptor.accept(stream).await {
                                connection(stream, &service, peer).await;
                            }
                        }
                    }
                };
                let _ = tokio::time::timeout(CONNECTION_TIME, served).await;
                drop(permit);
            });
        }
    }
}

/// One request, then the connection ends: a client asks every few minutes at most.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, service: &Service, peer: SocketAddr) {
    let handler = service_fn(|request| async move { Ok::<_, Infallible>(http(&answer(request, service, peer).await)) });
    let mut http1 = hyper::server::conn::http1::Builder::new();
    let served = http1.keep_alive(false).max_buf_size(MAX_HEAD).header_read_timeout(None).serve_connection(TokioIo::new(stream), handler);
    // A client that goes away is none of our trouble.
    let _ = served.await;
}

async fn answer(request: Request<IncomingBody>, service: &Service, peer: SocketAddr) -> Reply {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        // Too long, or it broke off.
        Err(_) => return Refusal::new(413, "body_too_large", format!("the body is longer than {MAX_BODY} bytes, or incomplete")).reply(),
    };
    let header = head.headers.get(HEADER).map(hyper::header::HeaderValue::as_bytes);
    let incoming = Incoming { method: head.method.as_str(), path: head.uri.path(), header, body: &body };
    service.answer(&incoming, &peer.ip().to_string()).await
}

fn http(reply: &Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.body.clone())));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !reply.body.is_empty() {
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    }
    response
}
