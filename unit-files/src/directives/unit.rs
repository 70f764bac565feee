//! `[Unit]`, `[Install]`, and what may still stand in `[Service]` although it belongs in `[Unit]`.

use crate::condition::{Condition, ConditionKind};
use crate::name::UnitName;
use crate::unit::{DependencyKind, EmergencyAction, Health, InstallInfo, JobMode, Unit};
use crate::value::{expected, parse_bool};
use crate::words::Escapes;

use super::setters::{boolean, choice, clean_path, list, list_with, optional_path, optional_span, optional_text, text, unsigned};
use super::{Effect, Input, Outcome, Table, ignored, silent, warn, yes};

const ACTIONS: &[(&str, EmergencyAction)] = &[
    ("none", EmergencyAction::None),
    ("reboot", EmergencyAction::Reboot),
    ("reboot-force", EmergencyAction::RebootForce),
    ("reboot-immediate", EmergencyAction::RebootImmediate),
    ("poweroff", EmergencyAction::Poweroff),
    ("poweroff-force", EmergencyAction::PoweroffForce),
    ("poweroff-immediate", EmergencyAction::PoweroffImmediate),
    ("halt", EmergencyAction::Halt),
    ("halt-force", EmergencyAction::HaltForce),
    ("halt-immediate", EmergencyAction::HaltImmediate),
    ("exit", EmergencyAction::Exit),
    ("exit-force", EmergencyAction::ExitForce),
];

fn action(slot: &mut EmergencyAction, input: &Input<'_>) -> Outcome {
    choice(slot, input, ACTIONS, "an action (none, reboot, poweroff, halt, each also with -force or -immediate)")
}

fn job_mode(slot: &mut JobMode, input: &Input<'_>) -> Outcome {
    let modes = [
        ("fail", JobMode::Fail),
        ("replace", JobMode::Replace),
        ("replace-irreversibly", JobMode::ReplaceIrreversibly),
        ("isolate", JobMode::Isolate),
        ("flush", JobMode::Flush),
        ("ignore-dependencies", JobMode::IgnoreDependencies),
        ("ignore-requirements", JobMode::IgnoreRequirements),
    ];
    choice(slot, input, &modes, "a job mode (such as replace, fail, isolate)")
}

fn health(slot: &mut Health, input: &Input<'_>) -> Outcome {
    let values = [("required", Health::Required), ("ignored", Health::Ignored)];
    choice(slot, input, &values, "'required' or 'ignored'")
}

/// Dependencies are added; an empty value does not take any away (systemd has no reset for them).
fn dependency(unit: &mut Unit, kind: DependencyKind, input: &Input<'_>) -> Outcome {
    let mut names = Vec::new();
    list_with(&mut names, input, Escapes::Keep, |word| {
        let name = UnitName::parse(word)?;
        if name.is_template() { Err(expected(word, "an instance of the template (name@instance)")) } else { Ok(name) }
    })?;
    let own = unit.name.clone();
    for name in names {
        if name == own {
            input.note(format!("{own} cannot depend on itself"));
        } else {
            unit.dependencies.add(kind, name);
        }
    }
    Ok(Effect::Active)
}

fn mounts_for(slot: &mut Vec<String>, input: &Input<'_>) -> Outcome {
    list_with(slot, input, Escapes::C, clean_path)
}

fn condition(slot: &mut Vec<Condition>, kind: ConditionKind, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    let (trigger, rest) = input.value.strip_prefix('|').map_or((false, input.value), |rest| (true, rest.trim_start()));
    let (negate, rest) = rest.strip_prefix('!').map_or((false, rest), |rest| (true, rest.trim_start()));
    let argument = input.context.expand(rest)?;
    let argument = if kind.takes_path() { clean_path(&argument)? } else { argument };
    if argument.is_empty() && kind != ConditionKind::KernelCommandLine {
        return Err(expected(input.value, "a condition with an argument"));
    }
    if matches!(kind, ConditionKind::FirstBoot | ConditionKind::AcPower) {
        parse_bool(&argument)?;
    }
    slot.push(Condition { kind, argument, negate, trigger });
    Ok(Effect::Active)
}

