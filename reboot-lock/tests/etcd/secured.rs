//! TLS with client certificates, users with passwords, tokens that run out.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use reboot_lock::Options;
use reboot_lock::etcd::{Etcd, Tls};
use reboot_lock::store::{Store, StoreError, Write};

use super::lab::{Lab, address};
use super::{actor, claim, lock, run};

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").current_dir(directory).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A CA, and certificates of a server and of a client by it.
pub fn certificates(directory: &Path, server: &str) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(directory, &format!("req -x509 {key} -subj /CN=ca -keyout ca.key -out ca.crt"));
    // etcd's gateway wants no name in a client's certificate when it knows users.
    for (name, subject, more) in [
        ("server", "/CN=server", format!("-addext subjectAltName=IP:{server}")),
        ("client", "/O=hosts", String::new()),
        ("named", "/CN=host", String::new()),
    ] {
        let usage = "-addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth,clientAuth";
        openssl(directory, &format!("req {key} -subj {subject} {usage} {more} -keyout {name}.key -out {name}.csr"));
        let sign = "-days 2 -CA ca.crt -CAkey ca.key -CAcreateserial -copy_extensions copy";
        openssl(directory, &format!("x509 -req {sign} -in {name}.csr -out {name}.crt"));
    }
}

#[test]
fn certificates_and_passwords_are_asked_for_and_tokens_renewed() {
    let arguments = [
        "--cert-file=DIR/server.crt",
        "--key-file=DIR/server.key",
        "--trusted-ca-file=DIR/ca.crt",
        "--client-cert-auth",
        "--auth-token-ttl=2",
    ];
    let Some(mut lab) = Lab::new(1, "https", &arguments) else { return };
    let directory = lab.directory.path().to_owned();
    certificates(&directory, &address(0));
    let file = |name: &str| directory.join(name);
    run(async {
        lab.start(0);
        let mut config = lab.config();
        config.tls = Tls::load(Some(&file("ca.crt")), Some(&file("client.crt")), Some(&file("client.key"))).unwrap();
        let plain: Arc<dyn Store> = Arc::new(Etcd::new(config.clone()).unwrap());
        let begun = std::time::Instant::now();
        while let Err(error) = plain.txn(&[], &[Write::Put { key: "x".to_owned(), value: Vec::new(), lease: 0 }]).await {
            assert!(begun.elapsed().as_secs() < 40, "{error}; {}", lab.logs());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // A user set up before etcd asks for one.
        let mut with_user = config.clone();
        with_user.user = Some(("locks".to_owned(), "correct horse".to_owned()));
        let early = lock(&(Arc::new(Etcd::new(with_user.clone()).unwrap()) as Arc<dyn Store>), Options::default());
        early.try_lock(&claim("early"), &actor()).await.unwrap();
        early.unlock("early", None, &actor()).await.unwrap();

        users(&lab, &directory).await;
        let denied = plain.count(&reboot_lock::store::Keys::One("x".to_owned())).await.unwrap_err();
        assert_eq!(denied.kind(), "etcd_denied", "{denied}");
        let mut wrong = with_user.clone();
        wrong.user = Some(("locks".to_owned(), "wrong".to_owned()));
        let wrong = lock(&(Arc::new(Etcd::new(wrong).unwrap()) as Arc<dyn Store>), Options::default());
        let refused = tokio::time::timeout(Duration::from_secs(10), wrong.acquire(&claim("a"), &actor(), &|_| {})).await.unwrap();
        assert_eq!(refused.unwrap_err().kind(), "etcd_denied");

        let mut named = with_user.clone();
        named.tls = Tls::load(Some(&file("ca.crt")), Some(&file("named.crt")), Some(&file("named.key"))).unwrap();
        let error = Etcd::new(named).unwrap().count(&reboot_lock::store::Keys::One("x".to_owned())).await.unwrap_err();
        assert!(error.kind() == "etcd_denied" && error.to_string().contains("must have no CommonName"), "{error}");

        // The token of the time before runs out, and so do those that follow.
        for _ in 0..2 {
            let held = early.try_lock(&claim("a"), &actor()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(4)).await;
            assert!(early.unlock("a", Some(held.holder.fence), &actor()).await.unwrap());
        }
        // Outside the rights of the user.
        let outside = lock(
            &(Arc::new(Etcd::new(with_user.clone()).unwrap()) as Arc<dyn Store>),
            Options { prefix: "/elsewhere".to_owned(), ..Options::default() },
        );
        assert_eq!(outside.try_lock(&claim("a"), &actor()).await.unwrap_err().kind(), "etcd_denied");

        // Without our certificate, and with a CA that did not sign etcd's.
        let mut bare = with_user.clone();
        bare.tls.identity = None;
        let error = Etcd::new(bare).unwrap().count(&reboot_lock::store::Keys::One("x".to_owned())).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. } | StoreError::Broken { .. }), "{error}");
        let other = tempfile::tempdir().unwrap();
        certificates(other.path(), &address(0));
        let mut stranger = with_user;
        stranger.tls.ca = Tls::load(Some(&other.path().join("ca.crt")), None, None).unwrap().ca;
        let error = Etcd::new(stranger).unwrap().count(&reboot_lock::store::Keys::One("x".to_owned())).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    });
}

