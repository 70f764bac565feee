//! Restrictions that look at a call's arguments: address families, namespaces, writable code, real-time, setuid bits.

use unit_files::exec::{AllowDenyList, ExecContext, RestrictNamespaces};

use super::filter::{Action, Filter, Test};

const EPERM: Action = Action::Errno(libc::EPERM as u16);
const ENOSYS: Action = Action::Errno(libc::ENOSYS as u16);

fn equal(argument: u8, mask: u32, value: u32) -> Test {
    Test { argument, mask, value, equal: true }
}

fn differs(argument: u8, mask: u32, value: u32) -> Test {
    Test { argument, mask, value, equal: false }
}

/// Adds everything that the unit asks for.
///
/// # Errors
/// When a name is not known.
pub fn restrict(filter: &mut Filter, context: &ExecContext) -> Result<(), String> {
    if let Some(list) = &context.restrict_address_families {
        address_families(filter, list)?;
    }
    if let Some(restriction) = &context.restrict_namespaces {
        namespaces(filter, restriction)?;
    }
    if context.memory_deny_write_execute {
        writable_code(filter);
    }
    if context.restrict_realtime {
        realtime(filter);
    }
    if context.restrict_suid_sgid {
        set_id_bits(filter);
    }
    if context.lock_personality {
        // Asking for the present one stays possible, and setting the one we were started with.
        filter.when("personality", &[differs(0, u32::MAX, u32::MAX), differs(0, u32::MAX, 0)], EPERM);
    }
    Ok(())
}

const FAMILIES: &[(&str, i32)] = &[
    ("AF_UNIX", libc::AF_UNIX),
    ("AF_LOCAL", libc::AF_LOCAL),
    ("AF_INET", libc::AF_INET),
    ("AF_AX25", libc::AF_AX25),
    ("AF_IPX", libc::AF_IPX),
    ("AF_APPLETALK", libc::AF_APPLETALK),
    ("AF_NETROM", libc::AF_NETROM),
    ("AF_BRIDGE", libc::AF_BRIDGE),
    ("AF_ATMPVC", libc::AF_ATMPVC),
    ("AF_X25", libc::AF_X25),
    ("AF_INET6", libc::AF_INET6),
    ("AF_ROSE", libc::AF_ROSE),
    ("AF_DECnet", libc::AF_DECnet),
    ("AF_NETBEUI", libc::AF_NETBEUI),
    ("AF_SECURITY", libc::AF_SECURITY),
    ("AF_KEY", libc::AF_KEY),
    ("AF_NETLINK", libc::AF_NETLINK),
    ("AF_ROUTE", libc::AF_ROUTE),
    ("AF_PACKET", libc::AF_PACKET),
    ("AF_ASH", libc::AF_ASH),
    ("AF_ECONET", libc::AF_ECONET),
    ("AF_ATMSVC", libc::AF_ATMSVC),
    ("AF_RDS", libc::AF_RDS),
    ("AF_SNA", libc::AF_SNA),
    ("AF_IRDA", libc::AF_IRDA),
    ("AF_PPPOX", libc::AF_PPPOX),
    ("AF_WANPIPE", libc::AF_WANPIPE),
    ("AF_LLC", libc::AF_LLC),
    ("AF_IB", libc::AF_IB),
    ("AF_MPLS", libc::AF_MPLS),
    ("AF_CAN", libc::AF_CAN),
    ("AF_TIPC", libc::AF_TIPC),
    ("AF_BLUETOOTH", libc::AF_BLUETOOTH),
    ("AF_IUCV", libc::AF_IUCV),
    ("AF_RXRPC", libc::AF_RXRPC),
    ("AF_ISDN", libc::AF_ISDN),
    ("AF_PHONET", libc::AF_PHONET),
    ("AF_IEEE802154", libc::AF_IEEE802154),
    ("AF_CAIF", libc::AF_CAIF),
    ("AF_ALG", libc::AF_ALG),
    ("AF_NFC", libc::AF_NFC),
    ("AF_VSOCK", libc::AF_VSOCK),
    ("AF_KCM", 41),
    ("AF_QIPCRTR", 42),
    ("AF_SMC", 43),
    ("AF_XDP", libc::AF_XDP),
    ("AF_MCTP", 45),
];

