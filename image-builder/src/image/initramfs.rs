//! The initramfs: a cpio archive in the only form that the kernel unpacks ("newc",
//! <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>). It is not compressed: its files are in the root image too, so a
//! host that fetches an update has them, or nearly; compressed, they would be other bytes as a whole whenever one of them changed.

use std::io::{self, Write};

use cpio::newc;

use super::{FIXED_TIME, ImageError};
use crate::tree::{Kind, Tree};

/// Files of fewer bytes are part of what lies around them.
const SMALL: usize = 4096;

/// An archive, and where in it files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initramfs {
    /// The archive.
    pub bytes: Vec<u8>,
    /// All of it in order: path of the file that these bytes are, or none for what lies between, and how many they are.
    pub layout: Vec<(String, u64)>,
}

/// Makes the archive of a tree.
///
/// # Errors
/// When a body cannot be read, or there is a hard link, which an initramfs has no use for.
pub fn build(tree: &Tree) -> Result<Initramfs, ImageError> {
    let mut bytes = Vec::new();
    let mut layout = Vec::new();
    let mut laid_out = 0;
    let nodes = tree.iter().filter(|(path, _)| !path.is_empty());
    for (number, (path, node)) in (1_u32..).zip(nodes) {
        let named = |error| ImageError::Read { what: format!("'/{path}' of the initramfs"), error };
        let (file_type, links, data) = match &node.kind {
            Kind::Directory => (0o040_000, 2, Vec::new()),
            Kind::File(body) => (0o100_000, 1, body.read().map_err(named)?),
            Kind::Symlink(target) => (0o120_000, 1, target.clone().into_bytes()),
            Kind::HardLink(_) => {
                let reason = "an initramfs has no hard links: use a symbolic one".to_owned();
                return Err(ImageError::Node { path: path.to_owned(), reason });
            }
        };
        let len = u32::try_from(data.len()).map_err(|_| named(io::ErrorKind::FileTooLarge.into()))?;
        let entry = newc::Builder::new(path)
            .ino(number)
            .mode(file_type | u32::from(node.mode))
            .uid(node.uid)
            .gid(node.gid)
            .nlink(links)
            .mtime(FIXED_TIME);
        let mut entry = entry.write(&mut bytes, len);
        entry.write_all(&data).and_then(|()| entry.finish().map(drop)).map_err(named)?;
        if data.len() >= SMALL {
            let start = bytes.len() - data.len().next_multiple_of(4);
            layout.push((String::new(), (start - laid_out) as u64));
            layout.push((path.to_owned(), data.len() as u64));
            laid_out = start + data.len();
        }
    }
    newc::trailer(&mut bytes).map(drop).map_err(ImageError::read("the end of the initramfs"))?;
    layout.push((String::new(), (bytes.len() - laid_out) as u64));
    Ok(Initramfs { bytes, layout })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::sync::Arc;

    use super::*;
    use crate::tree::Node;

    #[test]
    fn reads_back_in_path_order() {
        let origin = Arc::from("test");
        let mut tree = Tree::new();
        tree.put("modules/order", Node::file(*b"erofs.ko\n", 0o644, &origin)).unwrap();
        tree.put("init", Node::file(vec![7; 5001], 0o755, &origin)).unwrap();
        tree.put("sbin/init", Node::symlink("../init", &origin)).unwrap();
        let Initramfs { bytes: archive, layout } = build(&tree).unwrap();
        let mut found = BTreeMap::new();
        let mut names = Vec::new();
        let mut rest = archive.as_slice();
        loop {
            let mut reader = newc::Reader::new(rest).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                break;
            }
            let (name, mode) = (entry.name().to_owned(), entry.mode());
            let mut data = Vec::new();
            reader.read_to_end(&mut data).unwrap();
            rest = reader.finish().unwrap();
            found.insert(name.clone(), (mode, data));
            names.push(name);
        }
        assert_eq!(names, ["init", "modules", "modules/order", "sbin", "sbin/init"]);
        assert_eq!(found["init"], (0o100_755, vec![7; 5001]));
        assert_eq!(found["modules"], (0o040_755, vec![]));
        assert_eq!(found["sbin/init"], (0o120_777, b"../init".to_vec()));

        assert_eq!(layout.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["", "init", ""]);
        assert_eq!(layout.iter().map(|(_, len)| *len).sum::<u64>(), archive.len() as u64);
        let start = usize::try_from(layout[0].1).unwrap();
        assert_eq!(&archive[start..][..usize::try_from(layout[1].1).unwrap()], [7; 5001]);
    }
}
