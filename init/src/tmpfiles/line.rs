//! One line of `tmpfiles.d`.

use std::fs;

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `d`, `v`, `q`, `Q`: make it, set mode and owner.
    Directory,
    /// `D`: the same, and empty it.
    EmptyDirectory,
    /// `e`: set mode and owner of a directory that exists.
    ExistingDirectory,
    /// `f`: make it with content when it is missing; `f+` and `F` always.
    File { truncate: bool },
    /// `w`, `w+`: write into an existing file.
    Write,
    /// `L`; `L+` replaces what is there.
    Link { replace: bool },
    /// `C`: copy a file or a tree to where nothing is.
    Copy,
    /// `p`: a named pipe.
    Pipe,
    /// `z`: mode and owner of what matches.
    Adjust,
    /// `Z`: the same, with all below.
    AdjustTree,
    /// `r`
    Remove,
    /// `R`
    RemoveTree,
}

impl Kind {
    /// Whether two such lines for one path contradict each other.
    pub(super) fn makes(self) -> bool {
        !matches!(self, Self::Write | Self::Adjust | Self::AdjustTree | Self::Remove | Self::RemoveTree)
    }
}

/// A parsed line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) kind: Kind,
    /// `-` after the letter.
    pub(super) may_fail: bool,
    pub(super) path: String,
    pub(super) mode: Option<Mode>,
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) argument: Option<String>,
}

/// The mode column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) bits: u32,
    /// `:` only for what is made now.
    pub(super) only_new: bool,
    /// `~` limited to the bits that make sense for what is there.
    pub(super) masked: bool,
}

/// What `%` and a letter stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct Specifiers {
    values: Vec<(char, String)>,
}

impl Specifiers {
    /// Of the running host.
    pub(super) fn of_host() -> Self {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let fixed =
            [('t', "/run"), ('S', "/var/lib"), ('C', "/var/cache"), ('L', "/var/log"), ('T', "/tmp"), ('V', "/var/tmp"), ('h', "/root")];
        let mut values: Vec<(char, String)> = fixed.iter().map(|(letter, value)| (*letter, (*value).to_owned())).collect();
        for (letter, name) in [('u', "root"), ('g', "root"), ('U', "0"), ('G', "0"), ('a', "x86-64")] {
            values.push((letter, name.to_owned()));
        }
        let host = line("/proc/sys/kernel/hostname");
        values.push(('l', host.split('.').next().unwrap_or_default().to_owned()));
        values.push(('H', host));
        values.push(('m', line("/etc/machine-id")));
        values.push(('b', line("/proc/sys/kernel/random/boot_id").replace('-', "")));
        values.push(('v', line("/proc/sys/kernel/osrelease")));
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        for (letter, key) in
            [('A', "IMAGE_VERSION="), ('M', "IMAGE_ID="), ('o', "ID="), ('w', "VERSION_ID="), ('W', "VARIANT_ID="), ('B', "BUILD_ID=")]
        {
            let value = release.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            values.push((letter, value.trim_matches('"').to_owned()));
        }
        Self { values }
    }

    fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => out.push('%'),
                Some(letter) => match self.values.iter().find(|(known, _)| *known == letter) {
                    Some((_, value)) => out.push_str(value),
                    None => return Err(format!("unknown specifier %{letter}")),
                },
                None => return Err("a single % at the end".to_owned()),
            }
        }
        Ok(out)
    }
}

/// Parses a line; `None` for empty ones, comments, and kinds that are passed over.
pub(super) fn parse(text: &str, specifiers: &Specifiers) -> Result<Option<Line>, String> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (mut columns, argument) = columns(text)?;
    columns.reverse();
    let mut column = || columns.pop().filter(|word| word != "-");
    let kind = column().ok_or("no type")?;
    let path = column().ok_or("no path")?;
    let (mode, user, group, _age) = (column(), column(), column(), column());
    let mut letters = kind.chars();
    let letter = letters.next().ok_or("no type")?;
    let modifiers: Vec<char> = letters.collect();
    if let Some(bad) = modifiers.iter().find(|modifier| !matches!(modifier, '+' | '!' | '-' | '=' | '~' | '^' | '$' | '?')) {
        return Err(format!("unknown modifier '{bad}' of the type '{kind}'"));
    }
    if modifiers.iter().any(|modifier| matches!(modifier, '^' | '~')) {
        return Err(format!("'{kind}': credentials and encoded content are not supported"));
    }
    let plus = modifiers.contains(&'+');
    let kind = match letter {
        'd' | 'v' | 'q' | 'Q' => Kind::Directory,
        'D' => Kind::EmptyDirectory,
        'e' => Kind::ExistingDirectory,
        'f' => Kind::File { truncate: plus },
        'F' => Kind::File { truncate: true },
        'w' => Kind::Write,
        'L' => Kind::Link { replace: plus },
        'C' => Kind::Copy,
        'p' => Kind::Pipe,
        'z' | 'm' => Kind::Adjust,
        'Z' => Kind::AdjustTree,
        'r' => Kind::Remove,
        'R' => Kind::RemoveTree,
        // Exceptions from cleaning, of which there is none; access lists, attributes, device nodes.
        'x' | 'X' | 'a' | 'A' | 'h' | 'H' | 't' | 'T' | 'b' | 'c' => return Ok(None),
        other => return Err(format!("unknown type '{other}'")),
    };
    let path = specifiers.expand(&path)?;
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(format!("'{path}' is no absolute path"));
    }
    Ok(Some(Line {
        kind,
        may_fail: modifiers.contains(&'-'),
        path: if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path },
        mode: mode.map(|text| parse_mode(&text)).transpose()?,
        user: owner(user),
        group: owner(group),
        argument: argument.map(|text| specifiers.expand(&text)).transpose()?,
    }))
}

