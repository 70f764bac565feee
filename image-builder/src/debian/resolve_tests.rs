//! What is chosen, and what is said when nothing can be.

use std::collections::BTreeMap;

use super::packages::Index;
use super::request::PackageRequest;
use super::resolve::{ResolveError, resolve};
use super::testing::{request, request_without};
use super::universe::{Archive, Suite, Universe};
use crate::digest::Sha256;

/// A universe from lines `name version; field; field`, a suite for each text, the second one only for `from`.
fn universe(suites: &[(&str, &str)]) -> Universe {
    let suites = suites.iter().enumerate().map(|(number, (name, text))| {
        let paragraphs = text.lines().map(|line| {
            let mut parts = line.split(';').map(str::trim);
            let (package, version) = parts.next().unwrap().split_once(' ').unwrap();
            let fields: String = parts.map(|field| format!("{field}\n")).collect();
            format!("Package: {package}\nVersion: {version}\nArchitecture: amd64\n{fields}\n")
        });
        let index = Index::new(paragraphs.collect());
        Suite {
            name: (*name).to_owned(),
            archive: Archive::Debian,
            date: 0,
            inrelease: Sha256::of(b""),
            indexes: vec![index],
            only_named: number > 0,
        }
    });
    Universe { suites: suites.collect(), from: BTreeMap::new() }
}

fn names(text: &str, request: &PackageRequest) -> Result<String, ResolveError> {
    names_of(&universe(&[("trixie", text)]), request)
}

fn names_of(universe: &Universe, request: &PackageRequest) -> Result<String, ResolveError> {
    Ok(resolve(universe, request)?.iter().map(|chosen| chosen.package.name).collect::<Vec<_>>().join(" "))
}

fn problem(text: &str, request: &PackageRequest) -> String {
    let text = names(text, request).unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn takes_the_first_alternative() {
    assert_eq!(names("a 1; Depends: x | y\nx 1\ny 1", &request(&["a"])).unwrap(), "a x");
}

#[test]
fn an_alternative_that_is_needed_anyway_is_enough() {
    assert_eq!(names("a 1; Depends: x | y, z\nx 1\ny 1\nz 1; Depends: y", &request(&["a"])).unwrap(), "a y z");
    assert_eq!(names("a 1; Depends: x | y\nx 1\ny 1", &request(&["a", "y"])).unwrap(), "a y");
}

#[test]
fn an_alternative_that_cannot_be_is_passed_over() {
    assert_eq!(names("a 1; Depends: x (>= 2) | y\nx 1\ny 1", &request(&["a"])).unwrap(), "a y");
    assert_eq!(names("a 1; Depends: x | y, c\nx 1; Depends: d\nd 1; Conflicts: c\nc 1\ny 1", &request(&["a"])).unwrap(), "a c y");
}

#[test]
fn providers_are_chosen_by_preference_priority_and_name() {
    let text = "a 1; Depends: awk\ngawk 1; Provides: awk\nmawk 1; Provides: awk; Priority: required\noawk 1; Provides: awk";
    assert_eq!(names(text, &request(&["a"])).unwrap(), "a mawk");
    let mut wanted = request(&["a"]);
    wanted.prefer.insert("awk".to_owned(), "oawk".to_owned());
    assert_eq!(names(text, &wanted).unwrap(), "a oawk");
    assert_eq!(names(text, &request_without(&["a"], &["mawk"])).unwrap(), "a gawk");
    assert_eq!(names(text, &request_without(&["a"], &["*awk"])).unwrap(), "a");
}

#[test]
fn an_excluded_package_needs_nothing_and_hurts_nobody() {
    let text =
        "a 1; Depends: debconf (>= 9) | debconf-2.0, m | g\ndebconf 1; Depends: perl\ncdebconf 1; Provides: debconf-2.0\nperl 5\nm 1\ng 1";
    assert_eq!(names(text, &request_without(&["a"], &["debconf", "g"])).unwrap(), "a m");
}

#[test]
fn a_package_may_conflict_with_what_it_provides() {
    assert_eq!(names("a 1; Provides: mta; Conflicts: mta\nb 1", &request(&["a", "b"])).unwrap(), "a b");
    let text = problem("a 1; Provides: mta; Conflicts: mta\nb 1; Provides: mta", &request(&["a", "b"]));
    assert!(text.contains("both a and b") && text.contains("a conflicts with mta"), "{text}");
}

#[test]
fn breaks_count_only_for_the_versions_they_name() {
    assert_eq!(names("a 1; Breaks: b (<< 2)\nb 2", &request(&["a", "b"])).unwrap(), "a b");
    assert!(problem("a 1; Breaks: b (<< 2)\nb 1", &request(&["a", "b"])).contains("a conflicts with b (<< 2)"));
}

#[test]
fn recommends_are_followed_only_on_request_and_as_far_as_they_can_be() {
    let text = "a 1; Recommends: x, nothing, y\nx 1; Conflicts: a\ny 1";
    let mut wanted = request(&["a"]);
    assert_eq!(names(text, &wanted).unwrap(), "a");
    wanted.recommends = true;
    assert_eq!(names(text, &wanted).unwrap(), "a y");
}

#[test]
fn a_missing_name_comes_with_its_nearest() {
    assert_eq!(
        problem("docker.io 1\ndocker-cli 1\nsudo 1", &request(&["dokcer.io"])),
        "no package 'dokcer.io' in trixie; did you mean docker.io?"
    );
    assert!(problem("sudo 1", &request(&["xyzzy"])).contains("check the spelling"));
    assert!(problem("mawk 1; Provides: awk\ngawk 1; Provides: awk", &request(&["awk"])).contains("provided by gawk, mawk"));
    assert!(problem("a 1", &request_without(&["a"], &["a"])).contains("both includes and excludes 'a'"));
}

#[test]
fn an_unsatisfiable_dependency_names_the_chain() {
    assert_eq!(
        problem("docker.io 26; Depends: containerd\ncontainerd 1.7; Depends: runc (>= 2)\nrunc 1.1", &request(&["docker.io"])),
        "cannot install containerd (needed by docker.io): containerd 1.7 (trixie) needs runc (>= 2), but trixie has runc 1.1"
    );
    assert!(problem("a 1; Depends: gone", &request(&["a"])).contains("trixie has no gone"));
}

#[test]
fn only_named_packages_come_from_a_newer_suite() {
    let mut universe = universe(&[("trixie", "boot 1\nlib 1\nother 1"), ("forky", "boot 2; Depends: lib\nlib 2\nother 2")]);
    universe.from.insert("boot".to_owned(), "forky".to_owned());
    let mut wanted = request(&["boot", "other"]);
    wanted.from.clone_from(&universe.from);
    let chosen = resolve(&universe, &wanted).unwrap();
    let versions: Vec<&str> = chosen.iter().map(|chosen| chosen.package.version).collect();
    assert_eq!(versions, ["2", "1", "1"]);
}
