//! Root metadata that were seen and found good, `N.root.json` each. Trust begins with the image's root at every check, and follows these
//! before it asks the server: one who holds new root metadata back cannot bring keys into force again that this host knows to be
//! replaced. A copy that is damaged, or that nobody before it vouches for, ends the row and is fetched again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tough::schema::{Role, RoleType, Root, Signed};

use crate::state::write_whole;

/// The directory of copies, within `tough`'s.
const COPIES: &str = "roots";
/// Metadata that a change of the keys of timestamp or snapshot makes void, as `tough` does too.
const VOID: [&str; 2] = ["timestamp.json", "snapshot.json"];

fn path(datastore: &Path, version: u64) -> PathBuf {
    datastore.join(COPIES).join(format!("{version}.root.json"))
}

fn parse(bytes: &[u8]) -> Option<Signed<Root>> {
    serde_json::from_slice(bytes).ok()
}

/// The next root, when it is the next version and both the one before and itself vouch for it.
fn follow(before: &Signed<Root>, bytes: &[u8]) -> Option<Signed<Root>> {
    let next = parse(bytes)?;
    let is_next = next.signed.version().get() == before.signed.version().get().checked_add(1)?;
    (is_next && before.signed.verify_role(&next).is_ok() && next.signed.verify_role(&next).is_ok()).then_some(next)
}

/// The newest root that can be reached from the image's own by the copies.
#[must_use]
pub fn newest(image: Vec<u8>, datastore: &Path) -> Vec<u8> {
    let Some(mut trusted) = parse(&image) else { return image };
    let mut bytes = image;
    loop {
        let Ok(copy) = fs::read(path(datastore, trusted.signed.version().get().saturating_add(1))) else { return bytes };
        let Some(next) = follow(&trusted, &copy) else { return bytes };
        (trusted, bytes) = (next, copy);
    }
}

/// Keeps what of `seen`, in the order in which it came, follows `trusted`.
///
/// # Errors
/// When a copy cannot be written.
pub fn keep(trusted: &[u8], seen: &[Vec<u8>], datastore: &Path) -> io::Result<()> {
    let Some(mut trusted) = parse(trusted) else { return Ok(()) };
    for bytes in seen {
        let Some(next) = follow(&trusted, bytes) else { return Ok(()) };
        if [RoleType::Timestamp, RoleType::Snapshot].into_iter().any(|role| next.signed.keys(role).ne(trusted.signed.keys(role))) {
            for name in VOID {
                match fs::remove_file(datastore.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        let copy = path(datastore, next.signed.version().get());
        fs::create_dir_all(datastore.join(COPIES))?;
        write_whole(&copy, bytes)?;
        trusted = next;
    }
    Ok(())
}
