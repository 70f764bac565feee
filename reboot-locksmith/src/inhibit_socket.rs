//! Inhibitors for containers: whoever may open the socket sends one line of JSON (`{"why": "...", "who": "...", "mode": "block"}`) and holds the
//! inhibitor as long as the connection, or until the end it names (`until`, `for`). With `"lasting": true` it is kept like the command line's: it
//! outlives connection, container and reboots. The answer is one line, `{"id": "..."}` or `{"error": "..."}`; before a reboot for which the inhibitor
//! is waited there comes `{"event": "prepare-for-shutdown"}`, and at its end `{"event": "expired"}`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon_socket::{accept, listen};
use reboot_rules::inhibitors::{Held, Inhibitor, hold};
use reboot_rules::{persistent, system_clock};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::inhibit_request;
use crate::watch::Alarm;

const MAX_REQUEST: u64 = 16 << 10;
/// More at once than this are an accident, or somebody's.
const MAX_HELD: usize = 256;
/// So are more files than this, which containers leave behind.
const MAX_LASTING: usize = 256;

/// Where inhibitors are.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Held ones.
    pub held: PathBuf,
    /// Lasting ones.
    pub lasting: PathBuf,
}

/// Serves the socket.
///
/// # Errors
/// When it cannot be made.
pub fn serve(socket: &Path, group: Option<u32>, to: Directories, announced: watch::Receiver<bool>) -> std::io::Result<()> {
    let listener = listen(socket, if group.is_some() { 0o660 } else { 0o600 })?;
    std::os::unix::fs::chown(socket, None, group)?;
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_HELD));
    tokio::spawn(async move {
        loop {
            let stream = accept(|| listener.accept()).await;
            let (to, announced) = (to.clone(), announced.clone());
            let Ok(slot) = std::sync::Arc::clone(&slots).try_acquire_owned() else { continue };
            tokio::spawn(async move {
                let _ = one(stream, to, announced).await;
                drop(slot);
            });
        }
    });
    Ok(())
}

/// Does what is asked: its name, and what holds it where nothing keeps it.
fn take(to: &Directories, asked: Inhibitor) -> Result<(String, Option<Held>), String> {
    if !asked.lasting {
        let held = hold(&to.held, &asked).map_err(|error| error.to_string())?;
        return Ok((held.id(), Some(held)));
    }
    let there = std::fs::read_dir(&to.lasting).map_or(0, Iterator::count);
    if there >= MAX_LASTING && !to.lasting.join(format!("{}.json", asked.id)).exists() {
        return Err(format!("there are {there} lasting inhibitors already: the operator has to remove some (`locksmithctl uninhibit`)"));
    }
    let now = asked.since;
    persistent::make(&to.lasting, asked, now).map(|made| (made.id, None))
}

/// Comes back when an end has come; never without one.
async fn ended(alarm: Option<Alarm>, until: Option<u64>) {
    let (Some(alarm), Some(until)) = (alarm, until) else { return std::future::pending().await };
    // The alarm also comes when the clock is set.
    while system_clock() < until {
        alarm.wait(Some(until)).await;
    }
}

