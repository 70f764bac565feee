//! The one place with `unsafe`: descriptors for the event loop.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that is waited for until it can be read.
///
/// # Errors
/// When the event loop does not take it.
pub(crate) fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns its descriptor, always says the same one, and nothing closes or replaces it while the `AsyncFd` has it.
    unsafe { Ok(AsyncFd::register_with_interest(descriptor, Interest::READABLE)?) }
}
