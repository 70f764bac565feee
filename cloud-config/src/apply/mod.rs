//! Carries a plan out, step by step. A step that fails is reported and the next one is tried: a broken cloud-config
//! never stops a boot.
//!
//! Files go below [`System::root`]; everything else that touches the machine goes through the [`System`] trait.

mod accounts;
pub mod files;
mod host;

pub use host::Host;

use crate::diagnostics::Place;
use crate::plan::{Action, FileAction, Plan, Step, UNIT_DIR, changes_units, describe};
use crate::userdata::Frequency;
use files::Meta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where scripts and what is remembered of them are kept.
pub const STATE_DIR: &str = "/var/lib/cloud-config";
/// What the final stage has to do.
pub const FINAL_QUEUE: &str = "/run/garboard/cloud-config/final.json";
/// The unit that does it.
pub const FINAL_UNIT: &str = "cloud-config-final.service";

/// Units that start without waiting for us, with the directories they read: restarted when something in there has changed.
const EARLY_UNITS: [(&str, &[&str]); 1] =
    [("containerd.service", &["/etc/containerd", "/etc/systemd/system/containerd.service.d", "/media/state/units/containerd.service.d"])];

/// The machine, as far as it is not files.
pub trait System {
    /// Every path is below this.
    fn root(&self) -> &Path;
    /// Calls systemctl; the error is what it said.
    fn systemctl(&mut self, args: &[&str]) -> Result<(), String>;
    /// Sets the kernel's host name.
    fn set_hostname(&mut self, name: &str) -> Result<(), String>;
    /// Runs an executable file; the error says how it ended.
    fn run(&mut self, program: &Path, environment: &[(&str, &str)]) -> Result<(), String>;
    /// Seconds since 1970.
    fn now(&self) -> u64;
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Something changed.
    Changed,
    /// It was so already.
    Unchanged,
    /// Handed to init or the final stage.
    Queued,
    /// Not done.
    Failed,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Where it was asked for.
    #[serde(flatten)]
    pub place: Place,
    /// What.
    pub what: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed, or what else is worth knowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A script of the final stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Its name.
    pub name: String,
    /// How often it runs.
    pub frequency: Frequency,
    /// Where it is.
    pub path: PathBuf,
}

/// What the final stage has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalQueue {
    /// Directory name of the instance.
    pub instance: String,
    /// In order.
    pub scripts: Vec<Queued>,
    /// Printed last.
    pub message: Option<String>,
}

/// Existing bytes with a content at their end, unless it is there already: an append must not grow a file at every boot.
pub fn appended(existing: &[u8], content: &[u8]) -> Vec<u8> {
    let mut out = existing.to_vec();
    let there = !content.is_empty() && existing.windows(content.len()).any(|w| w == content);
    if !there {
        out.extend_from_slice(content);
    }
    out
}

/// An instance id as a directory name.
pub fn instance_dir(id: &str) -> String {
    let clean: String =
        id.trim().chars().take(128).map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' }).collect();
    if clean.is_empty() || clean.starts_with('.') { format!("_{clean}") } else { clean }
}

/// Carries out every step.
pub fn apply(plan: &Plan, instance: &str, system: &mut dyn System) -> Vec<Done> {
    let mut run =
        Run { system, units_changed: false, outdated: BTreeSet::new(), queue: FinalQueue::default(), instance: instance_dir(instance) };
    let mut done: Vec<Done> = plan.steps.iter().map(|step| run.step(step)).collect();
    done.extend(run.restart_early_units());
    if let Err(detail) = run.finish(plan) {
        let what = "queue the final stage".to_owned();
        done.push(Done { place: Place::default(), what, outcome: Outcome::Failed, detail: Some(detail) });
    }
    done
}

struct Run<'s> {
    system: &'s mut dyn System,
    units_changed: bool,
    outdated: BTreeSet<&'static str>,
    queue: FinalQueue,
    instance: String,
}

/// The early units that read what an action writes.
fn early_units_reading(action: &Action) -> impl Iterator<Item = &'static str> {
    let path = match action {
        Action::WriteFile(file) => file.path.as_str(),
        Action::Link { path, .. } | Action::Unmask { path } => path.as_str(),
        _ => "",
    };
    let reads = |directories: &[&str]| directories.iter().any(|directory| Path::new(path).starts_with(directory));
    EARLY_UNITS.into_iter().filter(move |(_, directories)| reads(directories)).map(|(unit, _)| unit)
}

type Ended = Result<(Outcome, Option<String>), String>;

fn changed(changed: bool) -> (Outcome, Option<String>) {
    (if changed { Outcome::Changed } else { Outcome::Unchanged }, None)
}

