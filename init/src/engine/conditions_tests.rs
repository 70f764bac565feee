//! Each kind of condition, met and not met.

use super::*;

fn facts() -> Facts {
    Facts {
        cmdline: CommandLine::parse("quiet flatcar.first_boot=1 root=/dev/vda"),
        first_boot: true,
        virtualization: "qemu".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
    }
}

fn condition(kind: ConditionKind, argument: &str, negate: bool, trigger: bool) -> Condition {
    Condition { kind, argument: argument.into(), negate, trigger }
}

#[test]
fn plain_ones_are_anded_and_marked_ones_ored() {
    use ConditionKind::PathExists;
    let facts = facts();
    let yes = || condition(PathExists, "/proc", false, false);
    let no = || condition(PathExists, "/nowhere", false, false);
    assert!(check(&[], &facts).is_ok());
    assert!(check(&[yes(), yes()], &facts).is_ok());
    assert_eq!(check(&[yes(), no()], &facts), Err("ConditionPathExists=/nowhere".into()));
    let or = |mut one: Condition| {
        one.trigger = true;
        one
    };
    assert!(check(&[or(yes()), or(no())], &facts).is_ok());
    assert!(check(&[or(no()), or(no()), yes()], &facts).is_err());
    assert!(check(&[condition(PathExists, "/nowhere", true, false)], &facts).is_ok());
}

fn holds_here(kind: ConditionKind, argument: &str) -> bool {
    answer(kind, argument, &facts())
}

#[test]
fn questions_about_the_machine_have_answers() {
    use ConditionKind as K;
    let release = release();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    let (major, _) = release.split_once('.').unwrap();
    let cpus = std::thread::available_parallelism().unwrap().get();
    let flag = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let flag = flag.lines().find_map(|line| line.strip_prefix("flags")?.rsplit(' ').next()).unwrap_or_default().to_owned();
    let module = std::fs::read_dir("/sys/module").unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let id = std::fs::read("/etc/os-release").unwrap();
    let id = unit_files::environment::parse_environment_file(&id).assignments;
    let id = id.iter().find(|(key, _)| key == "ID").map(|(_, value)| value.clone()).unwrap();
    let here = unit_files::specifier::systemd_architecture(std::env::consts::ARCH);
    let table = [
        (K::Architecture, "native".into(), true),
        (K::Architecture, here.into(), true),
        (K::Architecture, "s390x".into(), false),
        (K::Firmware, "uefi".into(), Path::new("/sys/firmware/efi").exists()),
        (K::Firmware, "device-tree".into(), Path::new("/sys/firmware/devicetree").exists()),
        (K::Firmware, "bios".into(), false),
        (K::Virtualization, "yes".into(), true),
        (K::Virtualization, "no".into(), false),
        (K::Virtualization, "vm".into(), true),
        (K::Virtualization, "container".into(), false),
        (K::Virtualization, "qemu".into(), true),
        (K::Virtualization, "docker".into(), false),
        (K::Host, host.clone(), true),
        (K::Host, format!("{}*", &host[..1]), true),
        (K::Host, format!("not-{host}"), false),
        (K::Host, "0123456789abcdef0123456789abcdef".into(), true),
        (K::KernelCommandLine, "quiet".into(), true),
        (K::KernelCommandLine, "root".into(), true),
        (K::KernelCommandLine, "root=/dev/vda".into(), true),
        (K::KernelCommandLine, "root=/dev/vdb".into(), false),
        (K::KernelCommandLine, "loud".into(), false),
        (K::KernelVersion, release.clone(), true),
        (K::KernelVersion, format!("{major}.*"), true),
        (K::KernelVersion, ">=3.0".into(), true),
        (K::KernelVersion, "<3.0".into(), false),
        (K::KernelVersion, ">=3.0 <999".into(), true),
        (K::KernelVersion, ">=3.0 <4".into(), false),
        (K::KernelVersion, format!("!={release}"), false),
        (K::Version, "kernel >=3.0".into(), true),
        (K::Version, "kernel <3.0".into(), false),
        (K::KernelModuleLoaded, module, true),
        (K::KernelModuleLoaded, "no_such_module".into(), false),
        (K::Environment, "PATH".into(), true),
        (K::Environment, format!("PATH={}", std::env::var("PATH").unwrap()), true),
        (K::Environment, "PATH=elsewhere".into(), false),
        (K::Environment, "GARBOARD_NEVER_SET".into(), false),
        (K::Security, "smack".into(), false),
        (K::Security, "uefi-secureboot".into(), secure_boot()),
        (K::Security, "nonsense".into(), false),
        (K::Capability, "CAP_CHOWN".into(), true),
        (K::Capability, "cap_no_such".into(), false),
        (K::AcPower, "yes".into(), true),
        (K::AcPower, "no".into(), false),
        (K::NeedsUpdate, "/etc".into(), false),
        (K::FirstBoot, "yes".into(), true),
        (K::FirstBoot, "no".into(), false),
        (K::User, "root".into(), true),
        (K::User, "0".into(), true),
        (K::User, "@system".into(), true),
        (K::User, "nobody".into(), false),
        (K::Group, "root".into(), true),
        (K::Group, "0".into(), true),
        (K::Group, "adm".into(), false),
        (K::ControlGroupController, "v2".into(), true),
        (K::ControlGroupController, "nonsense".into(), false),
        (K::Memory, "1M".into(), true),
        (K::Memory, ">= 1M".into(), true),
        (K::Memory, "< 1M".into(), false),
        (K::Memory, ">1000T".into(), false),
        (K::Cpus, "1".into(), true),
        (K::Cpus, format!("={cpus}"), true),
        (K::Cpus, format!("!={cpus}"), false),
        (K::Cpus, format!(">{cpus}"), false),
        (K::CpuFeature, flag.clone(), !flag.is_empty()),
        (K::CpuFeature, "nosuchflag".into(), false),
        (K::OsRelease, format!("ID={id}"), true),
        (K::OsRelease, format!("ID={id} ID!=other"), true),
        (K::OsRelease, "ID=other".into(), false),
        (K::OsRelease, "NO_SUCH_KEY=x".into(), false),
        (K::Credential, "any".into(), false),
        (K::MemoryPressure, "100%".into(), false),
        (K::CpuPressure, "100%".into(), false),
        (K::IoPressure, "100%".into(), false),
    ];
    let mut asked: std::collections::BTreeSet<ConditionKind> = table.iter().map(|(kind, ..)| *kind).collect();
    for (kind, argument, expected) in table {
        assert_eq!(holds_here(kind, &argument), expected, "Condition{}={argument}", kind.as_str());
    }
    asked.extend(ConditionKind::NAMES.iter().map(|(_, kind)| *kind).filter(|kind| kind.takes_path()));
    assert_eq!(asked.len(), ConditionKind::NAMES.len(), "a kind has no row, here or among the paths");
}

