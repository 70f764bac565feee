//! The same texts through this loader and PyYAML 6.0.3's `safe_load`, whose answers are in `data/pyyaml.json`.

use cloud_config::diagnostics::Diagnostics;
use cloud_config::yaml;
use serde_json::Value;

#[test]
fn pyyaml_and_this_loader_agree() {
    let pairs: Vec<(String, Value)> = serde_json::from_str(include_str!("data/pyyaml.json")).unwrap();
    assert!(pairs.len() > 30);
    for (text, expected) in pairs {
        let loaded = yaml::load(&text, 1, &mut Diagnostics::default());
        let value = loaded.map_or_else(|_| Value::from("ERROR"), |node| node.to_json());
        assert_eq!(value, expected, "{text:?}");
    }
}
