//! Inhibitors: who keeps this host from going down, and why.
//!
//! Held ones are files in `/run/garboard/inhibitors`, one JSON object each, over which their owner holds a lock (`flock`, exclusive): when
//! the owner ends, however that comes, the lock is gone and the file means nothing. No daemon is needed, and closing the file is an
//! event for those who watch the directory. Lasting ones are in [`crate::persistent`]; [`read`] gives both.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::Seconds;

/// How long `delay` inhibitors are waited for, in seconds, where nothing else is set.
pub const DELAY_MAX: Seconds = 30;
/// Larger files than this are no inhibitors.
const MAX_FILE: u64 = 64 << 10;

/// What an inhibitor does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It forbids.
    #[default]
    Block,
    /// It asks for a moment.
    Delay,
}

impl Mode {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Delay => "delay",
        }
    }
}

/// An inhibitor. The field names are documented and stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inhibitor {
    /// The name of its file without the ending; what `uninhibit` takes.
    #[serde(skip_deserializing)]
    pub id: String,
    /// Of what, with colons: `shutdown`; `sleep`, `idle` and the rest of logind's are kept and mean nothing here.
    pub what: String,
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// What it does.
    pub mode: Mode,
    /// The owner's user.
    pub uid: u32,
    /// The owner's process; 0 for a lasting one.
    pub pid: u32,
    /// Since when.
    pub since: Seconds,
    /// Until when; a held one lasts as long as its owner, and no longer than this.
    pub until: Option<Seconds>,
    /// Whether it outlives its owner and reboots.
    #[serde(skip_deserializing)]
    pub lasting: bool,
}

impl Inhibitor {
    /// Whether it is about going down.
    #[must_use]
    pub fn concerns_shutdown(&self) -> bool {
        self.what.split(':').any(|what| what == "shutdown")
    }

    /// One line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let owner = if self.pid == 0 { String::new() } else { format!(", process {}", self.pid) };
        let until = self.until.map_or_else(String::new, |until| format!(", until {}", crate::show_time(until)));
        let verb = if self.mode == Mode::Block { "forbids it" } else { "asks to wait" };
        format!("{} {verb}: {} (inhibitor {}{owner}{until})", clean(&self.who), clean(&self.why), clean(&self.id))
    }
}

/// Others' words, made fit for one line on a terminal.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// All inhibitors that count now, from both directories. Held files whose owner is gone are removed on the way.
#[must_use]
pub fn read(held: &Path, lasting: &Path, now: Seconds) -> Vec<Inhibitor> {
    let mut found = Vec::new();
    for (id, path) in files(held) {
        // Its owner may live on, for it or for something else.
        found.extend(live(&path, id).filter(|inhibitor| inhibitor.until.is_none_or(|until| until > now)));
    }
    found.extend(crate::persistent::read(lasting, now));
    found.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
    found
}

/// Those that concern going down, forbidding and asking to wait.
#[must_use]
pub fn of_shutdown(all: Vec<Inhibitor>) -> (Vec<Inhibitor>, Vec<Inhibitor>) {
    all.into_iter().filter(Inhibitor::concerns_shutdown).partition(|inhibitor| inhibitor.mode == Mode::Block)
}

/// Files of a directory by name without ending, in order; hidden ones are still being written.
pub(crate) fn files(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<(String, PathBuf)> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .filter_map(|path| Some((path.file_stem()?.to_string_lossy().into_owned(), path)))
        .filter(|(id, _)| !id.starts_with('.'))
        .collect();
    files.sort();
    files
}

pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE { Err(io::Error::other("it is too large")) } else { Ok(bytes) }
}

