//! `init sysctl`: kernel settings from `sysctl.d` and from `sysctl.NAME=VALUE` on the command line.
//!
//! With a name or prefix as argument (`net.bridge`) only those settings are applied, for when a module has brought them
//! into being.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::cmdline::CommandLine;
use crate::glob;

/// Strongest first. `/etc/sysctl.conf` is read last, as ever.
const DIRECTORIES: [&str; 4] = ["etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d"];

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// With slashes: `net/ipv4/ip_forward`; may hold wild cards.
    key: String,
    /// `None` keeps a wild card off this key.
    value: Option<String>,
    /// `-` before the key: failing is fine.
    optional: bool,
}

/// The program. What cannot be set fails the unit, after the rest has been set.
pub fn main(args: &[String]) -> ExitCode {
    let errors = apply(args);
    for error in &errors {
        eprintln!("sysctl: {error}");
    }
    if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Applies all settings, or those whose names begin with one of the prefixes; returns what could not be set.
pub fn apply(prefixes: &[String]) -> Vec<String> {
    let root = Path::new("/");
    let mut texts: Vec<String> = crate::dropin::read_all(root, &DIRECTORIES, "conf").into_iter().map(|(_, text)| text).collect();
    texts.extend(fs::read_to_string("/etc/sysctl.conf"));
    let mut settings: Vec<Setting> = texts.iter().flat_map(|text| text.lines()).filter_map(parse).collect();
    let cmdline = CommandLine::of_kernel();
    settings.extend(cmdline.words().filter_map(|(name, value)| parse(&format!("{} = {}", name.strip_prefix("sysctl.")?, value?))));
    let prefixes: Vec<String> = prefixes.iter().map(|prefix| slashes(prefix)).collect();
    let mut errors = Vec::new();
    for (key, value, optional) in effective(&settings, &expand) {
        if !prefixes.is_empty() && !prefixes.iter().any(|prefix| key.starts_with(prefix.as_str())) {
            continue;
        }
        match fs::write(root.join("proc/sys").join(&key), &value) {
            Ok(()) => {}
            // The module that owns it may come later; the device daemon applies it then.
            Err(error) if optional || error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => errors.push(format!("cannot set {key} to {value}: {error}")),
        }
    }
    errors
}

fn parse(line: &str) -> Option<Setting> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    let (optional, line) = line.strip_prefix('-').map_or((false, line), |rest| (true, rest));
    match line.split_once('=') {
        Some((key, value)) => Some(Setting { key: slashes(key.trim()), value: Some(value.trim().to_owned()), optional }),
        // `-net.ipv4.conf.eth0.x` alone: an exception to a wild card.
        None => optional.then(|| Setting { key: slashes(line.trim()), value: None, optional }),
    }
}

/// Keys are written with dots or with slashes; whichever comes first is the separator, the other is part of a name.
fn slashes(key: &str) -> String {
    match key.find(['.', '/']).and_then(|at| key.get(at..=at)) {
        Some(".") => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// The last setting of each key, in the order of first mention; `expand` turns a wild card into the keys there are.
fn effective(settings: &[Setting], expand: &dyn Fn(&str) -> Vec<String>) -> Vec<(String, String, bool)> {
    let is_exact = |key: &str| settings.iter().any(|setting| setting.key == key);
    let mut result: Vec<(String, String, bool)> = Vec::new();
    for setting in settings {
        let Some(value) = &setting.value else { continue };
        let wild = setting.key.contains(['*', '?', '[']);
        let keys = if wild { expand(&setting.key) } else { vec![setting.key.clone()] };
        for key in keys {
            // A key that is named is never set by a wild card.
            if wild && is_exact(&key) {
                continue;
            }
            result.retain(|(known, ..)| *known != key);
            result.push((key, value.clone(), setting.optional));
        }
    }
    result
}

/// The keys below `/proc/sys` that match, one path component at a time.
fn expand(pattern: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in pattern.split('/') {
        found = found
            .into_iter()
            .flat_map(|prefix| {
                let directory = Path::new("/proc/sys").join(&prefix);
                let mut names: Vec<String> = fs::read_dir(directory)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .collect();
                names.sort();
                names
                    .into_iter()
                    .filter(|name| glob::matches(part, name))
                    .map(move |name| if prefix.is_empty() { name } else { format!("{prefix}/{name}") })
            })
            .collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Vec<Setting> {
        text.lines().filter_map(parse).collect()
    }

    #[test]
    fn the_last_of_a_key_wins() {
        let result = effective(&settings("a.b = 1\n# c\n-x/y=2\na.b=3\n"), &|_| vec![]);
        assert_eq!(result, [("x/y".to_owned(), "2".to_owned(), true), ("a/b".to_owned(), "3".to_owned(), false)]);
    }

    #[test]
    fn named_keys_are_exempt_from_wild_cards() {
        let all = |_: &str| vec!["net/all/rp".to_owned(), "net/lo/rp".to_owned(), "net/eth0/rp".to_owned()];
        let result = effective(&settings("net.*.rp = 2\n-net.all.rp\nnet.lo.rp = 0\n"), &all);
        assert_eq!(result, [("net/eth0/rp".to_owned(), "2".to_owned(), false), ("net/lo/rp".to_owned(), "0".to_owned(), false)]);
    }

    #[test]
    fn dots_inside_names_survive() {
        assert_eq!(slashes("net.ipv4.conf.eth0/5.rp"), "net/ipv4/conf/eth0.5/rp");
        assert_eq!(slashes("net/ipv4/conf/eth0.5/rp"), "net/ipv4/conf/eth0.5/rp");
    }
}
