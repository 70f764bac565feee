//! What the mounts of a unit look like: data, from its settings.

use std::path::Path;

use unit_files::exec::{ExecContext, PathRule, PrivateTmp, ProtectHome, ProtectProc, ProtectSystem};

/// What is mounted at a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mount {
    /// Something that nobody may open.
    Hidden,
    /// Another path; its number in [`Plan::sources`].
    Bind(usize),
    /// An empty file system, with these options.
    Tmpfs(String),
    /// `/dev` with only the pseudo devices.
    Devices,
    /// `/proc` with these options.
    Proc(String),
    /// The message queues of a new IPC namespace.
    Queues,
}

/// A mount to make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Where.
    pub path: String,
    /// What.
    pub mount: Mount,
    /// A missing path is no error.
    pub optional: bool,
}

/// What may be bound somewhere else; opened before anything is mounted over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path.
    pub path: String,
    /// With what is mounted below.
    pub recursive: bool,
    /// A missing path is no error.
    pub optional: bool,
}

/// What may be done below a path, unless a rule for something deeper says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The path.
    pub path: String,
    /// Nothing may be written, or what could be still can; `None`: as above it.
    pub read_only: Option<bool>,
    /// Nothing may be executed, or what could be still can.
    pub no_exec: Option<bool>,
    /// A missing path is no error.
    pub optional: bool,
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Outermost first.
    pub mounts: Vec<Change>,
    /// For [`Mount::Bind`].
    pub sources: Vec<Source>,
    /// Outermost first.
    pub rules: Vec<Rule>,
}

impl Plan {
    fn mount(&mut self, path: &str, mount: Mount, optional: bool) {
        self.mounts.push(Change { path: path.to_owned(), mount, optional });
    }

    fn writable(&mut self, path: &str, read_only: bool, optional: bool) {
        self.rules.push(Rule { path: path.to_owned(), read_only: Some(read_only), no_exec: None, optional });
    }

    /// Of several rules for one path the stricter counts; whoever looks below something hidden finds nothing.
    fn settle(&mut self) {
        self.mounts.sort();
        self.mounts.dedup_by(|later, first| later.path == first.path);
        let hidden: Vec<String> =
            self.mounts.iter().filter(|change| change.mount == Mount::Hidden).map(|change| change.path.clone()).collect();
        let below = |path: &str| hidden.iter().any(|above| path != above && Path::new(path).starts_with(above));
        self.mounts.retain(|change| !below(&change.path));
        self.rules.retain(|rule| !below(&rule.path));
        self.rules.sort_by(|a, b| a.path.cmp(&b.path));
        let mut rules: Vec<Rule> = Vec::new();
        for rule in self.rules.drain(..) {
            match rules.last_mut().filter(|last| last.path == rule.path) {
                Some(last) => {
                    last.read_only = last.read_only.max(rule.read_only);
                    last.no_exec = last.no_exec.max(rule.no_exec);
                    last.optional &= rule.optional;
                }
                None => rules.push(rule),
            }
        }
        self.rules = rules;
    }
}

/// What a unit's settings ask for.
pub fn plan(context: &ExecContext) -> Plan {
    let mut plan = Plan::default();
    system(&mut plan, context);
    home(&mut plan, context.protect_home);
    kernel(&mut plan, context);
    own(&mut plan, context);
    let mut options = match context.protect_proc {
        ProtectProc::Default => Vec::new(),
        ProtectProc::Noaccess => vec!["hidepid=noaccess"],
        ProtectProc::Invisible => vec!["hidepid=invisible"],
        ProtectProc::Ptraceable => vec!["hidepid=ptraceable"],
    };
    if context.proc_subset_pid {
        options.push("subset=pid");
    }
    if !options.is_empty() {
        plan.mount("/proc", Mount::Proc(options.join(",")), false);
    }
    if context.private_devices {
        plan.mount("/dev", Mount::Devices, false);
    }
    if context.private_ipc || context.ipc_namespace_path.is_some() {
        plan.mount("/dev/mqueue", Mount::Queues, true);
    }
    plan.settle();
    plan
}

fn system(plan: &mut Plan, context: &ExecContext) {
    let paths: &[&str] = match context.protect_system {
        ProtectSystem::No => &[],
        ProtectSystem::Yes => &["/usr", "/boot", "/efi"],
        ProtectSystem::Full => &["/usr", "/boot", "/efi", "/etc"],
        ProtectSystem::Strict => &["/"],
    };
    for path in paths {
        plan.writable(path, true, true);
    }
    if context.protect_system != ProtectSystem::Strict {
        return;
    }
    for path in ["/dev", "/proc", "/sys"] {
        plan.writable(path, false, true);
    }
    // What the unit is given stays writable, whatever is protected around it.
    let roots = [
        ("/run", &context.runtime_directory),
        ("/var/lib", &context.state_directory),
        ("/var/cache", &context.cache_directory),
        ("/var/log", &context.logs_directory),
    ];
    for (root, config) in roots {
        for directory in &config.paths {
            plan.writable(&format!("{root}/{}", directory.path), false, true);
        }
    }
    if context.private_tmp != PrivateTmp::No {
        plan.writable("/tmp", false, true);
        plan.writable("/var/tmp", false, true);
    }
}

fn home(plan: &mut Plan, protect: ProtectHome) {
    for path in ["/home", "/root", "/run/user"] {
        match protect {
            ProtectHome::No => {}
            ProtectHome::Yes => plan.mount(path, Mount::Hidden, true),
            ProtectHome::ReadOnly => plan.writable(path, true, true),
            ProtectHome::Tmpfs => {
                plan.mount(path, Mount::Tmpfs("mode=755".to_owned()), true);
                plan.writable(path, true, true);
            }
        }
    }
}

