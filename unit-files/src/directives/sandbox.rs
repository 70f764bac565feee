//! What takes rights away from processes.

use crate::exec::{
    BindPath, CapabilitySet, ExecContext, MountPropagation, PathRule, PrivateTmp, ProtectHome, ProtectProc, ProtectSystem,
    RestrictNamespaces, SyscallRule,
};
use crate::value::{ALL_CAPABILITIES, ValueError, expected, parse_bool, parse_capability};
use crate::words::{Escapes, split};

use super::setters::{allow_deny, boolean, boolean_or_choice, choice, clean_path, expand, list, list_with, optional_path, optional_text};
use super::{Effect, Input, Outcome, Table, refuse, warn};

/// Lines add up: plain ones allow, `~` ones take away; the first decides what the rest starts from.
fn capabilities(slot: &mut Option<CapabilitySet>, input: &Input<'_>, initial: u64) -> Outcome {
    let (invert, text) = input.value.strip_prefix('~').map_or((false, input.value), |rest| (true, rest));
    let mut sum = 0_u64;
    for word in split(&input.context.expand(text)?, Escapes::C)? {
        sum |= 1_u64 << parse_capability(&word)?;
    }
    let current = slot.map_or(initial, |set| set.0);
    let value = match (sum == 0 || current == initial, invert) {
        (true, true) => ALL_CAPABILITIES & !sum,
        (true, false) => sum,
        (false, true) => current & !sum,
        (false, false) => current | sum,
    };
    *slot = Some(CapabilitySet(value)).filter(|set| set.0 != initial);
    Ok(Effect::from(slot.is_some()))
}

fn path_rules(slot: &mut Vec<PathRule>, input: &Input<'_>) -> Outcome {
    list_with(slot, input, Escapes::C, |word| {
        let (optional, word) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
        let (in_root, word) = word.strip_prefix('+').map_or((false, word), |rest| (true, rest));
        Ok(PathRule { path: clean_path(word)?, optional, in_root })
    })
}

fn bind_paths(slot: &mut Vec<BindPath>, read_only: bool, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.retain(|bind| bind.read_only != read_only);
        return Ok(Effect::None);
    }
    let mut binds = Vec::new();
    let outcome = list_with(&mut binds, input, Escapes::C, |word| {
        let (optional, word) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
        let mut parts = word.split(':');
        let source = clean_path(parts.next().unwrap_or_default())?;
        let destination = parts.next().filter(|path| !path.is_empty()).map_or_else(|| Ok(source.clone()), clean_path)?;
        let recursive = match parts.next() {
            None | Some("" | "rbind") => true,
            Some("norbind") => false,
            Some(other) => return Err(expected(other, "'rbind' or 'norbind'")),
        };
        Ok(BindPath { source, destination, optional, recursive, read_only })
    })?;
    slot.extend(binds);
    Ok(outcome)
}

fn temporary(slot: &mut Vec<(String, String)>, input: &Input<'_>) -> Outcome {
    list_with(slot, input, Escapes::C, |word| {
        let (path, options) = word.split_once(':').unwrap_or((word, ""));
        Ok((clean_path(path)?, options.to_owned()))
    })
}

fn syscalls(slot: &mut Vec<SyscallRule>, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    let text = expand(input)?;
    let (deny, text) = text.strip_prefix('~').map_or((false, text.as_str()), |rest| (true, rest));
    slot.push(SyscallRule { deny, names: split(text, Escapes::Keep)? });
    Ok(Effect::Active)
}

fn namespaces(slot: &mut Option<RestrictNamespaces>, input: &Input<'_>) -> Outcome {
    match parse_bool(input.value) {
        Ok(true) => *slot = Some(RestrictNamespaces::All),
        Ok(false) => *slot = None,
        Err(_) => {
            let mut names = match slot.take() {
                Some(RestrictNamespaces::List(names)) => Some(names),
                _ => None,
            };
            allow_deny(&mut names, input)?;
            *slot = names.map(RestrictNamespaces::List);
        }
    }
    Ok(Effect::from(slot.is_some()))
}

fn label(slot: &mut Vec<(String, String)>, key: &str, input: &Input<'_>) -> Outcome {
    slot.retain(|(known, _)| known != key);
    let text = expand(input)?;
    // `-`: go on where there is no such security module, and here there is none.
    if text.is_empty() || text.starts_with('-') {
        return Ok(Effect::None);
    }
    slot.push((key.to_owned(), text));
    Ok(Effect::Active)
}

