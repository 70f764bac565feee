//! `garboard diff`: where the bytes of an update go, of two releases as builds leave them.

use std::fs;
use std::path::Path;

use publisher::PublishError;
use publisher::diff::{Bytes, Difference, diff, one};
use publisher::parts::{PARTS_FILE, ROOT_FILE, UKI_FILE};

use crate::common::parts;
use crate::world::noise;

/// Leaves the parts of a release of these files, each with its package, and this kernel.
fn build(out: &Path, version: &str, files: &[(&str, &str, Vec<u8>)], kernel: &[u8]) {
    let mut root = noise(7, 4096);
    let (mut extents, mut owners) = (vec![(String::new(), 4096)], vec![String::new()]);
    for (path, owner, body) in files {
        extents.push(((*path).to_owned(), body.len() as u64));
        owners.push((*owner).to_owned());
        root.extend(body);
        root.resize(root.len().next_multiple_of(4096), 0);
    }
    let directory = out.join(format!("tiny-{version}-x86_64.release"));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(ROOT_FILE), &root).unwrap();
    fs::write(directory.join(UKI_FILE), [version.as_bytes(), kernel].concat()).unwrap();
    let mut parts = parts(version, &root, 0, extents, &[("", version.len()), (".linux", kernel.len())]);
    parts.owners = owners;
    fs::write(directory.join(PARTS_FILE), serde_json::to_vec(&parts).unwrap()).unwrap();
}

/// What 1.1 costs hosts of 1.0: a library and a program changed a little, one came, one stayed, and the kernel is another.
fn found() -> Difference {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    let (library, program, kept) = (noise(1, 50_000), noise(2, 300_000), noise(3, 9000));
    let changed = |body: &[u8]| [&body[..1000], b"new", &body[1000..]].concat();
    let before = [("usr/bin/dockerd", "docker.io", program.clone()), ("usr/bin/kept", "docker.io", kept.clone())];
    build(&old, "1.0", &[&before[..], &[("usr/lib/libz.so", "zlib1g", library.clone())]].concat(), &noise(4, 40_000));
    let after = [
        ("usr/bin/dockerd", "docker.io", changed(&program)),
        ("usr/bin/kept", "docker.io", kept),
        ("usr/lib/docker/plugin", "docker.io", noise(5, 7000)),
        ("usr/lib/libz.so", "zlib1g", changed(&library)),
    ];
    build(&new, "1.1", &after, &noise(6, 41_000));
    diff(&one(&old).unwrap(), &one(&new).unwrap()).unwrap()
}

fn sum(of: impl Iterator<Item = Bytes>) -> Bytes {
    of.fold(Bytes::default(), |sum, bytes| Bytes {
        new: sum.new + bytes.new,
        chunks: sum.chunks + bytes.chunks,
        patch: sum.patch + bytes.patch,
    })
}

#[test]
fn bytes_are_told_by_file_and_by_package_and_sum_up() {
    let found = found();
    assert_eq!((found.from.as_str(), found.to.as_str()), ("tiny 1.0", "tiny 1.1"));
    let file = |path: &str| found.files.iter().find(|file| file.path == path).map(|file| (file.package.as_str(), file.bytes)).unwrap();

    let mut paths: Vec<(&str, u64)> = found.files.iter().map(|file| (file.path.as_str(), file.bytes.new)).collect();
    paths.sort_unstable();
    // What stayed is not there: neither the metadata, which are the same, nor the file.
    let new = [
        ("UKI:.linux", 41_000),
        ("UKI:headers", 3),
        ("usr/bin/dockerd", 300_003),
        ("usr/lib/docker/plugin", 7000),
        ("usr/lib/libz.so", 50_003),
    ];
    assert_eq!(paths, new);
    // A kernel of other bytes costs all of them by either way; three bytes more cost little by patch, and all chunks by chunks.
    let (owner, kernel) = file("UKI:.linux");
    assert!(owner == "UKI" && kernel.patch >= 41_000 && kernel.chunks >= 41_000, "{kernel:?}");
    for (path, owner) in [("usr/bin/dockerd", "docker.io"), ("usr/lib/libz.so", "zlib1g")] {
        let (of, bytes) = file(path);
        assert!(of == owner && bytes.patch < 300 && bytes.chunks >= bytes.new, "{path}: {bytes:?}");
    }
    assert!(file("usr/lib/docker/plugin").1.patch >= 7000);

    for (name, bytes) in &found.packages {
        assert_eq!(*bytes, sum(found.files.iter().filter(|file| file.package == *name).map(|file| file.bytes)), "{name}");
    }
    assert_eq!(found.total, sum(found.files.iter().map(|file| file.bytes)));
    assert_eq!(found.total, sum(found.packages.iter().map(|(_, bytes)| *bytes)));
    // The largest patch first, and both parts of the new image, whose files begin at blocks.
    assert!(found.files.windows(2).all(|pair| pair[0].bytes.patch >= pair[1].bytes.patch));
    assert_eq!(found.packages.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["UKI", "docker.io", "zlib1g"]);
    let blocks = |len: u64| len.next_multiple_of(4096);
    assert_eq!(found.image, 4096 + blocks(300_003) + blocks(9000) + blocks(7000) + blocks(50_003) + 3 + 41_000);
}

#[test]
fn a_directory_with_parts_of_several_releases_is_not_compared() {
    let directory = tempfile::tempdir().unwrap();
    for version in ["1.0", "1.1"] {
        build(directory.path(), version, &[], b"kernel");
    }
    let error = one(directory.path()).err().unwrap();
    assert!(matches!(error, PublishError::Text { .. }) && error.to_string().contains("several releases"), "{error}");
    assert_eq!(one(&directory.path().join("tiny-1.1-x86_64.release")).unwrap().version.as_str(), "1.1");
}
