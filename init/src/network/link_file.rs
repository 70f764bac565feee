//! `.link` files: the name, MTU and hardware address that a link gets when it is first seen.
//!
//! Pure. Links keep the kernel's names unless a file says otherwise.

use super::file_syntax::{assignments, size};
use super::link_match::Match;

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFile {
    /// Which links.
    pub matching: Match,
    /// `Name=`.
    pub name: Option<String>,
    /// `MTUBytes=`.
    pub mtu: Option<u32>,
}

impl LinkFile {
    /// Reads a file and its drop-ins; the second part is what could not be used.
    pub fn parse(texts: &[(String, String)]) -> (LinkFile, Vec<String>) {
        let (mut file, mut complaints) = (LinkFile::default(), Vec::new());
        for (source, text) in texts {
            for (number, section, line) in assignments(text) {
                if let Err(problem) = line.and_then(|(key, value)| file.set(&section, &key, &value)) {
                    complaints.push(format!("{source}:{number}: {problem}"));
                }
            }
        }
        (file, complaints)
    }

    fn set(&mut self, section: &str, key: &str, value: &str) -> Result<(), String> {
        let bad = || format!("cannot read '{value}' as a value of {key}=");
        match (section, key) {
            // There is nothing that would change names or addresses by itself, so these say what is so already.
            (_, "") | ("Link", "Description" | "NamePolicy" | "AlternativeNamesPolicy" | "MACAddressPolicy") => {}
            ("Match", _) => return self.matching.set(key, value),
            ("Link", "Name") if (1..16).contains(&value.len()) && !value.contains(['/', ' ', '%']) => self.name = Some(value.to_owned()),
            ("Link", "Name") => return Err(bad()),
            ("Link", "MTUBytes") => self.mtu = Some(size(value).ok_or_else(bad)?),
            _ => return Err(format!("{key}= in [{section}] is not supported and is ignored")),
        }
        Ok(())
    }
}
