//! Settings, as cloud-config leaves them in `/var/lib/cloud-config/settings.json`: `garboard.update.*`, and CoreOS's `coreos.update.*`
//! where ours do not say.

use std::path::Path;
use std::str::FromStr;

use release_format::Name;
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

const DAY: u64 = 86_400;
const DAYS: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];

/// How an update comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RebootStrategy {
    /// As soon as the update is in place.
    Reboot,
    /// Somebody else reboots.
    Off,
    /// The lock's holder reboots: the reboot daemon decides.
    EtcdLock,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// The repository's URL; without it nothing is looked for.
    #[serde(serialize_with = "text")]
    pub server: Option<Url>,
    /// The channel.
    pub channel: Name,
    /// How updates come into force.
    pub reboot: RebootStrategy,
    /// Seconds between checks.
    pub interval: u64,
    /// Bytes a second at most.
    pub limit: Option<u64>,
    /// Bytes a second at least, over a minute.
    pub min_rate: u64,
    /// That minute, in seconds: not to be set by people.
    #[serde(skip)]
    pub rate_span: u64,
    /// Milliseconds of the first pause after a line broke; each is twice as long as the one before. Not to be set by people.
    #[serde(skip)]
    pub retry_pause: u64,
    /// Seconds without a byte after which a connection is given up.
    pub stall: u64,
    /// A proxy for everything.
    pub proxy: Option<String>,
    /// When downloads may happen, in UTC.
    #[serde(skip)]
    pub windows: Vec<Window>,
    /// Whether anything happens without being asked for.
    pub automatic: bool,
    /// What could not be understood, one line each.
    pub problems: Vec<String>,
}

fn text<S: serde::Serializer>(url: &Option<Url>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_ref().map(Url::as_str).serialize(serializer)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server: None,
            channel: default_channel(),
            reboot: RebootStrategy::Reboot,
            interval: 3600,
            limit: None,
            min_rate: 1024,
            rate_span: 60,
            retry_pause: 500,
            stall: 30,
            proxy: None,
            windows: Vec::new(),
            automatic: true,
            problems: Vec::new(),
        }
    }
}

#[allow(clippy::expect_used)]
fn default_channel() -> Name {
    "stable".parse().expect("a valid name")
}

/// A span of time that comes back: `Mon..Fri 02:00-05:00`, `Sat,Sun 22:00-04:00`, `03:00-04:00`; UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// By day since 1970 modulo 7, a Thursday first.
    days: [bool; 7],
    /// Seconds of the day.
    start: u64,
    /// How long.
    len: u64,
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no window such as 'Mon..Fri 02:00-05:00'");
        let (days, times) = text.trim().rsplit_once(' ').map_or((None, text.trim()), |(days, times)| (Some(days), times));
        let mut on = [days.is_none(); 7];
        let day = |name: &str| DAYS.iter().position(|day| name.trim().to_ascii_lowercase().starts_with(day)).ok_or_else(bad);
        for part in days.into_iter().flat_map(|days| days.split(',')) {
            let (first, last) = part.split_once("..").unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            for at in 0..=(last + 7 - first) % 7 {
                if let Some(on) = on.get_mut((first + at) % 7) {
                    *on = true;
                }
            }
        }
        let (start, end) = times.split_once('-').ok_or_else(bad)?;
        let clock = |text: &str| -> Option<u64> {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes) = (hours.parse::<u64>().ok()?, minutes.parse::<u64>().ok()?);
            (hours <= 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)
        };
        let (start, end) = (clock(start).ok_or_else(bad)?, clock(end).ok_or_else(bad)?);
        let len = (end + DAY - start) % DAY;
        Ok(Self { days: on, start, len: if len == 0 { DAY } else { len } })
    }
}

impl Window {
    fn starts_on(&self, day: u64) -> bool {
        self.days.get((day % 7) as usize).copied().unwrap_or(false)
    }

    /// Whether it is open.
    #[must_use]
    pub fn contains(&self, now: u64) -> bool {
        let today = now / DAY;
        [today, today.wrapping_sub(1)].into_iter().any(|day| {
            let start = day.wrapping_mul(DAY).wrapping_add(self.start);
            self.starts_on(day) && now >= start && now < start.saturating_add(self.len)
        })
    }

    /// When it opens next.
    #[must_use]
    pub fn next_start(&self, now: u64) -> u64 {
        let today = now / DAY;
        (today..=today + 8)
            .filter(|day| self.starts_on(*day))
            .map(|day| day * DAY + self.start)
            .find(|start| *start > now)
            .unwrap_or(u64::MAX)
    }
}

