//! The list of packages for scanners: one control paragraph each, in the layout that distroless images have, below
//! `/usr` where it is verified with the rest. `/var/lib/dpkg` leads there at run time.

use super::{PackageRecord, StepsError, origin, text};
use crate::tree::Tree;

/// Where the paragraphs are.
pub const DIRECTORY: &str = "usr/share/garboard/dpkg/status.d";

/// Writes one file per package.
///
/// # Errors
/// When the tree refuses a path.
pub fn apply(tree: &mut Tree, packages: &[PackageRecord]) -> Result<(), StepsError> {
    let origin = origin("dpkg-status");
    for package in packages {
        let paragraph = package.control.trim_end();
        let (first, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        let rest = if rest.is_empty() { String::new() } else { format!("{rest}\n") };
        let content = format!("{first}\nStatus: install ok installed\n{rest}");
        text::write(tree, &format!("{DIRECTORY}/{}", package.name), &content, 0o644, &origin)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_says_that_it_is_installed() {
        let mut tree = Tree::new();
        let package = PackageRecord { name: "a".into(), control: "Package: a\nVersion: 1\n\n".into(), ..PackageRecord::default() };
        apply(&mut tree, &[package]).unwrap();
        let text = text::read(&tree, "usr/share/garboard/dpkg/status.d/a").unwrap().unwrap();
        assert_eq!(text, "Package: a\nStatus: install ok installed\nVersion: 1\n");
    }
}
