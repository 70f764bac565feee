//! The loader's cache without `ldconfig`: which library name is in which file, in the format of glibc 2.32 and newer
//! (`glibc-ld.so.cache1.1`), and the links by which libraries are found under their soname.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::elf;
use super::{StepsError, origin, text};
use crate::tree::{Body, Kind, Node, Tree};

/// Where the cache is.
pub const CACHE: &str = "etc/ld.so.cache";
const CONFIG: &str = "etc/ld.so.conf";
/// Built into Debian's loader, after what the configuration names.
const DEFAULT_DIRECTORIES: &[&str] = &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib"];
/// `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`.
const FLAGS: u32 = 0x0303;
const HEADER: usize = 48;
const ENTRY: usize = 24;

/// Makes missing soname links and writes the cache. Nothing happens without a C library.
///
/// # Errors
/// When a library is broken or the tree refuses a path.
pub fn apply(tree: &mut Tree) -> Result<(), StepsError> {
    if !tree.contains(CONFIG) {
        return Ok(());
    }
    let mut entries: Vec<(String, String)> = Vec::new();
    let mut seen = Vec::new();
    for directory in directories(tree)? {
        let Some(real) = tree.resolve(&directory) else { continue };
        if seen.contains(&real) {
            continue;
        }
        for (name, file) in libraries(tree, &real)? {
            let link = format!("{real}/{name}");
            if !tree.contains(&link) {
                tree.put(&link, Node::symlink(file, &origin("ldconfig")))?;
            }
            entries.push((name.clone(), format!("/{directory}/{name}")));
        }
        seen.push(real);
    }
    tree.put(CACHE, Node::file(render(entries), 0o644, &origin("ldconfig")))?;
    Ok(())
}

/// The directories to look in, as configured, then as built in; the loader prefers the first.
///
/// # Errors
/// When a configuration file cannot be read.
pub fn directories(tree: &Tree) -> Result<Vec<String>, StepsError> {
    let mut directories = Vec::new();
    read_config(tree, CONFIG, &mut directories, 0)?;
    directories.extend(DEFAULT_DIRECTORIES.iter().map(|&directory| directory.to_owned()));
    Ok(directories)
}

fn read_config(tree: &Tree, path: &str, directories: &mut Vec<String>, depth: usize) -> Result<(), StepsError> {
    for line in text::read(tree, path)?.unwrap_or_default().lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include ") {
            let pattern = pattern.trim().trim_start_matches('/');
            let files: Vec<String> =
                tree.iter().map(|(path, _)| path).filter(|path| super::files::matches(pattern, path)).map(str::to_owned).collect();
            if depth < 8 {
                for file in files {
                    read_config(tree, &file, directories, depth + 1)?;
                }
            }
        } else if !line.is_empty() {
            directories.push(line.trim_matches('/').to_owned());
        }
    }
    Ok(())
}

/// The library names of one directory, each with the file that serves it.
fn libraries(tree: &Tree, directory: &str) -> Result<BTreeMap<String, String>, StepsError> {
    let mut found: BTreeMap<String, (bool, String)> = BTreeMap::new();
    for (path, node) in tree.below(directory) {
        let Some(name) = path.strip_prefix(directory).and_then(|path| path.strip_prefix('/')).filter(|name| !name.contains('/')) else {
            continue;
        };
        let is_library = (name.starts_with("lib") || name.starts_with("ld-")) && name.contains(".so");
        let Some(body) = tree.file(path).filter(|_| is_library) else { continue };
        let Some(dynamic) = read(path, body)? else { continue };
        if !dynamic.shared {
            continue;
        }
        let soname = dynamic.soname.unwrap_or_else(|| name.to_owned());
        // A link whose target already has its soname as file name is a further name of the library.
        let link = match &node.kind {
            Kind::Symlink(_) => tree.resolve(path).is_some_and(|target| target.rsplit('/').next() == Some(soname.as_str())),
            _ => false,
        };
        let library = if link { name.to_owned() } else { soname };
        let better = found
            .get(&library)
            .is_none_or(|(there_link, there)| (!link && *there_link) || (link == *there_link && compare(there, name) == Ordering::Less));
        if better {
            found.insert(library, (link, name.to_owned()));
        }
    }
    Ok(found.into_iter().map(|(library, (_, file))| (library, file)).collect())
}

