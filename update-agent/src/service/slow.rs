//! Servers that are slow, on purpose or not; the pace that settings ask for; proxies.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::disks::recovers;
use super::machine::{World, asked, world, world_of};
use super::server::Behaviour;
use crate::agent::{Agent, AgentError};
use crate::crash::fixture::Release;

/// The agent with a second instead of a minute, and other settings.
fn agent(world: &World, url: &str, change: impl FnOnce(&mut Agent)) -> Agent {
    let mut agent = world.machine.agent(url);
    (agent.settings.rate_span, agent.settings.retry_pause) = (1, 1);
    change(&mut agent);
    agent
}

async fn update(world: &World, change: impl FnOnce(&mut Agent)) -> Result<Option<String>, AgentError> {
    let updated = agent(world, &world.server.url, change).update(&asked()).await?;
    Ok(updated.map(|version| version.to_string()))
}

#[tokio::test]
async fn a_server_that_trickles_serves_while_it_is_fast_enough() {
    let world = world().await;
    world.server.behave(Behaviour { trickle: Some((8000, 40)), ..Behaviour::default() });
    assert_eq!(update(&world, |agent| agent.settings.min_rate = 10_000).await.unwrap().as_deref(), Some("1.1"));
    assert_eq!(world.machine.boots(), "1.1");
}

/// Slow retrieval: bytes keep coming, so that nothing ever times out, and the host would be kept from its update for ever.
#[tokio::test]
async fn metadata_and_packs_that_come_too_slowly_are_given_up() {
    let world = world().await;
    world.server.behave(Behaviour { everything: true, trickle: Some((1, 100)), ..Behaviour::default() });
    let began = Instant::now();
    let error = update(&world, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), "too-slow", "{error}");
    assert!(world.machine.disk.log.borrow().is_empty());
    world.server.behave(Behaviour { trickle: Some((10, 100)), ..Behaviour::default() });
    let error = update(&world, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), "too-slow", "{error}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    world.server.behave(Behaviour::default());
    recovers(&world).await;
}

#[tokio::test]
async fn a_pack_that_stalls_is_asked_for_again_where_it_stopped() {
    let world = world().await;
    world.server.behave(Behaviour { stall_after: Some(70_000), ..Behaviour::default() });
    assert_eq!(update(&world, |agent| agent.settings.rate_span = 60).await.unwrap().as_deref(), Some("1.1"));
    let shared = world.server.shared.lock().unwrap();
    assert!(shared.requests.iter().filter(|request| request.contains(".pack")).count() >= 2, "{:?}", shared.requests);
    assert_eq!(world.machine.boots(), "1.1");
}

/// The bytes before each break come again and again: without a whole payload that is no progress.
#[tokio::test]
async fn a_server_that_breaks_off_after_a_few_bytes_each_time_is_given_up() {
    let world = world().await;
    world.server.behave(Behaviour { drop_after: Some((20_000, u32::MAX)), ..Behaviour::default() });
    let error = update(&world, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), "dropped", "{error}");
    let asked = world.server.shared.lock().unwrap().requests.iter().filter(|request| request.contains(".pack")).count();
    assert!((8..20).contains(&asked), "{asked}");
    world.server.behave(Behaviour::default());
    recovers(&world).await;
}

/// An error page from some proxy, or a line that breaks: without a length nothing in the answer says that it is not whole.
#[tokio::test]
async fn short_answers_without_a_length_count_as_broken_off() {
    for short in [
        Behaviour { page: Some("<html>no</html>"), ..Behaviour::default() },
        Behaviour { drop_after: Some((20_000, u32::MAX)), ..Behaviour::default() },
    ] {
        let world = world().await;
        world.server.behave(Behaviour { no_length: true, ..short.clone() });
        let updated = tokio::time::timeout(Duration::from_secs(60), update(&world, |_| {})).await;
        let error = updated.expect("it does not ask for ever").unwrap_err();
        assert_eq!(error.kind(), "dropped", "{short:?}: {error}");
        let asked = world.server.shared.lock().unwrap().requests.iter().filter(|request| request.contains(".pack")).count();
        assert!((8..20).contains(&asked), "{short:?}: {asked}");
        // One that is whole needs no length.
        world.server.behave(Behaviour { no_length: true, ..Behaviour::default() });
        recovers(&world).await;
    }
}

