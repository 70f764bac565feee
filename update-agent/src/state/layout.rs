//! Layouts of state: each has a directory of its own, so that a version and the one that it may fall back to each find what they can read.
//!
//! Layout 1 is `update`, layout N `update.N`. A version that finds no directory of its layout makes it from the newest older one: a copy
//! under another name, each migration run on that, synced, renamed. The older directory is not touched, so falling back means
//! reading it. It goes when no slot holds a good version that reads it any more. A version that finds its own directory and
//! a later one was fallen back to: what the later version made is void, and goes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{StateError, io_error};

/// Brings a copy from one layout to the next. It must not change a file in place, only replace it: some are links to the original.
pub type Migration = fn(&Path) -> io::Result<()>;

/// Asked before each change of the file system; in tests it stops there.
pub type Cut<'a> = &'a mut dyn FnMut() -> io::Result<()>;

const NEW: &str = "new";
const GONE: &str = "gone";
/// Room that is kept free. Each layout makes its own.
const RESERVE: &str = "reserve";

/// The directory of a layout.
pub fn directory(base: &Path, layout: u32) -> PathBuf {
    if layout == 1 { base.to_owned() } else { with(base, &layout.to_string()) }
}

fn with(base: &Path, ending: &str) -> PathBuf {
    let mut name = base.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    base.with_file_name(name)
}

/// The layouts that are there, oldest first, and what a cut has left half made or half removed.
fn look(base: &Path) -> Result<(Vec<u32>, Vec<PathBuf>), StateError> {
    let parent = base.parent().unwrap_or(Path::new("/"));
    let stem = base.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (mut layouts, mut scraps) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((layouts, scraps)),
        result => result.map_err(io_error(parent))?,
    };
    for entry in entries {
        let entry = entry.map_err(io_error(parent))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&stem) else { continue };
        if rest.is_empty() {
            layouts.push(1);
            continue;
        }
        let Some(rest) = rest.strip_prefix('.') else { continue };
        match (rest.parse::<u32>(), rest.rsplit_once('.')) {
            (Ok(layout), _) if layout > 1 => layouts.push(layout),
            (_, Some((number, NEW | GONE))) if number.parse::<u32>().is_ok() => scraps.push(entry.path()),
            _ => {}
        }
    }
    layouts.sort_unstable();
    Ok((layouts, scraps))
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes a directory in a way that a cut cannot make it a different one.
fn discard(base: &Path, layout: u32, cut: Cut<'_>) -> Result<(), StateError> {
    let from = directory(base, layout);
    remove(&from, &with(base, &format!("{layout}.{GONE}")), cut).map_err(io_error(&from))
}

fn remove(from: &Path, gone: &Path, cut: Cut<'_>) -> io::Result<()> {
    cut()?;
    fs::rename(from, gone)?;
    sync(from.parent().unwrap_or(Path::new("/")))?;
    cut()?;
    fs::remove_dir_all(gone)
}

/// Copies what a layout consists of. UKIs are large and never change: both directories have them.
fn copy(from: &Path, to: &Path, cut: Cut<'_>) -> io::Result<()> {
    cut()?;
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, path, to) = (entry.file_name(), entry.path(), to.join(entry.file_name()));
        let ending = path.extension().unwrap_or_default();
        if entry.file_type()?.is_dir() {
            copy(&path, &to, cut)?;
        } else if ending == "efi" {
            cut()?;
            fs::hard_link(&path, &to).or_else(|_| fs::copy(&path, &to).map(drop))?;
        } else if name != RESERVE && ending != "part" && ending != "new" {
            cut()?;
            fs::copy(&path, &to)?;
        }
    }
    Ok(())
}

fn sync_all(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            sync(&entry.path())?;
        }
    }
    sync(directory)
}

