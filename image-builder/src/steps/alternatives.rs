//! Alternatives as plain links: the provider with the highest priority wins unless the recipe chooses. There is no
//! `/etc/alternatives` in between, since nobody changes a choice on the host.
//!
//! The table is what the packages' scripts register, read from them; a script that registers something new is reported
//! by the review of scripts.

use std::collections::BTreeMap;

use super::{StepsError, origin};
use crate::tree::{Node, Tree};

/// One provider of a name.
struct Provider {
    name: &'static str,
    /// The generic path.
    link: &'static str,
    /// The provider's path.
    path: &'static str,
    priority: i32,
    /// Links that follow the choice: generic path and the provider's.
    followers: &'static [(&'static str, &'static str)],
}

const fn plain(name: &'static str, link: &'static str, path: &'static str, priority: i32) -> Provider {
    Provider { name, link, path, priority, followers: &[] }
}

const TABLE: &[Provider] = &[
    Provider { name: "awk", link: "usr/bin/awk", path: "usr/bin/mawk", priority: 5, followers: &[("usr/bin/nawk", "usr/bin/mawk")] },
    Provider { name: "awk", link: "usr/bin/awk", path: "usr/bin/gawk", priority: 10, followers: &[("usr/bin/nawk", "usr/bin/gawk")] },
    plain("pager", "usr/bin/pager", "usr/bin/more", 50),
    plain("pager", "usr/bin/pager", "usr/bin/less", 77),
    plain("which", "usr/bin/which", "usr/bin/which.debianutils", 0),
    plain("rmt", "usr/sbin/rmt", "usr/sbin/rmt-tar", 50),
    plain("editor", "usr/bin/editor", "usr/bin/vim.tiny", 15),
    plain("editor", "usr/bin/editor", "usr/bin/nano", 40),
    plain("ex", "usr/bin/ex", "usr/bin/vim.tiny", 15),
    plain("rview", "usr/bin/rview", "usr/bin/vim.tiny", 15),
    plain("vi", "usr/bin/vi", "usr/bin/vim.tiny", 15),
    plain("view", "usr/bin/view", "usr/bin/vim.tiny", 15),
    Provider {
        name: "lzma",
        link: "usr/bin/lzma",
        path: "usr/bin/xz",
        priority: 20,
        followers: &[
            ("usr/bin/unlzma", "usr/bin/unxz"),
            ("usr/bin/lzcat", "usr/bin/xzcat"),
            ("usr/bin/lzmore", "usr/bin/xzmore"),
            ("usr/bin/lzless", "usr/bin/xzless"),
            ("usr/bin/lzdiff", "usr/bin/xzdiff"),
            ("usr/bin/lzcmp", "usr/bin/xzcmp"),
            ("usr/bin/lzgrep", "usr/bin/xzgrep"),
            ("usr/bin/lzegrep", "usr/bin/xzegrep"),
            ("usr/bin/lzfgrep", "usr/bin/xzfgrep"),
        ],
    },
    Provider {
        name: "iptables",
        link: "usr/sbin/iptables",
        path: "usr/sbin/iptables-legacy",
        priority: 10,
        followers: &[
            ("usr/sbin/iptables-restore", "usr/sbin/iptables-legacy-restore"),
            ("usr/sbin/iptables-save", "usr/sbin/iptables-legacy-save"),
        ],
    },
    Provider {
        name: "iptables",
        link: "usr/sbin/iptables",
        path: "usr/sbin/iptables-nft",
        priority: 20,
        followers: &[
            ("usr/sbin/iptables-restore", "usr/sbin/iptables-nft-restore"),
            ("usr/sbin/iptables-save", "usr/sbin/iptables-nft-save"),
        ],
    },
    Provider {
        name: "ip6tables",
        link: "usr/sbin/ip6tables",
        path: "usr/sbin/ip6tables-legacy",
        priority: 10,
        followers: &[
            ("usr/sbin/ip6tables-restore", "usr/sbin/ip6tables-legacy-restore"),
            ("usr/sbin/ip6tables-save", "usr/sbin/ip6tables-legacy-save"),
        ],
    },
    Provider {
        name: "ip6tables",
        link: "usr/sbin/ip6tables",
        path: "usr/sbin/ip6tables-nft",
        priority: 20,
        followers: &[
            ("usr/sbin/ip6tables-restore", "usr/sbin/ip6tables-nft-restore"),
            ("usr/sbin/ip6tables-save", "usr/sbin/ip6tables-nft-save"),
        ],
    },
    Provider {
        name: "arptables",
        link: "usr/sbin/arptables",
        path: "usr/sbin/arptables-nft",
        priority: 20,
        followers: &[
            ("usr/sbin/arptables-restore", "usr/sbin/arptables-nft-restore"),
            ("usr/sbin/arptables-save", "usr/sbin/arptables-nft-save"),
        ],
    },
    Provider {
        name: "ebtables",
        link: "usr/sbin/ebtables",
        path: "usr/sbin/ebtables-nft",
        priority: 20,
        followers: &[
            ("usr/sbin/ebtables-restore", "usr/sbin/ebtables-nft-restore"),
            ("usr/sbin/ebtables-save", "usr/sbin/ebtables-nft-save"),
        ],
    },
];

