//! The drain as a task beside the daemon's loop: started, looked at, undone.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reboot_rules::settings::Drain;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::drain::{self, Occasion, Running};
use crate::machine::Work;
use crate::policy::Wanted;

/// What the task needs of the daemon.
pub enum Need {
    /// These containers are about to be stopped: to be noted before they are.
    Note {
        /// Which.
        stopped: Vec<String>,
        /// Those of them that Docker does not start by itself after a reboot.
        start_again: Vec<String>,
        /// Told when it is noted.
        answer: oneshot::Sender<()>,
    },
    /// Its work has ended.
    Ended,
}

/// The drain.
pub struct DrainTask {
    docker: PathBuf,
    hooks: PathBuf,
    work: Arc<Mutex<Work>>,
    /// Hooks that ran, and for what occasion.
    ran: Arc<Mutex<Vec<PathBuf>>>,
    occasion: Occasion,
    task: Option<tokio::task::JoinHandle<()>>,
    needs: mpsc::Receiver<Need>,
    sender: mpsc::Sender<Need>,
}

impl DrainTask {
    /// One that has not begun.
    #[must_use]
    pub fn new(docker: PathBuf, hooks: PathBuf) -> Self {
        let (sender, needs) = mpsc::channel(4);
        let (work, ran) = (Arc::new(Mutex::new(Work::None)), Arc::default());
        Self { docker, hooks, work, ran, occasion: Occasion::default(), task: None, needs, sender }
    }

    /// How it stands.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work.lock().map_or(Work::None, |work| work.clone())
    }

    /// What it needs next.
    pub async fn next(&mut self) -> Need {
        self.needs.recv().await.unwrap_or(Need::Ended)
    }

    /// Begins.
    pub fn start(&mut self, how: &Drain, wanted: Option<Wanted>) {
        self.stop();
        let occasion =
            wanted.map(|wanted| Occasion { version: wanted.version.unwrap_or_default(), reason: wanted.reason }).unwrap_or_default();
        self.occasion = occasion.clone();
        if let Ok(mut work) = self.work.lock() {
            *work = Work::Running;
        }
        let (docker, hooks, how) = (self.docker.clone(), self.hooks.clone(), *how);
        let (ran, sender, shared) = (Arc::clone(&self.ran), self.sender.clone(), Arc::clone(&self.work));
        self.task = Some(tokio::spawn(async move {
            let result = all(&docker, &hooks, &how, &occasion, &ran, &sender).await;
            if let Ok(mut work) = shared.lock() {
                *work = result.map_or_else(Work::Failed, |()| Work::Done);
            }
            let _ = sender.send(Need::Ended).await;
        }));
    }

    /// Stops what still runs.
    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        if let Ok(mut work) = self.work.lock() {
            *work = Work::None;
        }
    }

    /// Ends the work and undoes it: containers are started again, hooks that ran are told.
    pub async fn undo(&mut self, how: &Drain, stopped: Vec<String>) {
        self.stop();
        if !stopped.is_empty()
            && let Err(why) = drain::start(&self.docker, &stopped).await
        {
            eprintln!("reboot-locksmith: containers that were stopped are not started again: {why}");
        }
        let ran = self.ran.lock().map(|mut ran| std::mem::take(&mut *ran)).unwrap_or_default();
        for hook in ran.iter().rev() {
            if let Err(why) = drain::run_hook(hook, "cancelled", &self.occasion, Duration::from_secs(how.hook_timeout)).await {
                eprintln!("reboot-locksmith: {why}");
            }
        }
    }

    /// Starts containers in the background, trying for a while: Docker may not be up yet.
    pub fn start_containers(&self, ids: Vec<String>) {
        let docker = self.docker.clone();
        tokio::spawn(async move {
            for pause in [5, 10, 20, 40, 80] {
                match drain::start(&docker, &ids).await {
                    Ok(()) => return,
                    Err(why) => eprintln!("reboot-locksmith: containers stopped for the reboot are not started yet: {why}"),
                }
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
        });
    }
}

async fn all(
    docker: &std::path::Path,
    hooks: &std::path::Path,
    how: &Drain,
    occasion: &Occasion,
    ran: &Mutex<Vec<PathBuf>>,
    sender: &mpsc::Sender<Need>,
) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(how.timeout);
    for hook in drain::hooks(hooks) {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Ok(mut ran) = ran.lock() {
            ran.push(hook.clone());
        }
        let limit = left.min(Duration::from_secs(how.hook_timeout));
        match drain::run_hook(&hook, "pre-reboot", occasion, limit).await {
            Err(why) if how.hooks_must_succeed => return Err(why),
            Err(why) => eprintln!("reboot-locksmith: {why}; going on, as the settings say"),
            Ok(()) => {}
        }
    }
    if !how.containers {
        return Ok(());
    }
    let Running { all, unless_stopped } = drain::running(docker).await;
    if all.is_empty() {
        return Ok(());
    }
    let (answer, noted) = oneshot::channel();
    if sender.send(Need::Note { stopped: all.clone(), start_again: unless_stopped, answer }).await.is_ok() {
        let _ = noted.await;
    }
    // What has not stopped in time is stopped by PID 1, which waits less long.
    if let Err(why) = drain::stop(docker, &all, deadline).await {
        eprintln!("reboot-locksmith: not all containers stopped in time: {why}");
    }
    Ok(())
}
