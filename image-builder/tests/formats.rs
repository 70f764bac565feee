//! What the image writers make, read by the tools that people trust: `fsck.erofs`, `veritysetup`, `sgdisk`,
//! `fsck.vfat`, `mtools`, `objdump`, `qemu-img`. None of them needs privilege here.

#![allow(clippy::unwrap_used, reason = "all of this is test code")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use image_builder::image::build::{ImageInput, ImageResult, assemble};
use image_builder::image::erofs;
use image_builder::image::gpt::PartitionSizes;
use image_builder::image::inspect::{inspect, kernel};
use image_builder::image::output::Format;
use image_builder::image::seed::Seed;
use image_builder::image::source::Source;
use image_builder::image::{FIXED_TIME, ImageError, MIB};
use image_builder::progress::Silent;
use image_builder::tree::{Body, Kind, Node, Tree};
use proptest::prelude::*;
use tempfile::TempDir;

/// Runs a program that must succeed, and gives what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|error| panic!("these tests need {program}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
    text
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn origin() -> Arc<str> {
    Arc::from("test")
}

fn bytes(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(len)
    .collect()
}

/// A tree with one of everything.
fn sample_tree() -> Tree {
    let origin = origin();
    let mut tree = Tree::new();
    let mut put = |path: &str, node: Node| tree.put(path, node).unwrap();
    put("usr/bin/tool", Node::file(bytes(10_000, 1), 0o755, &origin));
    put("usr/bin/tool2", Node::new(Kind::HardLink("usr/bin/tool".to_owned()), 0o755, &origin));
    put("usr/bin/block", Node::file(bytes(8192, 2), 0o4755, &origin));
    let mut ping = Node::file(bytes(5, 3), 0o755, &origin);
    ping.xattrs.insert("security.capability".to_owned(), vec![1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ping.xattrs.insert("user.note".to_owned(), vec![b'x'; 300]);
    put("usr/bin/ping", ping);
    put("bin", Node::symlink("usr/bin", &origin));
    put("etc/long-link", Node::symlink("x".repeat(4000), &origin));
    put("etc/longest-link", Node::symlink("x".repeat(4095), &origin));
    put("etc/empty", Node::file(*b"", 0o600, &origin));
    let mut state = Node::directory(&origin);
    (state.uid, state.gid, state.mode) = (100_000, 1000, 0o1770);
    put("srv/high-ids", state);
    put("tmp", Node { mode: 0o1777, ..Node::directory(&origin) });
    for number in 0..700 {
        put(&format!("usr/share/many/file-{number:04}-{}", "n".repeat(number % 90)), Node::file(bytes(number, 9), 0o644, &origin));
    }
    for number in 0..40 {
        put(&format!("usr/share/few/{}", "d".repeat(number + 50)), Node::directory(&origin));
    }
    tree
}

fn erofs_file(tree: &Tree, directory: &Path) -> PathBuf {
    let options = erofs::Options { seed: Seed::from_content(b"test"), label: "garboard".to_owned(), time: FIXED_TIME };
    let image = erofs::plan(tree, &options).unwrap();
    let path = directory.join("root.erofs");
    let mut written = Vec::new();
    image.write(&mut written).unwrap();
    assert_eq!(written.len() as u64, image.size());
    // Reading in odd pieces gives the same as writing in one go.
    let mut at = 0;
    for len in [1, 4095, 4097, 70_001, 3, 1 << 20].into_iter().cycle() {
        let mut part = vec![0xee; len.min(written.len() - at)];
        image.read_at(&mut part, at as u64).unwrap();
        assert!(part == written[at..at + part.len()], "at {at}");
        at += part.len();
        if at == written.len() {
            break;
        }
    }
    fs::write(&path, written).unwrap();
    path
}

/// Checks a tree against what `fsck.erofs` extracted of its image.
fn check_extracted(tree: &Tree, root: &Path) {
    let mut inodes: BTreeMap<&str, u64> = BTreeMap::new();
    for (path, node) in tree.iter() {
        let there = root.join(path);
        let metadata = fs::symlink_metadata(&there).unwrap_or_else(|error| panic!("{path}: {error}"));
        inodes.insert(path, metadata.ino());
        match &node.kind {
            Kind::Directory => assert!(metadata.is_dir(), "{path}"),
            Kind::File(body) => assert!(fs::read(&there).unwrap() == body.read().unwrap(), "{path}"),
            Kind::Symlink(target) => assert_eq!(fs::read_link(&there).unwrap(), Path::new(target), "{path}"),
            Kind::HardLink(target) => assert!(fs::read(&there).unwrap() == fs::read(root.join(target)).unwrap(), "{path}"),
        }
        if !matches!(node.kind, Kind::Symlink(_) | Kind::HardLink(_)) && metadata.uid() == node.uid {
            assert_eq!(metadata.permissions().mode() & 0o7777, u32::from(node.mode), "{path}");
        }
        assert_eq!(metadata.mtime(), i64::from(FIXED_TIME), "{path}");
    }
    let found = walk(root);
    assert_eq!(found, tree.len() - 1, "names in the image");
}

fn walk(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| 1 + if entry.file_type().unwrap().is_dir() { walk(&entry.path()) } else { 0 }).sum()
}

fn extract(image: &Path, directory: &Path) -> PathBuf {
    let root = directory.join("extracted");
    run("fsck.erofs", &["--no-preserve-owner", "--preserve-perms", &format!("--extract={}", text(&root)), text(image)]);
    root
}

#[test]
fn erofs_holds_the_tree() {
    let directory = TempDir::new().unwrap();
    let tree = sample_tree();
    let image = erofs_file(&tree, directory.path());
    check_extracted(&tree, &extract(&image, directory.path()));
    let summary = run("dump.erofs", &["-s", text(&image)]);
    assert!(summary.contains("sb_csum") && summary.contains("Filesystem created:"), "{summary}");
    let ping = run("dump.erofs", &["--path=/usr/bin/ping", text(&image)]);
    assert!(ping.contains("Size: 5") && ping.contains("Xattr size: 356"), "{ping}");
    let tool = run("dump.erofs", &["--path=/usr/bin/tool2", text(&image)]);
    assert!(tool.contains("Links: 2"), "{tool}");
    let high = run("dump.erofs", &["--path=/srv/high-ids", text(&image)]);
    assert!(high.contains("Uid: 100000   Gid: 1000  Access: 0770"), "{high}");
}

#[test]
fn erofs_extents_are_where_the_bodies_are() {
    let directory = TempDir::new().unwrap();
    let tree = sample_tree();
    let path = erofs_file(&tree, directory.path());
    let image = fs::read(path).unwrap();
    let options = erofs::Options { seed: Seed::from_content(b"test"), label: "garboard".to_owned(), time: FIXED_TIME };
    let extents = erofs::plan(&tree, &options).unwrap().extents();
    let mut end = 0;
    for extent in &extents {
        assert_eq!(extent.offset, end, "{extent:?}");
        end = extent.offset + extent.len.next_multiple_of(4096);
        if let Some(path) = &extent.path {
            let body = tree.file(path).unwrap().read().unwrap();
            assert!(image[extent.offset as usize..(extent.offset + extent.len) as usize] == body, "{path}");
        }
    }
    assert_eq!(end, image.len() as u64);
    let paths: Vec<_> = extents.iter().skip(1).map(|extent| extent.path.clone().unwrap()).collect();
    assert!(paths.is_sorted() && paths.contains(&"usr/bin/tool".to_owned()) && !paths.contains(&"usr/bin/tool2".to_owned()));
}

/// Random small trees: names from a few letters so that they meet, bodies around block sizes.
fn any_tree() -> impl Strategy<Value = Tree> {
    let name = prop_oneof!["[a-c]{1,2}", "[.!~-][a-z0-9]{1,3}", "[a-z]{200,255}"];
    let path = proptest::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let len = prop_oneof![Just(0_usize), 1..40_usize, 4090..4100_usize, 8190..8195_usize];
    let node = (0..4_u8, len, 0..0o10000_u16, any::<u32>()).prop_map(|(kind, len, mode, seed)| (kind, len, mode | 0o700, seed));
    proptest::collection::vec((path, node), 0..60).prop_map(|nodes| {
        let mut tree = Tree::new();
        let mut file: Option<String> = None;
        for (path, (kind, len, mode, seed)) in nodes {
            let kind = match (kind, &file) {
                (0, _) => Kind::Directory,
                (1, _) => Kind::Symlink("t".repeat(len.clamp(1, 4095))),
                (2, Some(target)) => Kind::HardLink(target.clone()),
                _ => Kind::File(Body::from_bytes(bytes(len, seed))),
            };
            let is_file = matches!(kind, Kind::File(_));
            // What cannot be there (a file as a parent, a taken name) is simply not in this tree.
            if tree.add(&path, Node::new(kind, mode, &origin())).is_ok() && is_file {
                file = Some(path);
            }
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn erofs_holds_any_tree(tree in any_tree()) {
        let directory = TempDir::new().unwrap();
        let image = erofs_file(&tree, directory.path());
        check_extracted(&tree, &extract(&image, directory.path()));
    }
}

/// The boot stub of this test: headers with room for sections, and one section.
fn stub() -> Vec<u8> {
    let mut stub = vec![0; 1536];
    let mut put = |at: usize, value: &[u8]| stub[at..at + value.len()].copy_from_slice(value);
    put(0, b"MZ");
    put(0x3c, &[0x80]);
    put(0x80, b"PE\0\0\x64\x86\x01\0");
    put(0x94, &[240, 0, 0x2e, 2, 0x0b, 2]);
    put(0x98 + 16, &4096_u32.to_le_bytes());
    put(0x98 + 32, &4096_u32.to_le_bytes());
    put(0x98 + 36, &512_u32.to_le_bytes());
    put(0x98 + 56, &8192_u32.to_le_bytes());
    put(0x98 + 60, &1024_u32.to_le_bytes());
    put(0x98 + 68, &[10]);
    put(0x98 + 108, &[16]);
    put(0x188, b".text");
    for (offset, value) in [(8, 5_u32), (12, 4096), (16, 512), (20, 1024), (36, 0x6000_0020)] {
        put(0x188 + offset, &value.to_le_bytes());
    }
    put(1024, b"hello");
    stub
}

const OS_RELEASE: &str = "ID=garboard\nIMAGE_ID=garboard\nIMAGE_VERSION=1.0\nPRETTY_NAME=\"Garboard 1.0\"\n";

fn build(directory: &Path, formats: &[Format]) -> ImageResult {
    try_build(directory, formats).unwrap()
}

fn try_build(directory: &Path, formats: &[Format]) -> Result<ImageResult, ImageError> {
    let mut tree = sample_tree();
    tree.put("usr/lib/os-release", Node::file(OS_RELEASE.as_bytes(), 0o644, &origin())).unwrap();
    let mut initramfs = Tree::new();
    initramfs.put("init", Node::file(bytes(9000, 4), 0o755, &origin())).unwrap();
    let input = ImageInput {
        tree: &tree,
        version: "1.0".parse().unwrap(),
        kernel: Body::from_bytes(bytes(100_000, 5)),
        kernel_release: "6.12-test",
        initramfs: &initramfs,
        stub: Body::from_bytes(stub()),
        systemd_boot: Body::from_bytes(bytes(50_000, 6)),
        os_release: OS_RELEASE,
        cmdline: &["console=ttyS0".to_owned()],
        sizes: PartitionSizes { esp: 64 * MIB, root: 32 * MIB, state: 8 * MIB },
        seed: Seed::from_content(b"formats"),
        formats,
        directory: directory.to_owned(),
        base_name: "test-1.0-x86-64",
    };
    assemble(&input, &Silent)
}

/// Copies a partition out of a raw image.
fn partition(image: &Path, number: u32, to: &Path) {
    let info = run("sgdisk", &["-i", &number.to_string(), text(image)]);
    let sector = |key: &str| -> u64 {
        let line = info.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{info}"));
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (first, last) = (sector("First sector: "), sector("Last sector: "));
    let mut image = File::open(image).unwrap();
    image.seek(SeekFrom::Start(first * 512)).unwrap();
    let mut part = image.take((last + 1 - first) * 512);
    std::io::copy(&mut part, &mut File::create(to).unwrap()).unwrap();
}

#[test]
fn raw_image_satisfies_every_tool() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let result = build(directory.path(), &[Format::Raw]);
    let image = &result.outputs[0].path;
    assert_eq!(fs::metadata(image).unwrap().len(), result.disk_size);
    assert!(fs::metadata(image).unwrap().blocks() * 512 < 8 * MIB, "the file is sparse");
    let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["test-1.0-x86-64.raw"], "nothing temporary is left");

    let verdict = run("sgdisk", &["-v", text(image)]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let hash = result.root_hash_hex();
    let root_info = run("sgdisk", &["-i", "2", text(image)]);
    let guid = root_info.lines().find_map(|line| line.strip_prefix("Partition unique GUID: ")).unwrap();
    assert_eq!(guid.replace('-', "").to_lowercase(), hash[..32]);

    for (number, name) in [(1, "esp"), (2, "root"), (3, "verity")] {
        partition(image, number, &at(name));
    }
    run("veritysetup", &["verify", text(&at("root")), text(&at("verity")), &hash]);
    run("fsck.erofs", &[text(&at("root"))]);
    run("fsck.vfat", &["-n", text(&at("esp"))]);
    run("mcopy", &["-i", text(&at("esp")), "::EFI/Linux/garboard_1.0.efi", text(&at("uki.efi"))]);
    assert!(fs::read(at("uki.efi")).unwrap() == result.uki);
    run("objcopy", &["-O", "binary", "--only-section=.cmdline", text(&at("uki.efi")), text(&at("cmdline"))]);
    let cmdline = fs::read_to_string(at("cmdline")).unwrap();
    assert_eq!(cmdline.trim_end_matches('\0'), format!("roothash={hash} panic=10 console=ttyS0"));
    let sections = run("objdump", &["-h", text(&at("uki.efi"))]);
    assert!([".osrel", ".uname", ".initrd", ".linux"].iter().all(|name| sections.contains(name)), "{sections}");

    // The layout names every byte of the UKI once, files of the initramfs where they are.
    assert_eq!(result.uki_layout.iter().map(|(_, len)| *len).sum::<u64>(), result.uki.len() as u64);
    let before = result.uki_layout.iter().take_while(|(name, _)| name != ".initrd/init");
    let start = usize::try_from(before.map(|(_, len)| *len).sum::<u64>()).unwrap();
    assert!(result.uki[start..start + 9000] == bytes(9000, 4));
}

#[test]
fn every_format_holds_the_same_disk() {
    let directory = TempDir::new().unwrap();
    let result = build(directory.path(), &Format::ALL);
    let path = |format| result.outputs.iter().find(|output| output.format == format).unwrap().path.clone();
    let (raw, zst, qcow2) = (path(Format::Raw), path(Format::RawZst), path(Format::Qcow2));
    let check = run("qemu-img", &["check", text(&qcow2)]);
    assert!(check.contains("No errors were found"), "{check}");
    run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&raw), text(&qcow2)]);
    assert!(fs::metadata(&qcow2).unwrap().len() < 12 * MIB, "only clusters with data are there");
    let unpacked = zstd::Decoder::new(File::open(&zst).unwrap()).unwrap();
    let mut unpacked = std::io::BufReader::with_capacity(1 << 20, unpacked);
    let mut raw = std::io::BufReader::with_capacity(1 << 20, File::open(raw).unwrap());
    let (mut one, mut two) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for _ in 0..result.disk_size >> 20 {
        raw.read_exact(&mut one).unwrap();
        unpacked.read_exact(&mut two).unwrap();
        assert!(one == two);
    }
    assert_eq!(unpacked.read(&mut two).unwrap(), 0);
}

#[test]
fn inspect_reads_every_format() {
    let directory = TempDir::new().unwrap();
    let result = build(directory.path(), &Format::ALL);
    for output in &result.outputs {
        let report = inspect(&output.path, true, &Silent).unwrap();
        assert_eq!(report.problems, Vec::<String>::new(), "{}", output.format);
        assert_eq!((report.format, report.size), (output.format.name(), result.disk_size));
        let slot = &report.slots[0];
        assert_eq!(slot.version.as_deref(), Some("1.0"));
        assert_eq!((slot.root_hash.clone(), slot.intact), (Some(result.root_hash_hex()), Some(true)));
        assert_eq!(slot.file_system.as_ref().unwrap().size, result.root_size);
        assert_eq!(report.slots[1].version, None);
        let uki = &report.ukis[0];
        assert_eq!((uki.file.as_str(), uki.slot.as_deref()), ("garboard_1.0.efi", Some("a")));
        assert_eq!((uki.cmdline.as_deref(), uki.kernel.as_deref()), (Some(result.cmdline.as_str()), Some("6.12-test")));
        assert_eq!(uki.os_release["PRETTY_NAME"], "Garboard 1.0");
        let text = report.to_string();
        assert!(text.contains("slot a: version 1.0") && text.contains("slot b: empty") && text.contains("everything fits"), "{text}");
        assert!(kernel(&output.path).unwrap() == bytes(100_000, 5));
        assert!(serde_json::to_string(&report).unwrap().contains("\"role\":\"verity-a\""));
    }
}

#[test]
fn inspect_names_what_is_damaged() {
    let directory = TempDir::new().unwrap();
    let result = build(directory.path(), &[Format::Raw]);
    let path = &result.outputs[0].path;
    let report = inspect(path, false, &Silent).unwrap();
    assert_eq!(report.slots[0].intact, None);
    let offset = |role: &str| report.partitions.iter().find(|partition| partition.role == Some(role)).unwrap().offset;
    let flip = |offset: u64| {
        use std::os::unix::fs::FileExt;
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    };
    let damage = |at: u64, expected: &str| {
        flip(at);
        let report = inspect(path, true, &Silent).unwrap();
        assert!(report.problems.iter().any(|problem| problem.contains(expected)), "{at}: {:?}", report.problems);
        assert!(!report.is_sound());
        flip(at);
    };
    let last_file = result.extents.last().unwrap();
    damage(offset("root-a") + last_file.offset + last_file.len - 1, "slot a is not what its root hash says: its data have the root hash");
    damage(offset("verity-a") + result.verity_size - 4096, "slot a is not what its root hash says: its hash tree is damaged");
    damage(offset("root-a") + 1024, "slot a has no EROFS");
    damage(offset("verity-a"), "no verity superblock");
    damage(512 + 60, "the partition table at the start of the disk is damaged");
    damage(result.disk_size - 512 + 60, "the backup of the partition table at the end of the disk is damaged");
    assert!(inspect(path, true, &Silent).unwrap().is_sound());
    let other = directory.path().join("other");
    fs::write(&other, b"no image").unwrap();
    let error = inspect(&other, false, &Silent).unwrap_err().to_string();
    assert!(error.contains("is not a disk image"), "{error}");
}

#[test]
fn veritysetup_builds_the_same_tree() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    for blocks in [1, 2, 128, 129, 1000] {
        let data = bytes(blocks * 4096, 8);
        fs::write(at("data"), &data).unwrap();
        let salt = [0x5a; 32];
        let uuid = Seed::from_content(b"x").uuid("verity");
        let superblock = disk_layout::VeritySuperblock { uuid, data_blocks: blocks as u64, salt: salt.to_vec() };
        let tree = image_builder::image::verity::hash_tree(&data, &superblock, &|_| ()).unwrap();
        let salt = format!("--salt={}", "5a".repeat(32));
        let output = run("veritysetup", &["format", &salt, &format!("--uuid={uuid}"), text(&at("data")), text(&at("theirs"))]);
        let hash = image_builder::digest::hex(&tree.root_hash);
        assert!(output.contains(&hash), "{blocks} blocks: {hash}\n{output}");
        assert!(fs::read(at("theirs")).unwrap() == tree.bytes, "{blocks} blocks");
        fs::remove_file(at("theirs")).unwrap();
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (one, two) = (build(first.path(), &Format::ALL), build(second.path(), &Format::ALL));
    assert_eq!(one.outputs.len(), Format::ALL.len());
    for (one, two) in one.outputs.iter().zip(&two.outputs) {
        assert!(fs::read(&one.path).unwrap() == fs::read(&two.path).unwrap(), "{}", one.format);
    }
}

#[test]
fn a_full_disk_is_one_clear_error_and_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let limit =
        format!("ulimit -f 64; trap '' XFSZ; exec {:?} --exact full_disk_child --ignored --nocapture", std::env::current_exe().unwrap());
    let child = Command::new("sh").args(["-c", &limit]).env("FORMATS_DIRECTORY", directory.path()).output().unwrap();
    let output = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(output.contains("cannot write '") && output.contains("test-1.0-x86-64.raw': File too large"), "{output}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

/// Not a test of its own: it runs under a limit on file sizes, as a disk that fills up.
#[test]
#[ignore = "run by a_full_disk_is_one_clear_error_and_leaves_nothing"]
fn full_disk_child() {
    let Some(directory) = std::env::var_os("FORMATS_DIRECTORY") else { return };
    println!("{}", try_build(Path::new(&directory), &[Format::Raw]).unwrap_err());
}
