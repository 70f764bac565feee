//! `.path` units: inotify on a path and on every directory that leads to it; a change starts a unit.
//!
//! What is already so when the unit starts counts (`PathExists=` and its kin), what changes while the started unit runs is not lost:
//! it is started again when it has ended.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use unit_files::Config;
use unit_files::path::{PathConfig, PathWatch, PathWatchKind};

use super::graph::{Dep, UnitId};
use super::manager::{Kind, Manager, now};
use super::poller::Source;
use super::protocol::{ActiveState, JobMode, Verb};
use super::restart::StartLimiter;

/// Where a path unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum PathState {
    #[default]
    Dead,
    Waiting,
    Running,
    Failed,
}

impl PathState {
    pub fn active(self) -> ActiveState {
        match self {
            Self::Dead => ActiveState::Inactive,
            Self::Waiting | Self::Running => ActiveState::Active,
            Self::Failed => ActiveState::Failed,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Failed => "failed",
        }
    }
}

/// A path unit at run time.
#[derive(Debug, Default)]
pub(super) struct PathUnit {
    pub state: PathState,
    watcher: Option<Watcher>,
    /// For each watch, whether its path was there when last seen.
    existed: Vec<bool>,
    /// Something changed while the unit ran.
    again: bool,
    pub triggers: StartLimiter,
}

/// inotify over the paths of one unit.
#[derive(Debug)]
pub(super) struct Watcher {
    fd: OwnedFd,
    /// Watch descriptor to the watches (by position) whose last component it is.
    ends: BTreeMap<i32, Vec<usize>>,
}

/// The part of a glob pattern that is no pattern yet.
fn fixed_part(pattern: &str) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if unit_files::glob::is_pattern(part) {
            break;
        }
        out.push(part);
    }
    out
}

/// Whether anything matches a pattern; a star does not match a slash, nor a leading dot.
fn glob_exists(pattern: &str) -> bool {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for directory in &found {
            if !unit_files::glob::is_pattern(part) {
                next.push(directory.join(part));
                continue;
            }
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            for entry in entries.flatten() {
                let Ok(name) = entry.file_name().into_string() else { continue };
                let hidden = name.starts_with('.') && !part.starts_with('.');
                if !hidden && unit_files::glob::matches(part, &name) {
                    next.push(entry.path());
                }
            }
        }
        // One of many is enough to know; a pattern must not make PID 1 walk the whole disk.
        next.truncate(4096);
        found = next;
    }
    found.iter().any(|path| path.symlink_metadata().is_ok())
}

/// Whether what the watch asks for is so now; for changes there is no such thing.
fn holds(watch: &PathWatch) -> bool {
    match watch.kind {
        PathWatchKind::Exists => Path::new(&watch.path).exists(),
        PathWatchKind::ExistsGlob => glob_exists(&watch.path),
        PathWatchKind::DirectoryNotEmpty => std::fs::read_dir(&watch.path).is_ok_and(|mut entries| entries.next().is_some()),
        PathWatchKind::Changed | PathWatchKind::Modified => false,
    }
}

fn is_change(kind: PathWatchKind) -> bool {
    matches!(kind, PathWatchKind::Changed | PathWatchKind::Modified)
}

impl Watcher {
    fn new() -> std::io::Result<Self> {
        Ok(Self { fd: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?, ends: BTreeMap::new() })
    }

