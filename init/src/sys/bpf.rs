//! Loading BPF programs and hanging them on control groups: `bpf(2)`, structures from the kernel's `include/uapi/linux/bpf.h`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// One instruction of the machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination in the lower four bits, source in the upper.
    pub registers: u8,
    /// Of memory, or of a jump.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

/// Where a program hangs on a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets that come in.
    Ingress,
    /// Packets that go out.
    Egress,
    /// Use of device nodes.
    Device,
}

impl Hook {
    /// `enum bpf_attach_type`.
    fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 0,
            Self::Egress => 1,
            Self::Device => 6,
        }
    }

    /// `enum bpf_prog_type`.
    fn program_type(self) -> u32 {
        match self {
            Self::Ingress | Self::Egress => 8,
            Self::Device => 15,
        }
    }
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
/// Programs of the groups above and below are asked, too.
const ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

/// The structure's size tells the kernel how much of its own it may read; what is beyond counts as zero.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is one of the `repr(C)` structures above, as large as it says, and what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

fn own(number: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// Has the kernel check a program and keep it.
///
/// # Errors
/// When it does not believe in it, or has no BPF.
pub fn load(hook: Hook, program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut load = Load {
        program_type: hook.program_type(),
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        attach_type: hook.attach_type(),
        ..Load::default()
    };
    bpf(PROG_LOAD, &mut load).map(own)
}

/// Hangs a program on a group, beside those that are there.
///
/// # Errors
/// As the kernel says.
pub fn attach(group: &impl AsFd, hook: Hook, program: &impl AsFd) -> io::Result<()> {
    let mut attach = Attach {
        target: number(group),
        program: number(program),
        attach_type: hook.attach_type(),
        flags: ALLOW_MULTI,
        ..Attach::default()
    };
    bpf(PROG_ATTACH, &mut attach).map(drop)
}

/// Takes all programs of a kind off a group; those of other groups stay.
///
/// # Errors
/// As the kernel says.
pub fn detach_all(group: &impl AsFd, hook: Hook) -> io::Result<()> {
    let mut ids = [0_u32; 64];
    let mut query =
        Query { target: number(group), attach_type: hook.attach_type(), ids: ids.as_mut_ptr() as u64, count: 64, ..Query::default() };
    bpf(PROG_QUERY, &mut query)?;
    for mut id in ids.into_iter().take(query.count as usize) {
        let program = own(bpf(PROG_GET_FD_BY_ID, &mut id)?);
        let mut detach = Attach { target: number(group), program: number(&program), attach_type: hook.attach_type(), ..Attach::default() };
        bpf(PROG_DETACH, &mut detach)?;
    }
    Ok(())
}
