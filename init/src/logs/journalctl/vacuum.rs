//! `--vacuum-size=`, `--vacuum-time=`, `--vacuum-files=`: removing the oldest segments by hand.

use crate::logs::config::{size, time_span};
use crate::logs::segments;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What may stay; all that is set must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vacuum {
    /// Bytes.
    pub size: Option<u64>,
    /// Age of the newest entry of a segment.
    pub age: Option<Duration>,
    /// Segments.
    pub files: Option<usize>,
}

impl Vacuum {
    /// Sets what an option says; false when it cannot be read.
    pub fn set(&mut self, option: &str, value: &str) -> bool {
        match option {
            "--vacuum-size" => self.size = size(value),
            "--vacuum-time" => self.age = time_span(value).map(Duration::from_micros),
            _ => self.files = value.parse().ok(),
        }
        match option {
            "--vacuum-size" => self.size.is_some(),
            "--vacuum-time" => self.age.is_some(),
            _ => self.files.is_some(),
        }
    }

    /// Removes segments from the oldest on, never the one that is written to; returns how many, and their bytes.
    pub fn run(&self, store: &Path, now: SystemTime) -> io::Result<(usize, u64)> {
        let segments = segments::list(store)?;
        let mut left: u64 = segments.iter().map(|segment| segment.size).sum();
        let (mut files, mut bytes) = (0, 0);
        for (at, segment) in segments.iter().enumerate().take(segments.len().saturating_sub(1)) {
            let written = std::fs::metadata(&segment.path)?.modified()?;
            let old = self.age.is_some_and(|age| now.duration_since(written).is_ok_and(|since| since > age));
            let large = self.size.is_some_and(|most| left > most);
            let many = self.files.is_some_and(|most| segments.len() - at > most);
            if !(old || large || many) {
                break;
            }
            std::fs::remove_file(&segment.path)?;
            left -= segment.size;
            files += 1;
            bytes += segment.size;
        }
        Ok((files, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_until_the_rest_fits_and_the_newest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let fill = || {
            for number in 1..=5 {
                std::fs::write(directory.path().join(segments::file_name(number)), vec![0; 1000]).unwrap();
            }
        };
        let run = |options: &[(&str, &str)], later: u64| {
            fill();
            let mut vacuum = Vacuum::default();
            assert!(options.iter().all(|(option, value)| vacuum.set(option, value)));
            vacuum.run(directory.path(), SystemTime::now() + Duration::from_secs(later)).unwrap()
        };
        assert_eq!(run(&[("--vacuum-size", "2500")], 0), (3, 3000));
        assert_eq!(run(&[("--vacuum-size", "1")], 0).0, 4);
        assert_eq!(run(&[("--vacuum-files", "4")], 0).0, 1);
        assert_eq!(run(&[("--vacuum-time", "1h")], 60).0, 0);
        assert_eq!(run(&[("--vacuum-time", "1h")], 4000).0, 4);
        assert!(!Vacuum::default().set("--vacuum-size", "much"));
    }
}
