//! A machine as data, and the QEMU command line that it means.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Accelerator, Host};

/// Format of a disk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// Plain.
    Raw,
    /// QEMU's own.
    Qcow2,
}

impl DiskFormat {
    /// QEMU's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A disk of a machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its file.
    pub path: PathBuf,
    /// The file's format.
    pub format: DiskFormat,
    /// Whether the machine may not write to it.
    pub read_only: bool,
}

/// A network card.
#[derive(Clone, Debug)]
pub enum Nic {
    /// QEMU's own user network, with ports of this host's loopback forwarded to ports of the guest.
    User {
        /// (port here, port there).
        forward: Vec<(u16, u16)>,
    },
    /// A multicast segment on this host's loopback, shared by machines with the same port.
    Segment {
        /// UDP port of the segment.
        port: u16,
        /// The card's hardware address; must differ between machines.
        mac: String,
    },
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// KVM or software emulation.
    pub accelerator: Accelerator,
    /// Disks; the first is booted from.
    pub disks: Vec<Disk>,
    /// This machine's copy of the firmware's variables.
    pub firmware_vars: PathBuf,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// Firmware configuration items: name and file.
    pub fw_cfg: Vec<(String, PathBuf)>,
    /// Argument of `-serial`.
    pub serial: String,
    /// Unix socket of the machine protocol (QMP).
    pub qmp: Option<PathBuf>,
    /// Further arguments.
    pub extra: Vec<OsString>,
}

impl Machine {
    /// The arguments of QEMU.
    #[must_use]
    pub fn arguments(&self, host: &Host) -> Vec<OsString> {
        let mut arguments = Arguments(Vec::new());
        arguments.pair("-machine", "q35,smm=off");
        arguments.pair("-accel", self.accelerator.argument());
        arguments.pair("-cpu", "max");
        arguments.pair("-smp", self.cpus.to_string());
        arguments.pair("-m", self.memory_mib.to_string());
        arguments.pair("-display", "none");
        arguments.pair("-vga", "none");
        arguments.flag("-nodefaults");
        arguments.flag("-no-user-config");
        arguments.pair("-rtc", "base=utc");
        arguments.pair("-drive", with_file("if=pflash,unit=0,format=raw,readonly=on,file=", &host.firmware_code));
        arguments.pair("-drive", with_file("if=pflash,unit=1,format=raw,file=", &self.firmware_vars));
        for (index, disk) in self.disks.iter().enumerate() {
            let read_only = if disk.read_only { "on" } else { "off" };
            // `cache=writeback` with flushes passed on: what the guest flushed is in the file when QEMU is killed.
            let options =
                format!("if=none,id=disk{index},format={},readonly={read_only},cache=writeback,discard=unmap,file=", disk.format.name());
            arguments.pair("-drive", with_file(&options, &disk.path));
            arguments.pair("-device", format!("virtio-blk-pci,drive=disk{index},bootindex={index},serial=disk{index}"));
        }
        for (index, nic) in self.nics.iter().enumerate() {
            let (backend, device) = nic.arguments(index);
            arguments.pair("-netdev", backend);
            arguments.pair("-device", device);
        }
        for (name, path) in &self.fw_cfg {
            arguments.pair("-fw_cfg", with_file(&format!("name={name},file="), path));
        }
        arguments.pair("-device", "virtio-rng-pci");
        arguments.pair("-serial", &self.serial);
        if let Some(path) = &self.qmp {
            let mut value = OsString::from("unix:");
            value.push(escape(path.as_os_str()));
            value.push(",server=on,wait=off");
            arguments.pair("-qmp", value);
        }
        arguments.0.extend(self.extra.iter().cloned());
        arguments.0
    }
}

impl Nic {
    fn arguments(&self, index: usize) -> (String, String) {
        match self {
            Self::User { forward } => {
                let forwards: String = forward.iter().map(|(here, there)| format!(",hostfwd=tcp:127.0.0.1:{here}-:{there}")).collect();
                (format!("user,id=net{index}{forwards}"), format!("virtio-net-pci,netdev=net{index},romfile="))
            }
            Self::Segment { port, mac } => (
                format!("socket,id=net{index},mcast=230.0.0.1:{port},localaddr=127.0.0.1"),
                format!("virtio-net-pci,netdev=net{index},mac={mac},romfile="),
            ),
        }
    }
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn pair(&mut self, name: &str, value: impl Into<OsString>) {
        self.flag(name);
        self.0.push(value.into());
    }
}

fn with_file(options: &str, path: &std::path::Path) -> OsString {
    let mut value = OsString::from(options);
    value.push(escape(path.as_os_str()));
    value
}

/// QEMU ends an option's value at a comma unless it is doubled.
fn escape(text: &std::ffi::OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let doubled = text.as_bytes().iter().flat_map(|&byte| std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
    OsString::from_vec(doubled.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_are_escaped() {
        assert_eq!(with_file("file=", std::path::Path::new("/a,b")), OsString::from("file=/a,,b"));
    }

    #[test]
    fn ports_are_forwarded_from_the_loopback_only() {
        let (backend, _) = Nic::User { forward: vec![(2222, 22)] }.arguments(0);
        assert_eq!(backend, "user,id=net0,hostfwd=tcp:127.0.0.1:2222-:22");
    }
}
