//! What was built by `scripts/test`, built again where little is allowed. These tests need the images, locks and package
//! cache of that build, so `scripts/test` runs them after it, with `GARBOARD_TEST_IMAGES` (the directory of the images)
//! and `GARBOARD_PROGRAMS` (the directory of `garboard` and of the programs that it puts into images) set.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is test code")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use image_builder::debian::cache::Cache;
use image_builder::debian::lock::Lock;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};
use tempfile::TempDir;

/// `nobody`.
const UID: u32 = 65534;

fn variable(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: scripts/test runs these tests")).into()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A directory with all that a build of a recipe needs, readable to its owner alone: the checkout, the programs, and the
/// unpacked packages.
fn copy_of_everything(recipe: &str) -> TempDir {
    let place = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    for directory in ["", "init", "cloud-config", "update-agent", "reboot-locksmith"] {
        fs::create_dir_all(at("checkout").join(directory)).unwrap();
    }
    for directory in ["recipes", "init/units", "cloud-config/units", "update-agent/units", "reboot-locksmith/units"] {
        run("cp", &["-r", text(&repository().join(directory)), text(&at("checkout").join(directory))]);
    }
    fs::create_dir(at("bin")).unwrap();
    for program in ["garboard", "init", "host-programs"] {
        fs::copy(variable("GARBOARD_PROGRAMS").join(program), at("bin").join(program)).unwrap();
    }
    fs::copy(std::env::current_exe().unwrap(), at("bin/confine")).unwrap();
    let lock = Lock::read(&Lock::path(&repository().join("recipes").join(format!("{recipe}.toml")))).unwrap().expect("a lock");
    let cache = Cache::open_default().unwrap();
    for package in &lock.packages {
        let sum = package.sha256.to_string();
        for ending in ["index", "data"] {
            let name = format!("unpacked/1/{}/{sum}.{ending}", &sum[..2]);
            fs::create_dir_all(at("cache").join(&name).parent().unwrap()).unwrap();
            fs::copy(cache.root().join(&name), at("cache").join(&name)).unwrap();
        }
    }
    for directory in ["home", "tmp", "out"] {
        fs::create_dir(at(directory)).unwrap();
    }
    run("chmod", &["-R", "go-rwx", text(&at("checkout")), text(&at("cache")), text(&at("bin"))]);
    if is_root() {
        run("chown", &["-R", &format!("{UID}:{UID}"), text(place.path())]);
    }
    place
}

/// A command that runs as nobody (unless this test is run by an ordinary user), without capabilities, with an empty
/// environment but these variables, and confined by [`confined_child`].
fn confined(place: &Path, program: &str, arguments: &[&str]) -> Command {
    let helper = place.join("bin/confine");
    // By its path: the environment of what it starts has none.
    let path = std::env::var_os("PATH").unwrap();
    let setpriv = std::env::split_paths(&path).map(|directory| directory.join("setpriv")).find(|path| path.exists());
    let mut command = Command::new(setpriv.expect("these tests need setpriv of util-linux"));
    command.arg("--no-new-privs");
    if is_root() {
        command.args([&format!("--reuid={UID}"), &format!("--regid={UID}"), "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    }
    command.arg("--").arg(helper).args(["--exact", "confined_child", "--ignored", "--nocapture"]).env_clear();
    let line: Vec<&str> = [&[program], arguments].concat();
    command.env("CONFINED", line.join("\n")).env("HOME", place.join("home")).env("TMPDIR", place.join("tmp"));
    command.env("PATH", "/nowhere").env("TZ", "Pacific/Auckland").env("LC_ALL", "C").env("LOGNAME", "other").env("USER", "other");
    command.current_dir(place.join("home"));
    command
}

/// Not a test of its own: becomes the program in `CONFINED`, in which every attempt to start another program, to use the
/// network, a mount, a namespace, a loop device or a kernel module ends with SIGSYS. One processor, and no file that is
/// made is readable to others.
#[test]
#[ignore = "run by the tests of this file"]
fn confined_child() {
    let Ok(line) = std::env::var("CONFINED") else { return };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let mut one = rustix::thread::CpuSet::new();
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    one.set((0..1024).find(|&cpu| all.is_set(cpu)).unwrap());
    rustix::thread::sched_setaffinity(None, &one).unwrap();
    for filter in filters() {
        apply_filter(&filter).unwrap();
    }
    let mut words = line.split('\n');
    let error = Command::new(words.next().unwrap()).args(words).env_remove("CONFINED").exec();
    panic!("{line}: {error}");
}

fn filters() -> [BpfProgram; 2] {
    let condition = |argument, length, operation, value| SeccompCondition::new(argument, length, operation, value).unwrap();
    let rule = |condition| SeccompRule::new(vec![condition]).unwrap();
    let mut forbidden: BTreeMap<i64, Vec<SeccompRule>> = [
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_fsopen,
        libc::SYS_fsmount,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_mount_setattr,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mknod,
        libc::SYS_mknodat,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_ptrace,
        libc::SYS_bpf,
        libc::SYS_setuid,
        libc::SYS_setresuid,
    ]
    .map(|call| (call, Vec::new()))
    .into();
    // Threads are made with CLONE_THREAD, programs without.
    let no_thread = condition(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64), 0);
    forbidden.insert(libc::SYS_clone, vec![rule(no_thread)]);
    // Requests of loop devices and of the device mapper.
    let kinds = [0x4c00, 0xfd00].map(|kind| rule(condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(0xff00), kind)));
    forbidden.insert(libc::SYS_ioctl, kinds.into());
    // The flags of clone3 are in memory, where a filter cannot look: glibc falls back to clone when it is not there.
    let no_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let arch = TargetArch::x86_64;
    let compile = |rules, action| BpfProgram::try_from(SeccompFilter::new(rules, SeccompAction::Allow, action, arch).unwrap()).unwrap();
    [compile(no_clone3, SeccompAction::Errno(libc::ENOSYS as u32)), compile(forbidden, SeccompAction::KillProcess)]
}

fn explain(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
#[ignore = "run by scripts/test after its builds"]
fn an_ordinary_user_without_any_privilege_or_tool_builds_the_same_bytes() {
    let place = copy_of_everything("docker");
    let at = |name: &str| place.path().join(name);
    if is_root() {
        // The confinement confines: a shell may run, but nothing that it would start, and no loop device is in reach.
        let output = confined(place.path(), "/bin/sh", &["-c", "/bin/true; echo reached"]).output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{}", explain(&output));
        let output = confined(place.path(), "/bin/sh", &["-c", "read x < /dev/loop-control && echo reached"]).output().unwrap();
        assert!(!output.status.success() && !String::from_utf8_lossy(&output.stdout).contains("reached"), "{}", explain(&output));
    }
    let output = confined(
        place.path(),
        text(&at("bin/garboard")),
        &[
            "build",
            text(&at("checkout/recipes/docker.toml")),
            "--version=1.0.0",
            "--out",
            text(&at("out")),
            "--cache",
            text(&at("cache")),
            "--format=raw",
            "--locked",
            "--offline",
            "--strict",
        ],
    )
    .output()
    .unwrap();
    assert!(output.status.success(), "{}", explain(&output));
    let images = variable("GARBOARD_TEST_IMAGES");
    for ending in ["raw", "manifest.json", "spdx.json", "release/parts.json", "release/uki.efi"] {
        let name = format!("docker-1.0.0-x86_64.{ending}");
        run("cmp", &[text(&images.join(&name)), text(&at("out").join(&name))]);
    }
    for directory in ["home", "tmp"] {
        assert_eq!(fs::read_dir(at(directory)).unwrap().count(), 0, "nothing is left in {directory}");
    }
    assert_eq!(fs::read_dir(at("out")).unwrap().count(), 4);
}

fn build_of_tiny(out: &Path) -> Command {
    let mut command = Command::new(variable("GARBOARD_PROGRAMS").join("garboard"));
    command.arg("build").arg(repository().join("recipes/tiny.toml")).args(["--version=1.0.0", "--format=raw", "--locked", "--offline"]);
    command.arg("--out").arg(out);
    command
}

#[test]
#[ignore = "run by scripts/test after its builds"]
fn a_disk_that_fills_up_is_one_clear_line_and_leaves_nothing() {
    if !is_root() || !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a small file system to fill up needs root and mounts; tests/formats.rs has a limit on files instead");
        return;
    }
    let place = TempDir::new().unwrap();
    let build = build_of_tiny(place.path());
    let arguments: Vec<&str> = build.get_args().map(|argument| argument.to_str().unwrap()).collect();
    // The mount is in a namespace of its own and goes away with it.
    let script = "mount -t tmpfs -o size=40m tmpfs \"$0\" && { \"$@\"; code=$?; ls -A \"$0\"; exit $code; }";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(place.path())
        .arg(build.get_program())
        .args(&arguments)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.lines().last().unwrap().contains("tiny-1.0.0-x86_64.raw': No space left on device"), "{error}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing is left");
}

#[test]
#[ignore = "run by scripts/test after its builds"]
fn a_build_that_is_killed_leaves_nothing_under_a_final_name() {
    let place = TempDir::new().unwrap();
    let mut child = build_of_tiny(place.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    // As soon as the image is being written.
    while fs::read_dir(place.path()).unwrap().count() == 0 {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "no output was begun");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let names: Vec<String> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| name.starts_with('.')), "{names:?}");
    // What was left does not hinder the next build.
    assert!(build_of_tiny(place.path()).output().unwrap().status.success());
}

