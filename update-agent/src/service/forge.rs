//! Metadata as somebody would make them who has some of the keys: any content, signed by whatever keys, fitting together otherwise.

use std::path::PathBuf;

use publisher::Role;
use publisher::signer::Signer;
use release_format::Digest;
use serde_json::{Value, json};

use super::shop::Shop;

/// Canonical JSON, for what metadata consist of: keys in order, no white space.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(key, _)| key.as_bytes());
            let members: Vec<String> = members.into_iter().map(|(key, value)| format!("{}:{}", json!(key), canonical(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// Signs with all of these keys, whether they count or not.
pub fn sign(signed: &Value, role: Role, signers: &[Signer]) -> Vec<u8> {
    let message = canonical(signed);
    let signature = |signer: &Signer| {
        let sig = crate::verity::hex(&signer.sign(role, message.as_bytes()).unwrap());
        json!({"keyid": signer.key_id().unwrap(), "sig": sig})
    };
    let signatures: Vec<Value> = signers.iter().map(signature).collect();
    json!({"signatures": signatures, "signed": signed}).to_string().into_bytes()
}

fn name_of(role: Role, version: &Value) -> String {
    if role == Role::Timestamp { "timestamp.json".to_owned() } else { format!("{version}.{role}.json") }
}

impl Shop {
    pub fn metadata(&self) -> PathBuf {
        self.repository().join("metadata")
    }

    /// The signed part of a file.
    pub fn signed(&self, name: &str) -> Value {
        let document: Value = serde_json::from_slice(&std::fs::read(self.metadata().join(name)).unwrap()).unwrap();
        document["signed"].clone()
    }

    /// The current metadata once more, each with the next version, changed by `edit` and then signed by these keys; what is above
    /// names what is below as it then is, unless `edit` says otherwise.
    pub fn forge(&self, signers: &[Signer], edit: &dyn Fn(Role, &mut Value)) {
        let mut timestamp = self.signed("timestamp.json");
        let mut snapshot = self.signed(&name_of(Role::Snapshot, &timestamp["meta"]["snapshot.json"]["version"]));
        let mut targets = self.signed(&name_of(Role::Targets, &snapshot["meta"]["targets.json"]["version"]));
        let meta = |value: &Value, bytes: &[u8]| json!({"version": value["version"], "length": bytes.len(), "hashes": {"sha256": Digest::of(bytes)}});
        let change = |role: Role, value: &mut Value| {
            value["version"] = json!(value["version"].as_u64().unwrap() + 1);
            edit(role, value);
            sign(value, role, signers)
        };
        let targets_bytes = change(Role::Targets, &mut targets);
        snapshot["meta"]["targets.json"] = meta(&targets, &targets_bytes);
        let snapshot_bytes = change(Role::Snapshot, &mut snapshot);
        timestamp["meta"]["snapshot.json"] = meta(&snapshot, &snapshot_bytes);
        let timestamp_bytes = change(Role::Timestamp, &mut timestamp);
        let write = |name: String, bytes: &[u8]| std::fs::write(self.metadata().join(name), bytes).unwrap();
        write(name_of(Role::Targets, &snapshot["meta"]["targets.json"]["version"]), &targets_bytes);
        write(name_of(Role::Snapshot, &timestamp["meta"]["snapshot.json"]["version"]), &snapshot_bytes);
        write("timestamp.json".to_owned(), &timestamp_bytes);
    }

    /// Private keys that a rotation has put away.
    pub fn old_signers(&self) -> Vec<Signer> {
        Signer::all(&self.directory.path().join("keys/old")).unwrap()
    }
}
