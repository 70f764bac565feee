//! The drain as a task beside the daemon's loop: started, looked at, undone.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reboot_rules::settings::Drain;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::drain::{self, Occasion, Running};
use crate::machine::Work;

/// What the task needs of the daemon.
pub enum Need {
    /// What is about to be done is to be noted before it is; told when it is noted.
    Note(Undoing, oneshot::Sender<()>),
    /// Its work has ended.
    Ended,
}

/// What has to be undone when the reboot is called off, also by a later daemon.
pub enum Undoing {
    /// This hook runs.
    Hook(PathBuf),
    /// These containers are stopped.
    Containers(Running),
}

/// The drain.
pub struct DrainTask {
    docker: PathBuf,
    hooks: PathBuf,
    work: Arc<Mutex<Work>>,
    task: Option<tokio::task::JoinHandle<()>>,
    needs: mpsc::Receiver<Need>,
    sender: mpsc::Sender<Need>,
}

impl DrainTask {
    /// One that has not begun.
    #[must_use]
    pub fn new(docker: PathBuf, hooks: PathBuf) -> Self {
        let (sender, needs) = mpsc::channel(4);
        Self { docker, hooks, work: Arc::new(Mutex::new(Work::None)), task: None, needs, sender }
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
    pub fn start(&mut self, how: &Drain, occasion: Occasion) {
        self.stop();
        if let Ok(mut work) = self.work.lock() {
            *work = Work::Running;
        }
        let (docker, hooks, how) = (self.docker.clone(), self.hooks.clone(), *how);
        let (sender, shared) = (self.sender.clone(), Arc::clone(&self.work));
        self.task = Some(tokio::spawn(async move {
            let result = all(&docker, &hooks, &how, &occasion, &sender).await;
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
        // What it has asked for last it will not do.
        while self.needs.try_recv().is_ok() {}
        if let Ok(mut work) = self.work.lock() {
            *work = Work::None;
        }
    }

    /// Ends the work and undoes it: containers are started again, hooks that ran are told.
    pub async fn undo(&mut self, how: &Drain, occasion: &Occasion, (hooks, stopped): (&[PathBuf], &[String])) {
        self.stop();
        if !stopped.is_empty()
            && let Err(why) = drain::start(&self.docker, stopped).await
        {
            eprintln!("reboot-locksmith: containers that were stopped are not started again: {why}");
        }
        for hook in hooks.iter().rev() {
            if let Err(why) = drain::run_hook(hook, "cancelled", occasion, Duration::from_secs(how.hook_timeout)).await {
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

/// Has something noted before it is done.
async fn note(sender: &mpsc::Sender<Need>, undoing: Undoing) {
    let (answer, noted) = oneshot::channel();
    if sender.send(Need::Note(undoing, answer)).await.is_ok() {
        let _ = noted.await;
    }
}

async fn all(
    docker: &std::path::Path,
    hooks: &std::path::Path,
    how: &Drain,
    occasion: &Occasion,
    sender: &mpsc::Sender<Need>,
) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(how.timeout);
    for hook in drain::hooks(hooks) {
        let left = deadline.saturating_duration_since(Instant::now());
        note(sender, Undoing::Hook(hook.clone())).await;
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
    let running = drain::running(docker).await;
    let all = running.all.clone();
    if all.is_empty() {
        return Ok(());
    }
    note(sender, Undoing::Containers(running)).await;
    // What has not stopped in time is stopped by PID 1, which waits less long.
    if let Err(why) = drain::stop(docker, &all, deadline).await {
        eprintln!("reboot-locksmith: not all containers stopped in time: {why}");
    }
    Ok(())
}