/// The inhibitor in a file whose owner lives. One that cannot be read or understood counts, since somebody meant it.
fn live(path: &Path, id: String) -> Option<Inhibitor> {
    let doubtful = |why: String| Inhibitor {
        id: id.clone(),
        what: "shutdown".to_owned(),
        who: path.display().to_string(),
        why,
        ..Inhibitor::default()
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(doubtful(format!("cannot be read: {error}"))),
        Ok(file) => file,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        // Its owner is gone. Only root can tidy up; nobody else needs to.
        Ok(()) => {
            let _ = fs::remove_file(path);
            return None;
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(error) => return Some(doubtful(format!("its lock cannot be tried: {error}"))),
    }
    let parsed = read_file(path).and_then(|bytes| serde_json::from_slice::<Inhibitor>(&bytes).map_err(io::Error::from));
    Some(match parsed {
        Ok(inhibitor) => Inhibitor { id, lasting: false, ..inhibitor },
        Err(error) => doubtful(format!("cannot be understood: {error}")),
    })
}

/// A held inhibitor: dropped, it is gone.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    // Closing it gives up the lock.
    _file: File,
}

impl Held {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes an inhibitor that lasts as long as what is returned.
///
/// # Errors
/// When the directory cannot be written: only root may.
pub fn hold(directory: &Path, inhibitor: &Inhibitor) -> io::Result<Held> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let mut random = [0_u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let id = format!("{}-{:08x}", inhibitor.pid, u64::from_ne_bytes(random) & 0xffff_ffff);
    let (hidden, path) = (directory.join(format!(".{id}")), directory.join(format!("{id}.json")));
    // 0600: who can open a file can lock it, and so keep it alive.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden)?;
    let written = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(io::Error::from)
        .and_then(|()| file.write_all(&serde_json::to_vec_pretty(inhibitor).map_err(io::Error::from)?))
        .and_then(|()| fs::rename(&hidden, &path));
    match written {
        Ok(()) => Ok(Held { path, _file: file }),
        Err(error) => {
            let _ = fs::remove_file(&hidden);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inhibitor(who: &str, mode: Mode) -> Inhibitor {
        Inhibitor {
            what: "shutdown:sleep".into(),
            who: who.into(),
            why: "failing over".into(),
            mode,
            pid: 7,
            since: 5,
            ..Inhibitor::default()
        }
    }

    #[test]
    fn an_inhibitor_counts_as_long_as_its_owner_lives() {
        let directory = tempfile::tempdir().unwrap();
        let (held, lasting) = (directory.path().join("held"), directory.path().join("lasting"));
        assert_eq!(read(&held, &lasting, 0), []);
        let guard = hold(&held, &inhibitor("web", Mode::Block)).unwrap();
        let delay = hold(&held, &inhibitor("db", Mode::Delay)).unwrap();
        let (block, wait) = of_shutdown(read(&held, &lasting, 0));
        assert_eq!((block.len(), wait.len()), (1, 1));
        assert!(block[0].describe().starts_with("web forbids it: failing over (inhibitor 7-"), "{}", block[0].describe());
        drop(guard);
        drop(delay);
        let timed = hold(&held, &Inhibitor { until: Some(100), ..inhibitor("cron", Mode::Block) }).unwrap();
        assert_eq!((read(&held, &lasting, 99).len(), read(&held, &lasting, 100).len()), (1, 0), "its time is up, its owner alive");
        drop(timed);
        assert_eq!(fs::read_dir(&held).unwrap().count(), 0);
        // An owner that was killed leaves the file and no lock.
        fs::write(held.join("9-1.json"), serde_json::to_vec(&inhibitor("dead", Mode::Block)).unwrap()).unwrap();
        assert_eq!(read(&held, &lasting, 0), []);
        assert_eq!(fs::read_dir(&held).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_understood_forbids_and_what_is_not_about_shutdown_does_not() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("x.json"), "nonsense\u{1b}[2J").unwrap();
        let file = File::open(directory.path().join("x.json")).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let idle = hold(directory.path(), &Inhibitor { what: "idle:sleep".into(), ..inhibitor("tv", Mode::Block) }).unwrap();
        let (block, _) = of_shutdown(read(directory.path(), Path::new("/nonexistent"), 0));
        assert_eq!(block.len(), 1);
        assert!(block[0].why.starts_with("cannot be understood"));
        drop(idle);
        assert_eq!(clean("a\n\u{1b}[2Jb"), "a  [2Jb");
    }
}
