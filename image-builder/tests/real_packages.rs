//! The steps on real packages, against the tools whose work they do. They need the lock and the package cache that a
//! build of the recipe leaves behind, so `scripts/test` runs them after its builds, with `GARBOARD_PROGRAMS` set.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use image_builder::build::{self, BuildRequest, Sources};
use image_builder::debian::Debian;
use image_builder::debian::cache::Cache;
use image_builder::debian::lock::Lock;
use image_builder::debian::release::Keyring;
use image_builder::debian::transport::Transport;
use image_builder::progress::Silent;
use image_builder::recipe;
use image_builder::steps::{self, StepsInput, StepsOutput};
use image_builder::tree::{Kind, Tree};
use unit_files::{FsSource, HostFacts, Loader, UnitName};

/// The tree of one of our recipes after all steps, from the lock and the cache that a build of it left.
fn build(name: &str) -> (Tree, StepsOutput, StepsInput) {
    let programs = std::env::var_os("GARBOARD_PROGRAMS").expect("GARBOARD_PROGRAMS names the directory of init and cloud-config");
    let recipe = recipe::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes").join(format!("{name}.toml"))).unwrap();
    let request = BuildRequest {
        version: "1.0.0".parse().unwrap(),
        out: PathBuf::new(),
        formats: Vec::new(),
        locked: true,
        strict: true,
        update_root: None,
        programs: Some(programs.into()),
        sources: Sources { offline: true, ..Sources::default() },
    };
    let (tree, input, output) = build::root_tree(&recipe, &request, &Silent).unwrap();
    (tree, output, input)
}

/// Writes the part of a tree below `directory` to disk.
fn export(tree: &Tree, directory: &str, target: &Path) {
    for (path, node) in tree.iter().filter(|(path, _)| directory.is_empty() || path.starts_with(directory)) {
        let path = target.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match &node.kind {
            Kind::Directory => fs::create_dir_all(&path).unwrap(),
            Kind::File(body) => fs::write(&path, body.read().unwrap()).unwrap(),
            Kind::Symlink(to) => std::os::unix::fs::symlink(to, &path).unwrap(),
            Kind::HardLink(to) => fs::hard_link(target.join(to), &path).unwrap(),
        }
        if !matches!(node.kind, Kind::Symlink(_)) {
            // Owners need root and matter to nobody but who looks into an export by hand.
            let _ = std::os::unix::fs::chown(&path, Some(node.uid), Some(node.gid));
            fs::set_permissions(&path, PermissionsExt::from_mode(u32::from(node.mode))).unwrap();
        }
    }
}

fn text(tree: &Tree, path: &str) -> String {
    String::from_utf8(tree.file(path).unwrap_or_else(|| panic!("{path} is missing")).read().unwrap()).unwrap()
}

#[test]
#[ignore = "run by scripts/test after its builds"]
fn module_indices_are_those_of_depmod() {
    let (tree, output, _) = build("tiny");
    let release = output.kernel.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let modules = format!("usr/lib/modules/{release}");
    export(&tree, &modules, directory.path());
    std::os::unix::fs::symlink("usr/lib", directory.path().join("lib")).unwrap();
    let ours: Vec<String> = ["dep", "alias", "softdep", "devname"].map(|name| text(&tree, &format!("{modules}/modules.{name}"))).into();
    let status = Command::new("depmod").arg("-b").arg(directory.path()).arg(&release).status().unwrap();
    assert!(status.success());
    let directory = directory.path().join(&modules);
    for (name, ours) in ["alias", "softdep", "devname"].iter().zip(&ours[1..]) {
        let theirs = fs::read_to_string(directory.join(format!("modules.{name}"))).unwrap();
        let differs = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
        assert!(
            *ours == theirs,
            "modules.{name}: {} lines and {}; first difference {differs:#?}",
            ours.lines().count(),
            theirs.lines().count()
        );
    }
    // Each line lists the same modules, users before what they use; the order of independent ones is nobody's business.
    let theirs = fs::read_to_string(directory.join("modules.dep")).unwrap();
    let parse = |text: &str| -> Vec<(String, Vec<String>)> {
        let split =
            |line: &str| line.split_once(':').map(|(file, deps)| (file.to_owned(), deps.split_whitespace().map(str::to_owned).collect()));
        text.lines().map(|line| split(line).unwrap()).collect()
    };
    let (mine, theirs) = (parse(&ours[0]), parse(&theirs));
    assert_eq!(mine.len(), theirs.len());
    let closure: BTreeMap<&String, &Vec<String>> = mine.iter().map(|(file, deps)| (file, deps)).collect();
    for ((file, deps), (their_file, their_deps)) in mine.iter().zip(&theirs) {
        let sorted = |list: &Vec<String>| list.iter().cloned().collect::<std::collections::BTreeSet<_>>();
        assert_eq!((file, sorted(deps)), (their_file, sorted(their_deps)));
        for (at, dep) in deps.iter().enumerate() {
            assert!(!deps[..at].iter().any(|earlier| closure[dep].contains(earlier)), "{file}: {dep} comes after what it uses");
        }
    }
    eprintln!("initramfs: {:#?}", output.initramfs_modules);
}