/// Switches users on: root, and one that may use the lock's prefix only.
async fn users(lab: &Lab, directory: &Path) {
    let pem = |name: &str| std::fs::read(directory.join(name)).unwrap();
    let identity = reqwest::Identity::from_pem(&[pem("client.crt"), pem("client.key")].concat()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem("ca.crt")).unwrap());
    let client = client.identity(identity).no_proxy().build().unwrap();
    // "/garboard/" to "/garboard0".
    let permission = r#"{"name":"locks","perm":{"permType":"READWRITE","key":"L2dhcmJvYXJkLw==","range_end":"L2dhcmJvYXJkMA=="}}"#;
    for (path, body) in [
        ("user/add", r#"{"name":"root","password":"r"}"#),
        ("user/grant", r#"{"user":"root","role":"root"}"#),
        ("user/add", r#"{"name":"locks","password":"correct horse"}"#),
        ("role/add", r#"{"name":"locks"}"#),
        ("role/grant", permission),
        ("user/grant", r#"{"user":"locks","role":"locks"}"#),
        ("enable", "{}"),
    ] {
        let answer = client.post(format!("{}/v3/auth/{path}", lab.url(0))).body(body).send().await.unwrap();
        let status = answer.status();
        // The role `root` comes with its user only in newer versions.
        let said = answer.text().await.unwrap();
        if said.contains("role name not found") {
            client.post(format!("{}/v3/auth/role/add", lab.url(0))).body(r#"{"name":"root"}"#).send().await.unwrap();
            client.post(format!("{}/v3/auth/{path}", lab.url(0))).body(body).send().await.unwrap();
            continue;
        }
        assert!(status.is_success(), "{path}: {said}");
    }
}

#[test]
fn bad_files_and_urls_are_told_before_anything_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path(), "127.0.0.1");
    let file = |name: &str| directory.path().join(name);
    let error = |ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>| match Tls::load(ca, certificate, key) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was taken"),
    };
    assert!(error(None, Some(&file("client.crt")), None).contains("the key of certificate"));
    assert!(error(None, None, Some(&file("client.key"))).contains("the certificate of key"));
    assert!(error(None, Some(&file("client.crt")), Some(&file("ca.crt"))).contains("are not a certificate and its key"));
    assert!(error(Some(&file("client.key")), None, None).contains("has no certificate"));
    assert!(error(Some(&file("nothing")), None, None).contains("nothing: No such file"));
    for url in ["", "127.0.0.1:2379", "ftp://h:1", "http://h:1/path", "http://u:p@h:1", "http://:1"] {
        let config = reboot_lock::etcd::Config::new(&[url]);
        assert!(matches!(config, Err(StoreError::Configuration(_))), "{url}");
    }
}
