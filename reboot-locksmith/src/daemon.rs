//! The daemon: gathers facts, asks [`machine::step`], carries actions out, and sleeps until something may have changed.

mod notes;
mod publish;
mod requests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reboot_rules::file::write_whole;
use reboot_rules::inhibitors;
use reboot_rules::sessions::{terminals, wall};
use reboot_rules::settings::{Problem, Settings, Strategy};
use reboot_rules::windows::opening;
use reboot_rules::{Seconds, show_time, system_clock};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{self, Config};
use crate::control::{self, Asked, Reply};
use crate::drain::Occasion;
use crate::drain_task::{DrainTask, Need};
use crate::fleet_lock_server::Server;
use crate::host::{self, Identity};
use crate::inhibit_socket;
use crate::journal::{Claimed, Journal};
use crate::machine::{Action, Phase, Progress, Step, step};
use crate::paths::Paths;
use crate::permission::{Guard, HostState, Lock, News, Permission, Target};
use crate::policy::{Boot, Facts, Origin, Wanted};
use crate::status::Status;
use crate::watch::{Alarm, Files, uptime};

/// Seconds after a failed attempt, doubled for each in a row.
const PAUSE: Seconds = 300;
/// The longest such pause.
const LONGEST_PAUSE: Seconds = 4 * 3600;
/// How long is waited for others when settings change under a lock.
const LEAVING: Duration = Duration::from_secs(10);
/// After so long without anything new the daemon gives back the memory that it does not need while it sleeps.
const QUIET: Duration = Duration::from_secs(5);

/// What settings name.
#[derive(Default)]
pub struct Others {
    /// The lock.
    pub lock: Option<Arc<dyn Lock>>,
    /// The quorum's guard.
    pub guard: Option<Arc<dyn Guard>>,
    /// The server for other hosts.
    pub server: Option<Server>,
}

/// What they are made from.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The strategy in force.
    pub strategy: Strategy,
    /// Whether this host is to have an etcd member.
    pub etcd_enabled: bool,
    /// This host.
    pub identity: &'a Identity,
    /// What an earlier life asked for.
    pub claimed: Option<&'a Claimed>,
    /// Where everything is.
    pub paths: &'a Paths,
}

/// Makes them; the text says which setting cannot be followed, and why.
pub type Connect = Box<dyn Fn(&Ask<'_>) -> Result<Others, String> + Send>;

/// The daemon.
pub struct Daemon {
    paths: Paths,
    identity: Identity,
    connect: Connect,
    config: Config,
    strategy: Strategy,
    etcd_enabled: bool,
    server: Option<Server>,
    /// Why what the settings name cannot be had; found when they changed, and true until they change again.
    unmet: Option<Problem>,
    journal: Journal,
    permission: Permission,
    drain: DrainTask,
    pause: Option<(Seconds, String)>,
    failures: u32,
    reboot_failed: Option<String>,
    announce: watch::Sender<bool>,
    status: Status,
    shared: Arc<Mutex<Status>>,
    said: String,
}

fn say(text: &str) {
    eprintln!("reboot-locksmith: {text}");
}

/// The strategy in force, and whether this host is to have an etcd member. That is asked only where it matters: it takes a process.
async fn strategy(paths: &Paths, settings: &Settings) -> (Strategy, bool) {
    let etcd_enabled = (settings.strategy.is_none() || settings.quorum) && is_etcd_enabled(paths).await;
    (settings.strategy_on(etcd_enabled), etcd_enabled)
}

/// What is known about this boot and the version that a lock was asked for.
fn host_state(paths: &Paths, journal: &Journal, boot: &Boot) -> HostState {
    let version = journal.claimed.as_ref().and_then(|claimed| claimed.claim.version.clone());
    let failed = version.and_then(|version| host::failure(paths, &version).map(|why| (version, why)));
    HostState { healthy: *boot == Boot::Healthy, failed, reported: journal.reported.clone() }
}

/// The permission that settings ask for and the server they offer, or neither and the reason why.
fn permission(connect: &Connect, ask: &Ask<'_>, journal: &Journal) -> (Permission, Option<Server>, Option<Problem>) {
    let (Others { lock, guard, server }, unmet) = match connect(ask) {
        Ok(others) => (others, None),
        Err(message) => (Others::default(), Some(Problem { key: "garboard.reboot".to_owned(), message })),
    };
    // What it settles first it settles by what is so, not by what is not known yet.
    let state = host_state(ask.paths, journal, &host::boot(ask.paths));
    (Permission::start(lock, guard, state), server, unmet)
}

async fn is_etcd_enabled(paths: &Paths) -> bool {
    let mut command = tokio::process::Command::new(paths.systemctl());
    command.args(["is-enabled", "--quiet", "etcd.service"]).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null()).status().await.is_ok_and(|status| status.success())
}

