//! What every process is started with, short of sandboxing.

use crate::environment::{is_name, split_assignment};
use crate::exec::{
    CpuSchedulingPolicy, Credential, CredentialSource, DirectoryConfig, EnvironmentFile, ExecContext, InputKind, IoSchedulingClass,
    KeyringMode, LimitKind, ManagedDirectory, OutputKind, PreserveMode, ResourceLimit,
};
use crate::value::{self, ValueError, expected, parse_bool, parse_number_set, parse_size};
use crate::words::Escapes;

use super::setters::{
    boolean, boolean_or_choice, choice, clean_path, expand, list, list_with, mode, number, optional_number, optional_path, optional_span,
    optional_text,
};
use super::{Effect, Input, Outcome, Table, refuse, silent, warn, yes};

fn environment(slot: &mut Vec<(String, String)>, input: &Input<'_>) -> Outcome {
    list_with(slot, input, Escapes::C, |word| {
        let (name, value) = split_assignment(word).ok_or_else(|| expected(word, "NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    })
}

fn environment_file(slot: &mut Vec<EnvironmentFile>, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    let text = expand(input)?;
    let (path, optional) = text.strip_prefix('-').map_or((text.as_str(), false), |path| (path, true));
    slot.push(EnvironmentFile { path: clean_path(path)?, optional });
    Ok(Effect::Active)
}

fn variable_names(slot: &mut Vec<String>, input: &Input<'_>, with_value: bool) -> Outcome {
    list_with(slot, input, Escapes::C, |word| {
        if is_name(word) || (with_value && split_assignment(word).is_some()) {
            Ok(word.to_owned())
        } else {
            Err(expected(word, "the name of a variable"))
        }
    })
}

fn working_directory(context: &mut ExecContext, input: &Input<'_>) -> Outcome {
    let text = expand(input)?;
    let (path, optional) = text.strip_prefix('-').map_or((text.as_str(), false), |path| (path, true));
    context.working_directory = match path {
        "" => None,
        "~" => Some("~".to_owned()),
        path => Some(clean_path(path)?),
    };
    context.working_directory_optional = optional;
    Ok(Effect::from(context.working_directory.is_some()))
}

/// What a limit's numbers count.
#[derive(Clone, Copy)]
enum LimitUnit {
    Plain,
    Bytes,
    Seconds,
    Microseconds,
    Nice,
}

fn limit(context: &mut ExecContext, kind: LimitKind, unit: LimitUnit, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        context.limits.remove(&kind);
        return Ok(Effect::None);
    }
    let text = expand(input)?;
    let one = |text: &str| -> Result<Option<u64>, ValueError> {
        let text = text.trim();
        if text == "infinity" {
            return Ok(None);
        }
        let bad = || expected(text, "a limit");
        match unit {
            LimitUnit::Plain => text.parse().map(Some).map_err(|_| bad()),
            LimitUnit::Bytes => parse_size(text, 1024).map(Some),
            LimitUnit::Seconds => {
                Ok(value::parse_time_span(text)?.map(|span| span.as_millis().div_ceil(1000)).and_then(|s| u64::try_from(s).ok()))
            }
            LimitUnit::Microseconds => match text.parse() {
                Ok(microseconds) => Ok(Some(microseconds)),
                Err(_) => Ok(value::parse_time_span(text)?.and_then(|span| u64::try_from(span.as_micros()).ok())),
            },
            // `-5` and `+5` are nice values, which the kernel counts from 20 down; a bare number is the kernel's own.
            LimitUnit::Nice if text.starts_with(['+', '-']) => {
                let nice: i64 = text.parse().map_err(|_| bad())?;
                if !(-20..=19).contains(&nice) {
                    return Err(bad());
                }
                u64::try_from(20 - nice).map(Some).map_err(|_| bad())
            }
            LimitUnit::Nice => text.parse().ok().filter(|limit| *limit <= 40).map(Some).ok_or_else(bad),
        }
    };
    let limit = match text.split_once(':') {
        Some((soft, hard)) => ResourceLimit { soft: one(soft)?, hard: one(hard)? },
        None => {
            let both = one(&text)?;
            ResourceLimit { soft: both, hard: both }
        }
    };
    if limit.soft.unwrap_or(u64::MAX) > limit.hard.unwrap_or(u64::MAX) {
        return Err(expected(input.value, "a soft limit that is not above the hard one"));
    }
    context.limits.insert(kind, limit);
    Ok(Effect::Active)
}

fn standard_input(slot: &mut InputKind, input: &Input<'_>) -> Outcome {
    let text = expand(input)?;
    *slot = match text.as_str() {
        "null" | "" => InputKind::Null,
        "tty" => InputKind::Tty,
        "tty-force" => InputKind::TtyForce,
        "tty-fail" => InputKind::TtyFail,
        "data" => InputKind::Data,
        "socket" => InputKind::Socket,
        "fd" => InputKind::Fd("stdin".to_owned()),
        other => match other.split_once(':') {
            Some(("file", path)) => InputKind::File(clean_path(path)?),
            Some(("fd", name)) => InputKind::Fd(name.to_owned()),
            _ => return Err(expected(other, "a standard input (null, tty, file:PATH, socket, fd:NAME, data)")),
        },
    };
    Ok(Effect::from(*slot != InputKind::Null))
}

fn standard_output(slot: &mut OutputKind, input: &Input<'_>) -> Outcome {
    let text = expand(input)?;
    *slot = match text.as_str() {
        "inherit" | "" => OutputKind::Inherit,
        "null" => OutputKind::Null,
        "tty" => OutputKind::Tty,
        "journal" | "syslog" => OutputKind::Log,
        "journal+console" | "syslog+console" => OutputKind::LogConsole,
        "kmsg" => OutputKind::Kmsg,
        "kmsg+console" => OutputKind::KmsgConsole,
        "socket" => OutputKind::Socket,
        "fd" => OutputKind::Fd("stdout".to_owned()),
        other => match other.split_once(':') {
            Some(("file", path)) => OutputKind::File(clean_path(path)?),
            Some(("append", path)) => OutputKind::Append(clean_path(path)?),
            Some(("truncate", path)) => OutputKind::Truncate(clean_path(path)?),
            Some(("fd", name)) => OutputKind::Fd(name.to_owned()),
            _ => return Err(expected(other, "a standard output (inherit, null, journal, tty, file:PATH, append:PATH, socket, fd:NAME)")),
        },
    };
    Ok(Effect::Active)
}

fn input_text(slot: &mut Vec<u8>, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    // One quoted word keeps its blanks: only escapes count here.
    let mut words = crate::words::Words::new(input.value, Escapes::C);
    let mut text = Vec::new();
    while let Some(word) = words.next_word()? {
        text.push(word);
    }
    slot.extend_from_slice(input.context.expand(&text.join(" "))?.as_bytes());
    slot.push(b'\n');
    Ok(Effect::Active)
}

fn input_data(slot: &mut Vec<u8>, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    slot.extend(decode_base64(input.value).ok_or_else(|| expected(input.value, "base64"))?);
    Ok(Effect::Active)
}

/// Base64 with blanks anywhere.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count, mut padding) = (0_u32, 0_u32, 0_u32);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let sextet = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = (bits << 6) | u32::from(sextet);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    (padding <= 2).then_some(out)
}

const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

const LEVELS: [(&str, u8); 8] =
    [("emerg", 0), ("alert", 1), ("crit", 2), ("err", 3), ("warning", 4), ("notice", 5), ("info", 6), ("debug", 7)];

fn level(input: &Input<'_>) -> Result<u8, ValueError> {
    let found = LEVELS.iter().find(|(name, number)| *name == input.value || number.to_string() == input.value);
    found.map(|(_, number)| *number).ok_or_else(|| expected(input.value, "a log level (such as info, warning, err)"))
}

/// Directories that are made for the unit: relative, below the kind's root.
fn directories(slot: &mut DirectoryConfig, input: &Input<'_>) -> Outcome {
    list_with(&mut slot.paths, input, Escapes::C, |word| {
        let mut parts = word.split(':');
        let path = relative(parts.next().unwrap_or_default())?;
        let links = parts.filter(|link| !link.is_empty() && *link != "ro").map(relative).collect::<Result<Vec<_>, _>>()?;
        Ok(ManagedDirectory { path, links })
    })
}

fn relative(path: &str) -> Result<String, ValueError> {
    if path.is_empty() || path.starts_with('/') || path == "private" || path.starts_with("private/") {
        return Err(expected(path, "a relative path"));
    }
    Ok(clean_path(&format!("/{path}"))?.trim_start_matches('/').to_owned())
}

/// `LoadCredential=id:path`, `SetCredential=id:value`.
fn credential(slot: &mut Vec<Credential>, input: &Input<'_>, encrypted: bool, literal: bool) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    let text = expand(input)?;
    let (id, source) = text.split_once(':').unwrap_or((&text, ""));
    if id.is_empty() || id.contains('/') {
        return Err(expected(&text, "a credential (NAME:SOURCE)"));
    }
    let source = if literal { CredentialSource::Literal(source.to_owned()) } else { CredentialSource::Path(source.to_owned()) };
    slot.push(Credential { id: id.to_owned(), source, encrypted });
    Ok(Effect::Active)
}

fn import_credential(slot: &mut Vec<Credential>, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        return Ok(Effect::None);
    }
    slot.push(Credential { id: expand(input)?, source: CredentialSource::Import, encrypted: false });
    Ok(Effect::Active)
}

fn affinity(slot: &mut Vec<u32>, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    if input.value == "numa" {
        return Err(expected("numa", "a list of processors"));
    }
    slot.extend(parse_number_set(input.value)?);
    slot.sort_unstable();
    slot.dedup();
    Ok(Effect::Active)
}

macro_rules! limits {
    ($($key:literal $kind:ident $unit:ident),* $(,)?) => {
        [$( yes($key, |c: &mut ExecContext, i: &Input<'_>| limit(c, LimitKind::$kind, LimitUnit::$unit, i)), )*]
    };
}

static LIMITS: [super::Row<ExecContext>; 16] = limits![
    "LimitCPU" Cpu Seconds,
    "LimitFSIZE" Fsize Bytes,
    "LimitDATA" Data Bytes,
    "LimitSTACK" Stack Bytes,
    "LimitCORE" Core Bytes,
    "LimitRSS" Rss Bytes,
    "LimitNPROC" Nproc Plain,
    "LimitNOFILE" Nofile Plain,
    "LimitMEMLOCK" Memlock Bytes,
    "LimitAS" As Bytes,
    "LimitLOCKS" Locks Plain,
    "LimitSIGPENDING" Sigpending Plain,
    "LimitMSGQUEUE" Msgqueue Bytes,
    "LimitNICE" Nice Nice,
    "LimitRTPRIO" Rtprio Plain,
    "LimitRTTIME" Rttime Microseconds,
];

static PLAIN: [super::Row<ExecContext>; 73] = [
    // Identity. An unknown name or a user that is not switched to would be more rights than written.
    refuse("User", |c, i| optional_text(&mut c.user, i)),
    refuse("Group", |c, i| optional_text(&mut c.group, i)),
    refuse("SupplementaryGroups", |c, i| list(&mut c.supplementary_groups, i)),
    refuse("DynamicUser", |c, i| boolean(&mut c.dynamic_user, i)),
    yes("SetLoginEnvironment", |c, i| {
        c.set_login_environment = Some(parse_bool(i.value)?);
        Ok(Effect::Active)
    }),
    refuse("PAMName", |c, i| optional_text(&mut c.pam_name, i)),
    yes("Environment", |c, i| environment(&mut c.environment, i)),
    yes("EnvironmentFile", |c, i| environment_file(&mut c.environment_files, i)),
    yes("PassEnvironment", |c, i| variable_names(&mut c.pass_environment, i, false)),
    yes("UnsetEnvironment", |c, i| variable_names(&mut c.unset_environment, i, true)),
    yes("ExecSearchPath", |c, i| {
        if i.value.is_empty() {
            c.exec_search_path.clear();
            return Ok(Effect::None);
        }
        for path in expand(i)?.split(':') {
            c.exec_search_path.push(clean_path(path)?);
        }
        Ok(Effect::Active)
    }),
    yes("WorkingDirectory", working_directory),
    yes("UMask", |c, i| mode(&mut c.umask, i)),
    yes("Nice", |c, i| optional_number(&mut c.nice, i, -20..=19, "a nice level from -20 to 19")),
    yes("OOMScoreAdjust", |c, i| optional_number(&mut c.oom_score_adjust, i, -1000..=1000, "a number from -1000 to 1000")),
    warn("CPUSchedulingPolicy", |c, i| {
        let policies = [
            ("", None),
            ("other", Some(CpuSchedulingPolicy::Other)),
            ("batch", Some(CpuSchedulingPolicy::Batch)),
            ("idle", Some(CpuSchedulingPolicy::Idle)),
            ("fifo", Some(CpuSchedulingPolicy::Fifo)),
            ("rr", Some(CpuSchedulingPolicy::Rr)),
        ];
        choice(&mut c.cpu_scheduling_policy, i, &policies, "a scheduling policy (other, batch, idle, fifo, rr)")
    }),
    warn("CPUSchedulingPriority", |c, i| optional_number(&mut c.cpu_scheduling_priority, i, 0..=99, "a priority from 0 to 99")),
    warn("CPUSchedulingResetOnFork", |c, i| boolean(&mut c.cpu_scheduling_reset_on_fork, i)),
    warn("CPUAffinity", |c, i| affinity(&mut c.cpu_affinity, i)),
    warn("NUMAPolicy", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    warn("NUMAMask", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    warn("IOSchedulingClass", |c, i| {
        let classes = [
            ("none", Some(IoSchedulingClass::None)),
            ("0", Some(IoSchedulingClass::None)),
            ("realtime", Some(IoSchedulingClass::Realtime)),
            ("1", Some(IoSchedulingClass::Realtime)),
            ("best-effort", Some(IoSchedulingClass::BestEffort)),
            ("2", Some(IoSchedulingClass::BestEffort)),
            ("idle", Some(IoSchedulingClass::Idle)),
            ("3", Some(IoSchedulingClass::Idle)),
        ];
        choice(&mut c.io_scheduling_class, i, &classes, "a class (realtime, best-effort, idle)")
    }),
    warn("IOSchedulingPriority", |c, i| optional_number(&mut c.io_scheduling_priority, i, 0..=7, "a priority from 0 to 7")),
    warn("TimerSlackNSec", |c, i| {
        c.timer_slack = Some(value::parse_nanoseconds(i.value)?);
        Ok(Effect::Active)
    }),
    warn("CoredumpFilter", |c, i| optional_text(&mut c.coredump_filter, i)),
    warn("Personality", |c, i| optional_text(&mut c.personality, i)),
    yes("IgnoreSIGPIPE", |c, i| boolean(&mut c.ignore_sigpipe, i)),
    yes("StandardInput", |c, i| standard_input(&mut c.standard_input, i)),
    yes("StandardOutput", |c, i| standard_output(&mut c.standard_output, i)),
    yes("StandardError", |c, i| standard_output(&mut c.standard_error, i)),
    yes("StandardInputText", |c, i| input_text(&mut c.standard_input_data, i)),
    yes("StandardInputData", |c, i| input_data(&mut c.standard_input_data, i)),
    warn("TTYPath", |c, i| optional_path(&mut c.tty_path, i)),
    warn("TTYReset", |c, i| boolean(&mut c.tty_reset, i)),
    warn("TTYVHangup", |c, i| boolean(&mut c.tty_vhangup, i)),
    warn("TTYVTDisallocate", |c, i| boolean(&mut c.tty_vt_disallocate, i)),
    warn("TTYRows", |c, i| optional_number(&mut c.tty_size.0, i, 0..=u16::MAX, "a number of rows")),
    warn("TTYColumns", |c, i| optional_number(&mut c.tty_size.1, i, 0..=u16::MAX, "a number of columns")),
    yes("SyslogIdentifier", |c, i| optional_text(&mut c.syslog_identifier, i)),
    // The log store has levels, but no facilities.
    warn("SyslogFacility", |c, i| {
        let found = FACILITIES.iter().find(|(name, _)| *name == i.value);
        c.syslog_facility = found.map(|(_, number)| *number).ok_or_else(|| expected(i.value, "a syslog facility"))?;
        Ok(Effect::Active)
    }),
    yes("SyslogLevel", |c, i| {
        c.syslog_level = level(i)?;
        Ok(Effect::Active)
    }),
    yes("SyslogLevelPrefix", |c, i| boolean(&mut c.syslog_level_prefix, i)),
    warn("LogLevelMax", |c, i| {
        c.log_level_max = if i.value.is_empty() { None } else { Some(level(i)?) };
        Ok(Effect::from(c.log_level_max.is_some()))
    }),
    warn("LogExtraFields", |c, i| list(&mut c.log_extra_fields, i)),
    warn("LogRateLimitIntervalSec", |c, i| optional_span(&mut c.log_rate_limit_interval, i)),
    warn("LogRateLimitBurst", |c, i| {
        c.log_rate_limit_burst = Some(number(i, 0..=u32::MAX, "a number")?);
        Ok(Effect::Active)
    }),
    warn("LogFilterPatterns", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    warn("LogNamespace", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    yes("RuntimeDirectory", |c, i| directories(&mut c.runtime_directory, i)),
    yes("RuntimeDirectoryMode", |c, i| mode(&mut c.runtime_directory.mode, i)),
    yes("RuntimeDirectoryPreserve", |c, i| {
        let choices = [("restart", PreserveMode::Restart)];
        boolean_or_choice(&mut c.runtime_directory_preserve, i, [PreserveMode::No, PreserveMode::Yes], &choices, "yes, no or restart")
    }),
    yes("StateDirectory", |c, i| directories(&mut c.state_directory, i)),
    yes("StateDirectoryMode", |c, i| mode(&mut c.state_directory.mode, i)),
    yes("CacheDirectory", |c, i| directories(&mut c.cache_directory, i)),
    yes("CacheDirectoryMode", |c, i| mode(&mut c.cache_directory.mode, i)),
    yes("LogsDirectory", |c, i| directories(&mut c.logs_directory, i)),
    yes("LogsDirectoryMode", |c, i| mode(&mut c.logs_directory.mode, i)),
    yes("ConfigurationDirectory", |c, i| directories(&mut c.configuration_directory, i)),
    yes("ConfigurationDirectoryMode", |c, i| mode(&mut c.configuration_directory.mode, i)),
    warn("StateDirectoryQuota", |_, i| Ok(Effect::from(!i.value.is_empty()))),
    warn("StateDirectoryAccounting", |_, _| Ok(Effect::None)),
    // For `systemctl clean`, which there is not.
    warn("TimeoutCleanSec", |c, i| optional_span(&mut c.timeout_clean, i)),
    refuse("LoadCredential", |c, i| credential(&mut c.credentials, i, false, false)),
    refuse("LoadCredentialEncrypted", |c, i| credential(&mut c.credentials, i, true, false)),
    refuse("SetCredential", |c, i| credential(&mut c.credentials, i, false, true)),
    refuse("SetCredentialEncrypted", |c, i| credential(&mut c.credentials, i, true, true)),
    // Imports what may be there, so nothing is lost without it.
    warn("ImportCredential", |c, i| import_credential(&mut c.credentials, i)),
    warn("KeyringMode", |c, i| {
        let modes = [("inherit", KeyringMode::Inherit), ("private", KeyringMode::Private), ("shared", KeyringMode::Shared)];
        choice(&mut c.keyring_mode, i, &modes, "a keyring mode (inherit, private, shared)")
    }),
    warn("UtmpIdentifier", |c, i| optional_text(&mut c.utmp_identifier, i)),
    silent("UtmpMode"),
    warn("RemoveIPC", |c, i| boolean(&mut c.remove_ipc, i)),
    silent("MemoryKSM"),
    silent("MemoryTHP"),
];

/// The two groups of process settings.
pub(super) struct ExecTables {
    plain: Table<ExecContext>,
    limits: Table<ExecContext>,
    /// All rows but the limits.
    pub(super) rows: &'static [super::Row<ExecContext>],
}

impl ExecTables {
    pub(super) fn apply(&self, context: &mut ExecContext, key: &str, input: &Input<'_>) -> Option<super::Applied> {
        self.plain.apply(context, key, input).or_else(|| self.limits.apply(context, key, input))
    }

    pub(super) fn describe(&self, section: &'static str, out: &mut Vec<super::DirectiveInfo>) {
        self.plain.describe(section, out);
        self.limits.describe(section, out);
    }
}

pub(super) static EXEC: ExecTables = ExecTables { plain: Table::new(&PLAIN), limits: Table::new(&LIMITS), rows: &PLAIN };