fn kernel(plan: &mut Plan, context: &ExecContext) {
    if context.protect_kernel_tunables {
        let proc = ["acpi", "apm", "asound", "bus", "fs", "irq", "latency_stats", "mtrr", "scsi", "sys", "sysrq-trigger", "timer_stats"];
        for name in proc {
            plan.writable(&format!("/proc/{name}"), true, true);
        }
        plan.writable("/sys", true, true);
        for path in ["/proc/kallsyms", "/proc/kcore", "/sys/kernel/debug", "/sys/kernel/tracing"] {
            plan.mount(path, Mount::Hidden, true);
        }
    }
    if context.protect_kernel_modules {
        plan.mount("/usr/lib/modules", Mount::Hidden, true);
    }
    if context.protect_kernel_logs {
        plan.mount("/proc/kmsg", Mount::Hidden, true);
        plan.mount("/dev/kmsg", Mount::Hidden, true);
    }
    if context.protect_control_groups {
        plan.writable("/sys/fs/cgroup", true, true);
    }
}

fn own(plan: &mut Plan, context: &ExecContext) {
    let each = |rules: &[PathRule], set: fn(&mut Rule)| -> Vec<Rule> {
        let rule = |rule: &PathRule| {
            let mut out = Rule { path: rule.path.clone(), read_only: None, no_exec: None, optional: rule.optional };
            set(&mut out);
            out
        };
        rules.iter().map(rule).collect()
    };
    plan.rules.extend(each(&context.read_only_paths, |rule| rule.read_only = Some(true)));
    plan.rules.extend(each(&context.read_write_paths, |rule| rule.read_only = Some(false)));
    plan.rules.extend(each(&context.no_exec_paths, |rule| rule.no_exec = Some(true)));
    plan.rules.extend(each(&context.exec_paths, |rule| rule.no_exec = Some(false)));
    for rule in &context.inaccessible_paths {
        plan.mount(&rule.path, Mount::Hidden, rule.optional);
    }
    for (path, options) in &context.temporary_file_systems {
        let mut wanted = vec!["mode=0755".to_owned()];
        let mut read_only = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => read_only = true,
                "rw" => read_only = false,
                other => wanted.push(other.to_owned()),
            }
        }
        plan.mount(path, Mount::Tmpfs(wanted.join(",")), false);
        plan.writable(path, read_only, false);
    }
    for bind in &context.bind_paths {
        let number = plan.sources.len();
        plan.sources.push(Source { path: bind.source.clone(), recursive: bind.recursive, optional: bind.optional });
        plan.mount(&bind.destination, Mount::Bind(number), bind.optional);
        plan.writable(&bind.destination, bind.read_only, bind.optional);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unit_files::exec::{BindPath, ManagedDirectory};

    fn rule(plan: &Plan, path: &str) -> Option<bool> {
        plan.rules.iter().find(|rule| rule.path == path).and_then(|rule| rule.read_only)
    }

    #[test]
    fn strict_protection_keeps_the_units_own_directories_writable() {
        let mut context = ExecContext { protect_system: ProtectSystem::Strict, ..ExecContext::default() };
        context.state_directory.paths.push(ManagedDirectory { path: "etcd".into(), links: Vec::new() });
        let plan = plan(&context);
        assert_eq!(rule(&plan, "/"), Some(true));
        assert_eq!(rule(&plan, "/var/lib/etcd"), Some(false));
        assert_eq!(rule(&plan, "/proc"), Some(false));
    }

    #[test]
    fn nothing_asked_for_is_nothing_done() {
        assert_eq!(plan(&ExecContext::default()), Plan::default());
    }

    #[test]
    fn the_stricter_of_two_rules_for_one_path_counts_and_nothing_is_below_what_is_hidden() {
        let path = |path: &str| PathRule { path: path.into(), optional: false, in_root: false };
        let context = ExecContext {
            read_only_paths: vec![path("/srv")],
            read_write_paths: vec![path("/srv"), path("/srv/data"), path("/home/core/x")],
            inaccessible_paths: vec![path("/srv/secret")],
            protect_home: ProtectHome::Yes,
            ..ExecContext::default()
        };
        let plan = plan(&context);
        assert_eq!(rule(&plan, "/srv"), Some(true));
        assert_eq!(rule(&plan, "/srv/data"), Some(false));
        assert_eq!(rule(&plan, "/home/core/x"), None);
        assert!(plan.mounts.iter().any(|change| change.path == "/srv/secret" && change.mount == Mount::Hidden));
    }

    #[test]
    fn a_bind_below_an_empty_file_system_comes_after_it() {
        let bind = |source: &str, destination: &str| BindPath {
            source: source.into(),
            destination: destination.into(),
            optional: false,
            recursive: true,
            read_only: true,
        };
        let context = ExecContext {
            temporary_file_systems: vec![("/var".into(), "ro,size=1M".into())],
            bind_paths: vec![bind("/var/lib/x", "/var/lib/x")],
            ..ExecContext::default()
        };
        let plan = plan(&context);
        let paths: Vec<&str> = plan.mounts.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["/var", "/var/lib/x"]);
        assert_eq!(plan.mounts[0].mount, Mount::Tmpfs("mode=0755,size=1M".into()));
        assert_eq!((rule(&plan, "/var"), rule(&plan, "/var/lib/x")), (Some(true), Some(true)));
    }
}