fn owner(column: Option<String>) -> Option<String> {
    column.map(|name| name.trim_start_matches(':').to_owned()).filter(|name| !name.is_empty())
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    let digits = text.trim_start_matches([':', '~']);
    let prefix = text.get(..text.len() - digits.len()).unwrap_or_default();
    let bits = u32::from_str_radix(digits, 8).ok().filter(|bits| *bits <= 0o7777).ok_or_else(|| format!("'{text}' is no mode"))?;
    Ok(Mode { bits, only_new: prefix.contains(':'), masked: prefix.contains('~') })
}

/// The first six columns, which may be quoted, and whatever follows them.
fn columns(text: &str) -> Result<(Vec<String>, Option<String>), String> {
    let mut words = Vec::new();
    let mut rest = text;
    while words.len() < 6 {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok((words, None));
        }
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let body = if quote.is_some() { rest.get(1..).unwrap_or_default() } else { rest };
        let end = body.find(|c: char| quote.map_or(c.is_whitespace(), |quote| c == quote));
        let end = match (end, quote) {
            (Some(end), _) => end,
            (None, None) => body.len(),
            (None, Some(quote)) => return Err(format!("no closing {quote}")),
        };
        words.push(unescape(body.get(..end).unwrap_or_default()));
        rest = body.get(end + usize::from(quote.is_some())..).unwrap_or_default();
    }
    let argument = rest.trim();
    Ok((words, (!argument.is_empty() && argument != "-").then(|| unescape(argument))))
}

/// C escapes: `\n`, `\t`, `\\`, `\x41`, `\040`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('s') => out.push(' '),
            Some('x') => {
                let digits: String = chars.by_ref().take(2).collect();
                out.extend(u8::from_str_radix(&digits, 16).ok().map(char::from));
            }
            Some(digit @ '0'..='7') => {
                let digits: String = std::iter::once(digit).chain(chars.by_ref().take(2)).collect();
                out.extend(u8::from_str_radix(&digits, 8).ok().map(char::from));
            }
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Line {
        parse(text, &Specifiers { values: vec![('m', "abc".to_owned())] }).unwrap().unwrap()
    }

    #[test]
    fn lines_as_packages_write_them() {
        let line = one("d /var/lib/%m/ 2755 root adm 10d");
        assert_eq!((line.kind, line.path.as_str(), line.mode.unwrap().bits), (Kind::Directory, "/var/lib/abc", 0o2755));
        assert_eq!((line.user.as_deref(), line.group.as_deref(), line.argument), (Some("root"), Some("adm"), None));
        let line = one("L+! /etc/x - - - - ../run/a b");
        assert_eq!((line.kind, line.argument.as_deref()), (Kind::Link { replace: true }, Some("../run/a b")));
        let line = one("f- \"/run/a b\" ~0644 - - - one\\ntwo");
        assert_eq!((line.path.as_str(), line.may_fail, line.argument.as_deref()), ("/run/a b", true, Some("one\ntwo")));
        assert!(line.mode.unwrap().masked);
        assert_eq!(one("d /a :0700 :root :root").mode, Some(Mode { bits: 0o700, only_new: true, masked: false }));
    }

    #[test]
    fn what_is_passed_over_and_what_is_wrong() {
        let parse = |text: &str| parse(text, &Specifiers::default());
        for text in ["", "# c", "x /tmp/a", "a+ /x - - - - u:a:r", "c /dev/x 0600 - - - 1:2"] {
            assert_eq!(parse(text), Ok(None), "{text}");
        }
        for text in ["d", "d relative", "d /a/../b", "d /a 999", "d /%Z", "? /a", "d \"/a", "d* /a"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
