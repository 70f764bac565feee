//! `[Match]`: which links a `.network` or `.link` file is for.
//!
//! Pure. Only an unknown condition makes a file match nothing, since guessing could configure the wrong link.

use super::file_syntax::{mac, words};
use super::netlink::Link;
use crate::glob;

/// `[Match]`: each list that is not empty must have a member that matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub(super) names: Vec<String>,
    pub(super) macs: Vec<[u8; 6]>,
    pub(super) permanent_macs: Vec<[u8; 6]>,
    pub(super) types: Vec<String>,
    pub(super) kinds: Vec<String>,
    pub(super) drivers: Vec<String>,
    pub(super) impossible: bool,
}

impl Match {
    /// Reads one line of the section; the error is one line for people.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            // A link has one name here: the one it was found with.
            "Name" | "OriginalName" => words(&mut self.names, value),
            "Type" => words(&mut self.types, value),
            "Kind" => words(&mut self.kinds, value),
            "Driver" => words(&mut self.drivers, value),
            "MACAddress" | "PermanentMACAddress" => {
                let list = if key == "MACAddress" { &mut self.macs } else { &mut self.permanent_macs };
                for word in value.split_whitespace() {
                    match mac(word) {
                        Some(mac) => list.push(mac),
                        None => {
                            self.impossible = true;
                            return Err(format!("'{word}' is no hardware address, so this file matches no link"));
                        }
                    }
                }
            }
            _ => {
                self.impossible = true;
                return Err(format!("{key}= in [Match] is not supported, so this file matches no link"));
            }
        }
        Ok(())
    }

    /// Whether a link is meant; `driver` is its driver's name.
    pub fn matches(&self, link: &Link, driver: Option<&str>) -> bool {
        if self.impossible || link.loopback {
            return false;
        }
        // Containers' interfaces come and go by the hundred: a file must name virtual ones to mean them.
        if link.kind.is_some() && self.kinds.is_empty() && !self.names.iter().any(|pattern| pattern != "*") {
            return false;
        }
        let kind = link.kind.as_deref().unwrap_or_default();
        let kind_of_link = if link.ethernet { "ether" } else { "none" };
        any_pattern(&self.names, &link.name)
            && (self.macs.is_empty() || link.mac.is_some_and(|mac| self.macs.contains(&mac)))
            && (self.permanent_macs.is_empty() || link.permanent_mac.or(link.mac).is_some_and(|mac| self.permanent_macs.contains(&mac)))
            && (any_pattern(&self.types, kind_of_link) || any_pattern(&self.types, kind))
            && any_pattern(&self.kinds, kind)
            && any_pattern(&self.drivers, driver.unwrap_or_default())
    }
}

/// A list of patterns; a leading `!` on the first turns the whole list round.
fn any_pattern(patterns: &[String], text: &str) -> bool {
    let Some(first) = patterns.first() else { return true };
    match first.strip_prefix('!') {
        Some(first) => {
            !std::iter::once(first).chain(patterns.iter().skip(1).map(String::as_str)).any(|pattern| glob::matches(pattern, text))
        }
        None => patterns.iter().any(|pattern| glob::matches(pattern, text)),
    }
}
