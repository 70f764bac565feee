//! What cgroup v2 has no files for: `DevicePolicy=` and `DeviceAllow=`, `IPAddressAllow=` and `IPAddressDeny=`, as small programs that
//! the kernel asks for every use of a device node and for every packet of the group and of those below it.
//!
//! A filter that cannot be laid is an error: without it the unit would have more rights than written. The program of a slice is asked
//! beside that of the unit, so what a slice denies, a unit in it cannot allow again.

mod addresses;
mod assembler;
mod devices;

use std::io;
use std::os::fd::AsFd;

use unit_files::resources::CgroupConfig;

use self::addresses::Direction;
use crate::sys::bpf::{self, Hook};

/// Lays a unit's filters on its group, in place of those of an earlier run; a group that was just made (`fresh`) has none.
///
/// # Errors
/// When the kernel refuses; the message names the directive.
pub fn lay(group: &impl AsFd, config: &CgroupConfig, fresh: bool) -> io::Result<()> {
    let addresses = |direction| addresses::program(&config.ip_address_allow, &config.ip_address_deny, direction);
    let filters = [
        (Hook::Device, "DeviceAllow=", devices::program(config, &devices::Host)),
        (Hook::Ingress, "IPAddressDeny=", addresses(Direction::Ingress)),
        (Hook::Egress, "IPAddressDeny=", addresses(Direction::Egress)),
    ];
    for (hook, directive, program) in filters {
        let clean = if fresh { Ok(()) } else { bpf::detach_all(group, hook) };
        // Where nothing is to be laid, a kernel without BPF is as good as another.
        let Some(program) = program else { continue };
        let laid = program.and_then(|program| {
            clean?;
            bpf::attach(group, hook, &bpf::load(hook, &program)?)
        });
        laid.map_err(|why| io::Error::new(why.kind(), format!("cannot set {directive}: {why}")))?;
    }
    Ok(())
}