    /// Watches every path as far as it exists. A descriptor that is there already stays what it is, with more to tell.
    fn watch(&mut self, config: &PathConfig) -> std::io::Result<()> {
        self.ends.clear();
        for (index, watch) in config.watches.iter().enumerate() {
            let path = if watch.kind == PathWatchKind::ExistsGlob { fixed_part(&watch.path) } else { PathBuf::from(&watch.path) };
            let own = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB;
            let entries = WatchFlags::CREATE | WatchFlags::MOVED_TO;
            let end = match watch.kind {
                PathWatchKind::Exists => own,
                PathWatchKind::ExistsGlob | PathWatchKind::DirectoryNotEmpty => own | entries,
                PathWatchKind::Changed => own | entries | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE | WatchFlags::MOVED_FROM,
                PathWatchKind::Modified => {
                    own | entries | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MODIFY
                }
            };
            // From the top down, so that whatever appears meanwhile is either seen or reported.
            let mut lead: Vec<&Path> = path.ancestors().collect();
            lead.reverse();
            for at in lead {
                let last = at == path;
                let flags = if last { end } else { WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | entries };
                match inotify::add_watch(&self.fd, at, flags | WatchFlags::MASK_ADD) {
                    Ok(descriptor) if last => self.ends.entry(descriptor).or_default().push(index),
                    Ok(_) => {}
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::ACCESS) => break,
                    Err(why) => return Err(why.into()),
                }
            }
        }
        Ok(())
    }

    /// Reads all events: which watched paths themselves changed, and whether something on the way to one did.
    fn read(&self) -> (Vec<usize>, bool) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        let (mut changed, mut any) = (Vec::new(), false);
        // Bounded: whoever writes all the time must not keep PID 1 here; the rest comes with the next round.
        for _ in 0..4096 {
            let Ok(event) = reader.next() else { break };
            any = true;
            if event.events().contains(ReadFlags::IGNORED) {
                continue;
            }
            changed.extend(self.ends.get(&event.wd()).into_iter().flatten().copied());
        }
        (changed, any)
    }
}

impl Manager {
    fn path_unit(&mut self, unit: UnitId) -> Option<&mut PathUnit> {
        match &mut self.units.get_mut(&unit)?.kind {
            Kind::Path(path) => Some(path),
            _ => None,
        }
    }

    fn path_config(&self, unit: UnitId) -> Option<Rc<unit_files::Unit>> {
        let def = Rc::clone(&self.units.get(&unit)?.def);
        matches!(def.config, Config::Path(_)).then_some(def)
    }

    pub fn path_start(&mut self, unit: UnitId) {
        let Some(def) = self.path_config(unit) else { return };
        let Config::Path(config) = &def.config else { return };
        let before = self.active_state(unit);
        if config.make_directory {
            for watch in config.watches.iter().filter(|watch| !matches!(watch.kind, PathWatchKind::Exists | PathWatchKind::ExistsGlob)) {
                if let Err(why) = std::fs::DirBuilder::new().recursive(true).mode(config.directory_mode).create(&watch.path) {
                    let name = self.name(unit);
                    self.reporter.unit(&name, 4, &format!("cannot make {}: {why}", watch.path));
                }
            }
        }
        let mut failure = None;
        match Watcher::new().and_then(|mut watcher| watcher.watch(config).map(|()| watcher)) {
            Ok(watcher) => {
                if let Err(why) = self.poller.add(&watcher.fd, Source::Path(unit)) {
                    failure = Some(why);
                }
                if let Some(path) = self.path_unit(unit) {
                    path.existed = config.watches.iter().map(|watch| Path::new(&watch.path).exists()).collect();
                    path.again = false;
                    path.state = PathState::Waiting;
                    path.watcher = Some(watcher);
                }
            }
            Err(why) => failure = Some(why),
        }
        if let Some(why) = failure {
            self.path_failed(unit, before, &format!("cannot watch its paths: {why}"));
            return;
        }
        self.unit_changed(unit, before);
        if config.watches.iter().any(holds) {
            self.path_trigger(unit);
        }
    }

    pub fn path_stop(&mut self, unit: UnitId) {
        let before = self.active_state(unit);
        self.path_end(unit, PathState::Dead);
        self.unit_changed(unit, before);
    }

    fn path_end(&mut self, unit: UnitId, state: PathState) {
        let Some(path) = self.path_unit(unit) else { return };
        path.state = state;
        if let Some(watcher) = path.watcher.take() {
            self.poller.remove(&watcher.fd, Source::Path(unit));
        }
    }

    fn path_failed(&mut self, unit: UnitId, before: ActiveState, why: &str) {
        let name = self.name(unit);
        self.reporter.unit(&name, 3, why);
        self.path_end(unit, PathState::Failed);
        self.unit_changed(unit, before);
    }

