//! `recipes/docker` as a machine: what the README promises a person can do with it.

use qemu_tests::{Guest, Setup};

fn boot(user_data: &str) -> Guest {
    let mut host = Setup::of("docker").user_data(user_data).start();
    host.wait_for_boot();
    host.wait_for_ssh();
    host
}

/// An image without a registry: the host's own busybox-like tools are dynamic, so a container gets the host's static
/// `init` binary's sibling, a shell from the root file system, by mounting the host's `/usr` read-only.
pub(crate) fn build_image(host: &Guest) {
    host.ok("mkdir -p ctx && printf 'FROM scratch\\nCOPY marker /marker\\nENV PATH=/usr/bin:/usr/sbin\\n' > ctx/Dockerfile && echo built > ctx/marker");
    host.ok("docker build -q -t local/base ctx");
}

/// Arguments that lend a scratch container the host's programs.
pub(crate) const LEND: &str = "-v /usr:/usr:ro -v /lib64:/lib64:ro -v /lib:/lib:ro -v /bin:/bin:ro";

#[test]
fn containers_etcd_and_the_tools_that_people_type() {
    let host = boot("#cloud-config\ncoreos:\n  etcd2:\n    name: first\n    enable_v2: true\n    snapshot_count: 5000\n");
    build_image(&host);
    assert_eq!(host.ok(&format!("docker run --rm {LEND} local/base cat /marker")), "built");
    assert_eq!(
        host.ok("docker info -f '{{.CgroupDriver}} {{.CgroupVersion}} {{.Driver}} {{.LiveRestoreEnabled}}'"),
        "cgroupfs 2 overlay2 true"
    );

    // Limits are seen in the cgroup files.
    host.ok(&format!("docker run -d --name limited --memory 64m --cpus 0.5 --pids-limit 50 {LEND} local/base sleep 1000"));
    let id = host.ok("docker inspect -f '{{.Id}}' limited");
    let file = |name: &str| host.ok(&format!("cat /sys/fs/cgroup/docker/{id}/{name}"));
    assert_eq!(file("memory.max"), (64 << 20).to_string());
    assert_eq!(file("cpu.max"), "50000 100000");
    assert_eq!(file("pids.max"), "50");

    // etcd, both ways of asking.
    host.eventually("etcdctl put greeting hello");
    assert_eq!(host.ok("etcdctl get --print-value-only greeting"), "hello");
    assert!(host.ok("etcdctl member list").contains("first"), "etcd is configured from cloud-config");
    assert!(host.ok("sudo cat /proc/$(pgrep -x etcd)/environ | tr '\\0' '\\n'").contains("ETCD_SNAPSHOT_COUNT=5000"));
    host.ok("ETCDCTL_API=2 etcdctl set /a/b value");
    assert_eq!(host.ok("ETCDCTL_API=2 etcdctl get /a/b"), "value");
    assert_eq!(host.ok("ETCDCTL_API=2 etcdctl ls /a"), "/a/b");
    host.ok("ETCDCTL_API=2 etcdctl rm /a/b");
    assert!(host.ok("systemctl status docker").contains("active (running)"));
    assert!(!host.ok("journalctl -u etcd --no-pager -n 5").is_empty());
    host.ok("timeout 5 journalctl -u etcd -f -n 1 | head -n 1 | grep -q etcd");
    assert_eq!(host.ok("sudo -s id -u"), "0");
    assert!(host.ok("cat /etc/environment").contains("COREOS_PRIVATE_IPV4=10.0.2.15"));

    // A toolbox sees the host, and keeps what was made in it.
    host.ok(&format!("printf 'TOOLBOX_DOCKER_IMAGE=local/base\\nTOOLBOX_DOCKER_TAG=latest\\nTOOLBOX_BIND=\"{LEND}\"\\n' > .toolboxrc"));
    assert_eq!(host.ok("toolbox readlink /proc/1/exe"), "/usr/lib/garboard/init");
    assert_eq!(host.ok("toolbox cat /media/root/etc/hostname /marker"), host.ok("cat /etc/hostname; echo built"));
    host.ok("toolbox sh -c 'echo kept > /made' && docker stop -t 1 toolbox-core");
    assert_eq!(host.ok("toolbox cat /made"), "kept");
    host.ok("toolbox --rm");

    // What a container says is in the host's log when asked.
    host.ok(&format!("docker run --rm --log-driver syslog --log-opt tag=talker {LEND} local/base echo a word from inside"));
    host.eventually("journalctl -t talker -o cat --no-pager | grep -x 'a word from inside'");

    // A published port.
    host.ok(&format!("docker run -d --name web -p 8080:8080 {LEND} local/base bash -c 'while :; do sleep 1; done'"));
    host.ok("sudo iptables -t nat -S DOCKER | grep -q 8080");

    time_comes_over_nts(&host);

    // The daemons are killed; the container goes on.
    let started = host.ok("docker inspect -f '{{.State.StartedAt}}' limited");
    host.ok("sudo systemctl kill -s KILL --kill-whom=main docker.service; sudo systemctl kill -s KILL --kill-whom=main containerd.service");
    host.eventually("docker inspect -f '{{.State.Running}}' limited | grep true");
    assert_eq!(host.ok("docker inspect -f '{{.State.StartedAt}}' limited"), started);
    assert_eq!(host.ok("docker exec limited echo alive"), "alive");
    assert_eq!(host.ok("systemctl --failed --no-legend | wc -l"), "0");
    let resident_kib: u64 = host.ok("awk '/^VmRSS/ {print $2}' /proc/1/status").parse().unwrap();
    assert!(resident_kib < 6 * 1024, "init has {resident_kib} KiB resident");
}

