use std::path::Path;

use super::*;
use crate::windows::zones_from;

fn parsed(text: &str) -> Result<Settings, Vec<Problem>> {
    parse(text.as_bytes(), &zones_from(Path::new("/usr/share/zoneinfo"), Path::new("/nonexistent")))
}

#[test]
fn old_names_count_where_ours_do_not_say() {
    // 840 is what YAML 1.1 makes of 14:00.
    let old = r#""coreos.update": {"reboot-strategy": "best-effort"},
        "coreos.locksmith": {"window_start": 840, "window_length": "1h30m", "group": "prod/database", "endpoint": "http://10.0.0.1:2379,https://b:2379",
            "etcd_cafile": "/etc/ca.pem", "etcd_certfile": "/c.pem", "etcd_keyfile": "/k.pem"}"#;
    let settings = parsed(&format!("{{{old}}}")).unwrap();
    assert_eq!((settings.strategy, settings.group.as_str()), (Some(Strategy::BestEffort), "prod/database"));
    assert_eq!(settings.windows.iter().map(ToString::to_string).collect::<Vec<_>>(), ["14:00 for 1h 30min"]);
    assert_eq!(settings.etcd.endpoints, ["http://10.0.0.1:2379", "https://b:2379"]);
    assert_eq!(settings.etcd.ca_file.as_deref(), Some("/etc/ca.pem"));
    let both = format!(
        r#"{{{old}, "garboard": {{"update": {{"reboot_strategy": "reboot"}}, "reboot": {{"strategy": false, "group": "db",
            "windows": ["Sat 02:00 for 1h", {{"start": "Mon..Fri 03:00", "length": 5400}}], "time-zone": "Europe/Berlin", "jitter": "10m",
            "etcd_down": "proceed-after=1h", "vanished": "expire-after=24h", "warn": 0}}}}}}"#
    );
    let settings = parsed(&both).unwrap();
    assert_eq!((settings.strategy, settings.group.as_str(), settings.jitter, settings.warn), (Some(Strategy::Off), "db", 600, 0));
    assert_eq!((settings.etcd_down, settings.vanished), (EtcdDown::ProceedAfter(3600), Vanished::ExpireAfter(86_400)));
    assert_eq!(
        settings.windows.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["Sat 02:00 Europe/Berlin for 1h", "Mon..Fri 03:00 Europe/Berlin for 1h 30min"]
    );
    assert_eq!(parsed("{}").unwrap(), Settings::default());
    assert_eq!((settings.strategy_on(true), Settings::default().strategy_on(true)), (Strategy::Off, Strategy::EtcdLock));
    assert_eq!(Settings::default().strategy_on(false), Strategy::Reboot);
}

#[test]
fn every_mistake_is_one_clear_line_and_nothing_counts() {
    let table = [
        (r#"{"strategy": "sometimes"}"#, "strategy"),
        (r#"{"group": "a b"}"#, "group"),
        (r#"{"group": ""}"#, "group"),
        (r#"{"windows": ["25:00 for 1h"]}"#, "windows[0]"),
        (r#"{"windows": ["02:00 for 1h", "02:00 Mars/Olympus for 1h"]}"#, "windows[1]"),
        (r#"{"windows": [{"start": "02:00"}]}"#, "windows[0]"),
        (r#"{"windows": [{"start": "02:00", "length": "1h", "colour": 1}]}"#, "windows[0]"),
        (r#"{"windows": []}"#, "windows"),
        (r#"{"window": "02:00 for 1h"}"#, "window"),
        (r#"{"time_zone": "UTC"}"#, "time_zone"),
        (r#"{"jitter": "-1h"}"#, "jitter"),
        (r#"{"endpoints": ["etcd:2379"]}"#, "endpoints"),
        (r#"{"endpoints": ["http://"]}"#, "endpoints"),
        (r#"{"endpoints": ["http://a:70000"]}"#, "endpoints"),
        (r#"{"endpoints": []}"#, "endpoints"),
        (r#"{"ca_file": "ca.pem"}"#, "ca_file"),
        (r#"{"cert_file": "/a"}"#, "cert_file"),
        (r#"{"username": "root"}"#, "username"),
        (r#"{"username": "root", "password": "a", "password_file": "/b"}"#, "password_file"),
        (r#"{"etcd_down": "proceed"}"#, "etcd_down"),
        (r#"{"vanished": "expire-after=1m"}"#, "vanished"),
        (r#"{"quorum": "maybe"}"#, "quorum"),
        (r#"{"strategy": "fleet-lock"}"#, "fleet_lock"),
        (r#"{"fleet_lock": {"url": "ftp://x"}}"#, "fleet_lock"),
        (r#"{"fleet_lock_server": {"listen": "everywhere"}}"#, "fleet_lock_server"),
        (r#"{"fleet_lock_server": {"listen": "0.0.0.0:9090", "cert_file": "/a"}}"#, "fleet_lock_server"),
        (r#"{"fleet_lock_server": {"listen": "0.0.0.0:9090", "client_ca_file": "/a"}}"#, "fleet_lock_server"),
        (r#"{"group": "a\nb"}"#, "group"),
    ];
    for (text, key) in table {
        let problems = parsed(&format!(r#"{{"garboard": {{"reboot": {text}}}}}"#)).unwrap_err();
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert_eq!(problems[0].key, format!("garboard.reboot.{key}"), "{text}");
        assert!(!problems[0].to_string().contains('\n'), "{text}");
    }
    assert_eq!(parsed(r#"{"coreos.locksmith": {"window_start": "14:00"}}"#).unwrap_err()[0].key, "coreos.locksmith.window_start");
    assert_eq!(parsed(r#"{"coreos.locksmith": {"window_starts": "14:00"}}"#).unwrap_err()[0].key, "coreos.locksmith.window_starts");
    assert!(parsed("[]").is_err() && parsed(r#"{"garboard": {"reboot": []}}"#).is_err());
}

proptest::proptest! {
    #[test]
    fn any_json_is_read_or_refused(at in 0..KEYS.len(), text in "\\PC{0,20}", number: i64) {
        for value in [Value::from(text.clone()), Value::from(number), serde_json::json!([text]), serde_json::json!({"url": text}), Value::Bool(true)] {
            let all = serde_json::json!({"garboard": {"reboot": {KEYS[at]: value}}});
            let _ = parsed(&all.to_string());
        }
    }
}