fn address_families(filter: &mut Filter, list: &AllowDenyList) -> Result<(), String> {
    let denied = Action::Errno(libc::EAFNOSUPPORT as u16);
    let mut families = Vec::new();
    for name in list.names.iter().filter(|name| *name != "none") {
        let known = FAMILIES.iter().find(|(known, _)| known == name).and_then(|(_, number)| u32::try_from(*number).ok());
        match known {
            Some(family) => families.push(family),
            // One that is not known cannot be allowed, which is no right too many.
            None if list.allow => {}
            None => return Err(format!("RestrictAddressFamilies=: there is no address family {name}")),
        }
    }
    if list.allow {
        let tests: Vec<Test> = families.iter().map(|family| differs(0, u32::MAX, *family)).collect();
        filter.when("socket", &tests, denied);
    } else {
        for family in families {
            filter.when("socket", &[equal(0, u32::MAX, family)], denied);
        }
    }
    // Its rings make sockets without the call.
    filter.deny_also("io_uring_setup", EPERM)
}

const NAMESPACES: [(&str, i32); 8] = [
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("ipc", libc::CLONE_NEWIPC),
    ("net", libc::CLONE_NEWNET),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("user", libc::CLONE_NEWUSER),
    ("uts", libc::CLONE_NEWUTS),
    ("time", 0x80),
];

fn namespaces(filter: &mut Filter, restriction: &RestrictNamespaces) -> Result<(), String> {
    let denied: Vec<u32> = match restriction {
        RestrictNamespaces::All => NAMESPACES.iter().map(|(_, flag)| flag.cast_unsigned()).collect(),
        RestrictNamespaces::List(list) => {
            if let Some(unknown) = list.names.iter().find(|name| NAMESPACES.iter().all(|(known, _)| known != name)) {
                return Err(format!("RestrictNamespaces=: there is no kind of namespace called {unknown}"));
            }
            let named = |name: &str| list.names.iter().any(|have| have == name);
            NAMESPACES.iter().filter(|(name, _)| named(name) != list.allow).map(|(_, flag)| flag.cast_unsigned()).collect()
        }
    };
    if denied.is_empty() {
        return Ok(());
    }
    for flag in denied {
        filter.when("unshare", &[equal(0, flag, flag)], EPERM);
        filter.when("setns", &[equal(1, flag, flag)], EPERM);
        // In clone that bit is part of the signal's number.
        if flag != 0x80 {
            filter.when("clone", &[equal(0, flag, flag)], EPERM);
        }
    }
    // Any kind.
    filter.when("setns", &[equal(1, u32::MAX, 0)], EPERM);
    // Its flags are in memory, where a filter cannot look; libraries fall back to clone.
    filter.deny_also("clone3", ENOSYS)
}

fn writable_code(filter: &mut Filter) {
    let (write, exec) = (libc::PROT_WRITE.cast_unsigned(), libc::PROT_EXEC.cast_unsigned());
    filter.when("mmap", &[equal(2, write | exec, write | exec)], EPERM);
    filter.when("mprotect", &[equal(2, exec, exec)], EPERM);
    filter.when("pkey_mprotect", &[equal(2, exec, exec)], EPERM);
    let shared = libc::SHM_EXEC.cast_unsigned();
    filter.when("shmat", &[equal(2, shared, shared)], EPERM);
}

fn realtime(filter: &mut Filter) {
    // Without SCHED_RESET_ON_FORK: what is not other, batch or idle.
    let policy = !0x4000_0000;
    let ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE];
    let tests = ordinary.map(|known| differs(1, policy, known.cast_unsigned()));
    filter.when("sched_setscheduler", &tests, EPERM);
    // The policy is in memory, where a filter cannot look.
    filter.when("sched_setattr", &[], EPERM);
}

fn set_id_bits(filter: &mut Filter) {
    let bits = |argument| differs(argument, 0o6000, 0);
    for (call, mode) in [
        ("chmod", 1),
        ("fchmod", 1),
        ("fchmodat", 2),
        ("fchmodat2", 2),
        ("mkdir", 1),
        ("mkdirat", 2),
        ("mknod", 1),
        ("mknodat", 2),
        ("creat", 1),
    ] {
        filter.when(call, &[bits(mode)], EPERM);
    }
    // The mode counts only where a file is made: O_CREAT or O_TMPFILE.
    for (call, flags) in [("open", 1), ("openat", 2)] {
        filter.when(call, &[differs(flags, 0o20_000_100, 0), bits(flags + 1)], EPERM);
    }
    // Their arguments are in memory, where a filter cannot look.
    filter.when("openat2", &[], ENOSYS);
    filter.when("io_uring_setup", &[], EPERM);
}
