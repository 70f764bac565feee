//! Which old extent a new one is made of: the one of the same path, else one with the same content in part, else the one that is most like it by
//! its name without numbers, and by its size.

use std::collections::HashMap;

use release_format::{ContentMap, Extent, ExtentKind, Part};

/// How an old extent was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinship {
    /// The same path.
    Path,
    /// A chunk in common.
    Content,
    /// A similar name.
    Likeness,
}

/// With a name that is like it but not its path, sizes differ at most by this factor.
const ALIKE: u64 = 4;

/// The kin of each extent of `new`, first of the root image, then of the UKI.
#[must_use]
pub fn kin<'a>(old: &'a ContentMap, new: &ContentMap) -> Vec<Option<(&'a Extent, Kinship)>> {
    let olds = || [Part::Root, Part::Uki].into_iter().flat_map(|part| old.extents(part));
    let mut by_key: HashMap<(ExtentKind, String, usize), &Extent> = HashMap::new();
    let mut by_shape: HashMap<String, Vec<&Extent>> = HashMap::new();
    let mut by_name: HashMap<String, Vec<&Extent>> = HashMap::new();
    let mut by_chunk = HashMap::new();
    let mut counts = Counts::default();
    for extent in olds() {
        by_key.insert(counts.key(extent), extent);
        if extent.kind == ExtentKind::File {
            by_shape.entry(shape(&extent.path)).or_default().push(extent);
            by_name.entry(shape(base(&extent.path))).or_default().push(extent);
        }
        for number in extent.numbers() {
            if let Some(chunk) = old.chunk(number) {
                by_chunk.entry(chunk.digest).or_insert(extent);
            }
        }
    }
    let mut counts = Counts::default();
    let news = [Part::Root, Part::Uki].into_iter().flat_map(|part| new.extents(part));
    news.map(|extent| {
        if let Some(same) = by_key.get(&counts.key(extent)) {
            return Some((*same, Kinship::Path));
        }
        if let Some(same) = extent.numbers().find_map(|number| by_chunk.get(&new.chunk(number)?.digest)) {
            return Some((*same, Kinship::Content));
        }
        if extent.kind != ExtentKind::File {
            return None;
        }
        let nearest = |found: Option<&Vec<&'a Extent>>| {
            let near =
                found?.iter().filter(|old| old.len <= extent.len.saturating_mul(ALIKE) && extent.len <= old.len.saturating_mul(ALIKE));
            near.min_by_key(|old| old.len.abs_diff(extent.len)).copied()
        };
        let like = nearest(by_shape.get(&shape(&extent.path))).or_else(|| nearest(by_name.get(&shape(base(&extent.path)))));
        like.map(|like| (like, Kinship::Likeness))
    })
    .collect()
}

/// Parts without a path of their own are told apart by their order.
#[derive(Default)]
struct Counts(HashMap<(ExtentKind, String), usize>);

impl Counts {
    fn key(&mut self, extent: &Extent) -> (ExtentKind, String, usize) {
        let count = self.0.entry((extent.kind, extent.path.clone())).or_default();
        *count += 1;
        (extent.kind, extent.path.clone(), *count)
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A path without the numbers of versions in it.
fn shape(path: &str) -> String {
    let mut shape = String::with_capacity(path.len());
    for c in path.chars() {
        if !(c.is_ascii_digit() || matches!(c, '.' | '+' | '~' | ':' | '-')) {
            shape.push(c);
        } else if !shape.ends_with('#') {
            shape.push('#');
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use release_format::{Digest, MapBuilder};

    fn map(files: &[(&str, &[u8])]) -> ContentMap {
        let mut builder = MapBuilder::new();
        let mut size = 4096;
        builder.begin(ExtentKind::Metadata, "", 4096).unwrap();
        builder.chunk(Digest::of(b"metadata"));
        for (path, body) in files {
            builder.begin(ExtentKind::File, path, body.len() as u64).unwrap();
            builder.chunk(Digest::of(body));
            size += (body.len() as u64).next_multiple_of(4096);
        }
        builder.begin(ExtentKind::Section, ".linux", 100).unwrap();
        builder.chunk(Digest::of(b"kernel"));
        builder.finish(size, 100).unwrap()
    }

    #[test]
    fn files_are_matched_by_path_then_content_then_likeness() {
        let old = map(&[
            ("usr/bin/a", b"one"),
            ("usr/bin/moved", b"the same"),
            ("usr/lib/libz.so.1.3.1", b"zlib"),
            ("usr/lib/modules/6.12.1-cloud/net/e1000.ko", b"module"),
            ("usr/lib/modules/6.12.1-cloud/net/e100.ko", b"a much longer other module, with the same name but for numbers"),
        ]);
        let new = map(&[
            ("usr/bin/a", b"two"),
            ("usr/lib/libz.so.1.3.2", b"zlib!"),
            ("usr/lib/modules/6.12.2-cloud/net/e1000.ko", b"modul2"),
            ("usr/sbin/moved-here", b"the same"),
            ("usr/share/new", b"nothing like it"),
        ]);
        let found: Vec<_> = kin(&old, &new).into_iter().map(|kin| kin.map(|(extent, kinship)| (extent.path.as_str(), kinship))).collect();
        let expected = [
            Some(("", Kinship::Path)),
            Some(("usr/bin/a", Kinship::Path)),
            Some(("usr/lib/libz.so.1.3.1", Kinship::Likeness)),
            Some(("usr/lib/modules/6.12.1-cloud/net/e1000.ko", Kinship::Likeness)),
            Some(("usr/bin/moved", Kinship::Content)),
            None,
            Some((".linux", Kinship::Path)),
        ];
        assert_eq!(found, expected);
    }
}
