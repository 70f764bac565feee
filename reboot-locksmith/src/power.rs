//! Telling PID 1 to reboot.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long PID 1 may take to answer.
const PATIENCE: Duration = Duration::from_secs(25);

/// Has the host rebooted, in order.
///
/// # Errors
/// One line: why PID 1 does not.
pub async fn reboot(socket: &Path) -> Result<(), String> {
    let say = |error: std::io::Error| format!("{}: {error}", socket.display());
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await.map_err(say)?;
        let request = json!({ "request": "power", "action": "reboot", "force": 0 });
        stream.write_all(format!("{request}\n").as_bytes()).await.map_err(say)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.map_err(say)?;
        Ok::<String, String>(line)
    };
    let line = tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| format!("{}: no answer", socket.display()))??;
    let reply: Value = serde_json::from_str(&line).map_err(|error| format!("PID 1 answered something unknown: {error}"))?;
    match reply.get("reply").and_then(Value::as_str) {
        Some("error") => Err(reply.get("message").and_then(Value::as_str).unwrap_or("PID 1 refused").to_owned()),
        _ => Ok(()),
    }
}