impl Run<'_> {
    fn step(&mut self, step: &Step) -> Done {
        let (outcome, detail) = self.action(&step.action).unwrap_or_else(|why| (Outcome::Failed, Some(why)));
        if outcome == Outcome::Changed {
            self.units_changed |= changes_units(&step.action);
            self.outdated.extend(early_units_reading(&step.action));
        }
        Done { place: step.place, what: describe(&step.action), outcome, detail }
    }

    /// Units that come after them wait for the restart.
    fn restart_early_units(&mut self) -> Vec<Done> {
        let mut done = Vec::new();
        for unit in std::mem::take(&mut self.outdated) {
            let (outcome, detail) = match self.system.systemctl(&["try-restart", "--no-block", unit]) {
                Ok(()) => (Outcome::Queued, None),
                Err(why) => (Outcome::Failed, Some(why)),
            };
            let what = format!("restart {unit}, whose configuration has changed");
            done.push(Done { place: Place::default(), what, outcome, detail });
        }
        done
    }

    fn path(&self, path: &str) -> PathBuf {
        self.system.root().join(path.trim_start_matches('/'))
    }

    fn action(&mut self, action: &Action) -> Ended {
        match action {
            Action::RunNow { name, content } => self.run_now(name, content),
            Action::SetHostname { name } => self.set_hostname(name),
            Action::WriteFile(file) => self.write_file(file),
            Action::Link { path, target } => self.link(path, target),
            Action::Unmask { path } => files::remove_mask(&self.path(path)).map(changed).map_err(|e| e.to_string()),
            Action::Group { name, members } => self.group(name, members),
            Action::User { user, .. } => self.user(user),
            Action::Password { user, hash } => self.password(user, hash),
            Action::AuthorizedKeys { user, keys } => self.authorized_keys(user, keys),
            Action::DaemonReload if self.units_changed => self.system.systemctl(&["daemon-reload"]).map(|()| changed(true)),
            Action::DaemonReload => Ok(changed(false)),
            Action::Enable { unit, runtime: false } => self.system.systemctl(&["enable", unit]).map(|()| changed(true)),
            Action::Enable { unit, runtime: true } => self.system.systemctl(&["enable", "--runtime", unit]).map(|()| changed(true)),
            Action::Command { unit, verb } => self.system.systemctl(&[verb, "--no-block", unit]).map(|()| (Outcome::Queued, None)),
            Action::Queue { name, frequency, content } => self.queue(name, *frequency, content),
        }
    }

    fn run_now(&mut self, name: &str, content: &[u8]) -> Ended {
        let path = self.path(&format!("{STATE_DIR}/instances/{}/scripts/{name}", self.instance));
        self.secret_script(&path, content)?;
        let instance = self.instance.clone();
        self.system.run(&path, &[("INSTANCE_ID", &instance)])?;
        Ok(changed(true))
    }

    fn secret_script(&self, path: &Path, content: &[u8]) -> Result<(), String> {
        // Scripts may hold secrets: nobody but root reads them.
        let meta = Meta { mode: 0o700, uid: 0, gid: 0 };
        files::make_parents(path, meta).map_err(|e| e.to_string())?;
        files::write_atomic(path, content, meta).map(|_| ()).map_err(|e| e.to_string())
    }

    fn set_hostname(&mut self, name: &str) -> Ended {
        let meta = Meta { mode: 0o644, uid: 0, gid: 0 };
        let changed_file =
            files::write_atomic(&self.path("/etc/hostname"), format!("{name}\n").as_bytes(), meta).map_err(|e| e.to_string());
        // The running name matters even if the file cannot be written.
        self.system.set_hostname(name)?;
        changed_file.map(changed)
    }

    fn write_file(&mut self, file: &FileAction) -> Ended {
        let path = self.path(&file.path);
        if ["/proc/", "/sys/", "/dev/"].iter().any(|p| file.path.starts_with(p)) && !file.path.starts_with("/dev/shm/") {
            return files::write_in_place(&path, &file.content).map(changed).map_err(|e| e.to_string());
        }
        let (uid, gid) = self.owner(&file.owner, file.group.as_deref())?;
        let content = match file.append {
            true => appended(&std::fs::read(&path).unwrap_or_default(), &file.content),
            false => file.content.clone(),
        };
        files::write_atomic(&path, &content, Meta { mode: file.mode, uid, gid }).map(changed).map_err(|e| e.to_string())
    }

    fn link(&mut self, path: &str, target: &str) -> Ended {
        let real = self.path(path);
        if target == "/dev/null" && path.starts_with(UNIT_DIR) && real.is_file() && !real.is_symlink() {
            return Err(format!("{path} is a unit file, which a mask would delete; remove it, or mask with `runtime: true`"));
        }
        if target.starts_with("/usr/share/zoneinfo/") && !self.path(target).exists() {
            return Err(format!("{target} is not in this image; the recipe can add the package tzdata"));
        }
        files::make_link(&real, target).map(changed).map_err(|e| e.to_string())
    }

    fn queue(&mut self, name: &str, frequency: Frequency, content: &[u8]) -> Ended {
        let path = format!("{STATE_DIR}/instances/{}/scripts/{name}", self.instance);
        self.secret_script(&self.path(&path), content)?;
        self.queue.scripts.push(Queued { name: name.to_owned(), frequency, path: PathBuf::from(path) });
        Ok((Outcome::Queued, None))
    }

    /// Writes the queue and starts the final stage, only if it has something to do.
    fn finish(mut self, plan: &Plan) -> Result<(), String> {
        self.queue.instance.clone_from(&self.instance);
        self.queue.message.clone_from(&plan.final_message);
        if self.queue.scripts.is_empty() && self.queue.message.is_none() {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&self.queue).map_err(|e| e.to_string())?;
        files::write_atomic(&self.path(FINAL_QUEUE), &text, Meta { mode: 0o600, uid: 0, gid: 0 }).map_err(|e| e.to_string())?;
        self.system.systemctl(&["start", "--no-block", FINAL_UNIT])
    }
}