/// A cache with the real archive's release files and indexes, and no package.
fn cache_of_indexes() -> TempDir {
    let place = TempDir::new().unwrap();
    let cache = Cache::open_default().unwrap();
    for directory in ["releases", "indexes"] {
        run("cp", &["-r", text(&cache.root().join(directory)), text(place.path())]);
    }
    place
}

/// `garboard lock` from a cache, without the network: exit code 1 and the one line on standard error.
fn refused_lock(recipe: &str, cache: &Path) -> String {
    let place = TempDir::new().unwrap();
    let path = place.path().join("r.toml");
    fs::write(&path, format!("extends = {:?}\n{recipe}", repository().canonicalize().unwrap().join("recipes/tiny.toml"))).unwrap();
    let mut command = Command::new(variable("GARBOARD_PROGRAMS").join("garboard"));
    let output = command.args(["lock", "--offline", "-q", "--cache"]).arg(cache).arg(&path).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(!path.with_extension("lock").exists() && error.len() < 1000, "{error}");
    error
}

#[test]
#[ignore = "run by scripts/test after its builds"]
fn what_the_archive_lacks_or_what_was_tampered_with_is_one_line() {
    let place = cache_of_indexes();
    let error = refused_lock("[packages]\ninclude = ['openssh-servr']\n", place.path());
    assert!(error.contains("no package 'openssh-servr'") && error.contains("openssh-server"), "{error}");
    let error = refused_lock("[packages]\ninclude = ['sysvinit-core', 'systemd-sysv']\n", place.path());
    assert!(error.contains("sysvinit-core") && error.contains("systemd-sysv") && error.contains("conflict"), "{error}");
    // What is right is refused only for its packages, which this cache does not have.
    assert!(refused_lock("", place.path()).contains("is not in the package cache"));

    let change = |directory: &str, from_end: &[usize]| {
        for entry in fs::read_dir(place.path().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            let end = bytes.len();
            from_end.iter().for_each(|at| bytes[end - at] ^= 1);
            fs::write(&path, bytes).unwrap();
        }
    };
    change("indexes", &[100]);
    let error = refused_lock("", place.path());
    assert!(error.contains("the index of trixie/main is not in the package cache"), "{error}");
    // In the signed text; then, with that restored, in its signatures, of which one would be enough.
    for from_end in [vec![20_000], (60..1500).step_by(40).collect()] {
        change("releases", &from_end);
        let error = refused_lock("", place.path());
        assert!(error.contains("trixie/InRelease") && error.contains("sign") && error.len() < 600, "{from_end:?}: {error}");
        change("releases", &from_end);
    }
}
