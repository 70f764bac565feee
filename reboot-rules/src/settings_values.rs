//! Values of settings: each from JSON to its type, or one line that says what is wrong.

use serde_json::{Map, Value};

use crate::Seconds;
use crate::settings::{FleetLock, FleetLockServer};
use crate::windows::{Window, Zones, parse_span};

/// Longest span of time in settings: a year.
const YEAR: Seconds = 366 * 86_400;

pub(crate) fn text(value: &Value) -> Result<&str, String> {
    value.as_str().filter(|text| !text.is_empty()).ok_or_else(|| format!("{value} must be a text"))
}

/// A text that no message quotes.
pub(crate) fn secret(value: &Value) -> Result<String, String> {
    text(value).map(str::to_owned).map_err(|_| "must be a text".to_owned())
}

pub(crate) fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{value} must be true or false"))
}

/// One value counts as a list of one.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// Seconds, or a text with a unit.
pub(crate) fn length(value: &Value) -> Result<Seconds, String> {
    let seconds = match (value.as_u64(), value) {
        (Some(seconds), _) => seconds,
        (None, Value::Bool(false)) => 0,
        (None, Value::String(text)) => parse_span(text)?,
        _ => return Err(format!("{value} is no length of time, such as \"90s\" or \"1h30m\"")),
    };
    if seconds > YEAR { Err(format!("{value} is longer than a year")) } else { Ok(seconds) }
}

pub(crate) fn absolute_path(value: &Value) -> Result<String, String> {
    let path = text(value)?;
    if path.starts_with('/') && !path.contains(char::is_control) {
        return Ok(path.to_owned());
    }
    Err(format!("{value} must be a path that begins with /"))
}

/// A group: FleetLock's names, and `/` and `_`, which CoreOS's hosts used.
pub(crate) fn group(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    if name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte)) {
        return Ok(name.to_owned());
    }
    Err(format!("{value} is no name of a group: letters, digits, `.`, `-`, `_`, `/`, at most 128"))
}

pub(crate) fn url(value: &Value) -> Result<String, String> {
    // Not quoted: people write passwords into URLs, which is one of the things refused here.
    let wrong = || "is no URL such as https://10.0.0.1:2379 (user and password have keys of their own)".to_owned();
    let text = secret(value)?;
    let text = text.as_str();
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let bytes = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let good = matches!(scheme, "http" | "https") && !host.is_empty() && authority.bytes().all(bytes) && port_is_good;
    if good && !text.contains(|c: char| c.is_control() || c.is_whitespace()) { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// URLs without a path; a text may hold several, with commas.
pub(crate) fn endpoints(value: &Value) -> Result<Vec<String>, String> {
    let mut endpoints = Vec::new();
    for item in list(value) {
        for part in secret(item)?.split(',') {
            let endpoint = url(&Value::from(part.trim()))?.trim_end_matches('/').to_owned();
            if endpoint.matches('/').count() > 2 {
                return Err("must have no path after the port".to_owned());
            }
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() { Err("must name an URL".to_owned()) } else { Ok(endpoints) }
}

/// A time of day or a calendar expression. YAML 1.1 makes a number of minutes of a plain `14:00`.
pub(crate) fn clock(value: &Value) -> Result<String, String> {
    match value.as_u64() {
        Some(minutes) if minutes < 24 * 60 => Ok(format!("{:02}:{:02}", minutes / 60, minutes % 60)),
        _ => text(value).map(str::to_owned),
    }
}

fn fields<'a>(value: &'a Value, known: &[&str]) -> Result<&'a Map<String, Value>, String> {
    let map = value.as_object().ok_or_else(|| format!("must be a map of {}", known.join(", ")))?;
    match map.keys().find(|key| !known.contains(&key.replace('-', "_").as_str())) {
        Some(key) => Err(format!("`{key}` is not known here; known are {}", known.join(", "))),
        None => Ok(map),
    }
}

/// A value by its key, in which `-` and `_` are the same.
pub(crate) fn field<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.iter().find(|(name, value)| name.replace('-', "_") == key && !value.is_null()).map(|(_, value)| value)
}

/// `START for LENGTH`, or a map of `start` and `length`.
pub(crate) fn window(value: &Value, zone: Option<&str>, zones: Zones<'_>) -> Result<Window, String> {
    let (start, length) = match value {
        Value::String(text) => match text.rsplit_once(" for ") {
            Some((start, length)) => (start.to_owned(), length.to_owned()),
            None => return Window::parse(text, zones),
        },
        Value::Object(_) => {
            let map = fields(value, &["start", "length", "time_zone"])?;
            let (Some(start), Some(length)) = (field(map, "start"), field(map, "length")) else {
                return Err("a window has a `start` and a `length`".to_owned());
            };
            let length = length.as_u64().map_or_else(|| text(length).map(str::to_owned), |seconds| Ok(format!("{seconds}s")))?;
            let zone = field(map, "time_zone").map(text).transpose()?.map_or_else(String::new, |zone| format!(" {zone}"));
            (format!("{}{zone}", clock(start)?), length)
        }
        _ => return Err(format!("{value} is no window: write START for LENGTH, such as 'Sat,Sun 02:00 Europe/Berlin for 2h'")),
    };
    let window = Window::new(&start, &length, zones)?;
    match zone {
        Some(zone) if window.is_local() => Window::new(&format!("{start} {zone}"), &length, zones),
        _ => Ok(window),
    }
}

pub(crate) fn fleet_lock(value: &Value) -> Result<FleetLock, String> {
    if value.is_string() {
        return Ok(FleetLock { url: url(value)?, ca_file: None });
    }
    let map = fields(value, &["url", "ca_file"])?;
    let address = field(map, "url").ok_or("needs the server's `url`")?;
    Ok(FleetLock { url: url(address)?, ca_file: field(map, "ca_file").map(absolute_path).transpose()? })
}

pub(crate) fn fleet_lock_server(value: &Value) -> Result<FleetLockServer, String> {
    let map = fields(value, &["listen", "cert_file", "key_file", "client_ca_file"])?;
    let listen = text(field(map, "listen").ok_or("needs the address to `listen` at, such as \"0.0.0.0:9090\"")?)?;
    let listen = listen.parse().map_err(|_| format!("'{listen}' is no address with a port, such as 0.0.0.0:9090"))?;
    let file = |key: &str| field(map, key).map(absolute_path).transpose();
    let (cert_file, key_file, client_ca_file) = (file("cert_file")?, file("key_file")?, file("client_ca_file")?);
    if cert_file.is_some() != key_file.is_some() {
        return Err("`cert_file` and `key_file` go together".to_owned());
    }
    if client_ca_file.is_some() && cert_file.is_none() {
        return Err("`client_ca_file` needs `cert_file` and `key_file`: clients show certificates over TLS only".to_owned());
    }
    Ok(FleetLockServer { listen, cert_file, key_file, client_ca_file })
}
