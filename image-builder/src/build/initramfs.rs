//! The initramfs as a tree: `/init`, the modules that reach the disk, and their order.

use std::sync::Arc;

use crate::tree::{Body, Kind, Node, Tree, TreeError};

/// Makes the tree. `modules` are paths of the root file system's tree in load order.
///
/// # Errors
/// When two modules have one name; they would not both be loaded.
pub fn tree(root: &Tree, init: Body, modules: &[String]) -> Result<Tree, TreeError> {
    let origin: Arc<str> = Arc::from("garboard/initramfs");
    let mut tree = Tree::new();
    tree.put("init", Node::new(Kind::File(init), 0o755, &origin))?;
    tree.put("etc/initrd-release", Node::file(*b"ID=garboard\n", 0o644, &origin))?;
    for directory in ["dev", "proc", "run", "sys", "sysroot"] {
        tree.put(directory, Node::directory(&origin))?;
    }
    let mut order = String::new();
    for path in modules {
        let name = path.rsplit('/').next().unwrap_or(path);
        if let Some(body) = root.file(path) {
            tree.add(&format!("modules/{name}"), Node::new(Kind::File(body.clone()), 0o644, &origin))?;
            order.push_str(name);
            order.push('\n');
        }
    }
    tree.put("modules/order", Node::file(order.into_bytes(), 0o644, &origin))?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_listed_in_load_order() {
        let origin: Arc<str> = Arc::from("test");
        let mut root = Tree::new();
        root.put("usr/lib/modules/1/b.ko", Node::file(*b"b", 0o644, &origin)).unwrap();
        root.put("usr/lib/modules/1/a.ko", Node::file(*b"a", 0o644, &origin)).unwrap();
        let modules = ["usr/lib/modules/1/b.ko".to_owned(), "usr/lib/modules/1/a.ko".to_owned()];
        let tree = tree(&root, Body::from_bytes(*b"x"), &modules).unwrap();
        assert_eq!(tree.file("modules/order").unwrap().read().unwrap(), b"b.ko\na.ko\n");
        assert_eq!(tree.file("modules/a.ko").unwrap().read().unwrap(), b"a");
    }
}
