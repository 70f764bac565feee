//! Reading and writing small text files of the tree.

use std::sync::Arc;

use super::StepsError;
use crate::tree::{Node, Tree};

/// The text of a file, links followed, or nothing when it is not there. Bytes that are not UTF-8 become `U+FFFD`.
pub(super) fn read(tree: &Tree, path: &str) -> Result<Option<String>, StepsError> {
    let Some(body) = tree.file(path) else { return Ok(None) };
    let bytes = body.read().map_err(|source| StepsError::Read { path: path.to_owned(), source })?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Puts a text file of root's at a path, whatever was there.
pub(super) fn write(tree: &mut Tree, path: &str, text: &str, mode: u16, origin: &Arc<str>) -> Result<(), StepsError> {
    Ok(tree.put(path, Node::file(text.as_bytes().to_vec(), mode, origin))?)
}

/// Puts a text file only where there is none.
pub(super) fn write_if_missing(tree: &mut Tree, path: &str, text: &str, mode: u16, origin: &Arc<str>) -> Result<(), StepsError> {
    if tree.contains(path) { Ok(()) } else { write(tree, path, text, mode, origin) }
}
