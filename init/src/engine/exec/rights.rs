//! Who a program runs as and what it may do: user, groups, capabilities, no-new-privileges, system call filters.
//!
//! The last thing before the program: what comes after would already be restricted.

use std::path::Path;

use rustix::thread::{CapabilitySet, CapabilitySets};
use unit_files::exec::{ExecContext, Privilege};

use super::spec::{Failure, Spec, exit};
use super::{dynamic_user, fail, identity, sandbox, seccomp};
use crate::sys;

/// Who the program runs as.
pub struct Identity {
    /// `User=`.
    pub user: Option<identity::User>,
    /// `Group=`, or the user's.
    pub gid: u32,
    groups: Vec<u32>,
    change: bool,
}

impl Identity {
    /// Looks users and groups up.
    pub fn find(spec: &Spec) -> Result<Self, Failure> {
        let context = &spec.context;
        let etc = Path::new("/etc");
        let found = context.user.as_deref().and_then(|name| identity::user(etc, name));
        let user = match context.user.as_deref() {
            // A static user of that name is taken, as systemd does.
            _ if context.dynamic_user && found.is_none() => {
                let [runtime, ..] = &spec.roots;
                let claimed = dynamic_user::claim(&Path::new(runtime).join("garboard/dynamic-users"), &spec.unit);
                Some(claimed.map_err(fail(exit::USER, "cannot set DynamicUser="))?)
            }
            Some(name) => {
                Some(found.ok_or_else(|| Failure { code: exit::USER, message: format!("there is no user {name} in /etc/passwd") })?)
            }
            None => None,
        };
        let group = |name: &String| {
            identity::group(etc, name)
                .ok_or_else(|| Failure { code: exit::GROUP, message: format!("there is no group {name} in /etc/group") })
        };
        let gid = match &context.group {
            Some(name) => group(name)?,
            None => user.as_ref().map_or(0, |user| user.gid),
        };
        let mut groups = user.as_ref().map(|user| identity::groups_of(etc, &user.name)).unwrap_or_default();
        for name in &context.supplementary_groups {
            groups.push(group(name)?);
        }
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        let kept = matches!(spec.command.privilege, Privilege::Full | Privilege::KeepIdentity) || spec.keep_identity;
        let change = !kept && (user.is_some() || context.group.is_some() || !context.supplementary_groups.is_empty());
        Ok(Self { user, gid, groups, change })
    }

    /// Changes user and groups, and drops capabilities.
    pub fn assume(&self, spec: &Spec) -> Result<(), Failure> {
        use rustix::process::{Gid, Uid};
        let context = &spec.context;
        if spec.command.privilege == Privilege::Full {
            return Ok(());
        }
        // `!` keeps user and groups, and nothing else: what the unit may not do, its program may not.
        let bounding = bounding_set(context);
        let ambient = context.ambient_capabilities.map_or(0, |set| set.0) & bounding.unwrap_or(u64::MAX);
        if self.change {
            let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            rustix::thread::set_thread_groups(&groups).map_err(fail(exit::GROUP, "cannot set supplementary groups"))?;
            let gid = Gid::from_raw(self.gid);
            rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(fail(exit::GROUP, "cannot change the group"))?;
        }
        if let Some(kind) = &context.private_users {
            // After the groups, which may not exist in there; before capabilities, of which it starts with all.
            let ids = if self.change { (self.user.as_ref().map_or(0, |user| user.uid), self.gid) } else { (0, 0) };
            sandbox::enter_user_namespace(kind, ids).map_err(fail(exit::USER, "cannot set PrivateUsers="))?;
        }
        if let Some(keep) = bounding {
            for bit in 0..64_u32 {
                let Some(mask) = 1_u64.checked_shl(bit) else { continue };
                let one = CapabilitySet::from_bits_retain(mask);
                if keep & mask == 0 && rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false) {
                    rustix::thread::remove_capability_from_bounding_set(one)
                        .map_err(fail(exit::CAPABILITIES, "cannot drop a capability from the bounding set"))?;
                }
            }
        }
        if self.change {
            if ambient != 0 {
                rustix::thread::set_keep_capabilities(true).map_err(fail(exit::CAPABILITIES, "cannot keep capabilities"))?;
            }
            if let Some(user) = &self.user {
                let uid = Uid::from_raw(user.uid);
                rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(fail(exit::USER, format!("cannot become user {}", user.name)))?;
            }
        }
        if ambient != 0 || bounding.is_some() {
            let root = !self.change || self.user.as_ref().is_none_or(|user| user.uid == 0);
            let all = rustix::thread::capabilities(None).map_err(fail(exit::CAPABILITIES, "cannot read capabilities"))?;
            let wanted = match bounding {
                Some(keep) if root => all.permitted & CapabilitySet::from_bits_retain(keep),
                None if root => all.permitted,
                _ => CapabilitySet::from_bits_retain(ambient),
            };
            let inheritable = CapabilitySet::from_bits_retain(ambient);
            let sets = CapabilitySets { effective: wanted, permitted: wanted, inheritable };
            rustix::thread::set_capabilities(None, sets).map_err(fail(exit::CAPABILITIES, "cannot set capabilities"))?;
            for bit in 0..64_u32 {
                let Some(mask) = 1_u64.checked_shl(bit).filter(|mask| ambient & mask != 0) else { continue };
                rustix::thread::configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(mask), true)
                    .map_err(fail(exit::CAPABILITIES, "cannot set AmbientCapabilities="))?;
            }
        }
        Ok(())
    }
}

/// Lays the unit's system call filters on this process: the program has them, and we after this only the exec.
pub fn filter_calls(spec: &Spec) -> Result<(), Failure> {
    let context = &spec.context;
    if spec.command.privilege == Privilege::Full {
        return Ok(());
    }
    let programs =
        seccomp::programs(context, seccomp::Architecture::native()).map_err(|message| Failure { code: exit::SECCOMP, message })?;
    // Who lacks CAP_SYS_ADMIN may filter itself only when its programs cannot gain rights either.
    let privileged = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    if context.no_new_privileges || (!programs.is_empty() && !privileged) {
        rustix::thread::set_no_new_privs(true).map_err(fail(exit::NO_NEW_PRIVILEGES, "cannot set NoNewPrivileges="))?;
    }
    for program in programs {
        let program: Vec<libc::sock_filter> = program.iter().map(seccomp::Instruction::raw).collect();
        sys::seccomp::install(&program).map_err(fail(exit::SECCOMP, "cannot install the system call filter"))?;
    }
    Ok(())
}

/// Capabilities that may be kept: as the unit says, less those that would undo a protection it asks for. `None` is all.
fn bounding_set(context: &ExecContext) -> Option<u64> {
    const SYS_MODULE: u64 = 1 << 16;
    const SYS_RAWIO: u64 = 1 << 17;
    const MKNOD: u64 = 1 << 27;
    const SYSLOG: u64 = 1 << 34;
    let protections =
        [(context.private_devices, MKNOD | SYS_RAWIO), (context.protect_kernel_modules, SYS_MODULE), (context.protect_kernel_logs, SYSLOG)];
    let taken = protections.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, mask)| all | mask);
    match context.capability_bounding_set {
        Some(set) => Some(set.0 & !taken),
        None => (taken != 0).then_some(!taken),
    }
}
