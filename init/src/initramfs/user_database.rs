//! The user database over updates: `passwd`, `group`, `shadow` and their like, merged three ways as pure text.
//!
//! *base* is the image's file when this host's was last merged, *image* the running image's, *host* what is in effect on this host. What a
//! host added or changed stays; what the image added or changed arrives; numeric ids below 1000 are always the image's, since
//! its files carry them.

use std::collections::HashMap;

/// A file of the user database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Database {
    /// `name:password:uid:gid:gecos:home:shell`
    Passwd,
    /// `name:password:gid:members`
    Group,
    /// `name:password:...`
    Shadow,
    /// `name:password:administrators:members`
    Gshadow,
    /// `name:start:count`
    SubordinateIds,
}

impl Database {
    /// The files of `/etc` that are merged.
    pub(super) const FILES: [(&'static str, Self); 6] = [
        ("passwd", Self::Passwd),
        ("group", Self::Group),
        ("shadow", Self::Shadow),
        ("gshadow", Self::Gshadow),
        ("subuid", Self::SubordinateIds),
        ("subgid", Self::SubordinateIds),
    ];

    fn id_fields(self) -> &'static [usize] {
        match self {
            Self::Passwd => &[2, 3],
            Self::Group => &[2],
            _ => &[],
        }
    }

    fn list_fields(self) -> &'static [usize] {
        match self {
            Self::Group => &[3],
            Self::Gshadow => &[2, 3],
            _ => &[],
        }
    }
}

type Entry<'a> = Vec<&'a str>;

/// Merges one file. Lines without a name are dropped.
pub(super) fn merge(database: Database, base: &str, image: &str, host: &str) -> String {
    let (base, host_entries) = (by_name(base), by_name(host));
    let mut merged = String::new();
    let mut put = |fields: &[String]| {
        merged.push_str(&fields.join(":"));
        merged.push('\n');
    };
    for entry in entries(image) {
        let Some(name) = entry.first() else { continue };
        put(&merge_entry(database, base.get(name), &entry, host_entries.get(name)));
    }
    let in_image = by_name(image);
    for entry in entries(host) {
        let Some(name) = entry.first() else { continue };
        // What the image had and has no more goes, unless the host had changed it.
        if !in_image.contains_key(name) && base.get(name) != Some(&entry) {
            put(&entry.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>());
        }
    }
    merged
}

fn merge_entry(database: Database, base: Option<&Entry>, image: &Entry, host: Option<&Entry>) -> Vec<String> {
    let Some(host) = host else { return image.iter().map(|field| (*field).to_owned()).collect() };
    let field = |entry: Option<&Entry>, at: usize| entry.and_then(|entry| entry.get(at).copied()).map(str::to_owned);
    (0..image.len().max(host.len()))
        .map(|at| {
            let (theirs, ours) = (field(Some(image), at).unwrap_or_default(), field(Some(host), at).unwrap_or_default());
            let was = field(base, at);
            if database.list_fields().contains(&at) {
                return merge_lists(was.as_deref().unwrap_or(""), &theirs, &ours);
            }
            let fixed = database.id_fields().contains(&at) && theirs.parse::<u32>().is_ok_and(|id| id < 1000);
            // Without a base it is unknown who changed the field; the host's value is the one in effect.
            if fixed || was.as_ref() == Some(&ours) { theirs } else { ours }
        })
        .collect()
}

/// Members: the image's, plus what the host added, minus what the host took away.
fn merge_lists(base: &str, image: &str, host: &str) -> String {
    let split = |text: &str| text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (base, image, host) = (split(base), split(image), split(host));
    let mut merged: Vec<String> = image.into_iter().filter(|name| host.contains(name) || !base.contains(name)).collect();
    for name in host {
        if !base.contains(&name) && !merged.contains(&name) {
            merged.push(name);
        }
    }
    merged.join(",")
}

fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.lines().map(|line| line.split(':').collect::<Entry>()).filter(|entry| entry.first().is_some_and(|name| !name.is_empty()))
}

fn by_name(text: &str) -> HashMap<&str, Entry<'_>> {
    entries(text).filter_map(|entry| entry.first().copied().map(|name| (name, entry))).collect()
}

#[cfg(test)]
mod tests {
    use super::Database::*;
    use super::*;

    #[test]
    fn a_host_s_user_stays_and_an_image_s_arrives() {
        let base = "root:x:0:0::/root:/bin/bash\n";
        let image = "root:x:0:0::/root:/bin/bash\nnew:x:105:105::/:/bin/false\n";
        let host = "root:x:0:0::/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(
            merge(Passwd, base, image, host),
            "root:x:0:0::/root:/bin/bash\nnew:x:105:105::/:/bin/false\nann:x:1000:1000::/home/ann:/bin/sh\n"
        );
    }

    #[test]
    fn system_ids_are_the_image_s_and_the_host_s_shell_stays() {
        let base = "etcd:x:105:105::/:/bin/false\n";
        let image = "etcd:x:232:232::/var/lib/etcd:/bin/false\n";
        let host = "etcd:x:105:105::/:/bin/bash\n";
        assert_eq!(merge(Passwd, base, image, host), "etcd:x:232:232::/var/lib/etcd:/bin/bash\n");
        assert_eq!(merge(Passwd, "", image, "etcd:x:999:1:::\n").split(':').nth(2), Some("232"));
    }

    #[test]
    fn what_the_image_dropped_goes_unless_the_host_changed_it() {
        let base = "old:x:110:110::/:/bin/false\nkept:x:111:111::/:/bin/false\n";
        let host = "old:x:110:110::/:/bin/false\nkept:x:111:111::/:/bin/bash\n";
        assert_eq!(merge(Passwd, base, "", host), "kept:x:111:111::/:/bin/bash\n");
    }

    #[test]
    fn group_members_are_sets() {
        let merged = merge(Group, "docker:x:233:core,gone\n", "docker:x:233:core,gone,svc\n", "docker:x:233:core,ann\n");
        assert_eq!(merged, "docker:x:233:core,svc,ann\n");
    }

    #[test]
    fn a_password_set_on_the_host_stays() {
        let merged = merge(Shadow, "core:*:1::::::\n", "core:*:2::::::\nx:*:2::::::\n", "core:$6$abc:3::::::\n");
        assert_eq!(merged, "core:$6$abc:3::::::\nx:*:2::::::\n");
    }

    #[test]
    fn merging_again_changes_nothing() {
        let (base, image, host) = ("a:x:1:u\n", "a:x:1:u,v\nb:x:2:\n", "a:x:1:u,w\nc:x:1001:\n");
        let once = merge(Group, base, image, host);
        assert_eq!(merge(Group, image, image, &once), once);
    }
}
