//! Environment: `Environment=`, the grammar of environment files, and expansion in command lines.

use std::collections::BTreeMap;

use crate::exec::ExecCommand;
use crate::words::split_relaxed;

/// Whether a variable may have this name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first == b'_' || first.is_ascii_alphabetic())
        && bytes.all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

/// Splits `NAME=VALUE`; `None` when the name is none.
#[must_use]
pub fn split_assignment(word: &str) -> Option<(&str, &str)> {
    word.split_once('=').filter(|(name, _)| is_name(name))
}

/// What an environment file says, in order, and the lines that say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentText {
    /// Assignments; a later one of the same name wins.
    pub assignments: Vec<(String, String)>,
    /// Lines (from 1) that are no assignment.
    pub bad_lines: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    PreKey,
    Key,
    PreValue,
    Value,
    ValueEscape,
    Single,
    Double,
    DoubleEscape,
    Comment,
    CommentEscape,
}

/// Parses an environment file: `#` and `;` comment lines, POSIX-like quotes that may span lines, `\` at a line's end
/// continues it.
#[must_use]
pub fn parse_environment_file(bytes: &[u8]) -> EnvironmentText {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut parser = FileParser { out: EnvironmentText::default(), key: Vec::new(), value: Vec::new(), keep: 0, line: 1, key_line: 1 };
    let mut state = State::PreKey;
    for &byte in bytes {
        if byte == 0 {
            continue;
        }
        state = parser.step(state, byte);
        if byte == b'\n' {
            parser.line = parser.line.saturating_add(1);
        }
    }
    match state {
        State::Key => parser.bad(),
        State::PreValue | State::Value | State::ValueEscape | State::Single | State::Double | State::DoubleEscape => parser.push(),
        State::PreKey | State::Comment | State::CommentEscape => {}
    }
    parser.out
}

struct FileParser {
    out: EnvironmentText,
    key: Vec<u8>,
    value: Vec<u8>,
    /// Length of the value up to its last character that is no unquoted blank.
    keep: usize,
    line: u32,
    key_line: u32,
}

impl FileParser {
    fn bad(&mut self) {
        self.out.bad_lines.push(self.key_line);
        self.key.clear();
    }

    fn push(&mut self) {
        self.value.truncate(self.keep);
        let key = String::from_utf8(std::mem::take(&mut self.key));
        let value = String::from_utf8(std::mem::take(&mut self.value));
        self.keep = 0;
        match (key, value) {
            (Ok(key), Ok(value)) if is_name(key.trim_end()) => self.out.assignments.push((key.trim_end().to_owned(), value)),
            _ => self.out.bad_lines.push(self.key_line),
        }
    }

    fn keep(&mut self, byte: u8) {
        self.value.push(byte);
        self.keep = self.value.len();
    }