fn private_users(slot: &mut Option<String>, input: &Input<'_>) -> Outcome {
    *slot = match parse_bool(input.value) {
        Ok(true) => Some("self".to_owned()),
        Ok(false) => None,
        Err(_) if matches!(input.value, "self" | "identity" | "full" | "managed") => Some(input.value.to_owned()),
        Err(error) => return Err(error),
    };
    Ok(Effect::from(slot.is_some()))
}

/// A switch that newer versions give more values than yes and no; anything but no switches it on.
fn switch(slot: &mut bool, input: &Input<'_>, others: &[&str]) -> Outcome {
    let (word, _) = input.value.split_once(':').unwrap_or((input.value, ""));
    *slot = if others.contains(&word) { true } else { parse_bool(word)? };
    Ok(Effect::from(*slot))
}

fn named(input: &Input<'_>) -> Result<Effect, ValueError> {
    Ok(Effect::from(!expand(input)?.is_empty()))
}

pub(super) static SANDBOX: Table<ExecContext> = Table::new(&[
    refuse("NoNewPrivileges", |c, i| boolean(&mut c.no_new_privileges, i)),
    refuse("SecureBits", |c, i| list(&mut c.secure_bits, i)),
    refuse("CapabilityBoundingSet", |c, i| capabilities(&mut c.capability_bounding_set, i, ALL_CAPABILITIES)),
    refuse("AmbientCapabilities", |c, i| capabilities(&mut c.ambient_capabilities, i, 0)),
    refuse("Capabilities", |_, i| named(i)),
    refuse("RootDirectory", |c, i| {
        optional_path(&mut c.root_directory, i)?;
        Ok(Effect::from(c.root_directory.as_deref().is_some_and(|path| path != "/")))
    }),
    refuse("RootImage", |c, i| optional_path(&mut c.root_image, i)),
    refuse("RootMStack", |_, i| named(i)),
    refuse("RootEphemeral", |_, i| Ok(Effect::from(parse_bool(i.value)?))),
    warn("RootImageOptions", |_, i| named(i)),
    warn("RootImagePolicy", |_, i| named(i)),
    warn("RootHash", |_, i| named(i)),
    warn("RootHashSignature", |_, i| named(i)),
    warn("RootVerity", |_, i| named(i)),
    refuse("MountImages", |_, i| named(i)),
    warn("MountImagePolicy", |_, i| named(i)),
    refuse("ExtensionImages", |_, i| named(i)),
    refuse("ExtensionDirectories", |_, i| named(i)),
    warn("ExtensionImagePolicy", |_, i| named(i)),
    refuse("ProtectSystem", |c, i| {
        let choices = [("full", ProtectSystem::Full), ("strict", ProtectSystem::Strict)];
        boolean_or_choice(&mut c.protect_system, i, [ProtectSystem::No, ProtectSystem::Yes], &choices, "yes, no, full or strict")
    }),
    refuse("ProtectHome", |c, i| {
        let choices = [("read-only", ProtectHome::ReadOnly), ("tmpfs", ProtectHome::Tmpfs)];
        boolean_or_choice(&mut c.protect_home, i, [ProtectHome::No, ProtectHome::Yes], &choices, "yes, no, read-only or tmpfs")
    }),
    refuse("ProtectProc", |c, i| {
        let choices = [
            ("default", ProtectProc::Default),
            ("noaccess", ProtectProc::Noaccess),
            ("invisible", ProtectProc::Invisible),
            ("ptraceable", ProtectProc::Ptraceable),
        ];
        choice(&mut c.protect_proc, i, &choices, "noaccess, invisible, ptraceable or default")
    }),
    refuse("ProcSubset", |c, i| choice(&mut c.proc_subset_pid, i, &[("all", false), ("pid", true)], "'all' or 'pid'")),
    refuse("ProtectKernelTunables", |c, i| boolean(&mut c.protect_kernel_tunables, i)),
    refuse("ProtectKernelModules", |c, i| boolean(&mut c.protect_kernel_modules, i)),
    refuse("ProtectControlGroups", |c, i| switch(&mut c.protect_control_groups, i, &["private", "strict"])),
    // Their absence opens nothing that other settings of the same units do not close: warned about, not refused.
    warn("ProtectKernelLogs", |c, i| boolean(&mut c.protect_kernel_logs, i)),
    warn("ProtectClock", |c, i| boolean(&mut c.protect_clock, i)),
    warn("ProtectHostname", |c, i| switch(&mut c.protect_hostname, i, &["private"])),
    refuse("PrivateTmp", |c, i| {
        let choices = [("disconnected", PrivateTmp::Disconnected)];
        boolean_or_choice(&mut c.private_tmp, i, [PrivateTmp::No, PrivateTmp::Connected], &choices, "yes, no or disconnected")
    }),
    refuse("PrivateDevices", |c, i| boolean(&mut c.private_devices, i)),
    refuse("PrivateBPF", |_, i| Ok(Effect::from(parse_bool(i.value)?))),
    refuse("PrivateNetwork", |c, i| boolean(&mut c.private_network, i)),
    refuse("NetworkNamespacePath", |c, i| optional_path(&mut c.network_namespace_path, i)),
    refuse("PrivateIPC", |c, i| boolean(&mut c.private_ipc, i)),
    refuse("IPCNamespacePath", |c, i| optional_path(&mut c.ipc_namespace_path, i)),
    refuse("PrivatePIDs", |c, i| boolean(&mut c.private_pids, i)),
    refuse("PrivateUsers", |c, i| private_users(&mut c.private_users, i)),
    refuse("UserNamespacePath", |_, i| named(i)),
    refuse("PrivateMounts", |c, i| boolean(&mut c.private_mounts, i)),
    warn("MountAPIVFS", |c, i| boolean(&mut c.mount_api_vfs, i)),
    warn("BindLogSockets", |_, i| Ok(Effect::from(parse_bool(i.value)?))),
    warn("MountFlags", |c, i| {
        let flags = [
            ("", None),
            ("shared", Some(MountPropagation::Shared)),
            ("slave", Some(MountPropagation::Slave)),
            ("private", Some(MountPropagation::Private)),
        ];
        choice(&mut c.mount_flags, i, &flags, "shared, slave or private")
    }),
    refuse("ReadWritePaths", |c, i| path_rules(&mut c.read_write_paths, i)),
    refuse("ReadOnlyPaths", |c, i| path_rules(&mut c.read_only_paths, i)),
    refuse("InaccessiblePaths", |c, i| path_rules(&mut c.inaccessible_paths, i)),
    refuse("ReadWriteDirectories", |c, i| path_rules(&mut c.read_write_paths, i)),
    refuse("ReadOnlyDirectories", |c, i| path_rules(&mut c.read_only_paths, i)),
    refuse("InaccessibleDirectories", |c, i| path_rules(&mut c.inaccessible_paths, i)),
    refuse("ExecPaths", |c, i| path_rules(&mut c.exec_paths, i)),
    refuse("NoExecPaths", |c, i| path_rules(&mut c.no_exec_paths, i)),
    refuse("TemporaryFileSystem", |c, i| temporary(&mut c.temporary_file_systems, i)),
    refuse("BindPaths", |c, i| bind_paths(&mut c.bind_paths, false, i)),
    refuse("BindReadOnlyPaths", |c, i| bind_paths(&mut c.bind_paths, true, i)),
    refuse("SystemCallFilter", |c, i| syscalls(&mut c.system_call_filter, i)),
    // Says how a refused call fails; without a filter it does nothing.
    warn("SystemCallErrorNumber", |c, i| {
        optional_text(&mut c.system_call_error_number, i)?;
        Ok(Effect::None)
    }),
    refuse("SystemCallArchitectures", |c, i| list(&mut c.system_call_architectures, i)),
    warn("SystemCallLog", |c, i| syscalls(&mut c.system_call_log, i)),
    refuse("RestrictAddressFamilies", |c, i| allow_deny(&mut c.restrict_address_families, i)),
    refuse("RestrictFileSystems", |c, i| allow_deny(&mut c.restrict_file_systems, i)),
    refuse("RestrictNamespaces", |c, i| namespaces(&mut c.restrict_namespaces, i)),
    refuse("DelegateNamespaces", |_, i| named(i)),
    refuse("RestrictRealtime", |c, i| boolean(&mut c.restrict_realtime, i)),
    refuse("RestrictSUIDSGID", |c, i| boolean(&mut c.restrict_suid_sgid, i)),
    refuse("MemoryDenyWriteExecute", |c, i| boolean(&mut c.memory_deny_write_execute, i)),
    refuse("LockPersonality", |c, i| boolean(&mut c.lock_personality, i)),
    refuse("SELinuxContext", |c, i| label(&mut c.security_labels, "SELinuxContext", i)),
    refuse("AppArmorProfile", |c, i| label(&mut c.security_labels, "AppArmorProfile", i)),
    refuse("SmackProcessLabel", |c, i| label(&mut c.security_labels, "SmackProcessLabel", i)),
]);
