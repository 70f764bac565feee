//! `/etc` as an overlay over the image's, and the directories that live on state.
//!
//! A file in the upper directory hides the image's for ever, which is right for what an operator wrote and wrong for what
//! merely stayed behind. So, before the overlay is mounted, upper files that equal the image's are dropped, and files
//! that hide an image file which has changed since are reported; the user database is merged.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount, mount_bind};

use super::failure::Failure;
use super::state::STATE;
use super::user_database::{Database, merge};
use crate::boot::BootRecord;
use crate::modules::Loader;

/// Directories that are bind mounts from state.
const BOUND: [&str; 5] = ["var", "home", "root", "opt", "srv"];
/// What the overlay needs beside its upper directory: its work directory, the record of what was hidden, the bases of merges.
const WORK: &str = "etc-overlay/work";
const HIDDEN: &str = "etc-overlay/hidden.json";
const BASES: &str = "etc-overlay/base";

/// Mounts `/etc`, `/var`, `/home`, `/root`, `/opt` and `/srv`.
pub(super) fn assemble(record: &mut BootRecord) -> Result<(), Failure> {
    let state = Path::new(STATE);
    let upper = state.join("etc");
    for path in [&upper, &state.join(WORK), &state.join(BASES), &state.join("units")] {
        fs::create_dir_all(path).map_err(|error| Failure::StateTree { path: path.clone(), error })?;
    }
    if let Err(error) = tidy(Path::new("/etc"), &upper, &state.join(HIDDEN), record) {
        record.warnings.push(format!("cannot compare {} with the image: {error}", upper.display()));
    }
    for (name, database) in Database::FILES {
        if let Err(error) = merge_file(name, database, Path::new("/etc"), &upper, &state.join(BASES)) {
            record.warnings.push(format!("cannot merge /etc/{name} with the image's: {error}"));
        }
    }
    mount_etc(&upper, &state.join(WORK))?;
    for name in BOUND {
        let (from, to) = (state.join(name), Path::new("/").join(name));
        if !from.exists() {
            copy_tree(&to, &from).map_err(|error| Failure::StateTree { path: from.clone(), error })?;
        }
        mount_bind(&from, &to).map_err(|error| Failure::Mount {
            what: from.display().to_string(),
            at: to.display().to_string(),
            error: error.into(),
        })?;
    }
    Ok(())
}

fn mount_etc(upper: &Path, work: &Path) -> Result<(), Failure> {
    if let Err(error) = Loader::of_kernel().load("overlay", false, "") {
        crate::kmsg::warn(&error.to_string());
    }
    let options =
        format!("lowerdir=/etc,upperdir={},workdir={},index=off,metacopy=off,xino=off,redirect_dir=off\0", upper.display(), work.display());
    let data = std::ffi::CStr::from_bytes_until_nul(options.as_bytes()).unwrap_or_default();
    mount("overlay", "/etc", "overlay", MountFlags::empty(), data).map_err(|error| Failure::Mount {
        what: "the overlay".to_owned(),
        at: "/etc".to_owned(),
        error: error.into(),
    })
}

/// Drops what equals the image's; notes what hides a changed file.
fn tidy(lower: &Path, upper: &Path, hidden: &Path, record: &mut BootRecord) -> io::Result<()> {
    let known: BTreeMap<String, u64> = fs::read(hidden).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let mut now = BTreeMap::new();
    tidy_directory(lower, upper, Path::new(""), &mut now)?;
    for (path, hash) in &mut now {
        if let Some(&before) = known.get(path) {
            if before != *hash {
                record.hidden_etc.push(path.clone());
            }
            // The first sight stays the reference: the report is repeated until somebody has resolved it.
            *hash = before;
        }
    }
    if now != known {
        let temporary = hidden.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(&now).map_err(io::Error::from)?)?;
        fs::rename(temporary, hidden)?;
    }
    Ok(())
}

