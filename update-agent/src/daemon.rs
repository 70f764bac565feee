//! The daemon: checks at spread intervals, does what it is asked through a socket, one thing at a time, and serves metrics.
//!
//! What it is asked to do interrupts a download where that matters (pin, rollback, a bundle): the journal lets it go on later.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon_socket::{accept, listen, serve_metrics};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::agent::{Agent, AgentError, Wish};
use crate::policy::{ETCD_MEMBERS, next_check};
use crate::state::Event;
use crate::status::{AgentState, Problem, Status};

const MAX_REQUEST: u64 = 64 << 10;
/// Other members of an etcd cluster are updated one after the other: seconds after which they are looked at again.
const MEMBERS_AGAIN: u64 = 600;
const NO_SERVER: &str = "no update server is set (garboard.update.server in the cloud-config)";

/// What the daemon is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// Fetch the metadata and say what follows from it.
    Check,
    /// Install what is newest for this host.
    Update {
        /// This version, although it failed or was set aside.
        #[serde(default)]
        retry: Option<String>,
        /// An older one too.
        #[serde(default)]
        downgrade: bool,
    },
    /// Install from a bundle.
    Apply {
        /// The file.
        file: PathBuf,
        /// Although it failed or was set aside.
        #[serde(default)]
        retry: Option<String>,
        /// An older one too.
        #[serde(default)]
        downgrade: bool,
    },
    /// Go back.
    Rollback,
    /// Take this version only; none takes all again.
    Pin {
        /// Which.
        version: Option<String>,
    },
    /// Say what has happened.
    History,
    /// Look again at what became of the last update, and check when it is time to.
    Periodic,
}

impl Request {
    fn interrupts(&self) -> bool {
        matches!(self, Self::Apply { .. } | Self::Rollback | Self::Pin { .. })
    }

    /// Whether the answer to this one is what somebody wants to know who asks meanwhile. A check does not install, and a periodic
    /// update minds windows and waves: who asks for an update has to get one.
    fn answers(&self, asked: &Self) -> bool {
        match asked {
            Self::History => true,
            Self::Check => matches!(self, Self::Check | Self::Update { .. }),
            asked => asked == self,
        }
    }
}

/// The answer: one line of JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// What went wrong.
    pub error: Option<Problem>,
    /// One sentence.
    pub message: String,
    /// How things are now.
    pub status: Status,
    /// For [`Request::History`].
    #[serde(default)]
    pub history: Vec<Event>,
}

/// Does what is asked. Failures become part of the answer and of the status.
pub async fn handle(agent: &mut Agent, request: Request) -> Reply {
    let result = carry_out(agent, &request).await;
    let mut reply = Reply { history: agent.state.versions().map(|versions| versions.events).unwrap_or_default(), ..Reply::default() };
    match result {
        Ok(message) => reply.message = message,
        Err(error) => {
            if !matches!(request, Request::Pin { .. } | Request::History | Request::Rollback) {
                agent.failed(&error);
            }
            reply.error = Some(Problem { kind: error.kind().to_owned(), message: error.to_string() });
        }
    }
    reply.status = agent.status.clone();
    reply
}

async fn carry_out(agent: &mut Agent, request: &Request) -> Result<String, AgentError> {
    let wish = |retry: &Option<String>, downgrade: bool| -> Result<Wish, AgentError> {
        let retry = retry.as_ref().map(|version| version.parse()).transpose()?;
        Ok(Wish { asked: true, retry, downgrade })
    };
    match request {
        Request::Check => {
            agent.check(true).await?;
            Ok(agent.status.why.clone())
        }
        Request::Update { retry, downgrade } => {
            let wish = wish(retry, *downgrade)?;
            agent.update(&wish).await?;
            Ok(agent.status.why.clone())
        }
        Request::Apply { file, retry, downgrade } => {
            let wish = wish(retry, *downgrade)?;
            let version = agent.apply(file, &wish).await?;
            Ok(format!("version {version} is in place; the next boot starts it"))
        }
        Request::Rollback => {
            let version = agent.rollback().await?;
            Ok(format!("the next boot goes back to version {version}"))
        }
        Request::Pin { version } => {
            let version = version.as_ref().map(|version| version.parse()).transpose()?;
            agent.pin(version.as_ref())?;
            Ok(version.map_or("nothing is pinned".to_owned(), |version| format!("only version {version} is taken")))
        }
        Request::History => Ok(String::new()),
        Request::Periodic => {
            agent.note_outcome()?;
            if agent.status.state == AgentState::Trial {
                return Ok(agent.status.why.clone());
            }
            if has_nothing_to_do(agent) {
                return Ok(agent.status.why.clone());
            }
            if agent.settings.automatic {
                agent.update(&Wish::default()).await?;
            } else {
                agent.check(false).await?;
            }
            Ok(agent.status.why.clone())
        }
    }
}

