//! Inhibitors for containers: whoever may open the socket sends one line of JSON (`{"why": "...", "who": "...", "mode": "block"}`) and holds the
//! inhibitor as long as the connection. The answer is one line, `{"id": "..."}` or `{"error": "..."}`; before a reboot for which the inhibitor
//! is waited there comes `{"event": "prepare-for-shutdown"}`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon_socket::{accept, listen};
use reboot_rules::inhibitors::{Inhibitor, hold};
use reboot_rules::system_clock;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

const MAX_REQUEST: u64 = 16 << 10;
/// More at once than this are an accident, or somebody's.
const MAX_HELD: usize = 256;

/// Serves the socket.
///
/// # Errors
/// When it cannot be made.
pub fn serve(socket: &Path, group: Option<u32>, held: PathBuf, announced: watch::Receiver<bool>) -> std::io::Result<()> {
    let listener = listen(socket, if group.is_some() { 0o660 } else { 0o600 })?;
    std::os::unix::fs::chown(socket, None, group)?;
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_HELD));
    tokio::spawn(async move {
        loop {
            let stream = accept(|| listener.accept()).await;
            let (held, announced) = (held.clone(), announced.clone());
            let Ok(slot) = std::sync::Arc::clone(&slots).try_acquire_owned() else { continue };
            tokio::spawn(async move {
                let _ = one(stream, &held, announced).await;
                drop(slot);
            });
        }
    });
    Ok(())
}

async fn one(stream: UnixStream, held: &Path, mut announced: watch::Receiver<bool>) -> std::io::Result<()> {
    let peer = stream.peer_cred()?;
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    tokio::time::timeout(Duration::from_secs(10), reader.read_line(&mut line)).await??;
    let mut answer = async |value: serde_json::Value| writer.write_all(format!("{value}\n").as_bytes()).await;
    let asked = match serde_json::from_str::<Inhibitor>(&line) {
        Ok(asked) if !asked.why.trim().is_empty() => asked,
        Ok(_) => return answer(json!({"error": "`why` is missing"})).await,
        Err(error) => return answer(json!({"error": error.to_string()})).await,
    };
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    let inhibitor = Inhibitor {
        what: if asked.what.is_empty() { "shutdown".to_owned() } else { asked.what },
        who: if asked.who.is_empty() { format!("process {pid}") } else { asked.who },
        uid: peer.uid(),
        pid,
        since: system_clock(),
        until: None,
        ..asked
    };
    let guard = match hold(held, &inhibitor) {
        Ok(guard) => guard,
        Err(error) => return answer(json!({"error": error.to_string()})).await,
    };
    answer(json!({"id": guard.id()})).await?;
    let mut rest = [0_u8; 64];
    let mut reader = reader.into_inner().into_inner();
    loop {
        tokio::select! {
            count = reader.read(&mut rest) => if count? == 0 { return Ok(()) },
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

    #[tokio::test]
    async fn a_connection_is_an_inhibitor() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, held) = (directory.path().join("s/socket"), directory.path().join("held"));
        let (announce, announced) = watch::channel(false);
        serve(&socket, None, held.clone(), announced).unwrap();
        let list = || read(&held, Path::new("/nonexistent"), 0);
        let ask = async |line: &str| {
            let mut stream = BufReader::new(UnixStream::connect(&socket).await.unwrap());
            stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_line(&mut answer).await.unwrap();
            (stream, answer)
        };
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
}