    /// Something happened at or on the way to a watched path.
    pub fn path_ready(&mut self, unit: UnitId) {
        let Some(def) = self.path_config(unit) else { return };
        let Config::Path(config) = &def.config else { return };
        let Some(path) = self.path_unit(unit) else { return };
        let Some(watcher) = &mut path.watcher else { return };
        let (changed, any) = watcher.read();
        if !any {
            return;
        }
        // Directories may have come or gone.
        let again = watcher.watch(config);
        let mut hit = changed.iter().any(|index| config.watches.get(*index).is_some_and(|watch| is_change(watch.kind)));
        for (watch, existed) in config.watches.iter().zip(&mut path.existed) {
            let exists = Path::new(&watch.path).exists();
            hit |= is_change(watch.kind) && exists != *existed;
            *existed = exists;
        }
        if let Err(why) = again {
            let before = self.active_state(unit);
            self.path_failed(unit, before, &format!("cannot watch its paths any more: {why}"));
            return;
        }
        match path.state {
            PathState::Waiting if hit || config.watches.iter().any(holds) => self.path_trigger(unit),
            PathState::Running => path.again |= hit,
            _ => {}
        }
    }

    fn path_trigger(&mut self, unit: UnitId) {
        let Some(def) = self.path_config(unit) else { return };
        let Config::Path(config) = &def.config else { return };
        let limit = (config.trigger_limit_interval.unwrap_or(Duration::from_secs(2)), config.trigger_limit_burst.unwrap_or(200));
        let before = self.active_state(unit);
        let Some(target) = self.graph.of(unit, Dep::Triggers).next() else {
            return self.path_failed(unit, before, "there is no unit to start");
        };
        let Some(path) = self.path_unit(unit) else { return };
        if !path.triggers.allow(now(), limit.0, limit.1) {
            return self.path_failed(unit, before, "triggered too often, not watching any more");
        }
        path.state = PathState::Running;
        path.again = false;
        if !self.power.is_none() {
            return;
        }
        if let Err(why) = self.enqueue(Verb::Start, &[target], JobMode::Replace) {
            let why = format!("cannot start {}: {why}", self.name(target));
            return self.path_failed(unit, before, &why);
        }
        self.unit_changed(unit, before);
    }

    /// The unit that a path starts has changed.
    pub fn path_triggered_changed(&mut self, unit: UnitId, state: ActiveState, start_limit: bool) {
        let Some(path) = self.path_unit(unit) else { return };
        if path.state != PathState::Running || !matches!(state, ActiveState::Inactive | ActiveState::Failed) {
            return;
        }
        let again = std::mem::take(&mut path.again);
        path.state = PathState::Waiting;
        if start_limit {
            let before = self.active_state(unit);
            return self.path_failed(unit, before, "its unit was started too often, not watching any more");
        }
        let Some(def) = self.path_config(unit) else { return };
        if let Config::Path(config) = &def.config
            && (again || config.watches.iter().any(holds))
        {
            self.path_trigger(unit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: PathWatchKind, path: &Path) -> PathConfig {
        PathConfig { watches: vec![PathWatch { kind, path: path.to_str().unwrap().to_owned() }], ..PathConfig::default() }
    }

    #[test]
    fn a_pattern_is_watched_where_it_begins() {
        assert_eq!(fixed_part("/run/x/*.conf"), Path::new("/run/x"));
        assert_eq!(fixed_part("/run/x"), Path::new("/run/x"));
        assert_eq!(fixed_part("/*"), Path::new("/"));
    }

    #[test]
    fn patterns_match_within_one_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", directory.path().display());
        assert!(!glob_exists(&at("*")));
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/.hidden"), "").unwrap();
        assert!(glob_exists(&at("*")) && glob_exists(&at("d/.h*")));
        assert!(!glob_exists(&at("d/*")) && !glob_exists(&at("*.conf")));
    }

    #[test]
    fn changes_are_seen_also_where_nothing_was_before() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("deep/er/file");
        let config = config(PathWatchKind::Changed, &file);
        let mut watcher = Watcher::new().unwrap();
        watcher.watch(&config).unwrap();
        assert_eq!(watcher.read(), (vec![], false));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        assert_eq!(watcher.read(), (vec![], true), "on the way");
        watcher.watch(&config).unwrap();
        std::fs::write(&file, "1").unwrap();
        assert!(watcher.read().1);
        watcher.watch(&config).unwrap();
        std::fs::write(&file, "2").unwrap();
        assert_eq!(watcher.read().0.first(), Some(&0), "the file itself");
        drop(std::fs::File::open(&file).unwrap());
        assert_eq!(watcher.read(), (vec![], false), "reading is no change");
    }
}