type Asked = (Request, Option<oneshot::Sender<Reply>>);

/// Whether nothing is left to do without being asked: no server, and no trial to watch. The command line works without a daemon.
fn has_nothing_to_do(agent: &mut Agent) -> bool {
    if agent.settings.server.is_some() || agent.status.state == AgentState::Trial {
        return false;
    }
    if agent.status.state != AgentState::PendingReboot {
        agent.say(AgentState::Disabled, None, NO_SERVER);
    }
    true
}

/// Runs until the process is told to end, or there is nothing to do.
///
/// # Errors
/// When its sockets cannot be made.
pub async fn run(mut agent: Agent, metrics_tcp: Option<std::net::SocketAddr>) -> std::io::Result<()> {
    if has_nothing_to_do(&mut agent) {
        return Ok(());
    }
    let (sender, mut queue) = mpsc::channel::<Asked>(16);
    let shared = Arc::new(Mutex::new(agent.status.clone()));
    serve_control(&agent.paths.control, sender)?;
    let (status, file) = (Arc::clone(&shared), agent.paths.status.clone());
    let metrics = move || latest(&status, &file).metrics();
    if let Some(address) = metrics_tcp {
        let (listener, metrics) = (TcpListener::bind(address).await?, metrics.clone());
        tokio::spawn(async move { serve_metrics(|| listener.accept(), metrics).await });
    }
    let listener = listen(&agent.paths.metrics, 0o644)?;
    tokio::spawn(async move { serve_metrics(|| listener.accept(), metrics).await });
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut failures = 0_u32;
    // Not at once: a fleet that lost its power does not come back to the server in one second.
    let mut next = Instant::now() + Duration::from_secs(2 + random() % 20.min(agent.settings.interval.max(1)));
    let mut waiting: VecDeque<Asked> = VecDeque::new();
    loop {
        agent.status.next_check = Some((agent.clock)() + next.saturating_duration_since(Instant::now()).as_secs());
        agent.publish();
        if let Ok(mut shared) = shared.lock() {
            *shared = agent.status.clone();
        }
        if agent.reboots() {
            eprintln!("update-agent: {}; rebooting", agent.status.why);
            let _ = std::process::Command::new("/usr/bin/systemctl").arg("reboot").status();
        }
        let (request, answer) = match waiting.pop_front() {
            Some(asked) => asked,
            None if has_nothing_to_do(&mut agent) => return Ok(()),
            None => {
                daemon_socket::rest();
                tokio::select! {
                    asked = queue.recv() => match asked { Some(asked) => asked, None => return Ok(()) },
                    () = sleep_until(next) => (Request::Periodic, None),
                    _ = terminate.recv() => return Ok(()),
                }
            }
        };
        let periodic = request == Request::Periodic;
        let reply = {
            let work = handle(&mut agent, request.clone());
            tokio::pin!(work);
            let mut same = Vec::new();
            let reply = loop {
                tokio::select! {
                    reply = &mut work => break Some(reply),
                    asked = queue.recv() => match asked {
                        Some(asked) if asked.0.interrupts() => { waiting.push_front(asked); break None }
                        Some((asked, answer)) if request.answers(&asked) => same.push((asked, answer)),
                        Some(asked) => waiting.push_back(asked),
                        None => return Ok(()),
                    },
                    _ = terminate.recv() => return Ok(()),
                }
            };
            match &reply {
                // Who asked meanwhile for what was going on anyway hears how it ended.
                Some(reply) => same.into_iter().filter_map(|(_, answer)| answer).for_each(|answer| drop(answer.send(reply.clone()))),
                None => waiting.extend(same),
            }
            reply
        };
        let failed = reply.as_ref().is_some_and(|reply| reply.error.is_some());
        if let Some(error) = reply.as_ref().and_then(|reply| reply.error.as_ref()) {
            eprintln!("update-agent: {}: {}", error.kind, error.message);
        }
        if let (Some(answer), Some(reply)) = (answer, reply) {
            let _ = answer.send(reply);
        }
        if periodic {
            failures = if failed { failures + 1 } else { 0 };
            let interval = match again_for_members(&agent.status, agent.settings.interval) {
                // A trial ends soon, and then there is something to note.
                _ if agent.status.state == AgentState::Trial => 15,
                Some(again) => again,
                None => agent.settings.interval,
            };
            let seconds = next_check(interval, failures, agent.retry_after.take(), random());
            let until = agent.status.wait_until.map(|until| until.saturating_sub((agent.clock)()).max(1));
            next = Instant::now() + Duration::from_secs(seconds.min(until.unwrap_or(u64::MAX)));
        } else if let Some(again) = again_for_members(&agent.status, agent.settings.interval) {
            // What somebody has asked for is not left for the next check of an idle host.
            next = next.min(Instant::now() + Duration::from_secs(next_check(again, 0, None, random())));
        }
    }
}

