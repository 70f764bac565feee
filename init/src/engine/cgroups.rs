//! Control groups: one for each unit below its slice, with the unit's knobs; killing and counting what is in them.
//!
//! Relies on cgroup v2 at the root it is given. What a kernel lacks is skipped: a missing controller must not keep a unit from
//! running.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use unit_files::resources::{CgroupConfig, CpuWeight, Delegate, DeviceValue, Limit};

use super::cgroup_filters;
use crate::sys::process;

/// Controllers that are passed down to every slice.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"];

/// The tree.
#[derive(Debug, Clone)]
pub struct Cgroups {
    root: PathBuf,
    /// Total memory of the machine, for percentages.
    memory: u64,
    /// Most tasks that the machine allows.
    tasks: u64,
    /// The machine comes up or goes down: `StartupCPUWeight=` and its siblings hold.
    starting: bool,
}

impl Cgroups {
    /// Prepares the root: its controllers are passed on.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let memory = std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| {
                text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            })
            .map_or(0, |kib| kib.saturating_mul(1024));
        let number = |path: &str| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let tasks = number("/proc/sys/kernel/pid_max").unwrap_or(32768).min(number("/proc/sys/kernel/threads-max").unwrap_or(u64::MAX));
        let this = Self { root: root.to_owned(), memory, tasks, starting: true };
        let _ = std::fs::create_dir_all(root);
        enable_controllers(root);
        this
    }

    /// Path of a unit's group below the root: `system.slice/docker.service`.
    #[must_use]
    pub fn relative(unit: &str, config: Option<&CgroupConfig>) -> String {
        if unit.ends_with(".slice") {
            return slice_path(unit);
        }
        let slice = config.and_then(|config| config.slice.as_ref()).map_or("system.slice", |slice| slice.as_str());
        // A unit's name cannot hold a slash, so it cannot leave its slice.
        format!("{}/{unit}", slice_path(slice))
    }

    /// Makes a unit's group, with its knobs, and returns it open for `clone3`.
    ///
    /// # Errors
    /// When it cannot be made, or a filter of its devices or addresses cannot be laid.
    pub fn make(&self, relative: &str, config: Option<&CgroupConfig>, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
        let mut path = self.root.clone();
        let mut parts = relative.split('/').filter(|part| !part.is_empty()).peekable();
        let mut fresh = false;
        while let Some(part) = parts.next() {
            path.push(part);
            let made = std::fs::create_dir(&path);
            fresh = made.is_ok();
            match made {
                Ok(()) if parts.peek().is_some() => enable_controllers(&path),
                Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
                _ => {}
            }
        }
        let group = open(&path)?;
        if let Some(config) = config {
            self.apply(&path, config);
            cgroup_filters::lay(&group, config, fresh)?;
            if config.delegate != Delegate::No {
                delegate(&path, owner);
            }
        }
        Ok(group)
    }

    /// Makes a group below a delegated one, for the same owner.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_delegated(&self, relative: &str, owner: Option<(u32, u32)>) -> io::Result<()> {
        self.make(relative, None, None)?;
        delegate(&self.root.join(relative), owner);
        Ok(())
    }

    /// Says whether the machine is on its way up or down; groups that are there keep their weights until [`Self::weigh`].
    pub fn set_starting(&mut self, starting: bool) {
        self.starting = starting;
    }

    /// Gives a group that exists the weights of this time.
    pub fn weigh(&self, relative: &str, config: &CgroupConfig) {
        let path = self.root.join(relative);
        if config.startup_cpu_weight.is_some() {
            if [config.startup_cpu_weight, config.cpu_weight].contains(&Some(CpuWeight::Idle)) {
                write(&path, [("cpu.idle", "0".to_owned())]);
            }
            write(&path, cpu_weight(self.cpu_weight(config).or(Some(CpuWeight::Weight(100)))));
        }
        if config.startup_io_weight.is_some() {
            write(&path, io_weight(self.io_weight(config).or(Some(100))));
        }
    }

    fn cpu_weight(&self, config: &CgroupConfig) -> Option<CpuWeight> {
        config.startup_cpu_weight.filter(|_| self.starting).or(config.cpu_weight)
    }

    fn io_weight(&self, config: &CgroupConfig) -> Option<u64> {
        config.startup_io_weight.filter(|_| self.starting).or(config.io_weight)
    }

    /// Writes the knobs of a group that exists.
    pub fn apply(&self, path: &Path, config: &CgroupConfig) {
        write(path, self.knobs(config));
    }

    /// Files and values; pure.
    fn knobs(&self, config: &CgroupConfig) -> Vec<(&'static str, String)> {
        let mut out = Vec::new();
        out.extend(cpu_weight(self.cpu_weight(config)));
        if let Some(quota) = config.cpu_quota_per_sec {
            let period = config.cpu_quota_period.map_or(100_000, |period| period.as_micros()).max(1000);
            out.push(("cpu.max", format!("{} {period}", (quota.as_micros() * period / 1_000_000).max(1000))));
        }
        let list = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        if !config.allowed_cpus.is_empty() {
            out.push(("cpuset.cpus", list(&config.allowed_cpus)));
        }
        if !config.allowed_memory_nodes.is_empty() {
            out.push(("cpuset.mems", list(&config.allowed_memory_nodes)));
        }
        let memory = [
            ("memory.min", config.memory_min),
            ("memory.low", config.memory_low),
            ("memory.high", config.memory_high),
            ("memory.max", config.memory_max),
            ("memory.swap.max", config.memory_swap_max),
            ("memory.zswap.max", config.memory_zswap_max),
        ];
        let text = |limit: Limit, total: u64| limit.resolve(total).map_or_else(|| "max".to_owned(), |value| value.to_string());
        for (file, limit) in memory {
            if let Some(limit) = limit {
                out.push((file, text(limit, self.memory)));
            }
        }
        out.push(("pids.max", text(config.tasks_max.unwrap_or(Limit::PerMyriad(1500)), self.tasks)));
        out.extend(io_weight(self.io_weight(config)));
        let limits = [
            (&config.io_read_bandwidth_max, "rbps"),
            (&config.io_write_bandwidth_max, "wbps"),
            (&config.io_read_iops_max, "riops"),
            (&config.io_write_iops_max, "wiops"),
        ];
        for DeviceValue { path, value } in &config.io_device_weight {
            out.extend(device_of(path).map(|device| ("io.weight", format!("{device} {value}"))));
        }
        for DeviceValue { path, value } in &config.io_device_latency_target {
            out.extend(device_of(path).map(|device| ("io.latency", format!("{device} target={value}"))));
        }
        for (values, key) in limits {
            for value in values {
                if let Some(device) = device_of(&value.path) {
                    out.push(("io.max", format!("{device} {key}={}", value.value)));
                }
            }
        }
        out
    }

    /// Whether a group has processes, itself or below.
    #[must_use]
    pub fn populated(&self, relative: &str) -> bool {
        std::fs::read_to_string(self.root.join(relative).join("cgroup.events")).is_ok_and(|text| text.contains("populated 1"))
    }

    /// The file that changes when that changes.
    #[must_use]
    pub fn events(&self, relative: &str) -> PathBuf {
        self.root.join(relative).join("cgroup.events")
    }

    /// The file to write to in order to join.
    #[must_use]
    pub fn procs(&self, relative: &str) -> PathBuf {
        self.root.join(relative).join("cgroup.procs")
    }

    /// Processes of a group and of those below it.
    #[must_use]
    pub fn processes(&self, relative: &str) -> Vec<i32> {
        let mut out = Vec::new();
        let mut todo = vec![self.root.join(relative)];
        while let Some(path) = todo.pop() {
            let text = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            out.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            let below = std::fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
        }
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Signals every process of a group.
    pub fn kill(&self, relative: &str, signal: i32, except: &[i32]) {
        // Not by cgroup.kill at first: kernels since 6.14 (and stable ones with that change) then also kill every process that
        // clone3 puts into the group later, and `ExecStopPost=` still has to run in it.
        let mut seen: std::collections::BTreeSet<i32> = except.iter().copied().collect();
        for _ in 0..32 {
            let new: Vec<i32> = self.processes(relative).into_iter().filter(|pid| seen.insert(*pid)).collect();
            if new.is_empty() {
                return;
            }
            for pid in new {
                if process::kill(pid, signal).is_ok() && signal != libc::SIGKILL {
                    process::wake(pid);
                }
            }
        }
        // Something forks faster than it can be signalled.
        if signal == libc::SIGKILL {
            let _ = std::fs::write(self.root.join(relative).join("cgroup.kill"), "1");
        }
    }

    /// Removes an empty group and the empty ones below it.
    pub fn remove(&self, relative: &str) {
        let path = self.root.join(relative);
        let mut order = vec![path.clone()];
        let mut todo = vec![path];
        while let Some(path) = todo.pop() {
            for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    order.push(entry.path());
                    todo.push(entry.path());
                }
            }
        }
        for path in order.iter().rev() {
            let _ = std::fs::remove_dir(path);
        }
    }

    /// A number from one of a group's files.
    #[must_use]
    pub fn number(&self, relative: &str, file: &str) -> Option<u64> {
        std::fs::read_to_string(self.root.join(relative).join(file)).ok()?.trim().parse().ok()
    }

    /// Microseconds of processor time used.
    #[must_use]
    pub fn cpu_usec(&self, relative: &str) -> Option<u64> {
        let text = std::fs::read_to_string(self.root.join(relative).join("cpu.stat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
    }

    /// The file that changes when the kernel kills something in it for want of memory; other things change it, too.
    #[must_use]
    pub fn memory_events(&self, relative: &str) -> PathBuf {
        self.root.join(relative).join("memory.events")
    }

    /// How often the kernel killed something in it for want of memory.
    #[must_use]
    pub fn oom_kills(&self, relative: &str) -> u64 {
        let text = std::fs::read_to_string(self.memory_events(relative)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
    }

    /// The group of a process, relative to our root.
    #[must_use]
    pub fn of_process(&self, pid: i32) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        let path = path.trim_start_matches('/').trim_end_matches(" (deleted)");
        // The root may be a directory below the mount point (tests, containers): compare from where it can begin.
        let below = self.root.components().rev().map(|part| part.as_os_str().to_string_lossy().into_owned()).next()?;
        Some(match path.strip_prefix(&below).and_then(|rest| rest.strip_prefix('/')) {
            Some(rest) => rest.to_owned(),
            None => path.to_owned(),
        })
    }
}

/// `a-b.slice` lies in `a.slice`; `-.slice` is the root.
fn slice_path(slice: &str) -> String {
    let Some(stem) = slice.strip_suffix(".slice").filter(|stem| *stem != "-" && !stem.is_empty()) else { return String::new() };
    let mut path = String::new();
    let mut prefix = String::new();
    for part in stem.split('-') {
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(&prefix);
        path.push_str(".slice");
    }
    path
}

/// Writes knobs; a controller that is not there has none.
fn write(group: &Path, knobs: impl IntoIterator<Item = (&'static str, String)>) {
    for (file, value) in knobs {
        let _ = std::fs::write(group.join(file), value);
    }
}

fn cpu_weight(weight: Option<CpuWeight>) -> Option<(&'static str, String)> {
    match weight? {
        CpuWeight::Weight(weight) => Some(("cpu.weight", weight.to_string())),
        CpuWeight::Idle => Some(("cpu.idle", "1".to_owned())),
    }
}

/// Both files: the scheduler BFQ has one of its own, with weights up to 1000 only.
fn io_weight(weight: Option<u64>) -> Vec<(&'static str, String)> {
    let Some(weight) = weight else { return Vec::new() };
    let bfq = if weight <= 100 { weight } else { 100 + (weight - 100) * 900 / 9900 };
    vec![("io.weight", format!("default {weight}")), ("io.bfq.weight", bfq.to_string())]
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::RDONLY;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

fn enable_controllers(path: &Path) {
    let available = std::fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    for controller in CONTROLLERS {
        if available.split_whitespace().any(|word| word == controller) {
            // One at a time: one that cannot be enabled must not cost the others.
            let _ = std::fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

fn delegate(path: &Path, owner: Option<(u32, u32)>) {
    let Some((uid, gid)) = owner else { return };
    let _ = std::os::unix::fs::chown(path, Some(uid), Some(gid));
    let files = std::fs::read_to_string("/sys/kernel/cgroup/delegate")
        .unwrap_or_else(|_| "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n".to_owned());
    for file in files.lines() {
        let _ = std::os::unix::fs::chown(path.join(file), Some(uid), Some(gid));
    }
}

/// `major:minor` of a device node, or of the disk that holds a file.
fn device_of(path: &str) -> Option<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let data = std::fs::metadata(path).ok()?;
    let number = if data.file_type().is_block_device() { data.rdev() } else { data.dev() };
    Some(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn slices_nest_by_their_names() {
        assert_eq!(Cgroups::relative("docker.service", None), "system.slice/docker.service");
        assert_eq!(Cgroups::relative("a-b.slice", None), "a.slice/a-b.slice");
        let slice = unit_files::UnitName::parse("-.slice").ok();
        let config = CgroupConfig { slice, ..CgroupConfig::default() };
        assert_eq!(Cgroups::relative("x.service", Some(&config)).trim_start_matches('/'), "x.service");
    }

    #[test]
    fn every_knob_of_a_unit_file_becomes_its_file() {
        let cgroups = Cgroups { root: "/nowhere".into(), memory: 1 << 30, tasks: 1000, starting: false };
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().to_str().unwrap();
        let device = device_of(here).unwrap();
        let table = [
            ("CPUShares=2048", "cpu.weight", "200"),
            ("CPUShares=1", "cpu.weight", "1"),
            ("CPUWeight=7", "cpu.weight", "7"),
            ("CPUWeight=idle", "cpu.idle", "1"),
            ("CPUQuota=20%", "cpu.max", "20000 100000"),
            ("CPUQuota=250%\nCPUQuotaPeriodSec=10ms", "cpu.max", "25000 10000"),
            ("AllowedCPUs=0-2 5", "cpuset.cpus", "0,1,2,5"),
            ("AllowedMemoryNodes=0,1", "cpuset.mems", "0,1"),
            ("MemoryMin=1M", "memory.min", "1048576"),
            ("MemoryLow=25%", "memory.low", "268435456"),
            ("MemoryHigh=512M", "memory.high", "536870912"),
            ("MemoryMax=infinity", "memory.max", "max"),
            ("MemoryLimit=1G", "memory.max", "1073741824"),
            ("MemorySwapMax=0", "memory.swap.max", "0"),
            ("MemoryZSwapMax=4K", "memory.zswap.max", "4096"),
            ("TasksMax=12", "pids.max", "12"),
            ("TasksMax=50%", "pids.max", "500"),
            ("IOWeight=100", "io.bfq.weight", "100"),
            ("IOWeight=10000", "io.bfq.weight", "1000"),
            ("IOWeight=50", "io.weight", "default 50"),
            ("BlockIOWeight=1000", "io.weight", "default 200"),
            ("IODeviceWeight=@ 77", "io.weight", "# 77"),
            ("IOReadBandwidthMax=@ 5M", "io.max", "# rbps=5000000"),
            ("IOWriteBandwidthMax=@ 1K", "io.max", "# wbps=1000"),
            ("IOReadIOPSMax=@ 30", "io.max", "# riops=30"),
            ("IOWriteIOPSMax=@ 1K", "io.max", "# wiops=1000"),
            ("IODeviceLatencyTargetSec=@ 25ms", "io.latency", "# target=25000"),
        ];
        for (number, (setting, file, value)) in table.into_iter().enumerate() {
            let group = directory.path().join(number.to_string());
            std::fs::create_dir(&group).unwrap();
            cgroups.apply(&group, &config(&setting.replace('@', here)));
            assert_eq!(std::fs::read_to_string(group.join(file)).unwrap(), value.replace('#', &device), "{setting}");
        }
    }

    /// `[Service]` settings as the loader reads them.
    fn config(settings: &str) -> CgroupConfig {
        let text = format!("[Service]\nExecStart=/bin/true\n{settings}\n");
        let name = unit_files::UnitName::parse("x.service").unwrap();
        let facts = unit_files::HostFacts::default();
        let unit = unit_files::Loader::<unit_files::memory::MemorySource>::load_text(&name, "/x", text.as_bytes(), &facts);
        assert!(unit.diagnostics.is_empty(), "{:?}", unit.diagnostics);
        unit.cgroup().unwrap().clone()
    }

    #[test]
    fn weights_of_the_boot_give_way_to_the_normal_ones_and_come_back_for_the_way_down() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("x.service");
        std::fs::create_dir(&group).unwrap();
        let mut cgroups = Cgroups { root: root.path().into(), memory: 1 << 30, tasks: 1000, starting: true };
        let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap_or_default();
        let own = config("CPUWeight=50\nStartupCPUWeight=900\nIOWeight=20\nStartupIOWeight=800");
        cgroups.apply(&group, &own);
        assert_eq!((read("cpu.weight").as_str(), read("io.weight").as_str()), ("900", "default 800"));
        cgroups.set_starting(false);
        cgroups.weigh("x.service", &own);
        assert_eq!((read("cpu.weight").as_str(), read("io.weight").as_str()), ("50", "default 20"));
        cgroups.set_starting(true);
        cgroups.weigh("x.service", &own);
        assert_eq!((read("cpu.weight").as_str(), read("io.weight").as_str()), ("900", "default 800"));
        // Without a normal weight it is the kernel's, and an idle boot ends.
        let own = config("StartupCPUWeight=idle\nStartupIOWeight=800");
        cgroups.apply(&group, &own);
        assert_eq!(read("cpu.idle"), "1");
        cgroups.set_starting(false);
        cgroups.weigh("x.service", &own);
        assert_eq!((read("cpu.idle").as_str(), read("cpu.weight").as_str(), read("io.weight").as_str()), ("0", "100", "default 100"));
        // Who says nothing about the boot is left alone.
        std::fs::remove_file(group.join("cpu.weight")).unwrap();
        cgroups.weigh("x.service", &config("CPUWeight=50"));
        assert!(!group.join("cpu.weight").exists());
    }

    #[test]
    fn knobs_become_files() {
        let cgroups = Cgroups { root: "/nowhere".into(), memory: 1 << 30, tasks: 1000, starting: false };
        let config = CgroupConfig {
            cpu_quota_per_sec: Some(Duration::from_millis(1500)),
            memory_max: Some(Limit::PerMyriad(5000)),
            cpu_weight: Some(CpuWeight::Weight(50)),
            tasks_max: Some(Limit::Infinity),
            ..CgroupConfig::default()
        };
        let knobs = cgroups.knobs(&config);
        for expected in [("cpu.weight", "50"), ("cpu.max", "150000 100000"), ("memory.max", "536870912"), ("pids.max", "max")] {
            assert!(knobs.iter().any(|(file, value)| (*file, value.as_str()) == expected), "{expected:?} in {knobs:?}");
        }
        assert!(cgroups.knobs(&CgroupConfig::default()).contains(&("pids.max", "150".to_owned())), "15 % of the machine");
    }
}
