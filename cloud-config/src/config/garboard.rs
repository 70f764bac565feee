//! `garboard`, and what of CoreOS's keys is about reboots: checked here with the daemon's own rules, and kept for it.
//!
//! What is wrong is reported and kept all the same: a daemon that saw nothing of a window that was meant would reboot at any time, one
//! that sees a mistake does not reboot.

use std::path::Path;

use reboot_rules::settings;
use reboot_rules::windows::zones_from;
use unit_files::calendar::{CalendarZone, Zone};

use super::reader::Reader;
use super::{Config, keys};
use crate::merge::same_key;
use crate::yaml::{Node, Value};

const ZONES: &str = "/usr/share/zoneinfo";

impl Reader<'_> {
    /// The whole key.
    pub fn garboard(&mut self, node: &Node, config: &mut Config) {
        if self.fields(node, "garboard", keys::GARBOARD).is_some() {
            config.settings.insert("garboard".to_owned(), node.to_json());
        }
    }

    /// What `config` says about reboots; `root` is for the lines.
    pub fn reboots(&mut self, root: &Node, config: &Config) {
        let directory = Path::new(ZONES);
        // On a build host without time zones their names are taken on trust.
        let zones = |zone: &CalendarZone| match zone {
            CalendarZone::Named(_) if directory.is_dir() => zones_from(directory, Path::new("/nonexistent"))(zone),
            _ => Ok(Zone::utc()),
        };
        let Err(problems) = settings::read(&config.settings, &zones) else { return };
        for problem in problems {
            let place = nearest(root, &problem.key).place;
            let unknown = problem.message == settings::UNKNOWN;
            match problem.key.rsplit_once('.') {
                Some((_, name)) if unknown => {
                    let known = if problem.key.starts_with("garboard") { settings::KEYS.iter() } else { settings::LOCKSMITH_KEYS.iter() };
                    self.unknown(place, &problem.key, name, known.copied());
                    self.error(place, format!("`{}`: the reboot daemon does not reboot before this is mended", problem.key));
                }
                _ => self.error(
                    place,
                    format!("`{}`: {}; the reboot daemon does not reboot before this is mended", problem.key, problem.message),
                ),
            }
        }
    }
}

/// The node that a key such as `garboard.reboot.windows[1]` leads to, or the last one on the way that is there.
fn nearest<'n>(root: &'n Node, key: &str) -> &'n Node {
    let mut node = root;
    for part in key.split('.') {
        let (name, index) = part.split_once('[').unwrap_or((part, ""));
        let Value::Map(entries) = &node.value else { return node };
        let Some(entry) = entries.iter().find(|entry| same_key(&entry.key, name)) else { return node };
        node = &entry.node;
        if let (Value::Seq(items), Ok(index)) = (&node.value, index.trim_end_matches(']').parse::<usize>()) {
            node = items.get(index).unwrap_or(node);
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use crate::diagnostics::Diagnostics;
    use crate::yaml;

    fn report(text: &str) -> (Vec<String>, bool) {
        let mut diagnostics = Diagnostics::default();
        let root = yaml::load(text, 1, &mut diagnostics).unwrap();
        let config = crate::config::read(&root, &mut diagnostics);
        let lines = diagnostics.sorted().iter().map(ToString::to_string).filter(|line| !line.contains(": info: ")).collect();
        (lines, !config.settings.is_empty())
    }

    #[test]
    fn good_settings_are_kept_without_a_word() {
        let text =
            "garboard:\n  update: {server: 'https://a/'}\n  reboot:\n    strategy: off\n    windows: ['Sat 02:00 Europe/Berlin for 1h']\n";
        assert_eq!(report(text), (vec![], true));
        assert_eq!(report("coreos:\n  locksmith: {window_start: 14:00, window_length: 1h}\n"), (vec![], true));
    }

    #[test]
    fn mistakes_have_their_line_and_are_kept_for_the_daemon_to_see() {
        let (lines, kept) =
            report("garboard:\n  reboot:\n    windows:\n      - Sat 02:00 for 1h\n      - Sat 25:00 for 1h\n    strateg: off\n");
        assert!(kept);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("line 5: error: `garboard.reboot.windows[1]`: "), "{lines:?}");
        assert!(lines[1].contains("`garboard.reboot.strateg` is not a known key; did you mean `strategy`?"), "{lines:?}");
        let (lines, kept) = report("coreos:\n  locksmith:\n    window_start: 14:00\n");
        assert!(kept && lines[0].starts_with("line 3: error: `coreos.locksmith.window_start`: "), "{lines:?}");
        let (lines, _) = report("garboard: {reboots: {strategy: off}}\n");
        assert!(lines[0].contains("did you mean `reboot`?"), "{lines:?}");
    }

    #[test]
    fn secrets_are_not_quoted() {
        for text in ["password: [s3cret]", "endpoints: 'http://u:s3cret@h:2379'", "fleet_lock: 'https://u:s3cret@h'", "username: s3cret"] {
            let (lines, _) = report(&format!("garboard:\n  reboot:\n    {text}\n"));
            assert!(!lines.is_empty() && lines.iter().all(|line| !line.contains("s3cret")), "{lines:?}");
        }
    }
}
