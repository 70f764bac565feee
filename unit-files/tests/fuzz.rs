//! Whatever stands in a unit file, loading it ends, never panics, and says what it did not take.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use unit_files::memory::MemorySource;
use unit_files::{HostFacts, Loader, UnitName};

const NAMES: [&str; 11] =
    ["a.service", "a@b.service", "a.socket", "a.timer", "a.path", "a.mount", "a.automount", "a.swap", "a.slice", "a.target", "-.mount"];

fn load(name: &str, bytes: &[u8]) -> unit_files::Unit {
    Loader::<MemorySource>::load_text(&UnitName::parse(name).unwrap(), "/etc/systemd/system/x", bytes, &HostFacts::default())
}

/// What values are made of, so that parsers get past their first character.
const PIECES: [&str; 60] = [
    "",
    " ",
    "yes",
    "no",
    "infinity",
    "0",
    "1",
    "-1",
    "18446744073709551616",
    "5min",
    "10%",
    "150%",
    "1G",
    "0x1f",
    "0755",
    "9999",
    "%n",
    "%i",
    "%%",
    "%",
    "%Z",
    "$A",
    "${A}",
    "$$",
    "\\",
    "\\x41",
    "\\u00e4",
    "\\777",
    "\"",
    "'",
    ";",
    "\\;",
    "@",
    "-",
    ":",
    "+",
    "!",
    "!!",
    "|",
    "~",
    "/",
    "/dev/null",
    "/bin/sh -c 'exit 0'",
    "../x",
    "//",
    "*",
    "[a-z]",
    "a.service",
    "a@.service",
    ".service",
    "SIGTERM",
    "9",
    "A=1",
    "A=\"b c\"",
    "@system-service",
    "CAP_NET_ADMIN",
    "*:0/5",
    "Mon..Fri 04:30 Europe/Berlin",
    "\u{fffd}\u{0}",
    "äöü",
];

fn value() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_unit_file(bytes in proptest::collection::vec(any::<u8>(), 0..600), name in 0..NAMES.len()) {
        let _ = load(NAMES[name], &bytes).refusal().map(ToString::to_string);
    }

    #[test]
    fn any_value_of_any_directive_is_taken_or_spoken_of(
        lines in proptest::collection::vec((any::<proptest::sample::Index>(), value()), 0..20),
        name in 0..NAMES.len(),
    ) {
        let all = unit_files::directives::all();
        let mut text = String::new();
        for (index, value) in &lines {
            let info = all[index.index(all.len())];
            let section = match info.section {
                "exec" | "sandbox" | "kill" | "resources" => "Service",
                section => section,
            };
            text.push_str(&format!("[{section}]\n{}={value}\n", info.key));
        }
        let unit = load(NAMES[name], text.as_bytes());
        // What goes to the exec helper and back must be the same.
        let json = serde_json::to_string(&unit).unwrap();
        let back: unit_files::Unit = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(serde_json::to_string(&back).unwrap(), json);
    }

    #[test]
    fn any_directory_loads(files in proptest::collection::vec((0..NAMES.len(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..80)), 0..12)) {
        let mut source = MemorySource::default();
        for (name, drop_in, bytes) in &files {
            let name = NAMES[*name];
            let path = if *drop_in { format!("/etc/systemd/system/{name}.d/x.conf") } else { format!("/etc/systemd/system/{name}") };
            source = if bytes.len() % 7 == 3 { source.link(&path, &String::from_utf8_lossy(bytes)) } else { source.file(&path, bytes.clone()) };
        }
        let loader = Loader::new(source, HostFacts::default());
        for name in NAMES {
            let _ = loader.load(&UnitName::parse(name).unwrap());
        }
    }
}
