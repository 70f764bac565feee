//! NoCloud: a disk labelled `cidata` with the files `user-data` and `meta-data`, and maybe `vendor-data` and `network-config`.

use super::mount::Mounted;
use super::{Delivered, Detected, Source, SourceError, read_optional};
use crate::diagnostics::{Diagnostics, Place};
use crate::plan::Metadata;
use crate::yaml::{self, Node, Value};
use std::path::Path;

/// The disk.
pub struct NoCloud;

impl Source for NoCloud {
    fn name(&self) -> &'static str {
        "nocloud"
    }

    fn is_present(&self, facts: &Detected) -> bool {
        facts.disk("cidata").is_some()
    }

    fn fetch(&self, facts: &Detected, diagnostics: &mut Diagnostics) -> Result<Delivered, SourceError> {
        let Some(disk) = facts.disk("cidata") else { return Ok(Delivered::default()) };
        let mounted = Mounted::new(&facts.root, disk)?;
        let mut delivered = read(mounted.path(), diagnostics)?;
        delivered.place = disk.device.display().to_string();
        Ok(delivered)
    }
}

/// Reads the files of a seed directory.
fn read(dir: &Path, diagnostics: &mut Diagnostics) -> Result<Delivered, SourceError> {
    let file = |name: &str| read_optional(&dir.join(name)).map(Option::unwrap_or_default);
    let metadata = read_optional(&dir.join("meta-data"))?;
    if metadata.is_none() {
        diagnostics.warning(
            Place::default(),
            "the NoCloud disk has no `meta-data`; cloud-init would not use it without (an empty file is enough)",
        );
    }
    Ok(Delivered {
        place: String::new(),
        user_data: file("user-data")?,
        vendor_data: file("vendor-data")?,
        metadata: metadata_of(&metadata.unwrap_or_default(), diagnostics),
        network_config: file("network-config")?,
    })
}

/// `instance-id`, `local-hostname`, `public-keys` of a YAML or JSON text.
fn metadata_of(bytes: &[u8], diagnostics: &mut Diagnostics) -> Metadata {
    let text = String::from_utf8_lossy(bytes);
    let mut own = Diagnostics::default();
    let root = match yaml::load(&text, 0, &mut own) {
        Ok(root) => root,
        Err((place, error)) => {
            diagnostics.error(Place::default(), format!("`meta-data` line {}: {error}; it is not used", place.line));
            return Metadata::default();
        }
    };
    let get = |names: &[&str]| match &root.value {
        Value::Map(entries) => entries.iter().find(|e| names.contains(&e.key.as_str())).map(|e| &e.node),
        _ => None,
    };
    let text = |node: &Node| match &node.value {
        Value::Str(s) => Some(s.trim().to_owned()).filter(|s| !s.is_empty()),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => Some(node.text.clone()),
        _ => None,
    };
    let keys = match get(&["public-keys", "public_keys", "public-ssh-keys"]).map(|n| &n.value) {
        Some(Value::Str(keys)) => keys.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect(),
        Some(Value::Seq(keys)) => keys.iter().filter_map(text).collect(),
        Some(Value::Map(keys)) => keys.iter().filter_map(|e| text(&e.node)).collect(),
        _ => Vec::new(),
    };
    Metadata {
        instance_id: get(&["instance-id", "instance_id"]).and_then(text),
        hostname: get(&["local-hostname", "local_hostname", "hostname"]).and_then(text),
        keys,
        ..Metadata::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_directory_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("user-data", "#cloud-config\n");
        write("meta-data", "instance-id: 042\nlocal-hostname: web.example\npublic-keys:\n  - ssh-ed25519 A\n  - ssh-rsa B\n");
        let delivered = read(dir.path(), &mut Diagnostics::default()).unwrap();
        let metadata = delivered.metadata;
        assert_eq!((metadata.instance_id.as_deref(), metadata.hostname.as_deref()), (Some("042"), Some("web.example")));
        assert_eq!(metadata.keys, vec!["ssh-ed25519 A", "ssh-rsa B"]);
        assert_eq!(delivered.user_data, b"#cloud-config\n");
        assert!(delivered.vendor_data.is_empty());
    }

    #[test]
    fn broken_metadata_is_said_and_user_data_still_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("user-data"), "x").unwrap();
        std::fs::write(dir.path().join("meta-data"), "a: [").unwrap();
        let mut diagnostics = Diagnostics::default();
        assert_eq!(read(dir.path(), &mut diagnostics).unwrap().user_data, b"x");
        assert!(diagnostics.has_errors());
    }
}