/// Makes the links. `choices` maps a name to the provider's path.
///
/// # Errors
/// When a choice is not in the image, or its name is not known.
pub fn apply(tree: &mut Tree, choices: &BTreeMap<String, String>) -> Result<(), StepsError> {
    let mut chosen: BTreeMap<&str, &Provider> = BTreeMap::new();
    for provider in TABLE.iter().filter(|provider| tree.resolve(provider.path).is_some()) {
        let best = chosen.entry(provider.name).or_insert(provider);
        if provider.priority > best.priority {
            *best = provider;
        }
    }
    for (name, path) in choices {
        let wanted = path.trim_start_matches('/');
        let provider =
            TABLE.iter().find(|provider| provider.name == name && tree.resolve(wanted).is_some() && same(tree, provider.path, wanted));
        let provider = provider.ok_or_else(|| StepsError::Alternative { name: name.clone(), path: path.clone() })?;
        chosen.insert(provider.name, provider);
    }
    let origin = origin("alternatives");
    for provider in chosen.into_values() {
        let followers = provider.followers.iter().copied();
        for (link, path) in std::iter::once((provider.link, provider.path)).chain(followers) {
            if tree.resolve(path).is_some() {
                tree.put(link, Node::symlink(relative(link, path), &origin))?;
            }
        }
    }
    Ok(())
}

/// Whether two paths name the same place once linked directories are followed (`bin` and `usr/bin`).
fn same(tree: &Tree, one: &str, other: &str) -> bool {
    let real = |path: &str| {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        tree.resolve(directory).map(|directory| format!("{directory}/{name}"))
    };
    real(one) == real(other)
}

/// All links of the table stay within one directory or go to a sibling of it.
fn relative(link: &str, path: &str) -> String {
    let (directory, _) = link.rsplit_once('/').unwrap_or(("", link));
    match path.rsplit_once('/') {
        Some((there, name)) if there == directory => name.to_owned(),
        _ => format!("/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::new();
        tree.put("sbin", Node::symlink("usr/sbin", &origin("test"))).unwrap();
        for path in paths {
            tree.put(path, Node::file(*b"", 0o755, &origin("test"))).unwrap();
        }
        tree
    }

    fn target<'a>(tree: &'a Tree, path: &str) -> Option<&'a str> {
        match &tree.get(path)?.kind {
            Kind::Symlink(target) => Some(target),
            _ => None,
        }
    }

    const IPTABLES: &[&str] =
        &["usr/sbin/iptables-nft", "usr/sbin/iptables-nft-save", "usr/sbin/iptables-legacy", "usr/sbin/iptables-legacy-save"];

    #[test]
    fn the_highest_priority_wins_with_all_that_follows_it() {
        let mut tree = tree(IPTABLES);
        apply(&mut tree, &BTreeMap::new()).unwrap();
        assert_eq!(target(&tree, "usr/sbin/iptables"), Some("iptables-nft"));
        assert_eq!(target(&tree, "usr/sbin/iptables-save"), Some("iptables-nft-save"));
        assert!(!tree.contains("usr/sbin/iptables-restore"), "no link to what is not there");
        assert!(!tree.contains("usr/bin/awk"));
    }

    #[test]
    fn the_recipe_may_choose_what_is_there() {
        let mut tree = tree(IPTABLES);
        let choice = |path: &str| BTreeMap::from([("iptables".to_owned(), path.to_owned())]);
        apply(&mut tree, &choice("/sbin/iptables-legacy")).unwrap();
        assert_eq!(target(&tree, "usr/sbin/iptables-save"), Some("iptables-legacy-save"));
        let error = apply(&mut tree, &choice("/usr/sbin/iptables-new")).unwrap_err();
        assert!(error.to_string().contains("/usr/sbin/iptables-new"), "{error}");
    }
}
