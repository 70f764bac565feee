//! `locksmithctl` as people type it, beside a running daemon, on real etcd.

use std::io::{Read, Write};
use std::sync::Arc;

use reboot_lock::audit::Actor;
use reboot_lock::quarantine::Quarantine;
use reboot_lock::{Group, Options, RebootLock};
use serde_json::{Value, json};

use super::host::Host;
use super::lab::Lab;
use super::run;

fn ids(of: &Value) -> Vec<&str> {
    of["lock"]["holders"].as_array().unwrap().iter().map(|holder| holder["id"].as_str().unwrap()).collect()
}

/// Locks, slots and the audit trail of one group say nothing about another's.
fn groups_and_slots(host: &Host) {
    assert_eq!(host.says(&["lock", "--why", "disk"]), "");
    assert!(host.refuses(&["lock", "b"]).contains("all 1 slots of group default are taken by host0"));
    let held = host.tells(&["lock", "b", "--group", "db", "--why", "by hand"]);
    assert_eq!(
        (&held["id"], &held["purpose"], &held["reason"], &held["fence"]),
        (&json!("b"), &json!("manual"), &json!("by hand"), &json!(1))
    );
    assert!(held["since"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(host.says(&["set-max", "3", "--group", "db"]), "Old-Max: 1\nMax: 3\n");
    assert_eq!(host.tells(&["set-max", "2", "--group", "db"]), json!({ "old": 3, "max": 2 }));
    for bad in ["0", "1001"] {
        assert!(host.refuses(&["set-max", bad]).contains("must be between 1 and 1000"));
    }
    let (own, other) = (host.tells(&["status"]), host.tells(&["status", "--group", "db"]));
    assert_eq!((ids(&own), &own["lock"]["max"]), (vec!["host0"], &json!(1)));
    assert_eq!((ids(&other), &other["lock"]["max"], &other["lock"]["available"]), (vec!["b"], &json!(2), &json!(1)));
    assert_eq!(own["host"]["state"], "idle");
    // The same id in both: each is given back for itself.
    host.says(&["lock", "--group", "db"]);
    assert_eq!(host.tells(&["unlock", "host0", "--group", "db"]), json!({ "id": "host0", "held": true, "reserved": false }));
    assert_eq!(host.tells(&["unlock", "host0", "--group", "db"])["held"], false);
    assert_eq!(ids(&host.tells(&["status"])), ["host0"]);
    assert_eq!(host.says(&["unlock", "b"]), "b does not hold the lock of group default\n");
    assert_eq!(host.says(&["unlock", "b", "--group", "db"]), "");
    let text = host.says(&["status"]);
    assert!(text.starts_with("Available: 0\nMax: 1\n\nMACHINE ID\nhost0  host0  since ") && text.contains("  disk\n"), "{text}");
    assert_eq!(host.says(&["unlock", "--why", "done"]), "");

    let acts = |trail: &Value| -> Vec<(String, String)> {
        let word = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
        trail.as_array().unwrap().iter().map(|record| (word(record, "act"), word(record, "subject"))).collect()
    };
    let pairs =
        |all: &[(&str, &str)]| -> Vec<(String, String)> { all.iter().map(|(act, of)| ((*act).to_owned(), (*of).to_owned())).collect() };
    let trail = host.tells(&["audit"]);
    assert_eq!(acts(&trail), pairs(&[("lock", "host0"), ("unlock", "host0")]));
    assert_eq!((&trail[1]["host"], &trail[1]["by"], &trail[1]["why"]), (&json!("host0"), &json!("locksmithctl (root)"), &json!("done")));
    let other = host.tells(&["audit", "--group", "db"]);
    let expected = [("lock", "b"), ("set-max", "3"), ("set-max", "2"), ("lock", "host0"), ("unlock", "host0"), ("unlock", "b")];
    assert_eq!(acts(&other), pairs(&expected));
    let lines = host.says(&["audit"]);
    assert!(lines.lines().count() == 2 && lines.contains("unlock           host0  on host0 by locksmithctl (root): done\n"), "{lines}");
}

async fn quarantines(host: &Host, lock: &RebootLock) {
    assert_eq!((host.says(&["quarantine", "list"]).as_str(), host.tells(&["quarantine", "list"])), ("", json!([])));
    assert!(host.refuses(&["quarantine", "clear", "1.1"]).contains("version 1.1 is not quarantined"));
    let actor = Actor { host: "x".into(), by: "test".into(), why: "docker is failed".into() };
    lock.quarantine(&Quarantine::new("1.1", "b", "host-b", "db", "docker is failed", 1_795_368_600), &actor).await.unwrap();
    let line = "1.1  failed on host-b (group db) at 2026-11-22 17:30 UTC: docker is failed\n";
    assert_eq!(host.says(&["quarantine", "list"]), line);
    let all = host.tells(&["quarantine", "list"]);
    assert_eq!((&all[0]["version"], &all[0]["hostname"], &all[0]["reason"]), (&json!("1.1"), &json!("host-b"), &json!("docker is failed")));
    assert!(host.says(&["status"]).contains("Quarantined: version 1.1 failed on host-b: docker is failed\n"));
    assert_eq!(host.tells(&["quarantine", "clear", "1.1", "--why", "it was the disk"]), json!({ "cleared": "1.1" }));
    assert_eq!(host.says(&["quarantine", "list"]), "");
    let trail = host.tells(&["audit"]);
    let last = trail.as_array().unwrap().last().unwrap();
    assert_eq!((&last["act"], &last["subject"], &last["why"]), (&json!("clear-quarantine"), &json!("1.1"), &json!("it was the disk")));
}

/// As Prometheus asks, through the socket.
fn metrics(host: &Host) {
    let mut stream = std::os::unix::net::UnixStream::connect(host.paths.metrics()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(
        head.contains(&format!("Content-Length: {}", text.len())) || head.contains(&format!("content-length: {}", text.len())),
        "{head}"
    );
    for line in [
        "garboard_reboot_state{state=\"idle\"} 1\n",
        "garboard_reboot_wanted 0\n",
        "garboard_reboot_info{strategy=\"etcd-lock\",group=\"default\"} 1\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

async fn typed(mut lab: Lab) {
    lab.start_all().await;
    let host = Host::new(&lab, 0, &json!({ "strategy": "etcd-lock", "quorum": false }));
    host.has_programs();
    host.is_in("one", "1.0");
    let _daemon = host.starts();
    host.status().await;
    groups_and_slots(&host);
    quarantines(&host, &RebootLock::new(Arc::new(lab.etcd()), Group::default(), Options::default())).await;
    metrics(&host);
    // What the daemon is told.
    assert!(host.says(&["send-need-reboot", "--why", "a new kernel"]).contains("a reboot is wanted"));
    host.is_told().await;
    let why = host.tells(&["why"]);
    assert_eq!((&why["state"], &why["wanted"]["reason"]), (&json!("rebooting"), &json!("a new kernel")));
    assert_eq!(ids(&host.tells(&["status"])), ["host0"]);
    // etcd is gone: one line, and the answer in JSON says so, too.
    lab.kill(0);
    let output = host.ctl(&["status", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), told["host"]["state"].as_str()), (Some(1), Some("rebooting")));
    assert!(told["lock"]["kind"].as_str().unwrap().starts_with("etcd_"), "{told}");
    let said = host.refuses(&["lock", "b"]);
    assert!(said.starts_with("locksmithctl: ") && said.lines().count() == 1, "{said}");
}

#[test]
fn what_people_type_on_real_etcd() {
    let Some(lab) = Lab::new(1, "http", &[]) else { return };
    run(typed(lab));
}
