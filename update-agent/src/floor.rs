//! What of a host's state cannot go backwards, or not that far forwards: which release would find data that a newer program has changed, or
//! such an old one that it cannot take them over.

use std::cmp::Ordering;

use release_format::StateFloor;

/// The first thing in which a release is older than a host's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Older {
    /// `layout`, or the component's name.
    pub what: String,
    /// What the release has.
    pub release: String,
    /// What the state has been used with.
    pub state: String,
}

/// What a release would find newer than itself on a host whose state was used with `state`. A layout of 0 says nothing, and a component
/// that one of them does not have leaves the other's data alone.
#[must_use]
pub fn older(state: &StateFloor, release: &StateFloor) -> Option<Older> {
    if release.layout != 0 && release.layout < state.layout {
        return Some(Older { what: "layout".to_owned(), release: release.layout.to_string(), state: state.layout.to_string() });
    }
    state.components.iter().find_map(|(name, state)| {
        let release = release.components.get(name)?;
        let is_older = compare(release, state) == Ordering::Less;
        is_older.then(|| Older { what: name.clone(), release: release.clone(), state: state.clone() })
    })
}

/// The version of a component that has to come before a release's, where that goes up one minor version at a time: etcd joins no cluster, and
/// takes over no data, of a version before the last
/// (<https://etcd.io/docs/v3.5/upgrades/upgrade_3_5/#upgrade-requirements>).
#[must_use]
pub fn skipped(from: &str, release: &StateFloor, component: &str) -> Option<String> {
    let (major, minor) = minor(from)?;
    let (new_major, new_minor) = self::minor(release.components.get(component)?)?;
    (major == new_major && new_minor > minor.saturating_add(1)).then(|| format!("{major}.{}", minor + 1))
}

/// Whether a release brings a component in a later minor version than `state` has been used with, or where that does not say.
#[must_use]
pub fn goes_up(state: &StateFloor, release: &StateFloor, component: &str) -> bool {
    let Some(new) = release.components.get(component) else { return false };
    match (state.components.get(component).and_then(|old| minor(old)), minor(new)) {
        (Some(old), Some(new)) => new > old,
        _ => true,
    }
}

/// Major and minor version.
fn minor(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.').map(|text| part(text).0);
    Some((parts.next()?, parts.next()?))
}

/// Whether a release brings a component in another version than `state` has been used with, or where that does not say.
#[must_use]
pub fn changes(state: &StateFloor, release: &StateFloor, component: &str) -> bool {
    let Some(new) = release.components.get(component) else { return false };
    state.components.get(component).is_none_or(|old| compare(old, new) != Ordering::Equal)
}

/// Versions by their parts between dots: numbers as numbers, `3.10` after `3.9`; what is missing is 0.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let (one, other) = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (one, other) => (part(one.unwrap_or("0")), part(other.unwrap_or("0"))),
        };
        match one.cmp(&other) {
            Ordering::Equal => {}
            different => return different,
        }
    }
}

/// The number that a part begins with, and what follows it.
fn part(text: &str) -> (u64, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    (number.parse().unwrap_or(if number.is_empty() { 0 } else { u64::MAX }), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(layout: u32, components: &[(&str, &str)]) -> StateFloor {
        StateFloor { layout, components: components.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect() }
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        for (a, b) in [("3.9", "3.10"), ("3.5", "4"), ("9", "26.1"), ("3", "3.1"), ("3.5", "3.5rc"), ("3.5", "99999999999999999999.1")] {
            assert_eq!((compare(a, b), compare(b, a)), (Ordering::Less, Ordering::Greater), "{a} {b}");
        }
        for (a, b) in [("3.5", "3.5"), ("3", "3.0"), ("03.5", "3.05"), ("", "0")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    #[test]
    fn only_what_both_have_can_be_older() {
        let state = floor(2, &[("docker", "26.1"), ("etcd", "3.10")]);
        assert_eq!(older(&state, &state), None);
        assert_eq!(older(&state, &floor(3, &[("docker", "27.0"), ("etcd", "3.11")])), None);
        assert_eq!(older(&state, &floor(0, &[])), None);
        let found =
            |what: &str, release: &str, state: &str| Some(Older { what: what.into(), release: release.into(), state: state.into() });
        assert_eq!(older(&state, &floor(1, &[("etcd", "3.9")])), found("layout", "1", "2"));
        assert_eq!(older(&state, &floor(2, &[("etcd", "3.9")])), found("etcd", "3.9", "3.10"));
        assert_eq!(older(&state, &floor(2, &[("docker", "20.10")])), found("docker", "20.10", "26.1"));
    }

    #[test]
    fn what_goes_up_by_one_minor_version_at_a_time_says_which_comes_first() {
        let skips = |state: &str, release: &str| skipped(state, &floor(1, &[("etcd", release)]), "etcd");
        assert_eq!(skips("3.5", "3.7"), Some("3.6".to_owned()));
        assert_eq!(skips("3.9.1", "3.20"), Some("3.10".to_owned()));
        for (state, release) in [("3.5", "3.5"), ("3.5", "3.6"), ("3.5.16", "3.6.0"), ("3.6", "3.4"), ("3.5", "4.0"), ("3", "3.7")] {
            assert_eq!(skips(state, release), None, "{state} {release}");
        }
        assert_eq!(skipped("3.5", &floor(1, &[]), "etcd"), None);
    }

    #[test]
    fn a_component_goes_up_by_its_minor_version_or_when_nobody_knows() {
        let up = |state: &[(&str, &str)], release: &[(&str, &str)]| goes_up(&floor(1, state), &floor(1, release), "etcd");
        for (state, release) in [("3.5", "3.6"), ("3.5.9", "3.10"), ("3.5", "4.0"), ("3", "3.6"), ("", "3.6")] {
            assert!(up(&[("etcd", state)], &[("etcd", release)]), "{state} {release}");
        }
        for (state, release) in [("3.5", "3.5"), ("3.5.1", "3.5.20"), ("3.6", "3.5.9")] {
            assert!(!up(&[("etcd", state)], &[("etcd", release)]), "{state} {release}");
        }
        assert!(up(&[], &[("etcd", "3.5")]) && !up(&[("etcd", "3.5")], &[]) && !up(&[], &[]));
    }

    #[test]
    fn a_component_changes_when_the_release_has_another_or_nobody_knows() {
        let state = floor(1, &[("etcd", "3.4")]);
        assert!(changes(&state, &floor(1, &[("etcd", "3.5")]), "etcd") && changes(&state, &floor(1, &[("etcd", "3.3")]), "etcd"));
        assert!(changes(&floor(1, &[]), &floor(1, &[("etcd", "3.5")]), "etcd"));
        assert!(!changes(&state, &floor(1, &[("etcd", "3.4.0")]), "etcd") && !changes(&state, &floor(1, &[]), "etcd"));
    }
}
