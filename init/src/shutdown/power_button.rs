//! The power button, as a descriptor for the engine's event loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An event source that is readable when the button may have been pressed.
#[derive(Clone, Debug)]
pub struct PowerButton {
    socket: std::sync::Arc<OwnedFd>,
}

impl PowerButton {
    /// Empties the source; true when the power button was among the events.
    pub fn pressed(&self) -> bool {
        let _ = &self.socket;
        false
    }
}

impl AsFd for PowerButton {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
