//! Loading, seen from outside: files in, units out.

use std::time::Duration;

use crate::diagnostic::Severity;
use crate::loader::Loader;
use crate::memory::MemorySource;
use crate::name::UnitName;
use crate::service::{NotifyAccess, ServiceType};
use crate::specifier::HostFacts;
use crate::unit::{Config, DependencyKind as Kind, LoadState, Unit};

const LIB: &str = "/usr/lib/systemd/system";
const ETC: &str = "/etc/systemd/system";
const OPERATOR: &str = "/media/state/units";

fn load(source: MemorySource, name: &str) -> Unit {
    Loader::new(source, HostFacts::default()).load(&UnitName::parse(name).unwrap())
}

fn one(text: &str) -> Unit {
    load(MemorySource::default().file(&format!("{LIB}/a.service"), text), "a.service")
}

fn messages(unit: &Unit) -> Vec<String> {
    unit.diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_gets_its_settings_and_default_dependencies() {
    let unit = one("[Unit]\nDescription=An %n\nWants=b.service c.service\nAfter=b.service\n\
        [Service]\nExecStart=/bin/a $X\nRestart=always\nRestartSec=5\nEnvironment=\"A=1 2\" B=%p\nLimitNOFILE=infinity\n\
        TimeoutStopSec=0\nMemoryMax=10%\n[Install]\nWantedBy=multi-user.target\n");
    assert_eq!(unit.load_state, LoadState::Loaded, "{:?}", messages(&unit));
    assert_eq!(messages(&unit), Vec::<String>::new());
    assert_eq!(unit.description, "An a.service");
    for (kind, name) in [
        (Kind::Wants, "b.service"),
        (Kind::After, "b.service"),
        (Kind::Requires, "sysinit.target"),
        (Kind::After, "basic.target"),
        (Kind::Conflicts, "shutdown.target"),
    ] {
        assert!(unit.dependencies.has(kind, name), "{kind:?} {name}");
    }
    let service = unit.service().unwrap();
    assert_eq!(service.restart_delay, Duration::from_secs(5));
    assert_eq!(service.timeout_stop, None);
    assert_eq!(service.exec.environment, [("A".into(), "1 2".into()), ("B".into(), "a".into())]);
    assert_eq!(unit.install.wanted_by, ["multi-user.target"]);
}

#[test]
fn default_dependencies_can_be_switched_off() {
    let unit = one("[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/a\n");
    assert_eq!(unit.dependencies.iter().count(), 0);
}

#[test]
fn drop_ins_merge_by_file_name_and_the_most_specific_wins() {
    let source = MemorySource::default()
        .file(&format!("{LIB}/foo-bar@.service"), "[Service]\nExecStart=/bin/a\nEnvironment=A=0")
        .file(&format!("{LIB}/service.d/10-x.conf"), "[Service]\nEnvironment=X=type")
        .file(&format!("{LIB}/foo-.service.d/20-y.conf"), "[Service]\nEnvironment=Y=prefix")
        .file(&format!("{ETC}/foo-bar@.service.d/10-x.conf"), "[Service]\nEnvironment=X=template")
        .file(&format!("{LIB}/foo-bar@i.service.d/30-z.conf"), "[Service]\nEnvironment=Z=lib")
        .file(&format!("{ETC}/foo-bar@i.service.d/30-z.conf"), "[Service]\nEnvironment=Z=etc\nExecStart=\nExecStart=/bin/%i")
        .link(&format!("{ETC}/service.d/05-hidden.conf"), "/dev/null")
        .file(&format!("{LIB}/service.d/05-hidden.conf"), "[Service]\nEnvironment=H=1");
    let unit = load(source, "foo-bar@i.service");
    let service = unit.service().unwrap();
    let environment: Vec<&str> = service.exec.environment.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(environment, ["0", "template", "prefix", "etc"], "{:?}", unit.drop_ins);
    assert_eq!(service.exec_start.iter().map(|command| command.path.as_str()).collect::<Vec<_>>(), ["/bin/i"]);
}

#[test]
fn masks_aliases_and_search_order() {
    let source = MemorySource::default()
        .file(&format!("{LIB}/real.service"), "[Service]\nExecStart=/bin/lib")
        .file(&format!("{ETC}/real.service"), "[Service]\nExecStart=/bin/etc")
        .link(&format!("{ETC}/other.service"), "/lib/systemd/system/real.service")
        .file(&format!("{LIB}/off.service"), "[Service]\nExecStart=/bin/a")
        .link(&format!("{ETC}/off.service"), "/dev/null")
        .file(&format!("{ETC}/empty.service"), "")
        .link(&format!("{ETC}/dangling.service"), "/nowhere/dangling.service");
    let loader = Loader::new(source, HostFacts::default());
    let load = |name: &str| loader.load(&UnitName::parse(name).unwrap());
    let unit = load("other.service");
    assert_eq!(unit.name.as_str(), "real.service");
    assert_eq!(unit.service().unwrap().exec_start[0].path, "/bin/etc");
    assert!(unit.aliases.contains("other.service"));
    assert_eq!(load("off.service").load_state, LoadState::Masked);
    assert_eq!(load("empty.service").load_state, LoadState::Masked);
    assert_eq!(load("dangling.service").load_state, LoadState::NotFound);
    assert_eq!(load("none.service").load_state, LoadState::NotFound);
    assert_eq!(load("system.slice").load_state, LoadState::Loaded);
}

#[test]
fn template_aliases_keep_the_instance() {
    let source = MemorySource::default()
        .file(&format!("{LIB}/getty@.service"), "[Service]\nExecStart=/bin/getty %I")
        .link(&format!("{ETC}/autovt@.service"), "/usr/lib/systemd/system/getty@.service");
    let unit = load(source, "autovt@tty1.service");
    assert_eq!(unit.name.as_str(), "getty@tty1.service");
    assert_eq!(unit.service().unwrap().exec_start[0].argv, ["/bin/getty", "tty1"]);
}

#[test]
fn links_in_directories_are_dependencies() {
    let source = MemorySource::default()
        .file(&format!("{LIB}/t.target"), "[Unit]\n")
        .link(&format!("{LIB}/t.target.wants/a.service"), "../a.service")
        .link(&format!("{LIB}/t.target.wants/b.service"), "../b.service")
        .link(&format!("{ETC}/t.target.wants/b.service"), "/dev/null")
        .link(&format!("{ETC}/t.target.requires/c@x.service"), "/usr/lib/systemd/system/c@.service");
    let unit = load(source, "t.target");
    assert!(unit.dependencies.has(Kind::Wants, "a.service"));
    assert!(!unit.dependencies.has(Kind::Wants, "b.service"), "hidden by a link to /dev/null");
    assert!(unit.dependencies.has(Kind::Requires, "c@x.service"));
}

#[test]
fn install_of_the_operators_units_counts() {
    let source = MemorySource::default()
        .file(&format!("{LIB}/multi-user.target"), "[Unit]\n")
        .link(&format!("{LIB}/default.target"), "multi-user.target")
        .file(&format!("{OPERATOR}/web.service"), "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=default.target")
        .file(&format!("{OPERATOR}/w@.service"), "[Service]\nExecStart=/bin/a\n[Install]\nRequiredBy=multi-user.target\nDefaultInstance=1")
        .file(&format!("{OPERATOR}/off.service"), "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target")
        .file(&format!("{OPERATOR}/broken.service"), "[Install]\nWantedBy=multi-user.target")
        .link(&format!("{ETC}/multi-user.target.wants/off.service"), "/dev/null")
        .file(&format!("{LIB}/lib.service"), "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target");
    let unit = load(source, "multi-user.target");
    assert!(unit.dependencies.has(Kind::Wants, "web.service"), "through the alias default.target");
    assert!(unit.dependencies.has(Kind::Requires, "w@1.service"));
    assert!(!unit.dependencies.has(Kind::Wants, "off.service"), "disabled");
    assert!(!unit.dependencies.has(Kind::Wants, "lib.service"), "only the operator's");
}

#[test]
fn what_cannot_run_is_a_bad_setting() {
    for text in [
        "[Service]\nType=simple\n",
        "[Service]\nExecStart=/bin/a\nExecStart=/bin/b\n",
        "[Service]\nType=oneshot\nExecStart=/bin/a\nRestart=always\n",
        "[Service]\nType=dbus\nBusName=x.y\nExecStart=/bin/a\n",
        "[Service]\nBusName=x.y\nExecStart=/bin/a\n",
        "[Service]\nExecStart=relative/path\n",
        "[Service]\nExecStart=/bin/a 'open\n",
    ] {
        let unit = one(text);
        assert_eq!(unit.load_state, LoadState::BadSetting, "{text}: {:?}", messages(&unit));
        assert!(unit.load_error.is_some());
    }
    for text in ["[Service]\nType=oneshot\nExecStart=/bin/a\nExecStart=/bin/b\n", "[Service]\nRemainAfterExit=yes\nExecStop=/bin/a\n"] {
        let unit = one(text);
        assert_eq!(unit.load_state, LoadState::Loaded, "{text}: {:?}", messages(&unit));
        assert_eq!(unit.service().unwrap().service_type, ServiceType::Oneshot);
        assert_eq!(unit.service().unwrap().timeout_start, None);
    }
}

#[test]
fn a_restriction_that_would_be_lost_refuses_the_unit() {
    let refused = |text: &str| one(&format!("[Service]\nExecStart=/bin/a\n{text}\n")).refusal().is_some();
    assert!(refused("RestrictFileSystems=ext4"));
    assert!(!refused("SystemCallFilter=@system-service"));
    assert!(refused("RootDirectory=/srv/root"));
    assert!(refused("RestrictNetworkInterfaces=lo"));
    assert!(refused("ProtectSystem=perhaps"), "a value that is lost");
    assert!(refused("User=%z"));
    assert!(!refused("DelegateNamespaces="));
    assert!(!refused("RestrictFileSystems=ext4\nRestrictFileSystems="));
    assert!(!refused("AppArmorProfile=-optional"));
    assert!(!refused("User=core\nPrivateTmp=yes\nCapabilityBoundingSet=CAP_NET_ADMIN"));
    assert!(!refused("RestrictFileSystems=ext4\nX-Init-Allow-Unsupported=RestrictFileSystems"));
    assert!(refused("RestrictFileSystems=ext4\nX-Init-Allow-Unsupported=RootDirectory"));
    let unit =
        load(MemorySource::default().file(&format!("{LIB}/a.service"), b"[Service]\nExecStart=/bin/a\nUser=\xff\n".to_vec()), "a.service");
    assert!(unit.refusal().is_some(), "a line that is no text");
}

#[test]
fn a_capability_that_gets_around_a_restriction_goes_with_it() {
    let has = |unit: &Unit, name: &str| {
        let number = crate::value::parse_capability(name).unwrap();
        unit.service().unwrap().exec.capability_bounding_set.is_none_or(|set| set.0 & (1 << number) != 0)
    };
    let unit = one("[Service]\nExecStart=/bin/a\nProtectKernelModules=yes\nPrivateDevices=yes\n");
    assert!(!has(&unit, "CAP_SYS_MODULE") && !has(&unit, "CAP_MKNOD") && has(&unit, "CAP_NET_ADMIN"));
    let unit = one("[Service]\nExecStart=/bin/a\nCapabilityBoundingSet=CAP_MKNOD CAP_CHOWN\nPrivateDevices=yes\n");
    assert!(!has(&unit, "CAP_MKNOD") && has(&unit, "CAP_CHOWN") && !has(&unit, "CAP_NET_ADMIN"));
    let unit = one("[Service]\nExecStart=/bin/a\nCapabilityBoundingSet=~CAP_SYS_TIME\nCapabilityBoundingSet=~CAP_KILL\n");
    assert!(!has(&unit, "CAP_SYS_TIME") && !has(&unit, "CAP_KILL") && has(&unit, "CAP_CHOWN"));
}

#[test]
fn unknown_and_bad_settings_warn_and_go_on() {
    let unit =
        one("[Unit]\nFoo=1\nX-Mine=2\n[X-Fleet]\nGlobal=yes\n[Socket]\nBacklog=1\n[Service]\nExecStart=/bin/a\nRestartSec=soon\nNice=99\n");
    assert_eq!(unit.load_state, LoadState::Loaded);
    let lines: Vec<u32> = unit.diagnostics.iter().filter_map(|d| d.location.as_ref()).map(|location| location.line).collect();
    assert_eq!(lines, [2, 7, 10, 11], "{:?}", messages(&unit));
    assert!(unit.diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Warning));
}

