//! `coreos.etcd2` and `coreos.etcd`: settings of the one etcd that the image has, as `ETCD_*` variables.
//!
//! Every value that is written is passed on, `false` and `0` too. Names that etcd 3 knows no more are translated
//! where there is a translation and reported where there is none; etcd 3's own names are accepted under both keys.

use super::reader::{Placed, Reader};
use crate::merge::same_key;
use crate::yaml::{Node, Value};

/// Whose names are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// etcd 0.4 under `coreos.etcd`.
    Zero,
    /// etcd 2 and later under `coreos.etcd2`.
    Two,
}

/// A variable for etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `ETCD_NAME`.
    pub variable: String,
    /// Its value.
    pub value: String,
}

/// Names that go through unchanged: CoreOS's and those that etcd 3.5 has besides.
const NAMES: &[&str] = &[
    "advertise_client_urls",
    "auto_compaction_mode",
    "auto_compaction_retention",
    "auto_tls",
    "cert_file",
    "cipher_suites",
    "client_cert_auth",
    "client_crl_file",
    "cors",
    "data_dir",
    "discovery",
    "discovery_fallback",
    "discovery_proxy",
    "discovery_srv",
    "discovery_srv_name",
    "election_timeout",
    "enable_pprof",
    "enable_v2",
    "force_new_cluster",
    "heartbeat_interval",
    "host_whitelist",
    "initial_advertise_peer_urls",
    "initial_cluster",
    "initial_cluster_state",
    "initial_cluster_token",
    "initial_election_tick_advance",
    "key_file",
    "listen_client_urls",
    "listen_metrics_urls",
    "listen_peer_urls",
    "log_level",
    "log_outputs",
    "logger",
    "max_request_bytes",
    "max_snapshots",
    "max_txn_ops",
    "max_wals",
    "metrics",
    "name",
    "peer_auto_tls",
    "peer_cert_allowed_cn",
    "peer_cert_file",
    "peer_client_cert_auth",
    "peer_crl_file",
    "peer_key_file",
    "peer_trusted_ca_file",
    "pre_vote",
    "proxy",
    "proxy_dial_timeout",
    "proxy_failure_wait",
    "proxy_read_timeout",
    "proxy_refresh_interval",
    "proxy_write_timeout",
    "quota_backend_bytes",
    "self_signed_cert_validity",
    "snapshot_count",
    "strict_reconfig_check",
    "trusted_ca_file",
    "wal_dir",
];

/// Names of etcd 0.4 and 2 that etcd 3 knows no more, and their successor or the reason.
const GONE: &[(&str, Result<&str, &str>)] = &[
    ("ca_file", Ok("trusted_ca_file")),
    ("peer_ca_file", Ok("peer_trusted_ca_file")),
    ("debug", Err("say `log_level: debug`")),
    ("log_package_levels", Err("say `log_level`")),
    ("addr", Err("say `advertise_client_urls`")),
    ("bind_addr", Err("say `listen_client_urls`")),
    ("peer_addr", Err("say `initial_advertise_peer_urls`")),
    ("peer_bind_addr", Err("say `listen_peer_urls`")),
    ("peers", Err("say `initial_cluster`")),
    ("peers_file", Err("say `initial_cluster`")),
    ("peer_election_timeout", Ok("election_timeout")),
    ("peer_heartbeat_interval", Ok("heartbeat_interval")),
    ("cluster_active_size", Err("etcd 3 has no standby members")),
    ("cluster_remove_delay", Err("etcd 3 has no standby members")),
    ("cluster_sync_interval", Err("etcd 3 has no standby members")),
    ("graphite_host", Err("say `listen_metrics_urls`")),
    ("http_read_timeout", Err("etcd 3 has no such setting")),
    ("http_write_timeout", Err("etcd 3 has no such setting")),
    ("max_result_buffer", Err("etcd 3 has no such setting")),
    ("max_retry_attempts", Err("etcd 3 has no such setting")),
    ("retry_interval", Err("etcd 3 has no such setting")),
    ("snapshot", Err("etcd 3 always takes snapshots; say `snapshot_count`")),
    ("trace", Err("etcd 3 has no such setting")),
    ("verbose", Err("say `log_level: debug`")),
    ("very_verbose", Err("say `log_level: debug`")),
    ("very_very_verbose", Err("say `log_level: debug`")),
];

impl Reader<'_> {
    /// One of the two keys.
    pub fn etcd(&mut self, node: &Node, at: &str, era: Era) -> Vec<Placed<Setting>> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, at, "a map");
            return Vec::new();
        };
        if era == Era::Zero {
            self.diagnostics
                .info(node.place, format!("`{at}` is etcd 0.4's key; its settings go to the image's etcd 3 (say `coreos.etcd2`)"));
        }
        let mut settings: Vec<Placed<Setting>> = Vec::new();
        for entry in entries {
            let full = format!("{at}.{}", entry.key);
            let name = if let Some(name) = NAMES.iter().find(|n| same_key(n, &entry.key)) {
                *name
            } else if let Some((old, fate)) = GONE.iter().find(|(n, _)| same_key(n, &entry.key)) {
                match fate {
                    Ok(name) => {
                        self.diagnostics.info(entry.place, format!("`{full}`: etcd 3 calls `{old}` `{name}`; passed on as that"));
                        name
                    }
                    Err(why) => {
                        self.diagnostics.warning(entry.place, format!("`{full}` has no effect on etcd 3: {why}"));
                        continue;
                    }
                }
            } else {
                self.unknown(entry.place, &full, &entry.key, NAMES.iter().copied());
                continue;
            };
            if entry.node.value == Value::Null {
                continue;
            }
            let value = match &entry.node.value {
                // `yes` and `on` are YAML's, Go's flags want true and false.
                Value::Bool(b) => Some(b.to_string()),
                Value::Seq(_) => {
                    let items = self.lines(&entry.node, &full);
                    Some(items.into_iter().map(|i| i.value).collect::<Vec<_>>().join(","))
                }
                _ => self.line(&entry.node, &full),
            };
            let Some(value) = value else { continue };
            let variable = format!("ETCD_{}", name.to_ascii_uppercase());
            settings.retain(|s| s.value.variable != variable);
            settings.push(Placed { place: entry.place, value: Setting { variable, value } });
        }
        settings
    }
}
