//! The device mapper's control device, as far as one read-only verity target needs it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

const HEADER_LEN: usize = 312;
const TARGET_LEN: usize = 40;
const DEV_CREATE: u8 = 3;
const DEV_REMOVE: u8 = 4;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const READ_ONLY: u32 = 1;

/// The open control device.
#[derive(Debug)]
pub struct DeviceMapper {
    control: File,
}

/// One target that covers a whole device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `verity`.
    pub kind: &'static str,
    /// Length in 512-byte sectors.
    pub sectors: u64,
    /// What follows the type in a table line.
    pub params: String,
}

impl DeviceMapper {
    /// Opens `/dev/mapper/control`, which is there once `dm_mod` is.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open() -> io::Result<Self> {
        Ok(Self { control: OpenOptions::new().read(true).write(true).open("/dev/mapper/control")? })
    }

    /// Makes a read-only device with one target and starts it; returns the minor number N of `/dev/dm-N`.
    ///
    /// # Errors
    /// When a step is refused; the kernel log then has the target's own words.
    pub fn create_read_only(&self, name: &str, uuid: &str, target: &Target) -> io::Result<u32> {
        let mut create = header(name, uuid, 0, HEADER_LEN);
        self.ioctl(DEV_CREATE, &mut create)?;
        let device = create.get(40..48).and_then(|raw| raw.try_into().ok()).map_or(0, u64::from_le_bytes);
        self.load_read_only(name, target)?;
        // The kernel's long form of a device number: minor in bits 0-7 and 20-31.
        Ok(u32::try_from(device & 0xff | device >> 12 & 0xf_ff00).unwrap_or(0))
    }

    /// Gives a device a target, also in the place of the one that it has, while it is in use.
    ///
    /// # Errors
    /// When a step is refused; a device that had a target goes on with it.
    pub fn load_read_only(&self, name: &str, target: &Target) -> io::Result<()> {
        let len = (HEADER_LEN + TARGET_LEN + target.params.len() + 1).next_multiple_of(8);
        let mut load = header(name, "", READ_ONLY, len);
        put(&mut load, 20, &1_u32.to_le_bytes());
        let mut spec = Vec::with_capacity(len);
        spec.extend_from_slice(&0_u64.to_le_bytes());
        spec.extend_from_slice(&target.sectors.to_le_bytes());
        spec.extend_from_slice(&0_i32.to_le_bytes());
        spec.extend_from_slice(&u32::try_from(len - HEADER_LEN).unwrap_or(0).to_le_bytes());
        let mut kind = [0_u8; 16];
        put(&mut kind, 0, target.kind.as_bytes());
        spec.extend_from_slice(&kind);
        spec.extend_from_slice(target.params.as_bytes());
        put(&mut load, HEADER_LEN, &spec);
        self.ioctl(TABLE_LOAD, &mut load)?;
        // Suspend without its flag is resume.
        self.ioctl(DEV_SUSPEND, &mut header(name, "", READ_ONLY, HEADER_LEN))
    }

    /// Takes a device away that nobody has open.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.ioctl(DEV_REMOVE, &mut header(name, "", 0, HEADER_LEN))
    }

    fn ioctl(&self, command: u8, buffer: &mut [u8]) -> io::Result<()> {
        let request = 3_u64 << 30 | (HEADER_LEN as u64) << 16 | 0xfd << 8 | u64::from(command);
        // SAFETY: the buffer begins with a `dm_ioctl` whose `data_size` is the buffer's length, and the kernel reads and
        // writes no further than that.
        let result = unsafe { libc::ioctl(self.control.as_raw_fd(), request as _, buffer.as_mut_ptr()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn header(name: &str, uuid: &str, flags: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    put(&mut bytes, 0, &4_u32.to_le_bytes());
    put(&mut bytes, 12, &u32::try_from(len).unwrap_or(0).to_le_bytes());
    put(&mut bytes, 16, &u32::try_from(HEADER_LEN).unwrap_or(0).to_le_bytes());
    put(&mut bytes, 28, &flags.to_le_bytes());
    put(&mut bytes, 48, name.as_bytes().get(..name.len().min(127)).unwrap_or_default());
    put(&mut bytes, 48 + 128, uuid.as_bytes().get(..uuid.len().min(128)).unwrap_or_default());
    bytes
}

fn put(bytes: &mut [u8], offset: usize, data: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(offset).zip(data) {
        *to = *from;
    }
}