fn migrate(base: &Path, from: u32, layout: u32, migrations: &[Migration], cut: Cut<'_>) -> io::Result<()> {
    let (old, new) = (directory(base, from), with(base, &format!("{layout}.{NEW}")));
    copy(&old, &new, cut)?;
    let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
    for migration in migrations.iter().skip(skipped).take(usize::try_from(layout.saturating_sub(from)).unwrap_or(0)) {
        cut()?;
        migration(&new)?;
    }
    cut()?;
    sync_all(&new)?;
    cut()?;
    fs::rename(&new, directory(base, layout))?;
    sync(base.parent().unwrap_or(Path::new("/")))
}

/// The directory of `layout`, made from an older one where that is what there is. `migrations` lead from layout 1 to 2, from 2 to 3, and
/// so on. Says what was done, if anything was.
///
/// # Errors
/// When only a later layout is there, or the file system refuses.
pub fn open(base: &Path, layout: u32, migrations: &[Migration], cut: Cut<'_>) -> Result<(PathBuf, Vec<String>), StateError> {
    let own = directory(base, layout);
    let (found, scraps) = look(base)?;
    for scrap in scraps {
        fs::remove_dir_all(&scrap).map_err(io_error(&scrap))?;
    }
    let mut said = Vec::new();
    if found.contains(&layout) {
        for &later in found.iter().filter(|found| **found > layout) {
            discard(base, later, cut)?;
            said.push(format!("removed the state of layout {later}: this version, of layout {layout}, was gone back to"));
        }
    } else if let Some(&later) = found.iter().find(|found| **found > layout) {
        return Err(StateError::Layout { path: directory(base, later), found: later, reads: layout });
    } else if let Some(&older) = found.last() {
        let migrated = match migrate(base, older, layout, migrations, cut) {
            // The reserve is for this.
            Err(error) if error.kind() == io::ErrorKind::StorageFull && fs::remove_file(directory(base, older).join(RESERVE)).is_ok() => {
                let new = with(base, &format!("{layout}.{NEW}"));
                let _ = fs::remove_dir_all(&new);
                migrate(base, older, layout, migrations, cut)
            }
            result => result,
        };
        migrated.map_err(io_error(&own))?;
        said.push(format!("brought the state from layout {older} to {layout}, on a copy"));
    }
    Ok((own, said))
}

