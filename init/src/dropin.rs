//! Directories of configuration files (`sysctl.d`, `tmpfiles.d`, `modprobe.d`, ...): a file in a stronger directory
//! hides the file of the same name in a weaker one, an empty one or a link to `/dev/null` switches it off, and files
//! are read in the order of their names whatever directory they are in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The files with an extension, as path and text, in the order in which they apply. `directories` are relative to `root`, strongest first.
#[must_use]
pub fn read_all(root: &Path, directories: &[&str], extension: &str) -> Vec<(PathBuf, String)> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for directory in directories {
        for entry in fs::read_dir(root.join(directory)).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|found| found == extension) {
                files.entry(entry.file_name().to_string_lossy().into_owned()).or_insert(path);
            }
        }
    }
    files
        .into_values()
        .filter_map(|path| {
            let bytes = fs::read(&path).ok()?;
            Some((path, String::from_utf8_lossy(&bytes).into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_order_and_the_strongest_directory_wins() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in
            [("usr/x.d/10-a.conf", "weak"), ("etc/x.d/10-a.conf", "strong"), ("usr/x.d/05-b.conf", "first"), ("etc/x.d/README", "no")]
        {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let texts: Vec<String> = read_all(root.path(), &["etc/x.d", "usr/x.d"], "conf").into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["first", "strong"]);
    }
}
