//! QEMU's machine protocol, as far as tests need it: one command at a time
//! (<https://www.qemu.org/docs/master/interop/qmp-spec.html>).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

/// Sends one command without arguments and returns its answer.
pub(crate) fn command(socket: &Path, name: &str) -> Value {
    request(socket, &json!({"execute": name}))
}

/// What the processors are doing, as QEMU's monitor prints it: for a machine that hangs.
pub(crate) fn registers(socket: &Path) -> String {
    let arguments = json!({"command-line": "info registers -a"});
    let answer = request(socket, &json!({"execute": "human-monitor-command", "arguments": arguments}));
    let text = answer.get("return").and_then(Value::as_str).unwrap_or_default();
    text.lines().filter(|line| line.contains("IP=") || line.contains("CPU#")).collect::<Vec<_>>().join("\n")
}

fn request(socket: &Path, request: &Value) -> Value {
    let stream = UnixStream::connect(socket).expect("QEMU's socket");
    let mut writer = stream.try_clone().expect("a second handle");
    let mut lines = BufReader::new(stream).lines();
    let mut answer = |request: &Value| {
        writeln!(writer, "{request}").expect("send to QEMU");
        // Events may come in between.
        let mut replies = lines.by_ref().map(|line| serde_json::from_str::<Value>(&line.expect("read from QEMU")).expect("JSON"));
        replies.find(|reply| reply.get("return").is_some() || reply.get("error").is_some()).expect("an answer of QEMU")
    };
    answer(&json!({"execute": "qmp_capabilities"}));
    answer(request)
}
