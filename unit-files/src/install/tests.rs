//! Plans over file systems in memory.

use super::*;
use crate::memory::{MemoryNode, MemorySource};
use crate::unit::DependencyKind;

const LIB: &str = "/usr/lib/systemd/system";

fn base() -> MemorySource {
    MemorySource::default()
        .file(&format!("{LIB}/multi-user.target"), "[Unit]\n")
        .file(&format!("{LIB}/rescue.target"), "[Unit]\n")
        .link(&format!("{LIB}/default.target"), "multi-user.target")
        .file(
            &format!("{LIB}/docker.service"),
            "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target\nAlias=engine.service\nAlso=docker.socket\n",
        )
        .file(&format!("{LIB}/docker.socket"), "[Socket]\nListenStream=/run/d\n[Install]\nWantedBy=sockets.target\n")
        .file(&format!("{LIB}/t@.service"), "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target\nDefaultInstance=one\n")
        .file(&format!("{LIB}/u@.service"), "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target\n")
        .file(&format!("{LIB}/static.service"), "[Service]\nExecStart=/bin/a\n")
        .file(&format!("{OPERATOR_UNITS}/web.service"), "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target\n")
}

/// A machine on which plans are carried out.
struct Machine(MemorySource);

impl Machine {
    fn with<T>(&self, options: InstallOptions, act: impl FnOnce(&Installer<'_, &MemorySource>) -> T) -> T {
        let facts = HostFacts::default();
        let loader = Loader::new(&self.0, facts.clone());
        act(&Installer::new(&loader, &facts, options))
    }

    fn run(&mut self, act: impl FnOnce(&Installer<'_, &MemorySource>) -> Result<Plan, InstallError>) -> Result<Vec<String>, InstallError> {
        let plan = self.with(InstallOptions::default(), act)?;
        let lines = plan.lines();
        for operation in plan.operations {
            match operation {
                LinkOperation::Create { path, target } => self.0.put(&path, MemoryNode::Link(target)),
                LinkOperation::Remove { path } => self.0.remove(&path),
            }
        }
        Ok(lines)
    }

    fn state(&self, name: &str) -> &'static str {
        self.with(InstallOptions::default(), |installer| installer.state(&unit(name)).unwrap().as_str())
    }

    fn wants(&self, name: &str) -> bool {
        let loader = Loader::new(&self.0, HostFacts::default());
        loader.load(&unit("multi-user.target")).dependencies.has(DependencyKind::Wants, name)
    }
}

fn unit(name: &str) -> UnitName {
    UnitName::parse(name).unwrap()
}

#[test]
fn enabling_makes_the_links_of_install_and_disabling_takes_them_away() {
    let mut machine = Machine(base());
    assert_eq!(machine.state("docker.service"), "disabled");
    let lines = machine.run(|installer| installer.enable(&[unit("docker.service")])).unwrap();
    let expected = [
        "Created symlink '/etc/systemd/system/engine.service' → '/usr/lib/systemd/system/docker.service'.",
        "Created symlink '/etc/systemd/system/multi-user.target.wants/docker.service' → '/usr/lib/systemd/system/docker.service'.",
        "Created symlink '/etc/systemd/system/sockets.target.wants/docker.socket' → '/usr/lib/systemd/system/docker.socket'.",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        (machine.state("docker.service"), machine.state("docker.socket"), machine.state("engine.service")),
        ("enabled", "enabled", "alias")
    );
    assert!(machine.wants("docker.service"));
    assert!(machine.run(|installer| installer.enable(&[unit("docker.service")])).unwrap().is_empty(), "twice is once");
    let lines = machine.run(|installer| installer.disable(&[unit("docker.service")])).unwrap();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(machine.state("docker.service"), "disabled");
}

#[test]
fn templates_are_enabled_by_instance() {
    let mut machine = Machine(base());
    let lines = machine.run(|installer| installer.enable(&[unit("t@.service"), unit("u@two.service")])).unwrap();
    assert!(lines[0].contains("multi-user.target.wants/t@one.service' → '/usr/lib/systemd/system/t@.service'"), "{lines:?}");
    assert!(lines[1].contains("multi-user.target.wants/u@two.service"), "{lines:?}");
    assert_eq!(machine.state("t@.service"), "enabled");
    let error = machine.run(|installer| installer.enable(&[unit("u@.service")])).unwrap_err();
    assert!(matches!(error, InstallError::NoInstance(..)), "{error}");
    assert_eq!(machine.run(|installer| installer.disable(&[unit("t@.service")])).unwrap().len(), 1);
}

#[test]
fn the_operators_units_are_enabled_until_disabled() {
    let mut machine = Machine(base());
    assert_eq!(machine.state("web.service"), "enabled");
    assert!(machine.wants("web.service"));
    machine.run(|installer| installer.disable(&[unit("web.service")])).unwrap();
    assert_eq!(machine.state("web.service"), "disabled");
    assert!(!machine.wants("web.service"));
    let lines = machine.run(|installer| installer.enable(&[unit("web.service")])).unwrap();
    assert!(lines[0].ends_with("→ '/media/state/units/web.service'."), "{lines:?}");
    assert_eq!(machine.state("web.service"), "enabled");
    machine.run(|installer| installer.disable(&[unit("web.service")])).unwrap();
    assert!(!machine.wants("web.service"), "also when a link had enabled it");
}

#[test]
fn masks_win_over_everything_and_go_away_again() {
    let mut machine = Machine(base());
    machine.run(|installer| installer.mask(&[unit("web.service"), unit("ghost.service")])).unwrap();
    assert_eq!((machine.state("web.service"), machine.state("ghost.service")), ("masked", "masked"));
    assert!(matches!(machine.run(|installer| installer.enable(&[unit("web.service")])), Err(InstallError::Masked(_))));
    machine.run(|installer| installer.unmask(&[unit("web.service")])).unwrap();
    assert_eq!(machine.state("web.service"), "enabled");
    let mut own = Machine(base().file("/etc/systemd/system/x.service", "[Service]\nExecStart=/bin/a\n"));
    assert!(matches!(own.run(|installer| installer.mask(&[unit("x.service")])), Err(InstallError::FileExists(_))));
}

#[test]
fn units_without_install_are_static_and_say_so() {
    let machine = Machine(base());
    assert_eq!(machine.state("static.service"), "static");
    let plan = machine.with(InstallOptions::default(), |installer| installer.enable(&[unit("static.service")])).unwrap();
    assert!(plan.operations.is_empty() && !plan.carries_install_info && plan.notes.len() == 1);
    let missing = machine.with(InstallOptions::default(), |installer| installer.enable(&[unit("no.service")])).unwrap_err();
    assert_eq!(missing.to_string(), "Unit no.service does not exist");
}

#[test]
fn runtime_links_go_below_run() {
    let machine = Machine(base());
    let options = InstallOptions { runtime: true, force: false };
    let plan = machine.with(options, |installer| installer.enable(&[unit("docker.socket")])).unwrap();
    assert_eq!(
        plan.operations,
        [LinkOperation::Create {
            path: "/run/garboard/units/sockets.target.wants/docker.socket".into(),
            target: format!("{LIB}/docker.socket")
        }]
    );
}

#[test]
fn the_default_target_is_a_link() {
    let mut machine = Machine(base());
    let default = |machine: &Machine| machine.with(InstallOptions::default(), |installer| installer.get_default().unwrap().to_string());
    assert_eq!(default(&machine), "multi-user.target");
    machine.run(|installer| installer.set_default(&unit("rescue.target"))).unwrap();
    assert_eq!(default(&machine), "rescue.target");
    assert!(machine.run(|installer| installer.set_default(&unit("docker.service"))).is_err());
}

#[test]
fn links_to_files_elsewhere() {
    let mut machine = Machine(base().file("/opt/x.service", "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target\n"));
    machine.run(|installer| installer.link(&["/opt/x.service".into()])).unwrap();
    assert_eq!(machine.state("x.service"), "linked");
    machine.run(|installer| installer.enable(&[unit("x.service")])).unwrap();
    assert_eq!(machine.state("x.service"), "enabled");
    assert!(machine.run(|installer| installer.link(&["x.service".into()])).is_err());
}

#[test]
fn presets_decide_by_the_first_line_that_matches() {
    let source = base()
        .file("/usr/lib/systemd/system-preset/90-default.preset", "enable docker.*\ndisable *\n")
        .file("/etc/systemd/system-preset/10-own.preset", "# none\ndisable docker.socket\n");
    let machine = Machine(source);
    let wanted = |name: &str| machine.with(InstallOptions::default(), |installer| installer.preset_enables(&unit(name)).unwrap());
    assert!(wanted("docker.service"));
    assert!(!wanted("docker.socket"));
    assert!(!wanted("static.service"));
}

#[test]
fn plans_are_carried_out_below_a_root() {
    let root = std::env::temp_dir().join(format!("unit-files-install-{}", std::process::id()));
    let path = "/etc/systemd/system/a.target.wants/b.service".to_owned();
    let create = |target: &str| LinkOperation::Create { path: path.clone(), target: target.to_owned() };
    apply(&root, &[create("/x"), create("/y")]).unwrap();
    let real = root.join(path.trim_start_matches('/'));
    assert_eq!(std::fs::read_link(&real).unwrap().to_str(), Some("/y"));
    apply(&root, &[LinkOperation::Remove { path: path.clone() }]).unwrap();
    assert!(!real.parent().unwrap().exists(), "the empty directory went too");
    std::fs::remove_dir_all(&root).unwrap();
}
