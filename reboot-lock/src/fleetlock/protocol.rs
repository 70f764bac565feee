//! Requests and answers: pure. Whatever is wrong with a request is refused before a lock is looked at.

use serde::{Deserialize, Serialize};

use crate::error::LockError;
use crate::keys::{Group, check_id, shortened};
use crate::store::StoreError;

/// A longer body is refused; a real one has about 100 bytes.
pub const MAX_BODY: usize = 8 << 10;
/// The header that each request must have, with the value `true`.
pub const HEADER: &str = "fleet-lock-protocol";

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// A slot, so that it can reboot; it may have one already.
    PreReboot,
    /// To give its slot back, if it has one.
    SteadyState,
}

impl Call {
    /// The path below the base URL.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::PreReboot => "v1/pre-reboot",
            Self::SteadyState => "v1/steady-state",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Body {
    client_params: Params,
}

#[derive(Serialize, Deserialize)]
struct Params {
    id: String,
    group: String,
}

/// A request as HTTP brought it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// `POST`, one hopes.
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// The value of [`HEADER`].
    pub header: Option<&'a [u8]>,
    /// At most [`MAX_BODY`] and one byte of it.
    pub body: &'a [u8],
}

/// A request that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub call: Call,
    /// In which group.
    pub group: Group,
    /// By whom.
    pub id: String,
}

/// Why something was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// One of a few words: the label of a metric.
    pub kind: &'static str,
    /// For people.
    pub value: String,
}

/// What goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status; 200 is granted, everything else is not.
    pub status: u16,
    /// JSON, or nothing.
    pub body: String,
}

#[derive(Serialize, Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    value: std::borrow::Cow<'a, str>,
}

impl Refusal {
    pub(super) fn new(status: u16, kind: &'static str, value: impl Into<String>) -> Self {
        Self { status, kind, value: value.into() }
    }

    /// As HTTP.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let body = ErrorBody { kind: self.kind.into(), value: self.value.as_str().into() };
        Reply { status: self.status, body: serde_json::to_string(&body).unwrap_or_default() }
    }
}

/// What the errors of the lock look like to a client.
impl From<&LockError> for Refusal {
    fn from(error: &LockError) -> Self {
        let status = match error {
            LockError::BadGroup { .. } | LockError::BadId { .. } | LockError::BadMax { .. } => 400,
            LockError::Full { .. } | LockError::IdInUse { .. } => 409,
            LockError::Quarantined { .. } | LockError::Lost { .. } => 409,
            LockError::Contended { .. } => 503,
            LockError::Store(StoreError::Denied { .. } | StoreError::Configuration(_) | StoreError::Protocol { .. }) => 500,
            LockError::Store(_) => 503,
            LockError::Foreign { .. } => 500,
        };
        Self::new(status, error.kind(), error.to_string())
    }
}

/// Whether a text is a group of the protocol; how long it may be, [`Group`] knows.
pub(super) fn is_group(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
}

/// Reads a request. The order of the checks is the order of a client's mistakes: path, method, header, size, JSON, group, id.
///
/// # Errors
/// The protocol's error.
pub fn parse(incoming: &Incoming<'_>) -> Result<Request, Refusal> {
    let path = incoming.path.trim_start_matches('/');
    let Some(call) = [Call::PreReboot, Call::SteadyState].into_iter().find(|call| call.path() == path) else {
        return Err(Refusal::new(404, "unknown_path", "only /v1/pre-reboot and /v1/steady-state are here"));
    };
    if incoming.method != "POST" {
        return Err(Refusal::new(405, "invalid_method", "the method must be POST"));
    }
    if incoming.header != Some(b"true") {
        return Err(Refusal::new(400, "missing_header", format!("the header {HEADER}: true is missing")));
    }
    if incoming.body.len() > MAX_BODY {
        return Err(Refusal::new(413, "body_too_large", format!("the body is longer than {MAX_BODY} bytes")));
    }
    let body: Body = serde_json::from_slice(incoming.body)
        .map_err(|error| Refusal::new(400, "invalid_body", shortened(&format!("the body cannot be read: {error}"), 200)))?;
    let Params { id, group } = body.client_params;
    if !is_group(&group) {
        return Err(Refusal::new(400, "invalid_group", "a group has letters, digits, dots and dashes only"));
    }
    let group: Group = group.parse().map_err(|_| Refusal::new(400, "invalid_group", "the group's name is too long"))?;
    check_id(&id).map_err(|error| Refusal::new(400, "invalid_id", error.to_string()))?;
    Ok(Request { call, group, id })
}

/// The body of a request.
pub(super) fn body(group: &str, id: &str) -> String {
    let body = Body { client_params: Params { id: id.to_owned(), group: group.to_owned() } };
    serde_json::to_string(&body).unwrap_or_default()
}

/// `kind` and `value` of a refusal that a server sent, cut to what can be shown.
pub(super) fn refusal(body: &[u8]) -> Option<(String, String)> {
    let read: ErrorBody<'_> = serde_json::from_slice(body).ok()?;
    Some((shortened(&read.kind, 64), shortened(&read.value, 200)))
}