impl Daemon {
    /// Reads settings and journal, and goes on where an earlier one was.
    ///
    /// # Errors
    /// When this host has no identity.
    pub async fn new(paths: Paths, connect: Connect) -> Result<Self, String> {
        let identity = Identity::read(&paths)?;
        let (mut journal, problem) = Journal::load(&paths.journal());
        let mut warnings: Vec<String> = problem.into_iter().collect();
        journal.enter_boot(&identity.boot_id);
        // Whether PID 1 was told is not known: if it was, it is on its way; if not, all is looked at again.
        if journal.phase == Phase::Rebooting {
            journal.phase = Phase::Drained;
        }
        let config = Config::load(&paths);
        let (strategy, etcd_enabled) = strategy(&paths, &config.settings).await;
        let claimed = journal.claimed.as_ref();
        let ask = Ask { settings: &config.settings, strategy, etcd_enabled, identity: &identity, claimed, paths: &paths };
        let (permission, server, unmet) = permission(&connect, &ask, &journal);
        if let Err(error) = journal.store(&paths.journal()) {
            warnings.push(format!("{}: {error}", paths.journal().display()));
        }
        let status = Status { warnings, ..Status::default() };
        Ok(Self {
            drain: DrainTask::new(paths.docker(), paths.hooks()),
            announce: watch::channel(false).0,
            shared: Arc::new(Mutex::new(status.clone())),
            pause: None,
            failures: 0,
            reboot_failed: None,
            said: String::new(),
            paths,
            identity,
            connect,
            config,
            strategy,
            etcd_enabled,
            server,
            unmet,
            journal,
            permission,
            status,
        })
    }