macro_rules! conditions {
    ($($name:literal $kind:ident),* $(,)?) => {
        [$(
            yes(concat!("Condition", $name), |u: &mut Unit, i: &Input<'_>| condition(&mut u.conditions, ConditionKind::$kind, i)),
            yes(concat!("Assert", $name), |u: &mut Unit, i: &Input<'_>| condition(&mut u.asserts, ConditionKind::$kind, i)),
        )*]
    };
}

macro_rules! dependencies {
    ($($name:literal $kind:ident),* $(,)?) => {
        [$( yes($name, |u: &mut Unit, i: &Input<'_>| dependency(u, DependencyKind::$kind, i)), )*]
    };
}

static CONDITIONS: [super::Row<Unit>; 72] = conditions![
    "Architecture" Architecture,
    "Firmware" Firmware,
    "Virtualization" Virtualization,
    "Host" Host,
    "KernelCommandLine" KernelCommandLine,
    "KernelVersion" KernelVersion,
    "KernelModuleLoaded" KernelModuleLoaded,
    "Version" Version,
    "Credential" Credential,
    "Environment" Environment,
    "Security" Security,
    "Capability" Capability,
    "ACPower" AcPower,
    "NeedsUpdate" NeedsUpdate,
    "FirstBoot" FirstBoot,
    "PathExists" PathExists,
    "PathExistsGlob" PathExistsGlob,
    "PathIsDirectory" PathIsDirectory,
    "PathIsSymbolicLink" PathIsSymbolicLink,
    "PathIsMountPoint" PathIsMountPoint,
    "PathIsReadWrite" PathIsReadWrite,
    "PathIsEncrypted" PathIsEncrypted,
    "PathIsSocket" PathIsSocket,
    "DirectoryNotEmpty" DirectoryNotEmpty,
    "FileNotEmpty" FileNotEmpty,
    "FileIsExecutable" FileIsExecutable,
    "User" User,
    "Group" Group,
    "ControlGroupController" ControlGroupController,
    "Memory" Memory,
    "CPUs" Cpus,
    "CPUFeature" CpuFeature,
    "OSRelease" OsRelease,
    "MemoryPressure" MemoryPressure,
    "CPUPressure" CpuPressure,
    "IOPressure" IoPressure,
];

static DEPENDENCIES: [super::Row<Unit>; 19] = dependencies![
    "Requires" Requires,
    "Requisite" Requisite,
    "Wants" Wants,
    "BindsTo" BindsTo,
    "BindTo" BindsTo,
    "PartOf" PartOf,
    "Upholds" Upholds,
    "Conflicts" Conflicts,
    "Before" Before,
    "After" After,
    "OnFailure" OnFailure,
    "OnSuccess" OnSuccess,
    "PropagatesReloadTo" PropagatesReloadTo,
    "PropagateReloadTo" PropagatesReloadTo,
    "ReloadPropagatedFrom" ReloadPropagatedFrom,
    "PropagateReloadFrom" ReloadPropagatedFrom,
    "PropagatesStopTo" PropagatesStopTo,
    "StopPropagatedFrom" StopPropagatedFrom,
    "RequiresOverridable" Requires,
];

static PLAIN: [super::Row<Unit>; 32] = [
    yes("Description", |u, i| text(&mut u.description, i)),
    yes("Documentation", |u, i| {
        list_with(&mut u.documentation, i, Escapes::C, |word| {
            let schemes = ["http://", "https://", "file:/", "info:", "man:"];
            let known = schemes.iter().any(|scheme| word.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
            if known { Ok(word.to_owned()) } else { Err(expected(word, "an address (http:, https:, file:, info:, man:)")) }
        })
    }),
    yes("SourcePath", |u, i| optional_path(&mut u.source_path, i)),
    yes("DefaultDependencies", |u, i| boolean(&mut u.default_dependencies, i)),
    yes("RequiresMountsFor", |u, i| mounts_for(&mut u.requires_mounts_for, i)),
    yes("WantsMountsFor", |u, i| mounts_for(&mut u.wants_mounts_for, i)),
    warn("JoinsNamespaceOf", |u, i| dependency(u, DependencyKind::JoinsNamespaceOf, i)),
    yes("OnFailureJobMode", |u, i| job_mode(&mut u.on_failure_job_mode, i)),
    yes("OnSuccessJobMode", |u, i| job_mode(&mut u.on_success_job_mode, i)),
    yes("OnFailureIsolate", |u, i| {
        let isolate = parse_bool(i.value)?;
        u.on_failure_job_mode = if isolate { JobMode::Isolate } else { JobMode::Replace };
        Ok(Effect::from(isolate))
    }),
    yes("StartLimitIntervalSec", |u, i| span_or_infinity(&mut u.start_limit.interval, i)),
    yes("StartLimitInterval", |u, i| span_or_infinity(&mut u.start_limit.interval, i)),
    yes("StartLimitBurst", |u, i| unsigned(&mut u.start_limit.burst, i)),
    yes("StartLimitAction", |u, i| action(&mut u.start_limit.action, i)),
    yes("FailureAction", |u, i| action(&mut u.failure_action, i)),
    yes("SuccessAction", |u, i| action(&mut u.success_action, i)),
    warn("FailureActionExitStatus", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    warn("SuccessActionExitStatus", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    ignored("RebootArgument"),
    yes("JobTimeoutSec", |u, i| {
        let outcome = optional_span(&mut u.job_timeout, i)?;
        u.job_running_timeout = u.job_running_timeout.or(u.job_timeout);
        Ok(outcome)
    }),
    yes("JobRunningTimeoutSec", |u, i| optional_span(&mut u.job_running_timeout, i)),
    yes("JobTimeoutAction", |u, i| action(&mut u.job_timeout_action, i)),
    ignored("JobTimeoutRebootArgument"),
    yes("RefuseManualStart", |u, i| boolean(&mut u.refuse_manual_start, i)),
    yes("RefuseManualStop", |u, i| boolean(&mut u.refuse_manual_stop, i)),
    yes("AllowIsolate", |u, i| boolean(&mut u.allow_isolate, i)),
    yes("IgnoreOnIsolate", |u, i| boolean(&mut u.ignore_on_isolate, i)),
    yes("StopWhenUnneeded", |u, i| boolean(&mut u.stop_when_unneeded, i)),
    warn("SurviveFinalKillSignal", |u, i| boolean(&mut u.survive_final_kill_signal, i)),
    // Units stay loaded; `reset-failed` forgets a failure.
    silent("CollectMode"),
    yes("X-Health", |u, i| health(&mut u.health, i)),
    yes("X-Init-Allow-Unsupported", |u, i| list(&mut u.allow_unsupported, i)),
];

fn span_or_infinity(slot: &mut std::time::Duration, input: &Input<'_>) -> Outcome {
    // `infinity` counts every start of this boot.
    *slot = crate::value::parse_time_span(input.value)?.unwrap_or(std::time::Duration::MAX);
    Ok(Effect::Active)
}

/// The three groups of `[Unit]`.
pub(super) struct UnitTables {
    plain: Table<Unit>,
    dependencies: Table<Unit>,
    conditions: Table<Unit>,
}

impl UnitTables {
    pub(super) fn apply(&self, unit: &mut Unit, key: &str, input: &Input<'_>) -> Option<super::Applied> {
        self.dependencies
            .apply(unit, key, input)
            .or_else(|| self.plain.apply(unit, key, input))
            .or_else(|| self.conditions.apply(unit, key, input))
    }

    pub(super) fn describe(&self, section: &'static str, out: &mut Vec<super::DirectiveInfo>) {
        self.plain.describe(section, out);
        self.dependencies.describe(section, out);
        self.conditions.describe(section, out);
    }
}

pub(super) static UNIT: UnitTables =
    UnitTables { plain: Table::new(&PLAIN), dependencies: Table::new(&DEPENDENCIES), conditions: Table::new(&CONDITIONS) };

/// `[Install]` names are words with specifiers; they may be templates and need not exist.
fn install_names(slot: &mut Vec<String>, input: &Input<'_>) -> Outcome {
    list_with(slot, input, Escapes::Keep, |word| {
        UnitName::parse(word)?;
        Ok(word.to_owned())
    })
}

pub(super) static INSTALL: Table<InstallInfo> = Table::new(&[
    yes("WantedBy", |c, i| install_names(&mut c.wanted_by, i)),
    yes("RequiredBy", |c, i| install_names(&mut c.required_by, i)),
    yes("UpheldBy", |c, i| install_names(&mut c.upheld_by, i)),
    yes("Alias", |c, i| install_names(&mut c.alias, i)),
    yes("Also", |c, i| install_names(&mut c.also, i)),
    yes("DefaultInstance", |c, i| optional_text(&mut c.default_instance, i)),
]);

/// Directives of `[Unit]` that older unit files have in `[Service]`.
pub(super) static SERVICE_OLD_PLACES: Table<Unit> = Table::new(&[
    yes("StartLimitInterval", |u, i| span_or_infinity(&mut u.start_limit.interval, i)),
    yes("StartLimitIntervalSec", |u, i| span_or_infinity(&mut u.start_limit.interval, i)),
    yes("StartLimitBurst", |u, i| unsigned(&mut u.start_limit.burst, i)),
    yes("StartLimitAction", |u, i| action(&mut u.start_limit.action, i)),
    yes("FailureAction", |u, i| action(&mut u.failure_action, i)),
    ignored("RebootArgument"),
    yes("X-Health", |u, i| health(&mut u.health, i)),
    yes("X-Init-Allow-Unsupported", |u, i| list(&mut u.allow_unsupported, i)),
]);
