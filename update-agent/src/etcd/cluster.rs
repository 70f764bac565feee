//! How far an etcd cluster is: the version that all its members have reached, which each of them tells at `/version`.
//!
//! The members agree on it among themselves, the lowest minor version that one of them runs, and one that is down holds it where it is
//! (<https://etcd.io/docs/v3.5/op-guide/versioning/>).

use std::fs;
use std::time::Duration;

use plain_output::causes;
use reqwest::{Certificate, Client, Identity};
use serde::Deserialize;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How long an answer may be.
const MAX_ANSWER: usize = 64 << 10;

#[derive(Deserialize)]
struct Versions {
    etcdcluster: String,
}

/// Asks the members that `etcdctl` would ask by these variables, one after the other.
pub(super) async fn version(variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let client = client(&variable)?;
    let endpoints = variable("ETCDCTL_ENDPOINTS").unwrap_or_default();
    let scheme = if variable("ETCDCTL_CACERT").or_else(|| variable("ETCDCTL_CERT")).is_some() { "https" } else { "http" };
    let mut last = Err("no member is known".to_owned());
    for endpoint in endpoints.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty()) {
        let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") };
        let url = format!("{}/version", url.trim_end_matches('/'));
        last = ask(&client, &url).await.and_then(|text| agreed(&text)).map_err(|error| format!("{url}: {error}"));
        if last.is_ok() {
            break;
        }
    }
    last
}

fn client(variable: &dyn Fn(&str) -> Option<String>) -> Result<Client, String> {
    let read = |path: &str| fs::read(path).map_err(|error| format!("{path}: {error}"));
    let bad = |error: reqwest::Error| causes(&error);
    let mut builder = Client::builder().timeout(LIMIT).hickory_dns(true).no_proxy().redirect(reqwest::redirect::Policy::none());
    if variable("ETCDCTL_INSECURE_SKIP_TLS_VERIFY").is_some_and(|value| value == "true") {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if let Some(path) = variable("ETCDCTL_CACERT") {
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(&read(&path)?).map_err(bad)?);
    }
    if let (Some(certificate), Some(key)) = (variable("ETCDCTL_CERT"), variable("ETCDCTL_KEY")) {
        let pem = [read(&certificate)?, b"\n".to_vec(), read(&key)?].concat();
        builder = builder.identity(Identity::from_pem(&pem).map_err(bad)?);
    }
    builder.build().map_err(bad)
}

async fn ask(client: &Client, url: &str) -> Result<Vec<u8>, String> {
    let bad = |error: reqwest::Error| causes(&error);
    let mut response = client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(bad)?;
    let mut text = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(bad)? {
        text.extend_from_slice(&piece);
        if text.len() > MAX_ANSWER {
            return Err("the answer is no version".to_owned());
        }
    }
    Ok(text)
}

/// What an answer says that all have agreed on.
fn agreed(text: &[u8]) -> Result<String, String> {
    let versions: Versions = serde_json::from_slice(text).map_err(|error| format!("the answer is no version: {error}"))?;
    // `not_decided` while there is no leader yet.
    if versions.etcdcluster.starts_with(|c: char| c.is_ascii_digit()) && versions.etcdcluster.contains('.') {
        return Ok(versions.etcdcluster);
    }
    Err(format!("the members have not agreed on a version ('{}')", versions.etcdcluster))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    use super::*;

    /// Answers once; its address.
    fn member(status: &'static str, body: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /version HTTP/1.1"));
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        });
        address
    }

    async fn at(endpoints: String) -> Result<String, String> {
        version(&|name| (name == "ETCDCTL_ENDPOINTS").then(|| endpoints.clone())).await
    }

    #[tokio::test]
    async fn what_a_member_says_counts_and_one_that_says_nothing_is_passed_over() {
        let body = r#"{"etcdserver":"3.5.16","etcdcluster":"3.4.0"}"#;
        assert_eq!(at(format!("http://{}/", member("200 OK", body.into()))).await.as_deref(), Ok("3.4.0"));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(at(format!("http://{closed}, {}", member("200 OK", body.into()))).await.as_deref(), Ok("3.4.0"));
        let refused = at(format!("http://{closed}")).await.unwrap_err();
        assert!(refused.contains(&closed.to_string()) && refused.contains("refused"), "{refused}");
        assert!(at(String::new()).await.is_err());
    }

    #[tokio::test]
    async fn an_answer_without_an_agreement_is_none() {
        for (status, body, why) in [
            ("200 OK", r#"{"etcdserver":"3.5.16","etcdcluster":"not_decided"}"#.to_owned(), "not agreed"),
            ("200 OK", r#"{"etcdserver":"3.5.16","etcdcluster":""}"#.to_owned(), "not agreed"),
            ("200 OK", r#"{"etcdserver":"3.5.16"}"#.to_owned(), "no version"),
            ("200 OK", "x".repeat(MAX_ANSWER + 1), "no version"),
            ("503 Service Unavailable", String::new(), "503"),
        ] {
            let error = at(format!("http://{}", member(status, body))).await.unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[tokio::test]
    async fn a_member_that_wants_a_certificate_gets_the_one_that_etcdctl_would_show() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let script = "key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2'\n\
                      openssl req -x509 $key -subj /CN=ca -keyout ca.key -out ca.pem\n\
                      openssl req -x509 -CA ca.pem -CAkey ca.key $key -subj /O=etcd -addext basicConstraints=critical,CA:FALSE \
                      -addext subjectAltName=IP:127.0.0.1 -addext extendedKeyUsage=serverAuth,clientAuth -keyout own.key -out own.pem\n";
        let made = Command::new("sh").args(["-ec", script]).current_dir(&directory).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::write(path("version"), r#"{"etcdserver":"3.5.16","etcdcluster":"3.5.0"}"#).unwrap();
        let arguments = "s_server -accept 127.0.0.1:0 -WWW -cert own.pem -key own.key -CAfile ca.pem -Verify 1 -verify_return_error";
        let mut server = Command::new("openssl");
        server.args(arguments.split(' ')).current_dir(&directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = server.spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
        let address = said.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
        let all = [("ETCDCTL_CACERT", path("ca.pem")), ("ETCDCTL_CERT", path("own.pem")), ("ETCDCTL_KEY", path("own.key"))];
        let ask = async |told: &[(&str, String)]| {
            let told = |name: &str| told.iter().find(|(told, _)| *told == name).map(|(_, value)| value.clone());
            version(&|name| if name == "ETCDCTL_ENDPOINTS" { Some(format!("https://{address}")) } else { told(name) }).await
        };
        let [whole, no_certificate, no_ca] = [ask(&all).await, ask(&all[..1]).await, ask(&all[1..]).await];
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(whole.as_deref(), Ok("3.5.0"));
        // Without the certificate the member does not answer; without its CA we do not ask.
        assert!(no_certificate.unwrap_err().contains(&address));
        assert!(no_ca.unwrap_err().contains("certificate"));
    }
}