#[test]
fn questions_about_paths_have_answers() {
    use ConditionKind as K;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (file, link, gone, dangling) = (at("some.conf"), at("link"), at("gone"), at("dangling"));
    let (empty, script, socket, hollow) = (at("empty"), at("script"), at("socket"), at("hollow"));
    let dir = at("");
    std::fs::write(&file, "x").unwrap();
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(&hollow).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    std::os::unix::fs::symlink("/nowhere", &dangling).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // For each kind: what it holds for, and what it does not.
    let table: [(K, &[&str], &[&str]); 12] = [
        (K::PathExists, &[&file, &link, &dir, &socket], &[&gone, &dangling]),
        (K::PathExistsGlob, &[&at("*.conf"), &at("s?me.[c]onf")], &[&at("*.toml"), &at("no*/x")]),
        (K::PathIsDirectory, &[&dir, &hollow], &[&file, &gone]),
        (K::PathIsSymbolicLink, &[&link, &dangling], &[&file, &gone]),
        (K::PathIsMountPoint, &["/proc", "/"], &[&dir, &file, &gone]),
        (K::PathIsReadWrite, &[&dir, &file], &[&gone]),
        (K::PathIsEncrypted, &[], &[&dir, &gone]),
        (K::PathIsSocket, &[&socket], &[&file, &gone]),
        (K::DirectoryNotEmpty, &[&dir], &[&hollow, &file, &gone]),
        (K::FileNotEmpty, &[&file, &script], &[&empty, &dir, &gone]),
        (K::FileIsExecutable, &[&script], &[&file, &dir, &gone]),
        (K::FileIsExecutable, &["/bin/sh"], &[&empty]),
    ];
    for (kind, yes, no) in table {
        assert!(kind.takes_path());
        for (paths, expected) in [(yes, true), (no, false)] {
            for path in paths {
                assert_eq!(holds_here(kind, path), expected, "Condition{}={path}", kind.as_str());
                let negated = condition(kind, path, true, false);
                assert_eq!(check(&[negated], &facts()).is_ok(), !expected, "Condition{}=!{path}", kind.as_str());
            }
        }
    }
}