/// Removes the layouts that nobody reads any more: those below `oldest`, which is at most the own one.
///
/// # Errors
/// When the file system refuses.
pub fn drop_below(base: &Path, oldest: u32, cut: Cut<'_>) -> Result<(), StateError> {
    for layout in look(base)?.0.into_iter().filter(|found| *found < oldest) {
        discard(base, layout, cut)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn to_two(directory: &Path) -> io::Result<()> {
        let pin = fs::read_to_string(directory.join("policy.json"))?;
        fs::write(directory.join("pins.json"), format!("[{pin}]"))?;
        fs::remove_file(directory.join("policy.json"))
    }

    fn to_three(directory: &Path) -> io::Result<()> {
        fs::write(directory.join("three"), fs::read_to_string(directory.join("pins.json"))?)
    }

    const MIGRATIONS: [Migration; 2] = [to_two, to_three];

    /// All files below a directory.
    fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                all.extend(content(&entry.path()));
            } else {
                all.insert(entry.path(), fs::read(entry.path()).unwrap());
            }
        }
        all
    }

    fn names(base: &Path) -> Vec<String> {
        let entries = fs::read_dir(base.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    fn shipped() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("update");
        fs::create_dir_all(base.join("uki")).unwrap();
        for (name, text) in [("policy.json", "1.0"), ("journal.json", "j"), ("uki/1.0.efi", "MZ"), ("uki/1.1.part", "x"), ("reserve", "0")]
        {
            fs::write(base.join(name), text).unwrap();
        }
        (directory, base)
    }

    fn opened(base: &Path, layout: u32) -> Result<PathBuf, StateError> {
        open(base, layout, &MIGRATIONS, &mut || Ok(())).map(|(directory, _)| directory)
    }

    #[test]
    fn a_newer_layout_is_made_on_a_copy_and_the_older_version_finds_its_own() {
        let (_directory, base) = shipped();
        let before = content(&base);
        let two = opened(&base, 2).unwrap();
        assert_eq!(two, base.with_file_name("update.2"));
        assert_eq!(fs::read_to_string(two.join("pins.json")).unwrap(), "[1.0]");
        assert!(!two.join("policy.json").exists() && !two.join("reserve").exists() && !two.join("uki/1.1.part").exists());
        assert_eq!(fs::read_to_string(two.join("uki/1.0.efi")).unwrap(), "MZ");
        assert_eq!(content(&base), before, "the old layout is as it was");
        // Again: nothing is done twice.
        fs::write(two.join("journal.json"), "later").unwrap();
        assert_eq!(fs::read_to_string(opened(&base, 2).unwrap().join("journal.json")).unwrap(), "later");
        // Fallen back to: the old version reads what it wrote, and the next trial begins with that.
        assert_eq!(opened(&base, 1).unwrap(), base);
        assert_eq!((content(&base), names(&base)), (before, vec!["update".to_owned()]));
        fs::write(base.join("journal.json"), "after the fallback").unwrap();
        assert_eq!(fs::read_to_string(opened(&base, 3).unwrap().join("journal.json")).unwrap(), "after the fallback");
        assert_eq!(fs::read_to_string(base.with_file_name("update.3").join("three")).unwrap(), "[1.0]", "two steps at once");
        // Nobody reads the old one any more.
        drop_below(&base, 3, &mut || Ok(())).unwrap();
        assert_eq!(names(&base), ["update.3"]);
        assert!(matches!(opened(&base, 2), Err(StateError::Layout { found: 3, reads: 2, .. })), "what is later is not touched");
        assert_eq!(names(&base), ["update.3"]);
    }

    /// Stops before each change in turn; then either version starts and finds what it needs, whole.
    #[test]
    fn wherever_it_is_cut_the_old_version_has_its_state_and_the_new_one_goes_on() {
        let mut cuts = 0;
        for next in [1, 2] {
            for budget in 0.. {
                let (_directory, base) = shipped();
                let before = content(&base);
                let mut left = budget;
                let mut cut = || {
                    left -= 1;
                    if left < 0 { Err(io::Error::other("the power is gone")) } else { Ok(()) }
                };
                let done = open(&base, 2, &MIGRATIONS, &mut cut).is_ok();
                assert_eq!(content(&base), before, "{budget}");
                let own = opened(&base, next).unwrap();
                let expected = if next == 1 { vec!["update"] } else { vec!["update", "update.2"] };
                assert_eq!(names(&base), expected, "{budget}");
                if next == 2 {
                    assert_eq!(fs::read_to_string(own.join("pins.json")).unwrap(), "[1.0]", "{budget}");
                    assert_eq!(content(&own).len(), 3, "{budget}");
                }
                assert_eq!(content(&base), before, "{budget}");
                cuts += 1;
                if done {
                    break;
                }
            }
        }
        assert!(cuts > 12, "{cuts}");
    }

    #[test]
    fn a_removal_that_is_cut_is_finished_and_never_taken_for_a_layout() {
        for budget in 0..3 {
            let (_directory, base) = shipped();
            opened(&base, 2).unwrap();
            let mut left = budget;
            let mut cut = || {
                left -= 1;
                if left < 0 { Err(io::Error::other("the power is gone")) } else { Ok(()) }
            };
            let done = drop_below(&base, 2, &mut cut).is_ok();
            assert_eq!(done, budget == 2);
            opened(&base, 2).unwrap();
            drop_below(&base, 2, &mut || Ok(())).unwrap();
            assert_eq!(names(&base), ["update.2"], "{budget}");
        }
    }

    #[test]
    fn a_host_without_state_begins_with_none() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("garboard/update");
        assert_eq!(opened(&base, 2).unwrap(), base.with_file_name("update.2"));
        fs::create_dir_all(directory.path().join("garboard/verdicts")).unwrap();
        fs::create_dir_all(directory.path().join("garboard/update-other")).unwrap();
        assert_eq!(look(&base).unwrap().0, Vec::<u32>::new());
    }
}