impl Settings {
    /// Reads the file; the defaults when there is none.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        match std::fs::read(path) {
            Ok(bytes) => Self::parse(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => Self { problems: vec![format!("{}: {error}", path.display())], ..Self::default() },
        }
    }

    /// Reads the text.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut settings = Self::default();
        let all: Map<String, Value> = match serde_json::from_slice(bytes) {
            Ok(all) => all,
            Err(error) => {
                settings.problems.push(format!("the settings are no JSON object: {error}"));
                return settings;
            }
        };
        if let Some(Value::Object(old)) = all.get("coreos.update") {
            for (key, value) in old {
                let key = key.replace('-', "_");
                let ours = match key.as_str() {
                    "group" => "channel",
                    other => other,
                };
                settings.set(ours, value, "coreos.update");
            }
        }
        if let Some(Value::Object(ours)) = all.get("garboard").and_then(|garboard| garboard.get("update")) {
            for (key, value) in ours {
                settings.set(&key.replace('-', "_"), value, "garboard.update");
            }
        }
        settings
    }

    fn set(&mut self, key: &str, value: &Value, of: &str) {
        if let Err(why) = self.try_set(key, value) {
            self.problems.push(format!("{of}.{key}: {why}"));
        }
    }

    fn try_set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let string = || value.as_str().ok_or_else(|| "must be a text".to_owned());
        let number = || value.as_u64().or_else(|| value.as_str()?.parse().ok()).ok_or_else(|| "must be a number".to_owned());
        match key {
            "server" => {
                let text = string()?;
                // What CoreOS hosts wrote for "never".
                if text.is_empty() || text == "disabled" {
                    self.server = None;
                    return Ok(());
                }
                let mut url: Url = text.parse().map_err(|error| format!("'{text}' is no URL: {error}"))?;
                if !matches!(url.scheme(), "http" | "https") {
                    return Err(format!("'{text}' is neither http nor https"));
                }
                if !url.path().ends_with('/') {
                    url.set_path(&format!("{}/", url.path()));
                }
                self.server = Some(url);
            }
            "channel" => self.channel = string()?.parse().map_err(|error: release_format::NameError| error.to_string())?,
            "reboot_strategy" => {
                self.reboot = match value {
                    // YAML 1.1 makes `off` a boolean.
                    Value::Bool(false) => RebootStrategy::Off,
                    _ => match string()? {
                        "reboot" => RebootStrategy::Reboot,
                        "off" | "false" => RebootStrategy::Off,
                        "etcd-lock" | "best-effort" | "fleet-lock" => RebootStrategy::EtcdLock,
                        other => return Err(format!("'{other}' is none of reboot, off, etcd-lock, best-effort, fleet-lock")),
                    },
                }
            }
            "interval" => self.interval = number()?.clamp(10, 30 * DAY),
            "limit" => self.limit = Some(bytes(value)?).filter(|limit| *limit > 0),
            "min_rate" => self.min_rate = bytes(value)?,
            "stall_timeout" => self.stall = number()?.clamp(1, 3600),
            "proxy" => self.proxy = Some(string()?.to_owned()).filter(|proxy| !proxy.is_empty()),
            "automatic" => self.automatic = value.as_bool().ok_or("must be true or false")?,
            "download_windows" => {
                let one = [value.clone()];
                let list = value.as_array().map_or(one.as_slice(), Vec::as_slice);
                self.windows = list.iter().map(|item| item.as_str().unwrap_or_default().parse()).collect::<Result<_, _>>()?;
            }
            _ => return Err("is not known".to_owned()),
        }
        Ok(())
    }
}

/// A number of bytes: `500`, `"64KiB"`, `"2MiB"`.
fn bytes(value: &Value) -> Result<u64, String> {
    let bad = || format!("{value} is no number of bytes, such as \"2MiB\"");
    if let Some(number) = value.as_u64() {
        return Ok(number);
    }
    let text = value.as_str().ok_or_else(bad)?.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err(bad()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_win_over_coreos() {
        let text = br#"{
            "coreos.update": {"group": "beta", "server": "http://old.example/repo", "reboot-strategy": false},
            "garboard": {"update": {"server": "https://new.example/repo", "limit": "2MiB", "download-windows": ["Sat 02:00-04:00"]}}
        }"#;
        let settings = Settings::parse(text);
        assert_eq!(settings.server.as_ref().unwrap().as_str(), "https://new.example/repo/");
        assert_eq!((settings.channel.as_str(), settings.reboot, settings.limit), ("beta", RebootStrategy::Off, Some(2 << 20)));
        assert_eq!((settings.windows.len(), settings.problems.len()), (1, 0), "{:?}", settings.problems);
    }

    #[test]
    fn mistakes_are_named_and_the_rest_counts() {
        let text = br#"{"garboard": {"update": {"server": "ftp://x/", "channel": "Stable!", "interval": 60, "colour": 1}}}"#;
        let settings = Settings::parse(text);
        assert_eq!((settings.server, settings.interval), (None, 60));
        assert_eq!(settings.problems.len(), 3, "{:?}", settings.problems);
        assert_eq!(Settings::parse(b"[]").problems.len(), 1);
        assert_eq!(Settings::parse(br#"{"coreos.update": {"server": "disabled"}}"#), Settings::default());
    }

    #[test]
    fn windows_come_back_and_may_cross_midnight() {
        let hour = 3600;
        // Day 0 was a Thursday.
        let night: Window = "Thu..Fri 22:00-04:00".parse().unwrap();
        assert!(
            night.contains(23 * hour) && night.contains(26 * hour) && night.contains(DAY + 23 * hour) && night.contains(2 * DAY + 3 * hour)
        );
        assert!(!night.contains(3 * hour) && !night.contains(5 * hour) && !night.contains(2 * DAY + 23 * hour));
        assert_eq!(night.next_start(2 * DAY), 7 * DAY + 22 * hour);
        let daily: Window = "03:00-04:00".parse().unwrap();
        assert_eq!(daily.next_start(3 * hour), DAY + 3 * hour);
        for bad in ["", "Foo 01:00-02:00", "01:00", "25:00-26:00", "Mon..Fri"] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }
}