fn tidy_directory(lower: &Path, upper: &Path, below: &Path, hiding: &mut BTreeMap<String, u64>) -> io::Result<()> {
    for entry in fs::read_dir(upper.join(below))? {
        let entry = entry?;
        let relative = below.join(entry.file_name());
        let (above, image) = (upper.join(&relative), lower.join(&relative));
        let (Ok(ours), Ok(theirs)) = (fs::symlink_metadata(&above), fs::symlink_metadata(&image)) else { continue };
        if ours.file_type().is_dir() && theirs.file_type().is_dir() {
            tidy_directory(lower, upper, &relative, hiding)?;
            if same_owner(&ours, &theirs) && !is_opaque(&above) {
                // Fails unless empty, which is what is wanted.
                let _ = fs::remove_dir(&above);
            }
        } else if same_file(&above, &ours, &image, &theirs) {
            fs::remove_file(&above)?;
        } else if theirs.file_type().is_file() && ours.file_type().is_file() && !is_database(&relative) {
            hiding.insert(relative.to_string_lossy().into_owned(), fingerprint(&fs::read(&image)?));
        }
    }
    Ok(())
}

fn is_database(relative: &Path) -> bool {
    Database::FILES.iter().any(|(name, _)| relative == Path::new(name))
}

fn same_owner(a: &Metadata, b: &Metadata) -> bool {
    (a.mode(), a.uid(), a.gid()) == (b.mode(), b.uid(), b.gid())
}

fn same_file(above: &Path, ours: &Metadata, image: &Path, theirs: &Metadata) -> bool {
    if !same_owner(ours, theirs) {
        return false;
    }
    if ours.file_type().is_symlink() {
        return fs::read_link(above).ok().is_some_and(|target| fs::read_link(image).ok() == Some(target));
    }
    ours.file_type().is_file()
        && theirs.file_type().is_file()
        && ours.len() == theirs.len()
        && matches!((fs::read(above), fs::read(image)), (Ok(a), Ok(b)) if a == b)
}

/// A directory that replaces the image's instead of adding to it.
fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 4];
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value).is_ok()
}

/// FNV-1a: it only has to tell two versions of an image's file apart.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Merges one file of the user database into the upper directory.
fn merge_file(name: &str, database: Database, lower: &Path, upper: &Path, bases: &Path) -> io::Result<()> {
    let read = |path: PathBuf| match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let image_path = lower.join(name);
    let Some(image) = read(image_path.clone())? else { return Ok(()) };
    let base_path = bases.join(name);
    let base = read(base_path.clone())?;
    let ours = upper.join(name);
    if let Some(host) = read(ours.clone())? {
        let merged = merge(database, base.as_deref().unwrap_or(&image), &image, &host);
        if merged == image && same_owner(&fs::metadata(&ours)?, &fs::metadata(&image_path)?) {
            fs::remove_file(&ours)?;
        } else if merged != host {
            replace(&ours, &merged, &fs::metadata(&ours)?)?;
        }
    }
    if base.as_ref() != Some(&image) {
        replace(&base_path, &image, &fs::metadata(&image_path)?)?;
    }
    Ok(())
}

fn replace(path: &Path, text: &str, like: &Metadata) -> io::Result<()> {
    let temporary = path.with_extension("garboard-new");
    fs::write(&temporary, "")?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(like.mode() & 0o7777))?;
    chown(&temporary, Some(like.uid()), Some(like.gid()))?;
    fs::write(&temporary, text)?;
    fs::File::open(&temporary)?.sync_all()?;
    fs::rename(temporary, path)
}

