//! OpenStack's config drive: a disk labelled `config-2` with `openstack/latest/{meta_data.json,user_data,...}`.

use super::mount::Mounted;
use super::{Delivered, Detected, Source, SourceError, read_optional};
use crate::diagnostics::{Diagnostics, Place};
use crate::plan::Metadata;
use serde_json::Value;
use std::path::Path;

/// The disk.
pub struct ConfigDrive;

impl Source for ConfigDrive {
    fn name(&self) -> &'static str {
        "config-drive"
    }

    fn is_present(&self, facts: &Detected) -> bool {
        facts.disk("config-2").is_some()
    }

    fn fetch(&self, facts: &Detected, diagnostics: &mut Diagnostics) -> Result<Delivered, SourceError> {
        let Some(disk) = facts.disk("config-2") else { return Ok(Delivered::default()) };
        let mounted = Mounted::new(&facts.root, disk)?;
        let mut delivered = read(mounted.path(), diagnostics)?;
        delivered.place = disk.device.display().to_string();
        Ok(delivered)
    }
}

fn read(top: &Path, diagnostics: &mut Diagnostics) -> Result<Delivered, SourceError> {
    let dir = top.join("openstack/latest");
    let file = |name: &str| read_optional(&dir.join(name)).map(Option::unwrap_or_default);
    if !dir.is_dir() {
        diagnostics.error(Place::default(), "the config drive has no directory openstack/latest; nothing of it is used");
    }
    Ok(Delivered {
        place: String::new(),
        user_data: file("user_data")?,
        vendor_data: vendor(&file("vendor_data.json")?),
        metadata: metadata_of(&file("meta_data.json")?, diagnostics),
        network_config: file("network_data.json")?,
    })
}

/// `uuid`, `hostname`, `public_keys` of `meta_data.json`.
fn metadata_of(bytes: &[u8], diagnostics: &mut Diagnostics) -> Metadata {
    if bytes.is_empty() {
        return Metadata::default();
    }
    let root: Value = match serde_json::from_slice(bytes) {
        Ok(root) => root,
        Err(error) => {
            diagnostics.error(Place::default(), format!("`meta_data.json` is not valid ({error}); it is not used"));
            return Metadata::default();
        }
    };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned).filter(|s| !s.is_empty());
    let keys = root.get("public_keys").and_then(Value::as_object).map(|keys| keys.values().filter_map(|v| text(Some(v))).collect());
    Metadata {
        instance_id: text(root.get("uuid")).or_else(|| text(root.get("instance_id"))),
        hostname: text(root.get("hostname")).or_else(|| text(root.get("name"))),
        keys: keys.unwrap_or_default(),
        ..Metadata::default()
    }
}

/// `vendor_data.json` is user-data as a string, or an object whose `cloud-init` is one.
fn vendor(bytes: &[u8]) -> Vec<u8> {
    let root: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = root.as_str().or_else(|| root.get("cloud-init")?.as_str());
    text.unwrap_or_default().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_drive_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let latest = dir.path().join("openstack/latest");
        std::fs::create_dir_all(&latest).unwrap();
        std::fs::write(latest.join("user_data"), "#!/bin/sh\n").unwrap();
        let json = r#"{"uuid":"u-1","hostname":"n.novalocal","public_keys":{"k":"ssh-rsa A"},"x":[1]}"#;
        std::fs::write(latest.join("meta_data.json"), json).unwrap();
        let delivered = read(dir.path(), &mut Diagnostics::default()).unwrap();
        assert_eq!(delivered.metadata.instance_id.as_deref(), Some("u-1"));
        assert_eq!(delivered.metadata.keys, vec!["ssh-rsa A"]);
        assert_eq!(delivered.user_data, b"#!/bin/sh\n");
    }
}
