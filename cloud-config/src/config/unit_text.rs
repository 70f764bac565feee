//! What init would say about a unit's text, said before the boot: as warnings, since init decides.

use super::reader::Reader;
use crate::diagnostics::Place;
use crate::yaml::Node;
use unit_files::source::FsSource;
use unit_files::{HostFacts, Loader, UnitName};

impl Reader<'_> {
    /// Checks the text of a unit file or of a drop-in. `key` is the line of its key, which tells a block text.
    pub(super) fn check_unit_text(&mut self, unit: &str, text: &str, (key, node): (u32, &Node), at: &str, whole: bool) {
        let Ok(name) = UnitName::parse(unit) else { return };
        let facts = HostFacts { host_name: "localhost".to_owned(), machine_id: "0".repeat(32), ..HostFacts::default() };
        let checked = Loader::<FsSource>::load_text(&name, unit, text.as_bytes(), &facts);
        for finding in checked.diagnostics {
            let line = finding.location.as_ref().map_or(0, |l| l.line);
            // A drop-in is a part of a unit: what it lacks is in the unit.
            if line == 0 && !whole {
                continue;
            }
            // A block text begins on the line below its key, and has one line for each of the unit's.
            let is_block = text.contains('\n') && node.place.line > key;
            let place = if line > 0 && is_block { Place { line: node.place.line + line - 1, ..node.place } } else { node.place };
            let within = if line > 0 && !is_block { format!(", line {line} of it") } else { String::new() };
            self.diagnostics.warning(place, format!("`{at}`{within}: {}", finding.message));
        }
    }
}