async fn one(stream: UnixStream, to: Directories, mut announced: watch::Receiver<bool>) -> std::io::Result<()> {
    let peer = stream.peer_cred()?;
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    tokio::time::timeout(Duration::from_secs(10), reader.read_line(&mut line)).await??;
    let mut answer = async |value: serde_json::Value| writer.write_all(format!("{value}\n").as_bytes()).await;
    let now = system_clock();
    let asked = match inhibit_request::parse(&line, now) {
        Ok(asked) => asked,
        Err(why) => return answer(json!({ "error": why })).await,
    };
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    let who = if asked.who.is_empty() { format!("process {pid}") } else { asked.who.clone() };
    let until = asked.until;
    let inhibitor = Inhibitor { who, uid: peer.uid(), pid, since: now, ..asked };
    // A lasting one is synced to a disk that may take its time.
    let taken = tokio::task::spawn_blocking(move || take(&to, inhibitor)).await;
    let (id, held) = match taken.map_err(|error| error.to_string()).and_then(|taken| taken) {
        Ok(taken) => taken,
        Err(why) => return answer(json!({ "error": why })).await,
    };
    answer(json!({ "id": id })).await?;
    let alarm = until.map(|_| Alarm::new()).transpose()?;
    let end = ended(alarm, until);
    tokio::pin!(end);
    let mut rest = [0_u8; 64];
    let mut reader = reader.into_inner().into_inner();
    loop {
        tokio::select! {
            count = reader.read(&mut rest) => if count? == 0 { return Ok(()) },
            () = &mut end => {
                drop(held);
                return answer(json!({"event": "expired"})).await;
            }
            changed = announced.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                if *announced.borrow_and_update() {
                    answer(json!({"event": "prepare-for-shutdown"})).await?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reboot_rules::inhibitors::read;

    async fn ask(socket: &Path, line: &str) -> (BufReader<UnixStream>, String) {
        let mut stream = BufReader::new(UnixStream::connect(socket).await.unwrap());
        stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).await.unwrap();
        (stream, answer)
    }

    #[tokio::test]
    async fn a_connection_is_an_inhibitor() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, held) = (directory.path().join("s/socket"), directory.path().join("held"));
        let (announce, announced) = watch::channel(false);
        let to = Directories { held: held.clone(), lasting: directory.path().join("lasting") };
        serve(&socket, None, to, announced).unwrap();
        let list = || read(&held, Path::new("/nonexistent"), 0);
        let ask = async |line: &str| ask(&socket, line).await;
        for bad in ["", "nonsense", "{}", r#"{"why": "x", "mode": "maybe"}"#] {
            assert!(ask(bad).await.1.contains("error"), "{bad}");
        }
        let (mut stream, answer) = ask(r#"{"why": "failing over", "who": "db", "mode": "delay"}"#).await;
        assert!(answer.contains("\"id\""), "{answer}");
        assert_eq!((list().len(), list()[0].who.as_str(), list()[0].pid), (1, "db", std::process::id()));
        announce.send(true).unwrap();
        let mut event = String::new();
        stream.read_line(&mut event).await.unwrap();
        assert!(event.contains("prepare-for-shutdown"));
        drop(stream);
        for _ in 0..100 {
            if list().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the inhibitor outlived its connection");
    }

    #[tokio::test]
    async fn what_a_container_asks_to_be_kept_outlives_its_connection_and_ends_by_hand_or_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s/socket");
        let to = Directories { held: directory.path().join("held"), lasting: directory.path().join("lasting") };
        let (_announce, announced) = watch::channel(false);
        serve(&socket, None, to.clone(), announced).unwrap();
        let list = |at| read(&to.held, &to.lasting, at);
        let (stream, answer) = ask(&socket, r#"{"why": "moving", "who": "db", "lasting": true, "for": "2h"}"#).await;
        assert_eq!(answer, "{\"id\":\"container-db\"}\n");
        drop(stream);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = system_clock();
        let found = list(now);
        assert_eq!((found.len(), found[0].who.as_str(), found[0].why.as_str(), found[0].lasting), (1, "db", "moving", true));
        assert!(found[0].until.is_some_and(|until| until > now + 7100 && until <= now + 7200));
        assert!(list(now + 7200).is_empty());
        // Asked again, it is the same one.
        let (_stream, answer) = ask(&socket, r#"{"why": "still moving", "who": "db", "lasting": true}"#).await;
        assert!(answer.contains("container-db") && list(now + 7200).len() == 1, "{answer}");
        assert!(persistent::remove(&to.lasting, "container-db").unwrap() && list(now).is_empty());
        let (_stream, answer) = ask(&socket, r#"{"why": "x", "who": "db", "lasting": true, "until": "soon"}"#).await;
        assert!(answer.contains("error") && answer.lines().count() == 1 && list(now).is_empty(), "{answer}");
        // A held one with an end goes before its owner does.
        let (mut stream, _) = ask(&socket, r#"{"why": "failing over", "for": 2}"#).await;
        assert_eq!(list(now).len(), 1);
        let mut event = String::new();
        tokio::time::timeout(Duration::from_secs(20), stream.read_line(&mut event)).await.unwrap().unwrap();
        assert!(event.contains("expired") && list(now).is_empty(), "{event}");
    }
}
