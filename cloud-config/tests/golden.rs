//! Whole cloud-configs against the plan and the messages that they give. `UPDATE_GOLDEN=1 cargo test` writes the
//! expected files anew; the difference is for a person to read.

#![allow(clippy::unwrap_used)] // helpers of tests are not tests to clippy

use cloud_config::diagnostics::Diagnostics;
use cloud_config::pipeline::{Understood, understand};
use cloud_config::plan::{Facts, Metadata, render};
use cloud_config::substitute::Addresses;
use std::fs;
use std::path::{Path, PathBuf};

fn cases(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(kind);
    let mut cases: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn understood(case: &Path, addresses: Addresses) -> Understood {
    let metadata = Metadata { addresses, keys: vec!["ssh-ed25519 AAAA metadata".into()], hostname: Some("meta".into()), instance_id: None };
    let facts = Facts { hostname: "now".into() };
    understand(&fs::read(case.join("user-data")).unwrap(), &[], &metadata, &facts, Diagnostics::default())
}

fn compare(case: &Path, understood: &Understood) {
    let mut text = render(&understood.plan, &|_| None);
    text.push_str("--\n");
    for diagnostic in &understood.diagnostics {
        text.push_str(&format!("{diagnostic}\n"));
    }
    let expected = case.join("expected");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&expected, &text).unwrap();
    }
    let wanted = fs::read_to_string(&expected).unwrap_or_default();
    assert!(wanted == text, "{}:\n{}", case.display(), similar::TextDiff::from_lines(&wanted, &text).unified_diff());
}

#[test]
fn accepted_configurations_give_their_plan() {
    for case in cases("accepted") {
        let understood = understood(&case, Addresses::examples());
        compare(&case, &understood);
        assert!(!understood.has_errors(), "{}", case.display());
    }
}

#[test]
fn refused_items_are_named_and_the_rest_is_planned() {
    for case in cases("refused") {
        let understood = understood(&case, Addresses::default());
        compare(&case, &understood);
        assert!(understood.has_errors(), "{}", case.display());
    }
}

mod any_bytes {
    use super::*;
    use proptest::prelude::*;

    /// Lines of a cloud-config, put together anyhow.
    fn line() -> impl Strategy<Value = String> {
        let keys = "users|groups|coreos|units|etcd2|write_files|content|runcmd|bootcmd|name|path|hostname|chpasswd|list|drop_ins|owner|permissions|sudo|user";
        (0_usize..4, any::<bool>(), proptest::string::string_regex(keys).unwrap(), "[ -~é\u{E0F1}\u{E0F2}\0]{0,12}")
            .prop_map(|(indent, item, key, value)| format!("{}{}{key}: {value}\n", "  ".repeat(indent), if item { "- " } else { "" }))
    }

    fn run(bytes: &[u8]) {
        let metadata = Metadata { hostname: Some("..".into()), keys: vec!["\n".into()], ..Metadata::default() };
        let understood = understand(bytes, bytes, &metadata, &Facts::default(), Diagnostics::default());
        render(&understood.plan, &|_| Some(bytes.to_vec()));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            run(&bytes);
            run(&[b"#cloud-config\n", bytes.as_slice()].concat());
        }

        #[test]
        fn nothing_like_a_cloud_config_panics(lines in proptest::collection::vec(line(), 0..12)) {
            run(format!("#cloud-config\n{}", lines.concat()).as_bytes());
        }
    }
}
