//! The daemon as a whole: what it answers on its control socket, and its metrics on a unix socket and on TCP.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::machine::world;
use crate::daemon::{Reply, Request, ask, run};
use crate::settings::RebootStrategy;
use crate::status::AgentState;

/// One request to an HTTP server; the head and the body of its answer, of the length that it states.
async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> (String, String) {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: host\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(length.parse(), Ok(body.len()));
    (head.to_owned(), body.to_owned())
}

async fn unix(path: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return stream,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

fn sample(body: &str, name: &str) -> Option<String> {
    body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
}

#[tokio::test]
async fn metrics_and_answers_come_from_the_sockets_while_it_runs() {
    let world = world().await;
    let mut agent = world.machine.agent(&world.server.url);
    // Nothing in a test may reboot, nor look for anything by itself.
    (agent.settings.reboot, agent.settings.automatic) = (RebootStrategy::Off, false);
    let (control, metrics) = (agent.paths.control.clone(), agent.paths.metrics.clone());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = async {
        // Somebody who says nothing does not keep others from their answers.
        let silent = unix(&metrics).await;
        let (head, body) = get(unix(&metrics).await).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"), "{head}");
        assert!(body.contains(r#"garboard_update_info{version="1.0",slot="a",channel="stable"} 1"#), "{body}");
        assert_eq!(sample(&body, "garboard_update_checks_total").as_deref(), Some("0"));
        let reply = ask(&control, &Request::Check).await.unwrap().unwrap();
        assert_eq!((reply.error, reply.status.state), (None, AgentState::Waiting));
        for body in [get(unix(&metrics).await).await.1, get(TcpStream::connect(port).await.unwrap()).await.1] {
            assert_eq!(sample(&body, "garboard_update_checks_total").as_deref(), Some("1"), "{body}");
            assert_eq!(sample(&body, r#"garboard_update_state{state="waiting"}"#).as_deref(), Some("1"));
            assert_eq!(sample(&body, r#"garboard_update_target{version="1.1"}"#).as_deref(), Some("1"));
        }
        let update = Request::Update { retry: None, downgrade: false };
        let reply = ask(&control, &update).await.unwrap().unwrap();
        assert_eq!((reply.error, reply.status.state), (None, AgentState::PendingReboot));
        let (_, body) = get(TcpStream::connect(port).await.unwrap()).await;
        assert_eq!(sample(&body, "garboard_update_installed_total").as_deref(), Some("1"), "{body}");
        assert!(sample(&body, "garboard_update_received_bytes_total").unwrap().parse::<u64>().unwrap() > 50_000);
        // What is no request is answered, and the daemon lives on.
        let mut stream = unix(&control).await;
        stream.write_all(b"{\"do\": \"dance\"}\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap().error.unwrap().kind, "request");
        assert_eq!(ask(&control, &Request::History).await.unwrap().unwrap().history.len(), 1);
        drop(silent);
    };
    tokio::select! {
        ended = run(agent, Some(port)) => panic!("the daemon ended: {ended:?}"),
        done = timeout(Duration::from_secs(60), client) => done.unwrap(),
    }
}
