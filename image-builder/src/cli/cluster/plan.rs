//! What each machine of a cluster is told: pure functions from the plan to user data.

use serde_json::{Map, Value, json};

/// The client port, the port among members, and the one for health without certificates.
pub(super) const CLIENT: u16 = 2379;
const PEER: u16 = 2380;
pub(super) const HEALTH: u16 = 2381;
const FILES: &str = "/etc/ssl/etcd";

/// How the members find each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Members {
    /// All are named to all.
    Static,
    /// By the SRV records of a domain.
    Srv(String),
    /// The first is a cluster of its own, and the others join it one by one.
    Join,
}

/// Certificates, as PEM; one for all machines, for servers and clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

/// A cluster.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub nodes: u8,
    pub members: Members,
    pub tls: Option<Tls>,
}

pub(super) fn name(node: u8) -> String {
    format!("node{node}")
}

pub(super) fn address(node: u8) -> String {
    format!("10.99.0.{}", 10 + node)
}

pub(super) fn mac(node: u8) -> String {
    format!("52:54:00:99:00:{node:02x}")
}

impl Plan {
    fn url(&self, host: &str, port: u16) -> String {
        format!("{}://{host}:{port}", if self.tls.is_some() { "https" } else { "http" })
    }

    /// Where a member is for the others. Who is looked up in DNS has to call itself as DNS does.
    pub fn peer_url(&self, node: u8) -> String {
        match &self.members {
            Members::Srv(domain) => self.url(&format!("{}.{domain}", name(node)), PEER),
            Members::Static | Members::Join => self.url(&address(node), PEER),
        }
    }

    fn client_url(&self, node: u8) -> String {
        self.url(&address(node), CLIENT)
    }

    fn initial(&self, last: u8) -> String {
        (1..=last).map(|node| format!("{}={}", name(node), self.peer_url(node))).collect::<Vec<_>>().join(",")
    }

    /// The records that the domain has to have, as in a zone file.
    pub fn records(&self) -> Vec<String> {
        let Members::Srv(domain) = &self.members else { return Vec::new() };
        let service = if self.tls.is_some() { "_etcd-server-ssl._tcp" } else { "_etcd-server._tcp" };
        let of = |node: u8| {
            let host = format!("{}.{domain}.", name(node));
            [format!("{service}.{domain}. IN SRV 0 0 {PEER} {host}"), format!("{host} IN A {}", address(node))]
        };
        (1..=self.nodes).flat_map(of).collect()
    }

    /// The options by which `etcdctl` on a machine reaches its member.
    pub fn etcdctl(&self) -> Vec<String> {
        let mut command = vec!["sudo".to_owned(), "etcdctl".to_owned(), format!("--endpoints={}", self.url("127.0.0.1", CLIENT))];
        if self.tls.is_some() {
            let file = |option: &str, name: &str| format!("--{option}={FILES}/{name}.pem");
            command.extend([file("cacert", "ca"), file("cert", "cert"), file("key", "key")]);
        }
        command
    }

    fn etcd(&self, node: u8) -> Map<String, Value> {
        let mut etcd = Map::new();
        let mut set = |key: &str, value: String| drop(etcd.insert(key.to_owned(), value.into()));
        set("name", name(node));
        set("initial_cluster_token", "garboard-cluster".to_owned());
        set("initial_advertise_peer_urls", self.peer_url(node));
        set("listen_peer_urls", self.url(&address(node), PEER));
        set("listen_client_urls", self.url("0.0.0.0", CLIENT));
        set("advertise_client_urls", self.client_url(node));
        set("listen_metrics_urls", format!("http://0.0.0.0:{HEALTH}"));
        match &self.members {
            Members::Static => set("initial_cluster", self.initial(self.nodes)),
            Members::Srv(domain) => set("discovery_srv", domain.clone()),
            Members::Join => set("initial_cluster", self.initial(node)),
        }
        let joins = self.members == Members::Join && node > 1;
        set("initial_cluster_state", if joins { "existing" } else { "new" }.to_owned());
        if self.tls.is_some() {
            for whose in ["", "peer_"] {
                set(&format!("{whose}trusted_ca_file"), format!("{FILES}/ca.pem"));
                set(&format!("{whose}cert_file"), format!("{FILES}/cert.pem"));
                set(&format!("{whose}key_file"), format!("{FILES}/key.pem"));
                set(&format!("{whose}client_cert_auth"), "true".to_owned());
            }
        }
        etcd
    }

    /// A machine's user data. JSON is YAML, and quotes what certificates and names may hold.
    pub fn user_data(&self, node: u8) -> String {
        let network = format!("[Match]\nMACAddress={}\n[Network]\nAddress={}/24\n", mac(node), address(node));
        let endpoints: Vec<String> = (1..=self.nodes).map(|node| self.client_url(node)).collect();
        // CoreOS's keys, so that `garboard` is whole in the hands of who brings user data of his own.
        let mut locksmith = json!({ "endpoint": endpoints.join(",") });
        let mut all = json!({
            "hostname": name(node),
            "coreos": { "etcd2": self.etcd(node), "units": [{ "name": "10-cluster.network", "content": network }] },
        });
        if let Some(tls) = &self.tls {
            for (key, file) in [("etcd_cafile", "ca"), ("etcd_certfile", "cert"), ("etcd_keyfile", "key")] {
                locksmith[key] = format!("{FILES}/{file}.pem").into();
            }
            let file = |name: &str, content: &str, mode: &str| json!({ "path": format!("{FILES}/{name}.pem"), "content": content, "permissions": mode, "owner": "etcd:etcd" });
            all["write_files"] =
                json!([file("ca", &tls.ca, "0644"), file("cert", &tls.certificate, "0644"), file("key", &tls.key, "0600")]);
        }
        all["coreos"]["locksmith"] = locksmith;
        format!("#cloud-config\n{all:#}\n")
    }
}

