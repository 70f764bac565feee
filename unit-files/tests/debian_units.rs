//! Units as Debian 13 ships them (docker.io 26.1.5, containerd 1.7.24, etcd-server 3.5.16, openssh-server 10.0p1, chrony 4.6.1,
//! util-linux 2.41), comments left out: they load, mean what they say, and nothing is said against them without need.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::time::Duration;

use unit_files::service::{KillMode, Restart, ServiceType};
use unit_files::socket::{Listen, SocketAddress};
use unit_files::unit::{Config, DependencyKind, LoadState};
use unit_files::{FsSource, HostFacts, Loader, Unit, UnitName};

fn load(name: &str) -> Unit {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let facts = HostFacts { host_name: "node1".to_owned(), ..HostFacts::default() };
    Loader::new(FsSource::with_search_path(&root, vec!["/debian".to_owned()]), facts).load(&UnitName::parse(name).unwrap())
}

fn quiet(name: &str) -> Unit {
    let unit = load(name);
    assert_eq!(unit.load_state, LoadState::Loaded, "{name}: {:?}", unit.load_error);
    assert!(unit.diagnostics.is_empty(), "{name}: {:?}", unit.diagnostics);
    unit
}

#[test]
fn docker_and_containerd_keep_their_containers() {
    for (name, seconds, score) in [("docker.service", 2, -500), ("containerd.service", 5, -999)] {
        let unit = quiet(name);
        let service = unit.service().unwrap();
        assert_eq!(
            (service.service_type, service.restart, service.kill.mode),
            (ServiceType::Notify, Restart::Always, KillMode::Process),
            "{name}"
        );
        assert_eq!(service.restart_delay, Duration::from_secs(seconds), "{name}");
        assert_eq!(service.exec.oom_score_adjust, Some(score), "{name}");
        assert!(service.cgroup.delegate.is_on(), "{name}");
    }
    let docker = load("docker.service");
    assert_eq!((docker.start_limit.burst, docker.start_limit.interval), (3, Duration::from_secs(60)), "from [Service], its old place");
    assert_eq!(docker.service().unwrap().timeout_start, None);
    assert!(docker.dependencies.has(DependencyKind::Requires, "docker.socket"));
    assert!(load("containerd.service").service().unwrap().exec_start_pre[0].ignore_failure);
}

#[test]
fn dockers_socket_belongs_to_its_group() {
    let unit = quiet("docker.socket");
    let Config::Socket(socket) = &unit.config else { unreachable!() };
    assert_eq!(socket.listen, [Listen::Stream(SocketAddress::Unix("/run/docker.sock".into()))]);
    assert_eq!((socket.socket_mode, socket.socket_group.as_deref(), socket.accept), (0o660, Some("docker"), false));
    assert!(unit.dependencies.has(DependencyKind::Triggers, "docker.service"));
    assert!(unit.dependencies.has(DependencyKind::Before, "sockets.target"));
}

#[test]
fn etcd_runs_as_its_user_under_the_hosts_name() {
    let unit = quiet("etcd.service");
    let service = unit.service().unwrap();
    assert_eq!(service.exec.user.as_deref(), Some("etcd"));
    assert!(format!("{:?}", service.exec.environment).contains("node1"), "{:?}", service.exec.environment);
    assert_eq!(service.restart, Restart::OnAbnormal);
}

#[test]
fn ssh_in_both_ways() {
    let unit = quiet("ssh.service");
    let service = unit.service().unwrap();
    assert_eq!((service.exec_start_pre.len(), service.exec_reload.len()), (1, 2));
    assert!(service.restart_prevent_exit_status.codes.contains(&255));
    let socket = quiet("ssh.socket");
    assert!(matches!(&socket.config, Config::Socket(socket) if socket.listen == [Listen::Stream(SocketAddress::Port(22))]));
    let connection = quiet("sshd@1-10.0.0.1:22-10.0.0.2:4000.service");
    assert!(connection.service().unwrap().exec_start[0].ignore_failure);
}

#[test]
fn chrony_is_understood_to_the_last_line() {
    let unit = quiet("chrony.service");
    let service = unit.service().unwrap();
    assert_eq!(service.pid_file.as_deref(), Some("/run/chrony/chronyd.pid"));
    assert!(!service.exec.no_new_privileges, "a later line takes the first back");
}

#[test]
fn fstrim_runs_weekly_spread_over_its_hosts() {
    let unit = quiet("fstrim.timer");
    let Config::Timer(timer) = &unit.config else { unreachable!() };
    assert!(timer.persistent);
    assert_eq!((timer.accuracy, timer.randomized_delay), (Duration::from_secs(3600), Duration::from_secs(6000)));
    assert!(unit.dependencies.has(DependencyKind::After, "time-sync.target"));
}
