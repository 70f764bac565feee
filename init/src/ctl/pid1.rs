//! Asking PID 1.

use std::path::Path;
use std::time::Duration;

use unit_files::{UnitKind, UnitName};

use super::Failure;
use crate::engine::client::{self, CONTROL_SOCKET, ClientError};
use crate::engine::protocol::{ErrorCode, Reply, Request};

/// How long PID 1 may take to answer what needs no waiting.
const PATIENCE: Duration = Duration::from_secs(25);

/// What PID 1 answered, without its last line.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub replies: Vec<Reply>,
    pub warnings: Vec<String>,
}

/// Asks and collects the answer. `wait`: it may take as long as it takes.
pub(super) fn ask(request: &Request, wait: bool) -> Result<Answer, Failure> {
    let timeout = if wait { None } else { Some(PATIENCE) };
    collect(client::ask_all(Path::new(CONTROL_SOCKET), request, timeout))
}

/// Sends requests before any answer is read, so that their jobs run side by side.
pub(super) fn ask_side_by_side(requests: &[Request], wait: bool) -> Vec<Result<Answer, Failure>> {
    let timeout = if wait { None } else { Some(PATIENCE) };
    let exchanges: Vec<_> = requests.iter().map(|request| client::ask(Path::new(CONTROL_SOCKET), request, timeout)).collect();
    exchanges
        .into_iter()
        .map(|exchange| {
            let mut exchange = exchange.map_err(|error| connection(&error))?;
            let mut replies = Vec::new();
            while let Some(reply) = exchange.next_reply().map_err(|error| connection(&error))? {
                replies.push(reply);
            }
            collect(Ok(replies))
        })
        .collect()
}

fn connection(error: &ClientError) -> Failure {
    Failure::new(format!("systemctl: {error}"))
}

fn collect(answer: Result<Vec<Reply>, ClientError>) -> Result<Answer, Failure> {
    let mut answer = Answer { replies: answer.map_err(|error| connection(&error))?, warnings: Vec::new() };
    match answer.replies.pop() {
        Some(Reply::Done { warnings }) => {
            answer.warnings = warnings;
            Ok(answer)
        }
        Some(Reply::Error { code, message }) => Err(Failure { message, code: exit_code(code) }),
        _ => Err(Failure::new("systemctl: PID 1 gave an incomplete answer")),
    }
}

/// LSB's codes, as `systemctl` uses them.
fn exit_code(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::NotFound => 5,
        ErrorCode::AccessDenied => 4,
        ErrorCode::BadRequest => 2,
        ErrorCode::BadSetting => 6,
        ErrorCode::Masked | ErrorCode::Conflict | ErrorCode::Refused | ErrorCode::ShuttingDown | ErrorCode::Failed => 1,
    }
}

/// Full names of what people type: `docker` is `docker.service`; patterns stay.
pub(super) fn names(operands: &[String]) -> Result<Vec<String>, Failure> {
    operands.iter().map(|operand| name(operand)).collect()
}

/// One of [`names`].
pub(super) fn name(operand: &str) -> Result<String, Failure> {
    if unit_files::glob::is_pattern(operand) {
        return Ok(operand.to_owned());
    }
    match UnitName::mangle(operand, UnitKind::Service) {
        Ok(name) => Ok(name.to_string()),
        Err(error) => Err(Failure { message: format!("systemctl: {error}"), code: 2 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let names = names(&["docker".into(), "a.socket".into(), "/var/lib".into(), "d*".into(), "a@b".into()]).unwrap();
        assert_eq!(names, ["docker.service", "a.socket", "var-lib.mount", "d*", "a@b.service"]);
    }
}