/// Two documents as one MIME message, which cloud-config reads as cloud-init does.
pub(super) fn together(first: &str, second: &str) -> String {
    // A border that neither has.
    let border =
        (0..).map(|number| format!("garboard-cluster-part-{number}")).find(|border| !first.contains(border) && !second.contains(border));
    let border = border.unwrap_or_default();
    let kind = |text: &str| if text.starts_with("#!") { "text/x-shellscript" } else { "text/cloud-config" };
    let part = |text: &str| format!("--{border}\nContent-Type: {}; charset=\"utf-8\"\n\n{text}\n", kind(text));
    format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{border}\"\n\n{}{}--{border}--\n", part(first), part(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(plan: &Plan, node: u8) -> Value {
        serde_json::from_str(plan.user_data(node).strip_prefix("#cloud-config\n").unwrap()).unwrap()
    }

    fn plan(members: Members) -> Plan {
        Plan { nodes: 3, members, tls: None }
    }

    #[test]
    fn static_members_know_all_and_themselves() {
        let told = told(&plan(Members::Static), 2);
        let etcd = &told["coreos"]["etcd2"];
        assert_eq!(etcd["initial_cluster"], "node1=http://10.99.0.11:2380,node2=http://10.99.0.12:2380,node3=http://10.99.0.13:2380");
        assert_eq!((&etcd["name"], &etcd["initial_cluster_state"]), (&json!("node2"), &json!("new")));
        assert_eq!(etcd["initial_advertise_peer_urls"], "http://10.99.0.12:2380");
        assert_eq!(told["hostname"], "node2");
        let network = told["coreos"]["units"][0]["content"].as_str().unwrap();
        assert_eq!(network, "[Match]\nMACAddress=52:54:00:99:00:02\n[Network]\nAddress=10.99.0.12/24\n");
        let endpoint = "http://10.99.0.11:2379,http://10.99.0.12:2379,http://10.99.0.13:2379";
        assert_eq!(told["coreos"]["locksmith"], json!({ "endpoint": endpoint }));
        assert!(told.get("garboard").is_none() && told.get("write_files").is_none() && etcd.get("cert_file").is_none());
    }

    #[test]
    fn members_by_dns_call_themselves_as_the_records_do() {
        let plan = plan(Members::Srv("lab.example".into()));
        let etcd = &told(&plan, 3)["coreos"]["etcd2"];
        assert_eq!((&etcd["discovery_srv"], etcd.get("initial_cluster")), (&json!("lab.example"), None));
        assert_eq!(etcd["initial_advertise_peer_urls"], "http://node3.lab.example:2380");
        // An address has to be bound, not a name.
        assert_eq!(etcd["listen_peer_urls"], "http://10.99.0.13:2380");
        let records = plan.records();
        assert_eq!(records[0], "_etcd-server._tcp.lab.example. IN SRV 0 0 2380 node1.lab.example.");
        assert_eq!((records[5].as_str(), records.len()), ("node3.lab.example. IN A 10.99.0.13", 6));
    }

    #[test]
    fn who_joins_knows_those_before_and_the_first_is_alone() {
        let plan = plan(Members::Join);
        let of = |node: u8| {
            let etcd = told(&plan, node)["coreos"]["etcd2"].clone();
            (etcd["initial_cluster"].clone(), etcd["initial_cluster_state"].clone())
        };
        assert_eq!(of(1), (json!("node1=http://10.99.0.11:2380"), json!("new")));
        assert_eq!(of(2), (json!("node1=http://10.99.0.11:2380,node2=http://10.99.0.12:2380"), json!("existing")));
        assert!(plan.records().is_empty());
    }

    #[test]
    fn certificates_are_for_clients_members_and_the_reboot_daemon() {
        let tls = Tls { ca: "-----CA-----\n".into(), certificate: "-----C-----\n".into(), key: "-----K: \"x\"-----\n".into() };
        let plan = Plan { tls: Some(tls), ..plan(Members::Static) };
        let told = told(&plan, 1);
        let etcd = &told["coreos"]["etcd2"];
        assert!(etcd["initial_cluster"].as_str().unwrap().starts_with("node1=https://10.99.0.11:2380,"));
        for key in ["cert_file", "peer_cert_file"] {
            assert_eq!(etcd[key], "/etc/ssl/etcd/cert.pem");
        }
        assert_eq!((&etcd["client_cert_auth"], &etcd["peer_client_cert_auth"]), (&json!("true"), &json!("true")));
        assert_eq!(told["coreos"]["locksmith"]["etcd_cafile"], "/etc/ssl/etcd/ca.pem");
        let key = &told["write_files"][2];
        assert_eq!((&key["permissions"], &key["content"]), (&json!("0600"), &json!("-----K: \"x\"-----\n")));
        assert!(plan.etcdctl().join(" ").contains("--endpoints=https://127.0.0.1:2379 --cacert=/etc/ssl/etcd/ca.pem"));
    }

    #[test]
    fn two_documents_are_one_message() {
        let both = together("#cloud-config\nfinal_message: garboard-cluster-part-0\n", "#!/bin/sh\n");
        assert!(both.contains("boundary=\"garboard-cluster-part-1\"") && both.ends_with("--garboard-cluster-part-1--\n"));
        assert!(both.contains("text/cloud-config") && both.contains("text/x-shellscript"));
    }
}