/// After how many seconds the members of the etcd cluster are asked again, if they are waited for.
fn again_for_members(status: &Status, interval: u64) -> Option<u64> {
    (status.wait.as_deref() == Some(ETCD_MEMBERS)).then(|| interval.min(MEMBERS_AGAIN))
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

fn serve_control(path: &Path, sender: mpsc::Sender<Asked>) -> std::io::Result<()> {
    let listener = listen(path, 0o600)?;
    tokio::spawn(async move {
        loop {
            let stream = accept(|| listener.accept()).await;
            let sender = sender.clone();
            tokio::spawn(async move {
                let _ = answer(stream, sender).await;
            });
        }
    });
    Ok(())
}

async fn answer(stream: UnixStream, sender: mpsc::Sender<Asked>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    timeout(Duration::from_secs(10), reader.read_line(&mut line)).await??;
    let reply = match serde_json::from_str::<Request>(&line) {
        Err(error) => Reply { error: Some(Problem { kind: "request".to_owned(), message: error.to_string() }), ..Reply::default() },
        Ok(request) => {
            let (answer, reply) = oneshot::channel();
            if sender.send((request, Some(answer))).await.is_err() {
                return Ok(());
            }
            let interrupted = Problem { kind: "interrupted".to_owned(), message: "something else was asked for meanwhile".to_owned() };
            reply.await.unwrap_or(Reply { error: Some(interrupted), ..Reply::default() })
        }
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

/// The latest status: the file is written more often than the daemon's loop comes round.
fn latest(shared: &Mutex<Status>, file: &Path) -> Status {
    let stored = std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok());
    stored.or_else(|| shared.lock().ok().map(|status| status.clone())).unwrap_or_default()
}

/// Asks the daemon at its socket; `None` when there is none.
///
/// # Errors
/// When it goes away before it has answered.
pub async fn ask(control: &Path, request: &Request) -> std::io::Result<Option<Reply>> {
    daemon_socket::ask(control, request, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_more_than_is_going_on_is_not_answered_by_it() {
        let update = Request::Update { retry: None, downgrade: false };
        let again = Request::Update { retry: Some("1.2".to_owned()), downgrade: false };
        assert!(!Request::Periodic.answers(&update) && !Request::Check.answers(&update) && !update.answers(&again));
        assert!(update.answers(&update) && update.answers(&Request::Check) && Request::Check.answers(&Request::Check));
        assert!(!Request::Periodic.answers(&Request::Check), "it may have had nothing to do yet");
        assert!(Request::Periodic.answers(&Request::History));
    }
}
