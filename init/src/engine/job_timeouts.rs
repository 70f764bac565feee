//! `JobTimeoutSec=` and `JobRunningTimeoutSec=`; devices, which are waited for by looking, have a timeout of their own.

use unit_files::Config;
use unit_files::unit::EmergencyAction;

use super::graph::UnitId;
use super::manager::{Manager, now};
use super::protocol::JobResult;
use super::restart::{Usec, usec};

impl Manager {
    fn job_timeout(&self, unit: UnitId) -> Option<Usec> {
        let runtime = self.units.get(&unit)?;
        let device = matches!(runtime.def.config, Config::Device).then_some(90_000_000);
        runtime.def.job_running_timeout.or(runtime.def.job_timeout).map(usec).or(device)
    }

    pub fn next_job_timeout(&self) -> Option<Usec> {
        let mut next = None;
        for (unit, job) in self.queue.iter() {
            let Some(timeout) = self.job_timeout(unit) else { continue };
            let since = self.job_since.get(&job.id).copied().unwrap_or(0);
            let mut at = since.saturating_add(timeout);
            if job.running && matches!(self.units.get(&unit).map(|runtime| &runtime.def.config), Some(Config::Device)) {
                at = at.min(now() + 100_000);
            }
            next = [next, Some(at)].into_iter().flatten().min();
        }
        next
    }

    pub fn job_timeouts(&mut self, now: Usec) {
        let jobs: Vec<(UnitId, u32)> = self.queue.iter().map(|(unit, job)| (unit, job.id)).collect();
        for (unit, id) in jobs {
            let device = matches!(self.units.get(&unit).map(|runtime| &runtime.def.config), Some(Config::Device));
            if device && self.queue.get(unit).is_some_and(|job| job.running) && self.device_is_there(unit) {
                self.set_simple(unit, true);
                continue;
            }
            let Some(timeout) = self.job_timeout(unit) else { continue };
            if self.job_since.get(&id).is_some_and(|since| since.saturating_add(timeout) <= now) {
                let action = self.units.get(&unit).map_or(EmergencyAction::None, |runtime| runtime.def.job_timeout_action);
                self.finish_job(unit, JobResult::Timeout);
                let name = self.name(unit);
                self.emergency(&name, action);
            }
        }
    }
}
