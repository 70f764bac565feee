//! What people ask the daemon for.

use reboot_rules::sessions::wall;
use reboot_rules::{Seconds, show_span, show_time, system_clock};

use super::Daemon;
use crate::control::Request;
use crate::machine::Phase;
use crate::policy::{Origin, Wanted};
use crate::watch::uptime;

impl Daemon {
    /// Does what is asked; one sentence about it, or why not.
    pub(super) fn handle(&mut self, request: Request) -> Result<String, String> {
        let now = system_clock();
        let wanted = |origin, reason: String, by: String| Wanted { origin, version: None, reason, by, since: now };
        match request {
            Request::Status => Ok(String::new()),
            Request::NeedReboot { reason, by } => {
                self.journal.wanted = Some(wanted(Origin::Request, reason, by));
                self.store_journal();
                Ok("a reboot is wanted; `locksmithctl why` says what it waits for".to_owned())
            }
            Request::Reboot { reason, by } => {
                self.journal.wanted = Some(wanted(Origin::Person, reason, by));
                (self.pause, self.failures) = (None, 0);
                self.store_journal();
                Ok("the host reboots as soon as lock, inhibitors and quorum allow it; `locksmithctl why` says what it waits for".to_owned())
            }
            Request::Cancel if self.journal.phase == Phase::Rebooting => Err("too late: PID 1 is on its way".to_owned()),
            Request::Cancel => {
                let was = self.journal.wanted.take();
                self.store_journal();
                match was {
                    Some(_) => Ok("what was asked for is forgotten".to_owned()),
                    None => Err("nobody has asked for a reboot (an update's is put off with `locksmithctl inhibit`)".to_owned()),
                }
            }
            Request::Extend { seconds } => {
                let Phase::Locked { since, extended } = self.journal.phase else { return Err("no reboot is about to come".to_owned()) };
                let (most, warn) = (self.config.settings.warn_extend, self.config.settings.warn);
                let at = |extended: Seconds| {
                    let at = since.saturating_add(warn).saturating_add(extended);
                    show_time(now.saturating_add(at).saturating_sub(uptime()))
                };
                // Nobody gets less than he asked for without a word.
                let extended = match most.saturating_sub(extended) {
                    0 => {
                        return Err(format!(
                            "the reboot stays at {}: it was put off by {} in all, which is the most",
                            at(extended),
                            show_span(most)
                        ));
                    }
                    left if seconds > left => {
                        return Err(format!("the reboot stays at {}: it can be put off by no more than {}", at(extended), show_span(left)));
                    }
                    _ => extended.saturating_add(seconds),
                };
                self.set_phase(Phase::Locked { since, extended });
                let text = format!("the reboot is put off to {} (it can be put off by {} in all)", at(extended), show_span(most));
                wall(&text);
                Ok(text)
            }
        }
    }
}