    /// What is wrong with the settings, or cannot be had.
    fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.config.problems.iter().chain(&self.unmet)
    }

    /// Reads the settings again.
    async fn reload(&mut self) {
        let config = Config::load(&self.paths);
        let (strategy, etcd_enabled) = strategy(&self.paths, &config.settings).await;
        let same = (strategy, etcd_enabled) == (self.strategy, self.etcd_enabled);
        if config == self.config && same {
            return;
        }
        if config.settings != self.config.settings || !same {
            (self.strategy, self.etcd_enabled) = (strategy, etcd_enabled);
            // With the old rules' lock in hand nothing goes on under the new ones. The new settle what the old held, but only where it is theirs.
            self.leave_others("the settings have changed").await;
            // It may be on the same address.
            self.server = None;
            let claimed = self.journal.claimed.as_ref();
            let (identity, paths) = (&self.identity, &self.paths);
            let ask = Ask { settings: &config.settings, strategy, etcd_enabled, identity, claimed, paths };
            (self.permission, self.server, self.unmet) = permission(&self.connect, &ask, &self.journal);
            if self.journal.phase.has_drained() {
                self.undrain("the settings have changed").await;
            }
            self.withdraw_announcement();
            self.set_phase(Phase::Waiting);
        }
        self.config = config;
        let doubt = config::doubt(self.problems());
        say(&doubt.map_or_else(|| "the settings are read".to_owned(), |doubt| format!("the settings are not understood: {doubt}")));
    }

    /// Gives back what a reboot that is not to come would have had. Who cannot be reached has to be asked for it by hand.
    async fn leave_others(&mut self, why: &str) {
        if !self.journal.phase.holds() {
            return;
        }
        if tokio::time::timeout(LEAVING, self.permission.leave(why)).await.is_err() {
            say("the lock of the old settings could not be given back: `locksmithctl status` shows it");
        }
    }

    /// What is wanted: what somebody asked for, or an update; an update's version counts for both.
    fn wanted(&mut self) -> Option<Wanted> {
        let (update, wrong) = match host::update(&self.paths) {
            Ok(update) => (update, None),
            Err(why) => (None, Some(why)),
        };
        self.status.warn("update", wrong);
        match (self.journal.wanted.clone(), update) {
            (Some(asked), Some(update)) if asked.origin == Origin::Person => Some(Wanted { version: update.version, ..asked }),
            (_, Some(update)) => Some(update),
            (asked, None) => asked,
        }
    }

    /// What the policy looks at now.
    fn facts(&self, wanted: Option<Wanted>, boot: Boot, news: News) -> Facts<'_> {
        let now = system_clock();
        Facts {
            now,
            uptime: uptime(),
            settings: &self.config.settings,
            strategy: self.strategy,
            doubt: config::doubt(self.problems()),
            number: self.identity.number(wanted.as_ref()),
            opening: opening(&self.config.settings.windows, now),
            wanted,
            inhibitors: inhibitors::read(&self.paths.held(), &self.paths.lasting(), now),
            boot,
            pause: self.pause.clone(),
            lock: news.lock,
            quorum: news.quorum,
        }
    }

    fn look(&mut self) -> Step {
        let wanted = self.wanted();
        let boot = host::boot(&self.paths);
        let news = self.permission.news();
        self.note(&news);
        self.permission.host(host_state(&self.paths, &self.journal, &boot));
        let reboot_failed = self.reboot_failed.take();
        // Who is logged in is looked up only where it matters.
        let warned = matches!(self.journal.phase, Phase::Locking | Phase::Locked { .. }) && self.config.settings.warn > 0;
        let users = if warned { terminals(&self.paths.proc()).ok().map(|terminals| terminals.len()) } else { Some(0) };
        let progress = Progress { work: self.drain.work(), reboot_failed, users };
        let facts = self.facts(wanted, boot, news);
        let step = step(self.journal.phase, &facts, &progress);
        let Facts { opening, wanted, inhibitors, .. } = facts;
        self.status.count("evaluations");
        self.status.window_open = opening.is_open();
        (self.status.wanted, self.status.inhibitors) = (wanted, inhibitors);
        step
    }

    /// Does what a step says. The journal knows the new phase first, unless something is being given up: then it knows the old one until that
    /// is done.
    async fn carry_out(&mut self, step: &Step) -> bool {
        let gives_up = step.actions.iter().any(|action| matches!(action, Action::Release(_) | Action::Undrain(_)));
        let before = self.journal.phase;
        if step.actions.contains(&Action::Acquire) {
            self.note_claim();
        }
        if !gives_up {
            self.set_phase(step.phase);
        }
        for action in &step.actions {
            match action {
                Action::Acquire => {
                    let claimed = self.journal.claimed.as_ref();
                    self.permission.want(Target::Want(claimed.map(|claimed| claimed.claim.clone()).unwrap_or_default()));
                }
                Action::Release(why) => {
                    say(&format!("giving the lock back: {why}"));
                    self.status.count("gave_back");
                    self.permission.want(Target::GiveBack(why.clone()));
                    self.withdraw_announcement();
                }
                Action::Warn(at) => {
                    let reason = self.status.wanted.as_ref().map(|wanted| wanted.reason.clone()).unwrap_or_default();
                    wall(&format!("this host reboots at {}: {reason}. `sudo locksmithctl extend 15m` puts it off", show_time(*at)));
                }
                Action::Announce => {
                    self.status.count("locks");
                    self.announce();
                }
                Action::Drain => {
                    self.status.count("drains");
                    self.journal.occasion = self.status.wanted.as_ref().map(Occasion::of).unwrap_or_default();
                    self.drain.start(&self.config.settings.drain, self.journal.occasion.clone());
                }
                Action::Undrain(why) => self.undrain(why).await,
                Action::Pause(why) => {
                    self.failures = self.failures.saturating_add(1);
                    let pause = (PAUSE << self.failures.saturating_sub(1).min(6)).min(LONGEST_PAUSE);
                    self.pause = Some((uptime().saturating_add(pause), why.clone()));
                    say(&format!("the reboot is called off for now: {why}"));
                    self.status.count("drain_failures");
                }
                Action::Reboot => self.reboot().await,
            }
        }
        self.set_phase(step.phase);
        before != self.journal.phase || step.actions.iter().any(|action| *action != Action::Acquire) || self.reboot_failed.is_some()
    }

    fn announce(&mut self) {
        let text = format!("{{\"kind\":\"reboot\",\"at\":{}}}", system_clock());
        let _ = write_whole(&self.paths.pending(), text.as_bytes(), false);
        let _ = self.announce.send(true);
    }

    /// Forgets that a reboot is about to come, also one that an earlier daemon of this boot announced.
    fn withdraw_announcement(&mut self) {
        self.announce.send_replace(false);
        let _ = std::fs::remove_file(self.paths.pending());
    }

    async fn undrain(&mut self, why: &str) {
        self.status.count("undone");
        wall(&format!("the reboot is called off: {why}"));
        let Journal { occasion, hooks, stopped, .. } = &self.journal;
        self.drain.undo(&self.config.settings.drain, occasion, (hooks, stopped)).await;
        // Not before: who dies over it begins with it again.
        self.journal.forget_drain();
        self.journal.start_again.clear();
        self.store_journal();
    }

    /// The last look at everything, others included, and then PID 1.
    async fn reboot(&mut self) {
        let news = self.permission.confirm().await;
        let wanted = self.wanted();
        let doubt = Config::load(&self.paths).doubt().or_else(|| config::doubt(self.problems()));
        let facts = Facts { doubt, pause: None, ..self.facts(wanted, host::boot(&self.paths), news) };
        let judgement = crate::policy::judge(&facts);
        if judgement.decision != crate::policy::Decision::Go {
            self.reboot_failed = Some(judgement.against());
            return;
        }
        say(&format!("rebooting: {}", facts.wanted.as_ref().map(|wanted| wanted.reason.as_str()).unwrap_or_default()));
        match crate::power::reboot(&self.paths.init()).await {
            Ok(()) => self.status.count("reboots"),
            Err(why) => {
                self.status.count("reboot_failures");
                self.reboot_failed = Some(why);
            }
        }
    }

    /// Runs until the process is told to end.
    ///
    /// # Errors
    /// When its sockets cannot be made.
    pub async fn run(mut self) -> std::io::Result<()> {
        let (sender, mut queue) = mpsc::channel::<Asked>(16);
        control::serve(&self.paths.control(), sender)?;
        control::serve_metrics(&self.paths.metrics(), Arc::clone(&self.shared))?;
        inhibit_socket::serve(
            &self.paths.inhibit_socket(),
            docker_group(&self.paths.groups()),
            inhibit_socket::Directories { held: self.paths.held(), lasting: self.paths.lasting() },
            self.announce.subscribe(),
        )?;
        let parents = [self.paths.needed(), self.paths.settings(), self.paths.boot()];
        let mut directories: Vec<PathBuf> = parents.iter().filter_map(|path| path.parent().map(PathBuf::from)).collect();
        directories.extend([self.paths.held(), self.paths.lasting()]);
        let files = Files::new(&directories)?;
        let alarm = Alarm::new()?;
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        let mut waiting: Vec<(oneshot::Sender<Reply>, Result<String, String>)> = Vec::new();
        self.start_again();
        loop {
            let step = self.look();
            let acted = self.carry_out(&step).await;
            self.publish(&step);
            if acted {
                continue;
            }
            for (answer, result) in waiting.drain(..) {
                let status = self.status.clone();
                let (error, message) = result.map_or_else(|error| (Some(error), String::new()), |message| (None, message));
                let _ = answer.send(Reply { error, message, status });
            }
            let mut news = self.permission.subscribe();
            news.mark_changed();
            let seen = self.permission.news();
            let different = async {
                // Only what the daemon would see differently: the channel also tells of what it has seen.
                while news.changed().await.is_ok() {
                    if self.permission.news() != seen {
                        return;
                    }
                    news.borrow_and_update();
                }
                std::future::pending::<()>().await;
            };
            let rest = async {
                tokio::time::sleep(QUIET).await;
                daemon_socket::rest();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = rest => {}
                () = alarm.wait(step.until) => {}
                () = files.changed() => self.reload().await,
                () = different => {}
                need = self.drain.next() => self.drained(need),
                _ = hangup.recv() => self.reload().await,
                asked = queue.recv() => match asked {
                    Some((request, answer)) => {
                        let result = self.handle(request);
                        waiting.push((answer, result));
                    }
                    None => return Ok(()),
                },
                _ = terminate.recv() => return Ok(()),
            }
        }
    }

    fn drained(&mut self, need: Need) {
        let Need::Note(undoing, answer) = need else { return };
        self.journal.note(undoing);
        self.store_journal();
        let _ = answer.send(());
    }

    /// Starts containers that were stopped for the last reboot and that Docker does not start by itself.
    fn start_again(&mut self) {
        if self.journal.phase == Phase::Idle && !self.journal.start_again.is_empty() {
            let stopped = std::mem::take(&mut self.journal.start_again);
            self.drain.start_containers(stopped);
            self.store_journal();
        }
    }
}

/// The group whose members may take inhibitors through the socket, from `/etc/group`.
fn docker_group(groups: &std::path::Path) -> Option<u32> {
    let text = std::fs::read_to_string(groups).ok()?;
    text.lines().find_map(|line| line.strip_prefix("docker:")?.split(':').nth(1)?.parse().ok())
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