    fn step(&mut self, state: State, byte: u8) -> State {
        let end_of_line = matches!(byte, b'\n' | b'\r');
        let blank = end_of_line || matches!(byte, b' ' | b'\t');
        match state {
            State::PreKey => match byte {
                b'#' | b';' => State::Comment,
                _ if blank => State::PreKey,
                _ => {
                    self.key_line = self.line;
                    self.key = vec![byte];
                    State::Key
                }
            },
            State::Key => match byte {
                _ if end_of_line => {
                    self.bad();
                    State::PreKey
                }
                b'=' => State::PreValue,
                _ => {
                    self.key.push(byte);
                    State::Key
                }
            },
            State::PreValue | State::Value => match byte {
                _ if end_of_line => {
                    self.push();
                    State::PreKey
                }
                b'\'' if state == State::PreValue => State::Single,
                b'"' if state == State::PreValue => State::Double,
                b'\\' => State::ValueEscape,
                _ if blank && state == State::PreValue => State::PreValue,
                _ if blank => {
                    self.value.push(byte);
                    State::Value
                }
                _ => {
                    self.keep(byte);
                    State::Value
                }
            },
            State::ValueEscape => {
                if !end_of_line {
                    self.keep(byte);
                }
                State::Value
            }
            // After a closing quote another quoted part may follow, as in a shell.
            State::Single => {
                if byte == b'\'' {
                    return State::PreValue;
                }
                self.keep(byte);
                State::Single
            }
            State::Double => match byte {
                b'"' => State::PreValue,
                b'\\' => State::DoubleEscape,
                _ => {
                    self.keep(byte);
                    State::Double
                }
            },
            State::DoubleEscape => {
                match byte {
                    b'"' | b'\\' | b'`' | b'$' => self.keep(byte),
                    b'\n' => {}
                    _ => {
                        self.keep(b'\\');
                        self.keep(byte);
                    }
                }
                State::Double
            }
            State::Comment => match byte {
                b'\\' => State::CommentEscape,
                _ if end_of_line => State::PreKey,
                _ => State::Comment,
            },
            // A backslash at the end of a comment does not continue it.
            State::CommentEscape => {
                if end_of_line {
                    State::PreKey
                } else {
                    State::Comment
                }
            }
        }
    }
}

/// Replaces `${NAME}` and `$$` in one word; a `$` before anything else stays.
#[must_use]
pub fn expand_word(word: &str, environment: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('{').and_then(|tail| tail.split_once('}')) {
            out.push_str(environment.get(name).map_or("", String::as_str));
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

impl ExecCommand {
    /// The words to execute: `$NAME` alone becomes as many words as the value has, `${NAME}` is replaced in place, `$$`
    /// is a `$`, an unset variable is empty. `argv[0]` is left alone.
    #[must_use]
    pub fn expand(&self, environment: &BTreeMap<String, String>) -> Vec<String> {
        if self.no_expansion {
            return self.argv.clone();
        }
        let mut words = Vec::with_capacity(self.argv.len());
        for (position, word) in self.argv.iter().enumerate() {
            match word.strip_prefix('$') {
                _ if position == 0 => words.push(word.clone()),
                Some(name) if is_name(name) => {
                    words.extend(environment.get(name).map(|value| split_relaxed(value)).unwrap_or_default());
                }
                _ => words.push(expand_word(word, environment)),
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_variable_alone_is_split_and_may_vanish() {
        let command = ExecCommand {
            argv: ["$ZERO", "$ARGS", "${ARGS}", "a${X}b", "$$X", "$NONE", "${NONE}", "x$X"].map(str::to_owned).to_vec(),
            ..ExecCommand::default()
        };
        let environment = environment(&[("ARGS", "one 'two three'"), ("X", "y")]);
        let expected = ["$ZERO", "one", "two three", "one 'two three'", "ayb", "$X", "", "x$X"];
        assert_eq!(command.expand(&environment), expected);
    }

    #[test]
    fn a_colon_leaves_dollars_alone() {
        let command = ExecCommand { argv: vec!["a".into(), "$X".into()], no_expansion: true, ..ExecCommand::default() };
        assert_eq!(command.expand(&environment(&[("X", "y")])), ["a", "$X"]);
    }

    #[test]
    fn environment_files_have_their_own_quotes() {
        let text = b"# c\n; d\nA=1\n  B = two words  \nC='x\ny'\nD=\"a\\\"b\\n\"\nE=a\\\nb\nF=\nnonsense\nG=\"x\"'y'\n1H=z\nI=p#q\n";
        let parsed = parse_environment_file(text);
        let pairs: Vec<(&str, &str)> = parsed.assignments.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let expected = [("A", "1"), ("B", "two words"), ("C", "x\ny"), ("D", "a\"b\\n"), ("E", "ab"), ("F", ""), ("G", "xy"), ("I", "p#q")];
        assert_eq!(pairs, expected);
        assert_eq!(parsed.bad_lines, [11, 13]);
    }
}