#[test]
fn a_unit_of_the_operator_brings_its_container_back_after_a_power_cut() {
    let mut host = boot("#cloud-config\n");
    build_image(&host);
    let unit = format!(
        "[Unit]\nDescription=A web server\nRequires=docker.service\nAfter=docker.service\n\n[Service]\nEnvironmentFile=/etc/environment\nTimeoutStartSec=0\n\
         ExecStartPre=-/usr/bin/docker rm -f web\nExecStart=/usr/bin/docker run --rm --name web \\\n  -v web-data:/data {LEND} \\\n  local/base \\\n  \
         bash -c 'echo ${{COREOS_PRIVATE_IPV4}} >> /data/starts; sync; exec sleep 100000'\nExecStop=/usr/bin/docker stop -t 2 web\nRestart=always\nRestartSec=1\n\n\
         [Install]\nWantedBy=multi-user.target local.target\n"
    );
    host.ok(&format!("sudo tee /media/state/units/web.service >/dev/null <<'END'\n{unit}\nEND"));
    host.ok("sudo systemctl daemon-reload && sudo systemctl enable --now web");
    host.eventually("docker exec web cat /data/starts");
    assert_eq!(host.ok("docker exec web cat /data/starts"), "10.0.2.15");
    for name in ["kept", "unwanted"] {
        host.ok(&format!("docker run -d --name {name} --restart unless-stopped {LEND} local/base sleep 100000"));
    }
    host.ok("docker stop -t 1 unwanted");
    host.ok("sudo sync");
    host.cut_power();

    host.power_on();
    host.wait_for_boot();
    host.wait_for_ssh();
    host.eventually("docker exec web test -s /data/starts");
    host.eventually("test $(docker exec web bash -c 'mapfile -t a < /data/starts; echo ${#a[@]}') = 2");
    assert_eq!(host.ok("systemctl is-active web.service"), "active");

    // Switching off by the button: containers stop in time, the state is clean.
    host.press_power_button();
    host.power_on();
    host.wait_for_boot();
    host.wait_for_ssh();
    assert_eq!(host.ok("sudo journalctl -b -k --no-pager -o cat | grep -c 'recovering journal\\|recovery complete' || true"), "0");
    host.eventually("test $(docker inspect -f '{{.State.Running}}' kept) = true");
    assert_eq!(host.ok("docker inspect -f '{{.State.Running}}' unwanted"), "false", "somebody has stopped it");
}

/// A self-signed certificate for `localhost`, and its key, in PEM.
fn certificate() -> String {
    let options =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(options).args(["-addext", "subjectAltName=DNS:localhost", "-keyout", "-", "-out", "-"]);
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The host's time daemon asks a server over NTS (a second daemon on the same host), and `time-sync.target` waits for it.
fn time_comes_over_nts(host: &Guest) {
    host.ok(&format!("sudo tee /etc/chrony/test.pem >/dev/null <<'END'\n{}END", certificate()));
    let server = "pidfile /run/nts-server.pid\\nlocal stratum 8\\nallow\\nport 11123\\ncmdport 0\\nbindcmdaddress /run/nts-server.sock\\n\
                  ntsport 14460\\nntsserverkey /etc/chrony/test.pem\\nntsservercert /etc/chrony/test.pem\\n";
    host.ok(&format!("printf '{server}' > nts-server.conf && sudo chronyd -x -u root -f $PWD/nts-server.conf"));
    host.ok("echo 'ntstrustedcerts /etc/chrony/test.pem' | sudo tee /etc/chrony/conf.d/test.conf >/dev/null; sudo chmod 644 /etc/chrony/test.pem");
    host.ok("echo 'server localhost iburst nts port 11123 ntsport 14460' | sudo tee /etc/chrony/sources.d/test.sources >/dev/null");
    host.ok("sudo systemctl restart chrony");
    host.eventually("chronyc -N sources | grep -q '^^\\* localhost'");
    // Over the daemon's own socket, which only opens when its directory belongs to its user.
    let data = host.ok("sudo chronyc -N authdata | grep localhost");
    assert!(data.split_whitespace().nth(1) == Some("NTS"), "{data}");
    assert_eq!(host.ok("systemctl is-active time-sync.target || true"), "inactive");
    host.ok("sudo systemctl start chrony-wait.service && systemctl is-active time-sync.target");
    host.ok("sudo kill $(sudo cat /run/nts-server.pid)");
}
