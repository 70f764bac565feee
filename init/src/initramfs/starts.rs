//! Counting starts that were never called good: spent tries alone stop nothing in systemd-boot, so a host that resets
//! before it can report would loop for ever.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::boot::{BootRecord, STARTS};

/// Adds this start to the counter on state. Starts of another version do not count against this one.
pub(super) fn count(record: &mut BootRecord) {
    let before = fs::read_to_string(STARTS).ok().map_or(0, |text| unfinished(&text, &record.version));
    record.unfinished_starts = before.saturating_add(1);
    let text = format!("{} {}\n", record.unfinished_starts, record.version);
    let written = fs::create_dir_all(Path::new(STARTS).parent().unwrap_or(Path::new("/"))).and_then(|()| {
        let mut file = fs::File::create(STARTS)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    if let Err(error) = written {
        record.warnings.push(format!("cannot count this start in {STARTS}: {error}"));
    }
}

fn unfinished(text: &str, version: &str) -> u32 {
    match text.trim().split_once(' ') {
        Some((count, of)) if of == version => count.parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_starts_of_this_version_count() {
        assert_eq!(unfinished("2 1.0\n", "1.0"), 2);
        assert_eq!(unfinished("2 1.0\n", "1.1"), 0);
        assert_eq!(unfinished("", "1.1"), 0);
        assert_eq!(unfinished("x 1.1", "1.1"), 0);
    }
}
