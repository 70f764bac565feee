//! The namespaces of a unit: what of the machine it sees, and what of that it may change.
//!
//! What the unit asks for and is not here was refused when the unit was loaded.

mod apply;
mod devices;
mod plan;
mod private_tmp;
mod users;

use std::io;

use rustix::thread::LinkNameSpaceType;
use unit_files::exec::{ExecContext, PrivateTmp};

pub use self::users::{enter as enter_user_namespace, map_ids};

use super::spec::{Failure, Spec, exit};
use crate::sys::process::unshare;

fn failure(code: i32, what: &str, why: impl std::fmt::Display) -> Failure {
    Failure { code, message: format!("sandbox: {what}: {why}") }
}

/// Enters every namespace but the one of users, which takes rights away that are still needed.
pub fn enter(spec: &Spec) -> Result<(), Failure> {
    let context = &spec.context;
    if let Some(path) = &context.network_namespace_path {
        join(path, LinkNameSpaceType::Network).map_err(|why| failure(exit::NETWORK, path, why))?;
    } else if context.private_network {
        unshare(libc::CLONE_NEWNET).map_err(|why| failure(exit::NETWORK, "new network namespace", why))?;
        crate::sys::link::loopback_up().map_err(|why| failure(exit::NETWORK, "loopback interface", why))?;
    }
    if let Some(path) = &context.ipc_namespace_path {
        join(path, LinkNameSpaceType::InterProcessCommunication).map_err(|why| failure(exit::NAMESPACE, path, why))?;
    } else if context.private_ipc {
        unshare(libc::CLONE_NEWIPC).map_err(|why| failure(exit::NAMESPACE, "new IPC namespace", why))?;
    }
    if context.protect_hostname {
        unshare(libc::CLONE_NEWUTS).map_err(|why| failure(exit::NAMESPACE, "new UTS namespace", why))?;
    }
    let plan = plan::plan(context);
    if needs_mounts(context, &plan) {
        unshare(libc::CLONE_NEWNS).map_err(|why| failure(exit::NAMESPACE, "new mount namespace", why))?;
        apply::apply(spec, &plan)?;
    }
    Ok(())
}

fn needs_mounts(context: &ExecContext, plan: &plan::Plan) -> bool {
    !plan.mounts.is_empty()
        || !plan.rules.is_empty()
        || context.private_tmp != PrivateTmp::No
        || context.private_mounts
        || context.mount_flags.is_some()
}

fn join(path: &str, kind: LinkNameSpaceType) -> io::Result<()> {
    let file = std::fs::File::open(path)?;
    Ok(rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(kind))?)
}
