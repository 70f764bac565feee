//! The power button, as a descriptor for the engine's event loop: the kernel's ACPI events by generic netlink. (The `button` module
//! has to be loaded for events to come.)

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{RecvFlags, recv};

use crate::sys::genl;

const ACPI_GENL_ATTR_EVENT: u16 = 1;
/// Bytes of `device_class`, the first field of an event.
const DEVICE_CLASS_LEN: usize = 20;

/// An event source that is readable when the button may have been pressed.
#[derive(Clone, Debug)]
pub struct PowerButton {
    socket: Arc<OwnedFd>,
}

impl PowerButton {
    /// Starts to listen.
    ///
    /// # Errors
    /// On machines without ACPI.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Arc::new(genl::listen("acpi_event", "acpi_mc_group")?) })
    }

    /// Empties the source; true when the power button was among the events.
    #[must_use]
    pub fn pressed(&self) -> bool {
        let mut buffer = [0_u8; 4096];
        let mut pressed = false;
        while let Ok((len, _)) = recv(&*self.socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            pressed |= is_press(buffer.get(..len).unwrap_or_default());
        }
        pressed
    }
}

impl AsFd for PowerButton {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_press(datagram: &[u8]) -> bool {
    genl::attributes(genl::payload(datagram)).any(|(kind, event)| {
        let class = event.get(..DEVICE_CLASS_LEN).unwrap_or_default();
        kind == ACPI_GENL_ATTR_EVENT && class.starts_with(b"button/power")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(class: &[u8]) -> Vec<u8> {
        let mut event = vec![0; 44];
        event[..class.len()].copy_from_slice(class);
        let mut datagram = vec![0; 20];
        datagram.extend_from_slice(&48_u16.to_ne_bytes());
        datagram.extend_from_slice(&1_u16.to_ne_bytes());
        datagram.extend_from_slice(&event);
        datagram
    }

    #[test]
    fn only_the_power_button_counts() {
        assert!(is_press(&event(b"button/power")));
        assert!(!is_press(&event(b"button/lid")));
        assert!(!is_press(&[]));
    }
}
