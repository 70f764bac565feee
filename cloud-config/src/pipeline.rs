//! From bytes to a plan, in one call: what `validate`, `render` and `apply` share.

use crate::config::{self, Config};
use crate::diagnostics::{Diagnostic, Diagnostics, Place};
use crate::merge::merge;
use crate::plan::{Facts, Metadata, Plan, plan};
use crate::substitute::{Addresses, lacks, substitute};
use crate::userdata::{self, Kind, Part};
use crate::yaml;

/// User-data, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Understood {
    /// What it asks for.
    pub config: Config,
    /// What is to be done.
    pub plan: Plan,
    /// What is wrong with it, in the order of the lines.
    pub diagnostics: Vec<Diagnostic>,
}

impl Understood {
    /// Whether anything had to be left out.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == crate::diagnostics::Severity::Error)
    }
}

/// Understands user-data. `vendor_data` counts less; `diagnostics` has what is known before.
pub fn understand(user_data: &[u8], vendor_data: &[u8], metadata: &Metadata, facts: &Facts, mut diagnostics: Diagnostics) -> Understood {
    let mut vendor_diagnostics = Diagnostics::default();
    let user = userdata::split(user_data, 1, &mut diagnostics);
    let next = user.iter().map(|p| p.number).max().unwrap_or(0).saturating_add(1);
    let vendor = userdata::split(vendor_data, next, &mut vendor_diagnostics);
    for note in vendor_diagnostics.iter() {
        diagnostics.warning(Place::default(), format!("vendor data: {}", note.message));
    }
    let parts: Vec<Part> = vendor.into_iter().chain(user).map(|p| substituted(p, &metadata.addresses, &mut diagnostics)).collect();
    let nodes = parts.iter().filter(|p| p.kind == Kind::CloudConfig).filter_map(|part| node(part, &mut diagnostics)).collect();
    let scripts: Vec<Part> = parts.iter().filter(|p| p.kind != Kind::CloudConfig).cloned().collect();
    let merged = merge(nodes, &mut diagnostics);
    let config = config::read(&merged, &mut diagnostics);
    let scripts = whole(scripts, &mut diagnostics);
    let plan = plan(&config, &scripts, metadata, facts, &mut diagnostics);
    Understood { config, plan, diagnostics: diagnostics.sorted() }
}

/// Whether user-data uses an address that is not known: only then is waiting for the network worth anything.
pub fn lacks_addresses(user_data: &[u8], vendor_data: &[u8], addresses: &Addresses) -> bool {
    let mut unused = Diagnostics::default();
    [user_data, vendor_data]
        .into_iter()
        .flat_map(|data| userdata::split(data, 1, &mut unused))
        .any(|part| std::str::from_utf8(&part.body).is_ok_and(|text| lacks(&without_comments(text), addresses)))
}

/// Comments mention `$private_ipv4` more often than not.
fn without_comments(text: &str) -> String {
    text.lines().filter(|l| !l.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// Bytes that are not UTF-8 stay as they are in scripts, and are said in a cloud-config.
fn substituted(part: Part, addresses: &Addresses, diagnostics: &mut Diagnostics) -> Part {
    let body = match String::from_utf8(part.body) {
        Ok(text) => substitute(&text, addresses).into_bytes(),
        Err(error) if part.kind == Kind::CloudConfig => {
            let line = error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|b| **b == b'\n').count();
            let place = Place { part: part.number, line: u32::try_from(line + 1).unwrap_or(u32::MAX) };
            diagnostics.error(place, "not UTF-8; what is not is replaced by U+FFFD");
            substitute(&String::from_utf8_lossy(error.as_bytes()), addresses).into_bytes()
        }
        Err(error) => error.into_bytes(),
    };
    Part { body, ..part }
}

fn node(part: &Part, diagnostics: &mut Diagnostics) -> Option<yaml::Node> {
    let text = String::from_utf8_lossy(&part.body);
    match yaml::load(&text, part.number, diagnostics) {
        Ok(node) => Some(node),
        Err((place, error)) => {
            diagnostics.error(place, format!("{error}; nothing of this cloud-config is used"));
            None
        }
    }
}

/// Scripts without those that use an address that this host has not.
fn whole(scripts: Vec<Part>, diagnostics: &mut Diagnostics) -> Vec<Part> {
    let mut kept = Vec::new();
    for part in scripts {
        let text = String::from_utf8_lossy(&part.body).into_owned();
        match crate::substitute::unresolved(&text) {
            None => kept.push(part),
            Some((name, lines)) => {
                let place = Place { part: part.number, line: u32::try_from(lines + 1).unwrap_or(u32::MAX) };
                diagnostics.error(place, format!("`${name}` has no value on this host (yet), so this script is left out; write `\\${name}` if you mean the text itself"));
            }
        }
    }
    kept
}
