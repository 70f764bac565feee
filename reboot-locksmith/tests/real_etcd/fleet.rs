//! FleetLock servers on two hosts, each with an etcd member of its own to ask: one semaphore for the clients of both and for the hosts themselves.

use std::sync::Arc;
use std::time::Duration;

use reboot_lock::etcd::Tls;
use reboot_lock::fleetlock::{Client, ClientError};
use reboot_lock::store::Store;
use serde_json::json;

use super::host::Host;
use super::lab::Lab;
use super::replay::history;
use super::run;

/// The test's own address in the lab.
const HERE: &str = "10.77.0.254";

fn client(port: u16, id: &str) -> Client {
    let tls = Tls::load(None, None, None).unwrap();
    Client::new(&format!("http://{HERE}:{port}"), &tls, "default", id, Duration::from_secs(20)).unwrap()
}

fn is_full(answer: Result<(), ClientError>) {
    assert!(matches!(&answer, Err(ClientError::Denied { kind, .. }) if kind == "failed_lock_semaphore_full"), "{answer:?}");
}

async fn served(mut lab: Lab) {
    lab.start_all().await;
    let store: Arc<dyn Store> = Arc::new(lab.etcd());
    let ports = [9090, 9091];
    let mut hosts = Vec::new();
    for (number, port) in ports.into_iter().enumerate() {
        let server = json!({ "listen": format!("{HERE}:{port}") });
        let settings = json!({ "strategy": "etcd-lock", "quorum": false, "endpoints": [lab.url(number)], "fleet_lock_server": server });
        let mut host = Host::new(&lab, number, &settings);
        host.boots("one", "1.0").await;
        host.serves(&format!("{HERE}:{port}")).await;
        hosts.push(host);
    }
    // What one server has given, the other knows, whoever asks it.
    client(9090, "flatcar-a").pre_reboot().await.unwrap();
    is_full(client(9091, "flatcar-b").pre_reboot().await);
    is_full(client(9090, "flatcar-b").pre_reboot().await);
    client(9091, "flatcar-a").pre_reboot().await.unwrap();
    // So do the hosts themselves.
    hosts[1].update("1.1");
    hosts[1].waits_for("it is held by flatcar-a").await;
    // Nobody else gives it back.
    client(9091, "flatcar-b").steady_state().await.unwrap();
    is_full(client(9090, "flatcar-b").pre_reboot().await);
    client(9091, "flatcar-a").steady_state().await.unwrap();
    hosts[1].is_told().await;
    for port in ports {
        is_full(client(port, "flatcar-b").pre_reboot().await);
        // A client that takes the host's name does not get its lock, nor end it.
        let answer = client(port, "host1").pre_reboot().await;
        assert!(matches!(&answer, Err(ClientError::Denied { kind, .. }) if kind == "id_in_use"), "{answer:?}");
        let _ = client(port, "host1").steady_state().await;
    }
    is_full(client(9090, "flatcar-b").pre_reboot().await);
    // The member of the first server is gone: the other goes on alone, with what both know.
    hosts[1].boots("two", "1.1").await;
    hosts[1].serves(&format!("{HERE}:9091")).await;
    lab.kill(0);
    let begun = std::time::Instant::now();
    while client(9091, "flatcar-b").pre_reboot().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(40), "the server whose member runs gives nothing");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let down = client(9090, "flatcar-a").pre_reboot().await;
    assert!(matches!(&down, Err(ClientError::Denied { kind, .. }) if kind.starts_with("etcd_")), "{down:?}");
    lab.start(0);
    lab.works().await;
    while !matches!(client(9090, "flatcar-a").pre_reboot().await, Err(ClientError::Denied { kind, .. }) if kind == "failed_lock_semaphore_full")
    {
        assert!(begun.elapsed() < Duration::from_secs(80), "the server whose member is back does not serve");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    client(9090, "flatcar-b").steady_state().await.unwrap();
    let history = history(&store).await;
    assert_eq!((history.most, history.turns.len(), history.holders.len()), (1, 3, 0));
}

#[test]
fn fleet_lock_clients_of_any_member_and_the_hosts_share_one_semaphore() {
    let Some(lab) = Lab::new(3, "http", &[]) else { return };
    run(served(lab));
}
