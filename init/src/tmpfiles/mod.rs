//! `init tmpfiles`: files, directories and links from `tmpfiles.d`, for what packages and operators expect below `/var`, `/run` and `/tmp`.
//!
//! Understood: `d D e v q Q f F w L L+ C p z Z x X r R` with modes, owners and specifiers. Ages are not: nothing is cleaned while
//! the host runs. ACLs, file attributes and device nodes (`a h t b c`) are passed over; devices are the device daemon's.

use std::path::Path;
use std::process::ExitCode;

mod apply;
mod line;

use apply::Applier;
use line::{Kind, Line, Specifiers, parse};

/// Strongest first.
const DIRECTORIES: [&str; 4] = ["etc/tmpfiles.d", "run/tmpfiles.d", "usr/local/lib/tmpfiles.d", "usr/lib/tmpfiles.d"];

/// The program: `[--create] [--remove] [--boot] [--prefix=PATH]... [FILE]...`; without an act it creates and removes as at boot.
pub fn main(args: &[String]) -> ExitCode {
    let mut prefixes = Vec::new();
    let mut files = Vec::new();
    for arg in args {
        match arg.as_str() {
            "--create" | "--remove" | "--boot" => {}
            option if option.starts_with("--") => match option.strip_prefix("--prefix=") {
                Some(prefix) => prefixes.push(prefix.to_owned()),
                None => {
                    eprintln!("tmpfiles: unknown option {option}");
                    return ExitCode::from(2);
                }
            },
            file => files.push(file.to_owned()),
        }
    }
    let root = Path::new("/");
    let mut texts = crate::dropin::read_all(root, &DIRECTORIES, "conf");
    if !files.is_empty() {
        texts.retain(|(path, _)| files.iter().any(|file| path.ends_with(file)));
    }
    let mut failed = false;
    let specifiers = Specifiers::of_host();
    let mut lines = Vec::new();
    for (path, text) in &texts {
        for (number, content) in (1..).zip(text.lines()) {
            match parse(content, &specifiers) {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => {}
                Err(reason) => {
                    failed = true;
                    eprintln!("tmpfiles: {}:{number}: {reason}", path.display());
                }
            }
        }
    }
    lines.retain(|line| prefixes.is_empty() || prefixes.iter().any(|prefix| Path::new(&line.path).starts_with(prefix)));
    let applier = Applier::new(root);
    for line in ordered(lines) {
        if let Err(error) = applier.apply(&line)
            && !line.may_fail
        {
            failed = true;
            eprintln!("tmpfiles: {}: {error}", line.path);
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Removals first, then everything else from the root of the tree outwards; of several lines that make the same path,
/// the first counts.
fn ordered(lines: Vec<Line>) -> Vec<Line> {
    let mut made: Vec<String> = Vec::new();
    let mut result: Vec<Line> = Vec::new();
    for line in lines {
        if line.kind.makes() {
            if made.contains(&line.path) {
                continue;
            }
            made.push(line.path.clone());
        }
        result.push(line);
    }
    let stage = |line: &Line| match line.kind {
        Kind::Remove | Kind::RemoveTree => 0,
        Kind::Adjust | Kind::AdjustTree => 2,
        _ => 1,
    };
    result.sort_by(|a, b| stage(a).cmp(&stage(b)).then_with(|| Path::new(&a.path).cmp(Path::new(&b.path))));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_the_first_of_two_counts() {
        let specifiers = Specifiers::default();
        let lines = ["z /a/b", "d /a/b/c 0700", "d /a", "r /x", "d /a 0711", "w /a - - - - x"];
        let lines: Vec<Line> = lines.iter().filter_map(|text| parse(text, &specifiers).unwrap()).collect();
        let order: Vec<(Kind, String)> = ordered(lines).into_iter().map(|line| (line.kind, line.path)).collect();
        assert_eq!(
            order,
            [
                (Kind::Remove, "/x".to_owned()),
                (Kind::Directory, "/a".to_owned()),
                (Kind::Write, "/a".to_owned()),
                (Kind::Directory, "/a/b/c".to_owned()),
                (Kind::Adjust, "/a/b".to_owned()),
            ]
        );
    }
}
