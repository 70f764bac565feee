//! Several cloud-configs become one as cloud-init does by default: a later part's top-level key replaces an earlier part's.

use crate::diagnostics::{Diagnostics, Place};
use crate::yaml::{Entry, Node, Value};

/// Merges maps in order; what is no map is reported and left out.
pub fn merge(nodes: Vec<Node>, diagnostics: &mut Diagnostics) -> Node {
    let mut merged: Vec<Entry> = Vec::new();
    for node in nodes {
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null => continue,
            other => {
                let message = format!("a cloud-config is a map of keys, not {}; nothing of it is used", other.type_name());
                diagnostics.error(node.place, message);
                continue;
            }
        };
        for entry in entries {
            match merged.iter_mut().find(|e| same_key(&e.key, &entry.key)) {
                Some(earlier) if earlier.place.part != entry.place.part => {
                    let Place { part, line } = earlier.place;
                    diagnostics.info(entry.place, format!("`{}` replaces the one of part {part}, line {line}", entry.key));
                    *earlier = entry;
                }
                _ => merged.push(entry),
            }
        }
    }
    Node { value: Value::Map(merged), ..Node::empty_map() }
}

/// `-` and `_` are the same in a key.
pub fn same_key(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(x, y)| x == y || (matches!(x, b'-' | b'_') && matches!(y, b'-' | b'_')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;
    use serde_json::json;

    #[test]
    fn later_keys_replace_earlier_ones_whole() {
        let mut diagnostics = Diagnostics::default();
        let first = yaml::load("hostname: a\nwrite_files: [{path: /a}]\n", 1, &mut diagnostics).unwrap();
        let second = yaml::load("write-files: [{path: /b}]\n", 2, &mut diagnostics).unwrap();
        let list = yaml::load("- x\n", 3, &mut diagnostics).unwrap();
        let merged = merge(vec![first, second, list], &mut diagnostics);
        assert_eq!(merged.to_json(), json!({"hostname": "a", "write-files": [{"path": "/b"}]}));
        let lines: Vec<String> = diagnostics.sorted().iter().map(ToString::to_string).collect();
        assert_eq!(lines[0], "part 2, line 1: info: `write-files` replaces the one of part 1, line 2");
        assert!(lines[1].starts_with("part 3, line 1: error: a cloud-config is a map"), "{lines:?}");
    }
}
