//! Which device a link belongs to when several claim it: the first, and the next one when that goes.

use std::collections::BTreeMap;

/// What is to be done in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Let the link lead to the device.
    Point { link: String, device: String },
    /// No device claims it any more.
    Remove { link: String },
}

/// The claims of all devices.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    claims: BTreeMap<String, Vec<String>>,
}

impl Links {
    /// Replaces the claims of a device.
    pub(super) fn set(&mut self, device: &str, links: &[String]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (link, devices) in &mut self.claims {
            if links.contains(link) {
                continue;
            }
            let was_first = devices.first().is_some_and(|first| first == device);
            devices.retain(|other| other != device);
            if was_first {
                changes.push(match devices.first() {
                    Some(next) => Change::Point { link: link.clone(), device: next.clone() },
                    None => Change::Remove { link: link.clone() },
                });
            }
        }
        self.claims.retain(|_, devices| !devices.is_empty());
        for link in links {
            let devices = self.claims.entry(link.clone()).or_default();
            if devices.is_empty() {
                changes.push(Change::Point { link: link.clone(), device: device.to_owned() });
            }
            if !devices.iter().any(|other| other == device) {
                devices.push(device.to_owned());
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(link: &str, device: &str) -> Change {
        Change::Point { link: link.to_owned(), device: device.to_owned() }
    }

    #[test]
    fn the_first_claim_holds_until_it_is_given_up() {
        let mut links = Links::default();
        let data = ["by-label/data".to_owned()];
        assert_eq!(links.set("vda1", &data), [point("by-label/data", "vda1")]);
        assert_eq!(links.set("vdb1", &data), []);
        assert_eq!(links.set("vda1", &data), [], "again is no change");
        assert_eq!(links.set("vda1", &[]), [point("by-label/data", "vdb1")]);
        assert_eq!(links.set("vdb1", &[]), [Change::Remove { link: "by-label/data".to_owned() }]);
    }

    #[test]
    fn a_new_label_replaces_the_old_one() {
        let mut links = Links::default();
        links.set("vda1", &["by-label/a".to_owned()]);
        assert_eq!(
            links.set("vda1", &["by-label/b".to_owned()]),
            [Change::Remove { link: "by-label/a".to_owned() }, point("by-label/b", "vda1")]
        );
    }
}
