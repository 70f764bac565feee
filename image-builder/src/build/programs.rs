//! Our own programs of the host: static binaries that were built together with this one. The names under which
//! people find them (`systemctl`, `update-agent` and the rest) are links of the recipe.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::tree::{Body, Node, Tree, TreeError};

/// A program: the file's name on the build host and its path in the image.
struct Program {
    name: &'static str,
    path: &'static str,
}

const PROGRAMS: [Program; 2] =
    [Program { name: "init", path: "usr/lib/garboard/init" }, Program { name: "host-programs", path: "usr/lib/garboard/host-programs" }];

/// Why a program cannot be put into the image.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It is not where it is looked for.
    #[error("cannot read the program {}: {source}; build it (cargo build --workspace), or name its directory with --programs", path.display())]
    Read {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// It needs libraries that an initramfs does not have.
    #[error("the program {} is not a static executable for this image: build it with the workspace's own .cargo/config.toml", path.display())]
    NotStatic {
        /// The file.
        path: PathBuf,
    },
    /// The tree refuses its path.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The programs' directory: as asked, from `GARBOARD_PROGRAMS`, or where this program itself is.
#[must_use]
pub fn directory(asked: Option<&Path>) -> PathBuf {
    asked
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("GARBOARD_PROGRAMS").map(PathBuf::from))
        .or_else(|| Some(std::env::current_exe().ok()?.parent()?.to_owned()))
        .unwrap_or_default()
}

/// Paths of all programs in an image.
pub fn paths() -> impl Iterator<Item = &'static str> {
    PROGRAMS.iter().map(|program| program.path)
}

/// Puts all programs into the tree; `init` comes back too, for the initramfs.
///
/// # Errors
/// When a program cannot be read or is not static.
pub fn place(tree: &mut Tree, directory: &Path) -> Result<Body, ProgramError> {
    let origin: Arc<str> = Arc::from("garboard");
    let mut init = Body::from_bytes([]);
    for program in &PROGRAMS {
        let path = directory.join(program.name);
        let bytes = fs::read(&path).map_err(|source| ProgramError::Read { path: path.clone(), source })?;
        if !is_static_elf(&bytes) {
            return Err(ProgramError::NotStatic { path });
        }
        let node = Node::file(bytes, 0o755, &origin);
        if program.name == "init"
            && let crate::tree::Kind::File(body) = &node.kind
        {
            init = body.clone();
        }
        tree.put(program.path, node)?;
    }
    Ok(init)
}

/// A 64-bit ELF file without an interpreter (`PT_INTERP`).
fn is_static_elf(bytes: &[u8]) -> bool {
    use object::read::elf::{FileHeader, ProgramHeader};
    let Ok(header) = object::elf::FileHeader64::<object::Endianness>::parse(bytes) else { return false };
    let Ok(endian) = header.endian() else { return false };
    let segments = header.program_headers(endian, bytes);
    segments.is_ok_and(|segments| segments.iter().all(|segment| segment.p_type(endian) != object::elf::PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_static_programs_are_taken() {
        assert!(is_static_elf(&fs::read(std::env::current_exe().unwrap()).unwrap()), "this test itself is static");
        assert!(!is_static_elf(&fs::read("/bin/sh").unwrap()));
        assert!(!is_static_elf(b"#!/bin/sh\n"));
    }
}