/// Copies what the image has in a directory, so that state starts from it. Happens once in a host's life.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let temporary = to.with_extension("new");
    if temporary.exists() {
        fs::remove_dir_all(&temporary)?;
    }
    copy_directory(from, &temporary)?;
    fs::rename(temporary, to)
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    let like = fs::metadata(from)?;
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = entry.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            copy_directory(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            lchown(&target, Some(metadata.uid()), Some(metadata.gid()))?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
            chown(&target, Some(metadata.uid()), Some(metadata.gid()))?;
            fs::set_permissions(&target, metadata.permissions())?;
        } else if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
            // Images have none; a copy of a device node would be a trap.
        }
    }
    chown(to, Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(to, like.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Trees {
        root: tempfile::TempDir,
    }

    impl Trees {
        fn new() -> Self {
            let trees = Self { root: tempfile::tempdir().unwrap() };
            for name in ["lower", "upper", "base"] {
                fs::create_dir(trees.path(name)).unwrap();
            }
            trees
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn tidy(&self) -> Vec<String> {
            let mut record = BootRecord::default();
            tidy(&self.path("lower"), &self.path("upper"), &self.path("hidden.json"), &mut record).unwrap();
            record.hidden_etc
        }
    }

    #[test]
    fn what_equals_the_image_is_dropped_and_the_rest_stays() {
        let trees = Trees::new();
        for (path, text) in [("lower/a/x", "1"), ("upper/a/x", "1"), ("lower/y", "1"), ("upper/y", "2"), ("upper/own", "3")] {
            trees.write(path, text);
        }
        assert!(trees.tidy().is_empty());
        assert!(!trees.path("upper/a").exists(), "an empty directory like the image's goes too");
        assert!(trees.path("upper/y").exists() && trees.path("upper/own").exists());
    }

    #[test]
    fn a_changed_image_file_that_is_hidden_is_reported_until_resolved() {
        let trees = Trees::new();
        trees.write("lower/y", "1");
        trees.write("upper/y", "mine");
        assert!(trees.tidy().is_empty());
        trees.write("lower/y", "2");
        assert_eq!(trees.tidy(), ["y"]);
        assert_eq!(trees.tidy(), ["y"], "and again at the next boot");
        trees.write("upper/y", "2");
        assert!(trees.tidy().is_empty());
    }

    #[test]
    fn a_file_with_another_mode_is_no_copy() {
        let trees = Trees::new();
        trees.write("lower/y", "1");
        trees.write("upper/y", "1");
        fs::set_permissions(trees.path("upper/y"), fs::Permissions::from_mode(0o600)).unwrap();
        trees.tidy();
        assert!(trees.path("upper/y").exists());
    }

    #[test]
    fn the_database_is_merged_against_its_last_base() {
        let trees = Trees::new();
        let merge = || merge_file("passwd", Database::Passwd, &trees.path("lower"), &trees.path("upper"), &trees.path("base")).unwrap();
        trees.write("lower/passwd", "root:x:0:0:::\n");
        merge();
        trees.write("upper/passwd", "root:x:0:0:::\nann:x:1000:1000:::\n");
        trees.write("lower/passwd", "root:x:0:0:::\nsvc:x:101:101:::\n");
        merge();
        assert_eq!(fs::read_to_string(trees.path("upper/passwd")).unwrap(), "root:x:0:0:::\nsvc:x:101:101:::\nann:x:1000:1000:::\n");
        trees.write("upper/passwd", "root:x:0:0:::\nsvc:x:101:101:::\n");
        merge();
        assert!(!trees.path("upper/passwd").exists(), "nothing of the host's own is left in it");
    }

    #[test]
    fn trees_are_copied_with_modes_and_links() {
        let trees = Trees::new();
        trees.write("lower/home/f", "1");
        symlink("f", trees.path("lower/home/l")).unwrap();
        fs::set_permissions(trees.path("lower/home"), fs::Permissions::from_mode(0o700)).unwrap();
        copy_tree(&trees.path("lower/home"), &trees.path("home")).unwrap();
        assert_eq!(fs::metadata(trees.path("home")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_link(trees.path("home/l")).unwrap(), Path::new("f"));
        assert_eq!(fs::read(trees.path("home/f")).unwrap(), b"1");
    }
}
