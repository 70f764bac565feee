//! The steps on real packages, against the tools whose work they do. Ignored unless `GARBOARD_TEST_PACKAGES` names a
//! directory with one directory per package: `NAME/root` as `dpkg-deb --extract` makes it, `NAME/ctl` as
//! `dpkg-deb --control` does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use image_builder::recipe;
use image_builder::steps::accounts::{GroupSpec, UserSpec};
use image_builder::steps::files::{Entry, What};
use image_builder::steps::units::UnitSpec;
use image_builder::steps::{self, PackageRecord, StepsInput, StepsOutput};
use image_builder::tree::{Body, Kind, Node, Tree};

fn packages() -> PathBuf {
    PathBuf::from(std::env::var_os("GARBOARD_TEST_PACKAGES").expect("GARBOARD_TEST_PACKAGES names the unpacked packages"))
}

fn body(path: &Path) -> Body {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    Body::Range { file: Arc::new(file), offset: 0, len }
}

fn add(tree: &mut Tree, root: &Path, directory: &Path, origin: &Arc<str>) {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let inside = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let meta = path.symlink_metadata().unwrap();
        let kind = if meta.is_dir() {
            Kind::Directory
        } else if meta.is_symlink() {
            Kind::Symlink(fs::read_link(&path).unwrap().to_str().unwrap().to_owned())
        } else {
            Kind::File(body(&path))
        };
        let mut node = Node::new(kind, (meta.mode() & 0o7777) as u16, origin);
        (node.uid, node.gid) = (meta.uid(), meta.gid());
        tree.add(&inside, node).unwrap();
        if meta.is_dir() {
            add(tree, root, &path, origin);
        }
    }
}

fn record(name: &str, directory: &Path) -> PackageRecord {
    let control = fs::read_to_string(directory.join("ctl/control")).unwrap();
    let version = control.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap().to_owned();
    let mut scripts = BTreeMap::new();
    for script in ["preinst", "postinst", "prerm", "postrm", "config", "triggers"] {
        let path = directory.join("ctl").join(script);
        if path.exists() {
            let sum = Command::new("sha256sum").arg(&path).output().unwrap().stdout;
            scripts.insert(script.to_owned(), String::from_utf8(sum).unwrap().split(' ').next().unwrap().to_owned());
        }
    }
    PackageRecord { name: name.to_owned(), version, control, scripts }
}

fn entries(recipe: &recipe::Recipe) -> Vec<Entry> {
    let mut entries = Vec::new();
    for content in &recipe.content {
        let mut push = |path: String, what, mode| {
            entries.push(Entry { path, what, mode, owner: content.owner.clone(), group: content.group.clone() });
        };
        match &content.what {
            recipe::What::Text(text) => {
                push(content.path.clone(), What::File(Body::from_bytes(text.as_bytes())), content.mode.unwrap_or(0o644));
            }
            recipe::What::Copy(path) => push(content.path.clone(), What::File(body(path)), content.mode.unwrap_or(0o644)),
            recipe::What::Directory => push(content.path.clone(), What::Directory, content.mode.unwrap_or(0o755)),
            recipe::What::Link(target) => push(content.path.clone(), What::Link(target.clone()), 0o777),
            recipe::What::CopyTree(source) => {
                let mut pending = vec![source.clone()];
                while let Some(directory) = pending.pop() {
                    let Ok(list) = fs::read_dir(&directory) else { continue };
                    for entry in list {
                        let path = entry.unwrap().path();
                        let inside = path.strip_prefix(source).unwrap().to_str().unwrap();
                        let target = format!("{}/{inside}", content.path).trim_start_matches('/').to_owned();
                        if path.is_dir() {
                            pending.push(path);
                        } else {
                            push(target, What::File(body(&path)), 0o644);
                        }
                    }
                }
            }
        }
    }
    entries
}

/// The tree of one of our recipes after all steps.
fn build(name: &str) -> (Tree, StepsOutput, StepsInput) {
    let recipe = recipe::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes").join(format!("{name}.toml"))).unwrap();
    let mut tree = Tree::new();
    let mut input = StepsInput {
        entries: entries(&recipe),
        remove: recipe.remove.clone(),
        alternatives: recipe.alternatives.clone(),
        units: UnitSpec { enable: recipe.enable.clone(), mask: recipe.mask.clone() },
        initramfs_modules: recipe.kernel.initramfs_modules.clone(),
        groups: recipe.groups.iter().map(|group| GroupSpec { name: group.name.clone(), gid: group.gid }).collect(),
        users: recipe
            .users
            .iter()
            .map(|user| UserSpec {
                name: user.name.clone(),
                uid: user.uid,
                group: user.group.clone(),
                groups: user.groups.clone(),
                home: user.home.clone(),
                shell: user.shell.clone(),
                gecos: user.gecos.clone(),
            })
            .collect(),
        ..StepsInput::default()
    };
    let wanted = fs::read_to_string(packages().join(format!("../{name}.list"))).unwrap();
    for package in wanted.lines() {
        let directory = packages().join(package);
        add(&mut tree, &directory.join("root"), &directory.join("root"), &Arc::from(package));
        input.packages.push(record(package, &directory));
    }
    tree.put("usr/lib/garboard/init", Node::file(*b"", 0o755, &Arc::from("test"))).unwrap();
    tree.put("usr/bin/cloud-config", Node::file(*b"", 0o755, &Arc::from("test"))).unwrap();
    let start = Instant::now();
    let output = steps::apply(&mut tree, &input).unwrap();
    eprintln!("{name}: {} nodes, steps took {:?}", tree.len(), start.elapsed());
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
#[ignore = "needs GARBOARD_TEST_PACKAGES"]
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
#[ignore = "needs GARBOARD_TEST_PACKAGES"]
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
#[ignore = "needs GARBOARD_TEST_PACKAGES"]
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
