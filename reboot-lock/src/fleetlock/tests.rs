//! The protocol by itself, and client against server over sockets.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::audit::Actor;
use crate::etcd::Tls;
use crate::keys::Group;
use crate::lock::{Options, RebootLock};
use crate::semaphore::{Claim, Purpose};
use crate::store::{Fault, Memory};

const GOOD: &str = r#"{"client_params":{"group":"workers","id":"c988d2509fdf5cdcbed39037c56406fb"}}"#;

fn incoming(body: &str) -> Incoming<'_> {
    Incoming { method: "POST", path: "/v1/pre-reboot", header: Some(b"true"), body: body.as_bytes() }
}

fn service(store: &Memory) -> Service {
    Service::new(Arc::new(store.clone()), Options::default(), None, "server")
}

#[test]
fn a_good_request_is_read() {
    let request = parse(&incoming(GOOD)).unwrap();
    assert_eq!(
        (request.call, request.group.as_str(), request.id.as_str()),
        (Call::PreReboot, "workers", "c988d2509fdf5cdcbed39037c56406fb")
    );
    let steady = parse(&Incoming { path: "/v1/steady-state", ..incoming(GOOD) }).unwrap();
    assert_eq!(steady.call, Call::SteadyState);
}

#[tokio::test]
async fn bad_requests_get_the_protocols_errors_and_never_reach_the_store() {
    let store = Memory::default();
    let service = service(&store);
    let huge = format!("{}{}", GOOD, " ".repeat(MAX_BODY));
    let long_group = GOOD.replace("workers", &"x".repeat(200));
    let long_id = GOOD.replace("c988", &"x".repeat(300));
    let control = GOOD.replace("c988", "\\u0000");
    let slash = GOOD.replace("workers", "a/b");
    let no_group = GOOD.replace("workers", "");
    let no_id = GOOD.replace("c988d2509fdf5cdcbed39037c56406fb", "");
    let cases = [
        (Incoming { path: "/", ..incoming(GOOD) }, 404, "unknown_path"),
        (Incoming { path: "/v1/pre-reboot/x", ..incoming(GOOD) }, 404, "unknown_path"),
        (Incoming { method: "GET", ..incoming(GOOD) }, 405, "invalid_method"),
        (Incoming { header: None, ..incoming(GOOD) }, 400, "missing_header"),
        (Incoming { header: Some(b"false"), ..incoming(GOOD) }, 400, "missing_header"),
        (incoming(&huge), 413, "body_too_large"),
        (incoming(""), 400, "invalid_body"),
        (incoming("[1,"), 400, "invalid_body"),
        (incoming(r#"{"client_params":{"group":"workers"}}"#), 400, "invalid_body"),
        (incoming(r#"{"client_params":{"group":"workers","id":5}}"#), 400, "invalid_body"),
        (incoming(&slash), 400, "invalid_group"),
        (incoming(&no_group), 400, "invalid_group"),
        (incoming(&long_group), 400, "invalid_group"),
        (incoming(&no_id), 400, "invalid_id"),
        (incoming(&long_id), 400, "invalid_id"),
        (incoming(&control), 400, "invalid_id"),
    ];
    for (request, status, kind) in cases {
        let reply = service.answer(&request, "peer").await;
        assert_eq!((reply.status, reply.body.contains(&format!("\"kind\":\"{kind}\""))), (status, true), "{request:?}: {reply:?}");
    }
    assert_eq!(store.requests(), 0);
}

#[tokio::test]
async fn both_calls_may_be_repeated() {
    let store = Memory::default();
    let service = service(&store);
    let other = GOOD.replace("c988", "d988");
    let steady = Incoming { path: "/v1/steady-state", ..incoming(GOOD) };
    assert_eq!(service.answer(&steady, "p").await.status, 200);
    assert_eq!(service.answer(&incoming(GOOD), "p").await.status, 200);
    assert_eq!(service.answer(&incoming(GOOD), "p").await, Reply { status: 200, body: String::new() });
    let full = service.answer(&incoming(&other), "p").await;
    assert_eq!((full.status, full.body.contains("failed_lock_semaphore_full")), (409, true));
    assert_eq!(service.answer(&steady, "p").await.status, 200);
    assert_eq!(service.answer(&incoming(&other), "p").await.status, 200);
    store.set_down(true);
    let down = service.answer(&steady, "p").await;
    assert_eq!((down.status, down.body.contains("etcd_unreachable")), (503, true));
}

#[tokio::test]
async fn a_client_cannot_touch_the_lock_of_another_kind_of_host() {
    let store = Memory::default();
    let service = service(&store);
    let lock = RebootLock::new(Arc::new(store.clone()), "workers".parse().unwrap(), Options::default());
    let claim = Claim {
        id: "c988d2509fdf5cdcbed39037c56406fb".to_owned(),
        hostname: "native".to_owned(),
        boot_id: "b".to_owned(),
        purpose: Purpose::Update,
        reason: String::new(),
        version: None,
    };
    let actor = Actor { host: "h".to_owned(), by: "test".to_owned(), why: String::new() };
    let held = lock.try_lock(&claim, &actor).await.unwrap();
    assert_eq!(service.answer(&incoming(GOOD), "p").await.status, 409);
    assert_eq!(service.answer(&Incoming { path: "/v1/steady-state", ..incoming(GOOD) }, "p").await.status, 200);
    assert!(lock.verify(&claim.id, held.holder.fence, None).await.is_ok());
    // And the other way around.
    lock.unlock(&claim.id, None, &actor).await.unwrap();
    assert_eq!(service.answer(&incoming(GOOD), "p").await.status, 200);
    assert_eq!(lock.try_lock(&claim, &actor).await.unwrap_err().kind(), "id_in_use");
}

#[tokio::test]
async fn groups_can_be_limited() {
    let store = Memory::default();
    let service = Service::new(Arc::new(store.clone()), Options::default(), Some(vec![Group::default()]), "server");
    let reply = service.answer(&incoming(GOOD), "p").await;
    assert_eq!((reply.status, reply.body.contains("unknown_group"), store.requests()), (400, true, 0));
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").current_dir(directory).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn certificates(directory: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(directory, &format!("req -x509 {key} -subj /CN=ca -keyout ca.key -out ca.crt"));
    for name in ["server", "client"] {
        let more = "-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1";
        openssl(directory, &format!("req {key} -subj /CN={name} {more} -keyout {name}.key -out {name}.csr"));
        let sign = "-days 2 -CA ca.crt -CAkey ca.key -CAcreateserial -copy_extensions copy";
        openssl(directory, &format!("x509 -req {sign} -in {name}.csr -out {name}.crt"));
    }
}

#[tokio::test]
async fn client_and_server_over_tls_with_certificates() {
    let directory = std::env::temp_dir().join(format!("fleetlock-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    certificates(&directory);
    let file = |name: &str| directory.join(name);
    let pem = |name: &str| std::fs::read(file(name)).unwrap();
    let tls = ServerTls::new(&pem("server.crt"), &pem("server.key"), Some(&pem("ca.crt"))).unwrap();
    let store = Memory::default();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Some(tls), service(&store)).await.unwrap();
    let base = format!("https://{}/", listener.address().unwrap());
    let server = tokio::spawn(listener.serve());
    let with = |tls: &Tls, id: &str| Client::new(&base, tls, "workers", id, Duration::from_secs(5)).unwrap();
    let tls = Tls::load(Some(&file("ca.crt")), Some(&file("client.crt")), Some(&file("client.key"))).unwrap();
    let (one, two) = (with(&tls, "one"), with(&tls, "two"));
    one.pre_reboot().await.unwrap();
    one.pre_reboot().await.unwrap();
    match two.pre_reboot().await.unwrap_err() {
        ClientError::Denied { status: 409, kind, value, .. } => {
            assert_eq!((kind.as_str(), value.as_str()), ("failed_lock_semaphore_full", "all 1 slots of group workers are taken by one"));
        }
        other => panic!("{other}"),
    }
    one.steady_state().await.unwrap();
    // The answer of etcd is lost: the client hears yes all the same, and holds one slot.
    store.inject([Fault::LostAnswer]);
    two.pre_reboot().await.unwrap();
    let stranger = with(&Tls { identity: None, ..tls.clone() }, "three");
    assert_eq!(stranger.pre_reboot().await.unwrap_err().kind(), "fleetlock_unreachable");
    server.abort();
    let _ = server.await;
    assert_eq!(two.steady_state().await.unwrap_err().kind(), "fleetlock_unreachable");
    assert!(ServerTls::new(&pem("server.crt"), &pem("client.key"), None).is_err());
    assert!(ServerTls::new(b"", &pem("server.key"), None).is_err());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn raw_requests_are_bounded() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let store = Memory::default();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None, service(&store)).await.unwrap();
    let address = listener.address().unwrap();
    tokio::spawn(listener.serve());
    let say = async |text: String| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // The server may have had enough before all is said.
        let _ = stream.write_all(text.as_bytes()).await;
        let mut said = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut said)).await.unwrap();
        String::from_utf8_lossy(&said).into_owned()
    };
    let head = "POST /v1/pre-reboot HTTP/1.1\r\nHost: x\r\nfleet-lock-protocol: true\r\n";
    let good = say(format!("{head}Content-Length: {}\r\n\r\n{GOOD}", GOOD.len())).await;
    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
    let requests = store.requests();
    assert!(say(format!("{head}Content-Length: 9000\r\n\r\n{}", "x".repeat(9000))).await.starts_with("HTTP/1.1 413"));
    assert!(say(format!("{head}X: {}\r\n\r\n", "x".repeat(40_000))).await.starts_with("HTTP/1.1 431"));
    assert!(say("nonsense\r\n\r\n".to_owned()).await.starts_with("HTTP/1.1 400"));
    assert!(say(format!("{head}Content-Length: 2\r\n\r\n{{}}")).await.contains("\"kind\":\"invalid_body\""));
    assert_eq!(store.requests(), requests);
    for kind in ["", "x"] {
        assert!(Client::new(&format!("ftp{kind}://h"), &Tls::default(), "g", "i", Duration::from_secs(1)).is_err());
    }
    assert!(Client::new("http://h", &Tls::default(), "a/b", "i", Duration::from_secs(1)).is_err());
    assert!(Client::new("http://h", &Tls::default(), "g", "", Duration::from_secs(1)).is_err());
}