/// Each answer brings a payload before it stalls, so no number of failures in a row ends it.
#[tokio::test]
async fn a_server_that_stalls_after_each_payload_is_given_up_when_all_in_all_it_is_too_slow() {
    let world = world_of(Release::of_blocks("1.0", 512), Release::of_blocks("1.1", 512)).await;
    world.server.behave(Behaviour { stall_after: Some(300_000), ..Behaviour::default() });
    let error = update(&world, |agent| agent.settings.min_rate = 1 << 20).await.unwrap_err();
    assert_eq!(error.kind(), "too-slow", "{error}");
    world.server.behave(Behaviour::default());
    recovers(&world).await;
}

#[tokio::test]
async fn the_bandwidth_limit_holds() {
    let world = world().await;
    let began = Instant::now();
    assert_eq!(update(&world, |agent| agent.settings.limit = Some(80_000)).await.unwrap().as_deref(), Some("1.1"));
    let sent = world.server.shared.lock().unwrap().sent;
    // One that did not hold back is done in a fraction of it.
    assert!(began.elapsed() >= Duration::from_secs_f64(sent as f64 / 80_000.0 * 0.9), "{sent} bytes in {:?}", began.elapsed());
}

#[tokio::test]
async fn a_busy_server_that_names_a_date_is_left_alone_until_then() {
    let world = world().await;
    let until = Behaviour { status: Some((503, None, 99)), retry_after: Some("Tue, 31 Dec 2199 23:59:59 GMT"), ..Behaviour::default() };
    world.server.behave(Behaviour { everything: true, ..until });
    let error = update(&world, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), "server-busy");
    let asked = error.retry_after().unwrap();
    assert!(asked > 5 * 365 * 86_400, "{asked}");
    assert_eq!(crate::policy::next_check(3600, 1, Some(asked), 0), 24 * 3600, "but not for years");
}

async fn copy(client: TcpStream, server: TcpStream, first: &[u8]) -> std::io::Result<()> {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    to_server.write_all(first).await?;
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await };
    let down = async { tokio::io::copy(&mut from_server, &mut to_client).await };
    tokio::select! { done = up => done, done = down => done }.map(drop)
}

/// A proxy that knows where `updates.invalid` is, which nobody else does. Says what it was asked for.
async fn proxy(to: String, socks: bool) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let of_proxy = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (to, asked) = (to.clone(), Arc::clone(&of_proxy));
            tokio::spawn(async move {
                let mut first = Vec::new();
                if socks {
                    let mut greeting = [0; 2];
                    client.read_exact(&mut greeting).await?;
                    client.read_exact(&mut vec![0; usize::from(greeting[1])]).await?;
                    client.write_all(&[5, 0]).await?;
                    let mut request = [0; 5];
                    client.read_exact(&mut request).await?;
                    assert_eq!(request[..4], [5, 1, 0, 3], "connect to a name");
                    let mut name = vec![0; usize::from(request[4]) + 2];
                    client.read_exact(&mut name).await?;
                    asked.lock().unwrap().push(String::from_utf8_lossy(&name[..name.len() - 2]).into_owned());
                    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).await?;
                } else {
                    let mut buffer = [0; 4096];
                    while !first.windows(4).any(|end| end == b"\r\n\r\n") {
                        let count = client.read(&mut buffer).await?;
                        if count == 0 {
                            return Ok(());
                        }
                        first.extend_from_slice(&buffer[..count]);
                    }
                    let head = String::from_utf8(first).unwrap();
                    asked.lock().unwrap().push(head.lines().next().unwrap().to_owned());
                    first = head.replacen("http://updates.invalid", "", 1).into_bytes();
                }
                copy(client, TcpStream::connect(to).await?, &first).await
            });
        }
    });
    (port, asked)
}

#[tokio::test]
async fn updates_come_through_the_proxy_that_is_set_and_not_past_it() {
    for (scheme, socks) in [("http", false), ("socks5h", true)] {
        let world = world().await;
        let server = world.server.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let (port, asked_for) = proxy(server, socks).await;
        let set = |agent: &mut Agent| agent.settings.proxy = Some(format!("{scheme}://127.0.0.1:{port}"));
        let mut through = agent(&world, "http://updates.invalid/", set);
        assert_eq!(through.update(&asked()).await.unwrap().unwrap().as_str(), "1.1");
        let asked_for = asked_for.lock().unwrap().clone();
        let expected = if socks { "updates.invalid" } else { "GET http://updates.invalid/metadata/" };
        assert!(asked_for.iter().any(|line| line.starts_with(expected)), "{asked_for:?}");
        // With the proxy gone nothing goes past it, although the server itself could be reached.
        let mut past = agent(&world, &world.server.url, |agent| agent.settings.proxy = Some(format!("{scheme}://127.0.0.1:9")));
        assert_eq!(past.check(true).await.unwrap_err().kind(), "connect");
    }
}
