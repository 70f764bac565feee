//! The gateway's JSON: bytes are base64, 64-bit numbers are texts, what is 0 or false is left out. Pure: data in, data out.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Value, json};

use crate::store::{Committed, Compare, Entry, Event, Keys, Page, StoreError, Write};

/// A 64-bit number, which JSON of protocol buffers has as text.
pub(super) fn number<'de, D: Deserializer<'de>, N: std::str::FromStr>(from: D) -> Result<N, D::Error> {
    let text = match Value::deserialize(from)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        other => return Err(D::Error::custom(format!("{other} is no number"))),
    };
    text.parse().map_err(|_| D::Error::custom(format!("{text} is no such number")))
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) cluster_id: u64,
    #[serde(deserialize_with = "number")]
    pub(super) member_id: u64,
    #[serde(deserialize_with = "number")]
    pub(super) revision: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    key: String,
    value: String,
    #[serde(deserialize_with = "number")]
    create_revision: i64,
    #[serde(deserialize_with = "number")]
    mod_revision: i64,
}

impl KeyValue {
    fn entry(self) -> Result<Entry, String> {
        let bytes = |text: &str| STANDARD.decode(text).map_err(|error| error.to_string());
        let key = String::from_utf8(bytes(&self.key)?).map_err(|_| "a key is no text".to_owned())?;
        Ok(Entry { key, value: bytes(&self.value)?, create_revision: self.create_revision, mod_revision: self.mod_revision })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RangeAnswer {
    header: Option<Header>,
    kvs: Vec<KeyValue>,
    #[serde(deserialize_with = "number")]
    count: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TxnAnswer {
    header: Option<Header>,
    succeeded: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LeaseAnswer {
    #[serde(rename = "ID", deserialize_with = "number")]
    id: i64,
    #[serde(rename = "TTL", deserialize_with = "number")]
    ttl: i64,
}

#[derive(Deserialize)]
struct Streamed<T> {
    result: Option<T>,
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WatchAnswer {
    created: bool,
    canceled: bool,
    #[serde(deserialize_with = "number")]
    compact_revision: i64,
    cancel_reason: String,
    events: Vec<WatchEvent>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WatchEvent {
    #[serde(rename = "type")]
    kind: String,
    kv: KeyValue,
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The first key that is after all that begin with `prefix`.
fn after(prefix: &str) -> Vec<u8> {
    let mut bytes = prefix.as_bytes().to_vec();
    while let Some(last) = bytes.pop() {
        if last < 0xff {
            bytes.push(last + 1);
            return bytes;
        }
    }
    vec![0]
}

/// `key` and `range_end`.
fn bounds(keys: &Keys) -> Value {
    match keys {
        Keys::One(key) => json!({ "key": encoded(key) }),
        Keys::Prefix(prefix) => json!({ "key": encoded(prefix), "range_end": encoded(after(prefix)) }),
        Keys::After { key, prefix } => json!({ "key": encoded([key.as_bytes(), &[0]].concat()), "range_end": encoded(after(prefix)) }),
    }
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.insert(name.to_owned(), value);
    }
    object
}

pub(super) fn range(keys: &Keys, limit: u32, count_only: bool) -> Value {
    with(with(bounds(keys), "limit", json!(limit.to_string())), "count_only", json!(count_only))
}

pub(super) fn txn(compares: &[Compare], writes: &[Write]) -> Value {
    let compare: Vec<Value> = compares
        .iter()
        .map(|compare| match compare {
            Compare::ModRevision(key, revision) => {
                json!({ "target": "MOD", "result": "EQUAL", "key": encoded(key), "mod_revision": revision.to_string() })
            }
            Compare::CreateRevision(key, revision) => {
                json!({ "target": "CREATE", "result": "EQUAL", "key": encoded(key), "create_revision": revision.to_string() })
            }
        })
        .collect();
    let success: Vec<Value> = writes
        .iter()
        .map(|write| match write {
            Write::Put { key, value, lease } => {
                json!({ "request_put": { "key": encoded(key), "value": encoded(value), "lease": lease.to_string() } })
            }
            Write::Delete(key) => json!({ "request_delete_range": { "key": encoded(key) } }),
        })
        .collect();
    json!({ "compare": compare, "success": success })
}

pub(super) fn grant(ttl: Duration) -> Value {
    json!({ "TTL": ttl.as_secs().max(1).to_string() })
}

pub(super) fn lease_id(lease: i64) -> Value {
    json!({ "ID": lease.to_string() })
}

pub(super) fn watch(keys: &Keys, from: i64) -> Value {
    json!({ "create_request": with(bounds(keys), "start_revision", json!(from.to_string())) })
}

pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

pub(super) fn page(body: &[u8]) -> Result<Page, String> {
    let answer: RangeAnswer = read(body)?;
    let revision = answer.header.ok_or("the answer has no header")?.revision;
    let entries = answer.kvs.into_iter().map(KeyValue::entry).collect::<Result<_, _>>()?;
    Ok(Page { entries, count: answer.count, revision })
}

pub(super) fn committed(body: &[u8]) -> Result<Committed, String> {
    let answer: TxnAnswer = read(body)?;
    Ok(Committed { succeeded: answer.succeeded, revision: answer.header.ok_or("the answer has no header")?.revision })
}

pub(super) fn lease(body: &[u8]) -> Result<i64, String> {
    let answer: LeaseAnswer = read(body)?;
    if answer.id == 0 { Err("the lease has no number".to_owned()) } else { Ok(answer.id) }
}

/// Seconds that a lease has left; 0 when it is gone.
pub(super) fn remaining(body: &[u8]) -> Result<i64, String> {
    let streamed: Streamed<LeaseAnswer> = read(body.trim_ascii())?;
    match (streamed.result, streamed.error) {
        (Some(answer), None) => Ok(answer.ttl.max(0)),
        (_, Some(error)) => Err(error.to_string()),
        (None, None) => Err("there is neither result nor error".to_owned()),
    }
}

/// One line of a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The watch stands.
    Created,
    /// These changes; none when etcd only shows that it is there.
    Events(Vec<Event>),
    /// It is over.
    Ended(StoreError),
}

pub(super) fn heard(line: &[u8], endpoint: &str) -> Result<Heard, String> {
    let streamed: Streamed<WatchAnswer> = read(line)?;
    if let Some(error) = streamed.error {
        return Ok(Heard::Ended(refusal(endpoint, 0, error.to_string().as_bytes())));
    }
    let answer = streamed.result.ok_or("there is neither result nor error")?;
    if answer.compact_revision > 0 {
        return Ok(Heard::Ended(StoreError::Compacted));
    }
    if answer.canceled {
        return Ok(Heard::Ended(refusal(endpoint, 0, json!({ "message": answer.cancel_reason }).to_string().as_bytes())));
    }
    if answer.created && answer.events.is_empty() {
        return Ok(Heard::Created);
    }
    let event = |event: WatchEvent| {
        let entry = event.kv.entry()?;
        Ok(match event.kind.as_str() {
            "DELETE" => Event::Delete { key: entry.key, revision: entry.mod_revision },
            _ => Event::Put(entry),
        })
    };
    Ok(Heard::Events(answer.events.into_iter().map(event).collect::<Result<_, String>>()?))
}

/// What a refusal of the gateway means. Texts are looked at only where the code leaves it open.
pub(super) fn refusal(endpoint: &str, status: u16, body: &[u8]) -> StoreError {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Refusal {
        message: String,
        error: Option<Value>,
        code: i64,
        grpc_code: i64,
    }
    let Ok(refusal) = serde_json::from_slice::<Refusal>(body) else {
        let text = crate::keys::shortened(&String::from_utf8_lossy(body), 120);
        // With users and client certificates switched on, etcd takes no certificate with a name through its gateway, whatever the token.
        if text.contains("CommonName of client") {
            let reason = "with users switched on, a client certificate must have no CommonName (CN) in its subject".to_owned();
            return StoreError::Denied { endpoint: endpoint.to_owned(), reason };
        }
        return StoreError::Protocol { endpoint: endpoint.to_owned(), reason: format!("HTTP status {status}, {text}") };
    };
    let endpoint = endpoint.to_owned();
    let text = refusal.error.as_ref().and_then(Value::as_str).unwrap_or_default();
    let reason = crate::keys::shortened(if refusal.message.is_empty() { text } else { &refusal.message }, 200);
    let says = |part: &str| reason.contains(part);
    match refusal.code.max(refusal.grpc_code) {
        _ if says("compacted") => StoreError::Compacted,
        _ if says("requested lease not found") => StoreError::LeaseGone,
        _ if says("user name is empty") || says("auth token") || says("auth store") => StoreError::Denied { endpoint, reason },
        _ if says("authentication failed") || says("permission denied") => StoreError::Denied { endpoint, reason },
        7 | 16 => StoreError::Denied { endpoint, reason },
        _ if says("no leader") || says("leader changed") || says("timed out") || says("stopped") => {
            StoreError::Unavailable { endpoint, reason }
        }
        1 | 4 | 8 | 10 | 13 | 14 => StoreError::Unavailable { endpoint, reason },
        _ if status >= 500 => StoreError::Unavailable { endpoint, reason },
        _ => StoreError::Protocol { endpoint, reason },
    }
}

/// Whether a refusal only means that we need a new token.
pub(super) fn wants_token(error: &StoreError) -> bool {
    let texts = ["user name is empty", "invalid auth token", "auth store is old", "revision of auth store"];
    matches!(error, StoreError::Denied { reason, .. } if texts.iter().any(|text| reason.contains(text)))
}

pub(super) fn authenticate(name: &str, password: &str) -> Value {
    json!({ "name": name, "password": password })
}

pub(super) fn token(body: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Token {
        token: String,
    }
    Ok(read::<Token>(body)?.token)
}

/// As it goes over the wire.
pub(super) fn bytes(body: &Value) -> Vec<u8> {
    body.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_right_after_the_prefix() {
        assert_eq!(after("a/"), b"a0");
        assert_eq!(after("\u{7f}"), [0x80]);
        let keys = Keys::After { key: "q/5".to_owned(), prefix: "q/".to_owned() };
        assert_eq!(range(&keys, 1, false), json!({"key": "cS81AA==", "range_end": "cTA=", "limit": "1", "count_only": false}));
    }

    #[test]
    fn answers_are_read_and_junk_is_not() {
        let body = br#"{"header":{"cluster_id":"1","member_id":"2","revision":"7","raft_term":"2"},"kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"3","version":"2","value":"YmFy"}],"count":"1"}"#;
        let entry = Entry { key: "foo".to_owned(), value: b"bar".to_vec(), create_revision: 2, mod_revision: 3 };
        assert_eq!(page(body), Ok(Page { entries: vec![entry], count: 1, revision: 7 }));
        assert!(page(b"<html>").is_err());
        assert!(page(b"{}").is_err());
        assert!(page(br#"{"header":{"revision":"x"}}"#).is_err());
        assert_eq!(committed(br#"{"header":{"revision":"9"}}"#), Ok(Committed { succeeded: false, revision: 9 }));
        assert_eq!(remaining(b"{\"result\":{\"header\":{},\"ID\":\"5\"}}\n"), Ok(0));
        assert_eq!(remaining(b"{\"result\":{\"header\":{},\"ID\":\"5\",\"TTL\":\"60\"}}\n"), Ok(60));
    }

    #[test]
    fn lines_of_a_watch() {
        let says = |line: &str| heard(line.as_bytes(), "e").unwrap();
        assert_eq!(says(r#"{"result":{"header":{"revision":"7"},"created":true}}"#), Heard::Created);
        assert_eq!(says(r#"{"result":{"header":{"revision":"7"}}}"#), Heard::Events(vec![]));
        let deleted = says(r#"{"result":{"header":{},"events":[{"type":"DELETE","kv":{"key":"Zm9v","mod_revision":"8"}}]}}"#);
        assert_eq!(deleted, Heard::Events(vec![Event::Delete { key: "foo".to_owned(), revision: 8 }]));
        assert_eq!(says(r#"{"result":{"header":{},"canceled":true,"compact_revision":"50"}}"#), Heard::Ended(StoreError::Compacted));
        let leaderless =
            says(r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"Service Unavailable"}}"#);
        assert!(matches!(leaderless, Heard::Ended(StoreError::Unavailable { .. })));
    }

    #[test]
    fn refusals_are_told_apart() {
        let kind = |status, body: &str| refusal("e", status, body.as_bytes()).kind();
        assert_eq!(
            kind(401, r#"{"error":"etcdserver: invalid auth token","code":16,"message":"etcdserver: invalid auth token"}"#),
            "etcd_denied"
        );
        assert_eq!(kind(400, r#"{"error":"etcdserver: user name is empty","code":3}"#), "etcd_denied");
        assert_eq!(kind(404, r#"{"error":"etcdserver: requested lease not found","code":5}"#), "etcd_lease_gone");
        assert_eq!(kind(503, r#"{"error":"etcdserver: request timed out","code":14}"#), "etcd_unavailable");
        assert_eq!(kind(400, r#"{"error":"etcdserver: no leader","code":9}"#), "etcd_unavailable");
        assert_eq!(kind(404, "404 page not found"), "etcd_protocol");
        assert_eq!(
            kind(400, "CommonName of client sending a request against gateway will be ignored and not used as expected"),
            "etcd_denied"
        );
        assert!(wants_token(&refusal("e", 400, br#"{"error":"etcdserver: user name is empty","code":3}"#)));
        assert!(!wants_token(&refusal("e", 403, br#"{"error":"etcdserver: permission denied","code":7}"#)));
    }
}