#[test]
#[ignore = "run by scripts/test after its builds"]
fn the_loaders_cache_is_that_of_ldconfig() {
    let (mut tree, ..) = build("docker");
    let directory = tempfile::tempdir().unwrap();
    let list = |cache: &str| {
        let output = Command::new("/sbin/ldconfig").arg("-C").arg(directory.path().join(cache)).arg("-p").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.starts_with('\t')).map(str::to_owned).collect::<Vec<_>>()
    };
    fs::write(directory.path().join("ours"), tree.file("etc/ld.so.cache").unwrap().read().unwrap()).unwrap();
    let ours = list("ours");
    let names: Vec<String> = tree.iter().map(|(path, _)| path.to_owned()).collect();
    for path in names.iter().filter(|path| path.starts_with("usr/share") || path.starts_with("usr/bin") || path.starts_with("boot")) {
        tree.remove(path);
    }
    tree.remove("etc/ld.so.cache");
    let root = directory.path().join("root");
    export(&tree, "", &root);
    fs::create_dir_all(root.join("var/cache/ldconfig")).unwrap();
    assert!(Command::new("/sbin/ldconfig").arg("-r").arg(&root).status().unwrap().success());
    fs::copy(root.join("etc/ld.so.cache"), directory.path().join("theirs")).unwrap();
    let theirs = list("theirs");
    assert_eq!(ours, theirs);
    assert!(ours.len() > 80, "{ours:#?}");
}

#[test]
#[ignore = "run by scripts/test after its builds"]
fn the_docker_recipe_goes_through() {
    let (tree, output, input) = build("docker");
    let findings = steps::review::table().unwrap().findings(&input.packages);
    assert!(findings.is_empty(), "{}", steps::review::suggestion(&findings));
    assert_eq!(output.warnings, Vec::<String>::new());
    eprintln!("{}", text(&tree, "usr/lib/tmpfiles.d/garboard-packages.conf"));
    eprintln!("{:#?}\n{:#?}", output.ids, output.warnings);
    let mut size: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, node) in tree.iter() {
        if let Kind::File(body) = &node.kind {
            *size.entry(&node.origin).or_default() += body.len();
        }
    }
    eprintln!("{} MiB", size.values().sum::<u64>() >> 20);
    if let Some(target) = std::env::var_os("GARBOARD_TEST_EXPORT") {
        export(&tree, "", Path::new(&target));
    }
}

/// Ours or not, removed by the recipe or not: people bring them, and they have to do what they do elsewhere.
#[test]
#[ignore = "run by scripts/test after its builds"]
fn unit_files_of_the_packages_are_taken_as_they_are() {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/docker.toml");
    let debian = Debian {
        mirror: None,
        keyring: Keyring::debian().unwrap(),
        cache: Cache::open_default().unwrap(),
        transport: Transport::new(),
        offline: true,
        allow_expired: Vec::new(),
        now: 0,
    };
    let lock = Lock::read(&Lock::path(&recipe)).unwrap().unwrap();
    let tree = debian.unpack(&lock, &Silent).unwrap().tree;
    let mut said = Vec::new();
    let mut names = Vec::new();
    for (path, node) in tree.iter() {
        let Some(name) = path.strip_prefix("usr/lib/systemd/system/").and_then(|name| UnitName::parse(name).ok()) else { continue };
        let Kind::File(body) = &node.kind else { continue };
        let unit = Loader::<FsSource>::load_text(&name, path, &body.read().unwrap(), &HostFacts::default());
        let no_effect = ["RemoveIPC"];
        said.extend(unit.diagnostics.into_iter().filter(|one| !no_effect.contains(&one.key.as_str())).map(|one| one.to_string()));
        names.push(name.to_string());
    }
    for name in
        ["docker.service", "docker.socket", "containerd.service", "etcd.service", "ssh.service", "chrony.service", "chrony-wait.service"]
    {
        assert!(names.iter().any(|there| there == name), "{name} is not in {names:?}");
    }
    // systemd says the same of these two: a template that no instance is asked of.
    said.retain(|line| !line.contains("is not an instance of the template"));
    assert!(said.is_empty(), "{}", said.join("\n"));
}
