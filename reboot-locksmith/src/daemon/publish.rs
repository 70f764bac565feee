//! What the daemon lets others know: its status, and the log where the answer changes.

use reboot_rules::file::write_whole;
use reboot_rules::scheduled::Scheduled;

use super::{Daemon, say};
use crate::fleet_lock_server::{self, Server};
use crate::machine::Step;

impl Daemon {
    /// Tells how it stands after a step.
    pub(super) fn publish(&mut self, step: &Step) {
        let news = self.permission.news();
        let problems = self.problems().map(ToString::to_string).collect();
        let status = &mut self.status;
        status.state = self.journal.phase.as_str().to_owned();
        status.decision = Some(step.judgement.decision);
        status.gates.clone_from(&step.judgement.gates);
        status.host.clone_from(&self.identity.hostname);
        status.version.clone_from(&self.identity.version);
        status.strategy = self.strategy.as_str().to_owned();
        status.group.clone_from(&self.config.settings.group);
        status.windows = self.config.settings.windows.iter().map(ToString::to_string).collect();
        status.next = step.until;
        if news.lost != status.lost
            && let Some(lost) = &news.lost
        {
            say(lost);
        }
        (status.kept, status.lost) = (news.kept, news.lost);
        status.warn(fleet_lock_server::SETTING, self.server.as_ref().and_then(Server::trouble));
        status.holder_since = self.permission.oldest_holder();
        status.quarantined = news.reported.map(|report| report.version);
        status.scheduled = Scheduled::read(&self.paths.scheduled());
        status.settings_problems = problems;
        // Said once, when it changes: the log is where people look when the daemon is gone.
        let line = match (&self.status.wanted, step.judgement.against()) {
            (None, _) => String::new(),
            (Some(_), against) if against.is_empty() => format!("{}: nothing is against the reboot", self.status.state),
            (Some(_), against) => format!("{}: {against}", self.status.state),
        };
        if line != self.said && !line.is_empty() {
            say(&line);
        }
        self.said = line;
        let stored = serde_json::to_vec_pretty(&self.status).map_err(std::io::Error::from);
        if let Err(error) = stored.and_then(|text| write_whole(&self.paths.status(), &text, false)) {
            say(&format!("{}: {error}", self.paths.status().display()));
        }
        if let Ok(mut shared) = self.shared.lock() {
            *shared = self.status.clone();
        }
    }
}