fn read(path: &str, body: &Body) -> Result<Option<elf::Dynamic>, StepsError> {
    elf::dynamic(body).map_err(|reason| StepsError::Library { path: path.to_owned(), reason })
}

/// The order of library names in the cache, which the loader searches by halves: numbers compare as numbers.
fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let (mut i, mut j) = (0, 0);
    while let Some(&left) = a.get(i) {
        let right = b.get(j).copied();
        match (left.is_ascii_digit(), right.is_some_and(|byte| byte.is_ascii_digit())) {
            (true, true) => {
                let (left, right) = (number(a, &mut i), number(b, &mut j));
                if left != right {
                    return left.cmp(&right);
                }
            }
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) => match left.cmp(&right.unwrap_or(0)) {
                Ordering::Equal => {
                    i += 1;
                    j += 1;
                }
                order => return order,
            },
        }
    }
    0.cmp(&b.get(j).copied().unwrap_or(0))
}

fn number(text: &[u8], at: &mut usize) -> u64 {
    let mut value = 0_u64;
    while let Some(digit) = text.get(*at).filter(|byte| byte.is_ascii_digit()) {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        *at += 1;
    }
    value
}

/// The cache's bytes, from library names and paths in search order.
fn render(mut entries: Vec<(String, String)>) -> Vec<u8> {
    // A stable sort: of two files with one library name, the directory that is searched first stays first.
    entries.sort_by(|(a, _), (b, _)| compare(b, a));
    let strings_at = HEADER + entries.len() * ENTRY;
    let mut strings: Vec<u8> = Vec::new();
    let mut table: Vec<u8> = Vec::new();
    for (name, path) in &entries {
        // The name is the tail of the path, so one string serves both.
        let value = u32::try_from(strings_at + strings.len()).unwrap_or(u32::MAX);
        let key = value.saturating_add(u32::try_from(path.len() - name.len()).unwrap_or(u32::MAX));
        strings.extend(path.as_bytes());
        strings.push(0);
        for field in [FLAGS, key, value, 0] {
            table.extend(field.to_le_bytes());
        }
        table.extend(0_u64.to_le_bytes());
    }
    let mut cache: Vec<u8> = b"glibc-ld.so.cache1.1".to_vec();
    for field in [entries.len(), strings.len()] {
        cache.extend(u32::try_from(field).unwrap_or(u32::MAX).to_le_bytes());
    }
    // Little-endian, padding, no extensions, unused.
    cache.extend([2, 0, 0, 0]);
    cache.extend([0; 16]);
    cache.extend(table);
    cache.extend(strings);
    cache
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_as_the_loader_compares_them() {
        let mut names = ["libb.so.1", "liba.so.10", "liba.so.9", "liba.so", "libz1.so", "libza.so"];
        names.sort_by(|a, b| compare(b, a));
        assert_eq!(names, ["libz1.so", "libza.so", "libb.so.1", "liba.so.10", "liba.so.9", "liba.so"]);
    }

    #[test]
    fn the_cache_has_the_documented_shape() {
        let cache = render(vec![("liba.so.1".into(), "/lib/liba.so.1".into()), ("libb.so.2".into(), "/lib/libb.so.2".into())]);
        assert_eq!(&cache[..20], b"glibc-ld.so.cache1.1");
        assert_eq!(cache[20..24], 2_u32.to_le_bytes());
        let at = |offset: usize| u32::from_le_bytes(cache[offset..offset + 4].try_into().unwrap()) as usize;
        let string = |offset: usize| cache[offset..].split(|&byte| byte == 0).next().unwrap();
        assert_eq!((string(at(52)), string(at(56))), (&b"libb.so.2"[..], &b"/lib/libb.so.2"[..]));
        assert_eq!(string(at(76)), b"liba.so.1");
    }
}