#[test]
fn old_places_and_implied_settings() {
    let unit = one("[Service]\nType=notify\nExecStart=/bin/a\nStartLimitInterval=60\nStartLimitBurst=3\nDelegate=yes\n");
    assert_eq!((unit.start_limit.interval, unit.start_limit.burst), (Duration::from_secs(60), 3));
    assert_eq!(unit.service().unwrap().notify_access, NotifyAccess::Main);
    assert_eq!(messages(&unit), Vec::<String>::new());
}

#[test]
fn other_kinds_get_their_own_defaults() {
    let source = MemorySource::default()
        .file(&format!("{LIB}/s.socket"), "[Socket]\nListenStream=/run/s\n")
        .file(&format!("{LIB}/t.timer"), "[Timer]\nOnCalendar=daily\nUnit=u.service\n")
        .file(&format!("{LIB}/var-lib-x.mount"), "[Mount]\nWhat=/dev/vdb\nWhere=/var/lib/x\nType=ext4\n")
        .file(&format!("{LIB}/var.mount"), "[Mount]\nWhat=tmpfs\n")
        .file(&format!("{LIB}/bad.mount"), "[Mount]\nWhat=tmpfs\nWhere=/other\n")
        .file(&format!("{LIB}/m.service"), "[Unit]\nRequiresMountsFor=/var/lib/x/y\n[Service]\nExecStart=/bin/a\n");
    let loader = Loader::new(source, HostFacts::default());
    let load = |name: &str| loader.load(&UnitName::parse(name).unwrap());
    let socket = load("s.socket");
    assert!(socket.dependencies.has(Kind::Triggers, "s.service") && socket.dependencies.has(Kind::Before, "sockets.target"));
    let timer = load("t.timer");
    assert!(timer.dependencies.has(Kind::Triggers, "u.service") && timer.dependencies.has(Kind::After, "time-sync.target"));
    let mount = load("var-lib-x.mount");
    assert!(mount.dependencies.has(Kind::Before, "local-fs.target") && mount.dependencies.has(Kind::BindsTo, "dev-vdb.device"));
    assert!(mount.dependencies.has(Kind::Requires, "var.mount"), "its parent");
    assert!(matches!(&load("var.mount").config, Config::Mount(config) if config.mount_point == "/var"));
    assert_eq!(load("bad.mount").load_state, LoadState::BadSetting);
    let service = load("m.service");
    assert!(service.dependencies.has(Kind::Requires, "var-lib-x.mount") && service.dependencies.has(Kind::After, "var.mount"));
    assert!(!service.dependencies.has(Kind::Requires, "var-lib.mount"), "there is no such unit");
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that look enough like a unit to reach every parser.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let keys: Vec<&'static str> = crate::directives::all().into_iter().map(|info| info.key).collect();
        let value = prop_oneof![
            any::<Vec<u8>>(),
            "[-@:+!|~%$'\"\\\\;/,.=*{}a-z0-9 ]{0,40}".prop_map(String::into_bytes),
            "(yes|no|infinity|1s|10%|/a|a\\.service|~a b|@x|%[a-zA-Z]| ){0,5}".prop_map(String::into_bytes),
        ];
        let section = prop::sample::select(vec!["Unit", "Service", "Socket", "Timer", "Path", "Mount", "Swap", "Slice", "Install"]);
        prop::collection::vec((section, prop::sample::select(keys), value), 0..30).prop_map(|lines| {
            let mut bytes = Vec::new();
            for (section, key, value) in lines {
                bytes.extend_from_slice(format!("[{section}]\n{key}=").as_bytes());
                bytes.extend_from_slice(&value);
                bytes.push(b'\n');
            }
            bytes
        })
    }

    fn kinds() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "a@b.service",
            "a.socket",
            "a.timer",
            "a.path",
            "a.mount",
            "a.swap",
            "a.slice",
            "a.target",
            "a.automount",
        ])
    }

    proptest! {
        #[test]
        fn never_panic(bytes in prop_oneof![any::<Vec<u8>>(), text()], name in kinds()) {
            let unit = load(MemorySource::default().file(&format!("{LIB}/{name}"), bytes), name);
            prop_assert!(unit.load_state != LoadState::Error);
        }

        #[test]
        fn never_panic_as_environment(bytes in any::<Vec<u8>>()) {
            let parsed = crate::environment::parse_environment_file(&bytes);
            prop_assert!(parsed.assignments.iter().all(|(name, _)| crate::environment::is_name(name)));
        }

        #[test]
        fn names_survive_escaping(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(crate::name::unescape(&crate::name::escape(&bytes)), bytes);
        }

        #[test]
        fn typed_names_never_panic(text in any::<String>()) {
            if let Ok(name) = UnitName::mangle(&text, crate::UnitKind::Service) {
                prop_assert_eq!(UnitName::parse(name.as_str()), Ok(name.clone()));
            }
        }
    }
}
