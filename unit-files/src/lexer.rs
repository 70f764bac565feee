//! The line syntax of unit files: sections, assignments, comments and continued lines.
//!
//! Promises that any bytes give a result, and that a line which cannot be used becomes a [`Problem`] with its number.

use thiserror::Error;

/// Longest logical line, in bytes.
pub const MAX_LINE: usize = 1024 * 1024;

/// One `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The section it stands in.
    pub section: String,
    /// The key.
    pub key: String,
    /// The value, blanks at its ends dropped, continued lines joined.
    pub value: String,
    /// Line where it begins, from 1.
    pub line: u32,
}

/// Why a line was passed over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProblemKind {
    /// Bytes that are no text.
    #[error("the line is not UTF-8, so it is ignored")]
    NotUtf8,
    /// No `=`.
    #[error("the line has no '=', so it is ignored")]
    NoEquals,
    /// An assignment before the first section.
    #[error("{0}= stands before the first [Section], so it is ignored")]
    OutsideSection(String),
    /// `[Section` without its end.
    #[error("the section header {0:?} does not end with ']', so it and what follows is ignored")]
    BadSection(String),
    /// Nothing before `=`.
    #[error("nothing stands before '=', so the line is ignored")]
    NoKey,
    /// Longer than [`MAX_LINE`].
    #[error("the line is longer than {MAX_LINE} bytes, so it is ignored")]
    TooLong,
}

/// A line that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: u32,
    /// Why.
    pub kind: ProblemKind,
    /// The section it stands in, empty before the first.
    pub section: String,
    /// The key, as far as it can be read.
    pub key: String,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedFile {
    /// Assignments in order.
    pub assignments: Vec<Assignment>,
    /// Names of the sections, in order of appearance, without repetition.
    pub sections: Vec<String>,
    /// Lines that were passed over.
    pub problems: Vec<Problem>,
}

/// Physical lines: `\n`, `\r` and NUL end one, and a run of different enders counts once.
fn physical_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r' | 0)).unwrap_or(rest.len());
        let (line, mut tail) = rest.split_at(end);
        let mut seen = [false; 3];
        while let Some((&byte, after)) = tail.split_first() {
            let slot = match byte {
                b'\n' => seen.first_mut(),
                b'\r' => seen.get_mut(1),
                0 => seen.get_mut(2),
                _ => None,
            };
            match slot {
                Some(used) if !*used => *used = true,
                _ => break,
            }
            tail = after;
        }
        rest = tail;
        Some(line)
    })
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim_start(mut line: &[u8]) -> &[u8] {
    while let Some((&byte, rest)) = line.split_first()
        && is_blank(byte)
    {
        line = rest;
    }
    line
}

/// Whether an odd number of backslashes ends the line.
fn continues(line: &[u8]) -> bool {
    line.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// Parses a whole file.
#[must_use]
pub fn parse(bytes: &[u8]) -> ParsedFile {
    let mut parser = Parser::default();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut pending: Option<(u32, Vec<u8>)> = None;
    let mut number = 0_u32;
    for physical in physical_lines(bytes) {
        // A run of two different line enders is one line; counting then follows what editors show for CR LF.
        number = number.saturating_add(1);
        let line = trim_start(physical);
        if matches!(line.first(), Some(b'#' | b';')) {
            continue;
        }
        let (start, mut joined) = match pending.take() {
            Some((start, joined)) => (start, joined),
            None if line.is_empty() => continue,
            None => (number, Vec::new()),
        };
        if joined.len().saturating_add(line.len()) <= MAX_LINE.saturating_add(1) {
            joined.extend_from_slice(line);
        } else {
            // Kept one byte over the limit, so that the whole logical line is reported once.
            joined.resize(MAX_LINE + 2, b' ');
        }
        if continues(line) {
            if let Some(last) = joined.last_mut() {
                *last = b' ';
            }
            pending = Some((start, joined));
        } else {
            parser.logical_line(start, &joined);
        }
    }
    if let Some((start, joined)) = pending {
        parser.logical_line(start, &joined);
    }
    parser.file
}

#[derive(Default)]
struct Parser {
    file: ParsedFile,
    section: Option<String>,
    skipping: bool,
}

impl Parser {
    fn problem(&mut self, line: u32, key: &str, kind: ProblemKind) {
        let section = self.section.clone().unwrap_or_default();
        self.file.problems.push(Problem { line, kind, section, key: key.trim().to_owned() });
    }

    fn logical_line(&mut self, number: u32, bytes: &[u8]) {
        let key_bytes = bytes.split(|&byte| byte == b'=').next().unwrap_or_default();
        let lossy_key = || String::from_utf8_lossy(key_bytes.get(..256).unwrap_or(key_bytes)).into_owned();
        if bytes.len() > MAX_LINE {
            return self.problem(number, &lossy_key(), ProblemKind::TooLong);
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return self.problem(number, &lossy_key(), ProblemKind::NotUtf8);
        };
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            return;
        }
        if let Some(header) = text.strip_prefix('[') {
            let Some(name) = header.strip_suffix(']') else {
                self.skipping = true;
                return self.problem(number, "", ProblemKind::BadSection(text.to_owned()));
            };
            self.skipping = false;
            if !self.file.sections.iter().any(|known| known == name) {
                self.file.sections.push(name.to_owned());
            }
            self.section = Some(name.to_owned());
            return;
        }
        if self.skipping {
            return;
        }
        let Some((key, value)) = text.split_once('=') else {
            return self.problem(number, text, ProblemKind::NoEquals);
        };
        let key = key.trim_end_matches([' ', '\t']);
        if key.is_empty() {
            return self.problem(number, "", ProblemKind::NoKey);
        }
        let Some(section) = self.section.clone() else {
            return self.problem(number, key, ProblemKind::OutsideSection(key.to_owned()));
        };
        let value = value.trim_matches([' ', '\t']).to_owned();
        self.file.assignments.push(Assignment { section, key: key.to_owned(), value, line: number });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).assignments.into_iter().map(|a| (a.key, a.value)).collect()
    }

    #[test]
    fn continued_lines_join_with_one_space_and_skip_comments() {
        let text = "[Service]\nExecStart=/bin/a \\\n# comment\n  ; another\n  b \\\n  c\nType=oneshot\n";
        assert_eq!(pairs(text), [("ExecStart".into(), "/bin/a  b  c".into()), ("Type".into(), "oneshot".into())]);
    }

    #[test]
    fn an_even_number_of_backslashes_continues_nothing() {
        assert_eq!(pairs("[S]\nA=x\\\\\nB=y"), [("A".into(), "x\\\\".into()), ("B".into(), "y".into())]);
    }

    #[test]
    fn carriage_returns_end_lines_once_and_keep_the_numbers() {
        let file = parse(b"[S]\r\nA=x \\\r\n y\r\nB=z\r\n");
        assert_eq!(file.assignments.iter().map(|a| (a.value.as_str(), a.line)).collect::<Vec<_>>(), [("x  y", 2), ("z", 4)]);
    }

    #[test]
    fn what_cannot_be_used_is_reported_with_its_line() {
        let file = parse(b"A=1\n[S]\nnonsense\nB=\xff\n=x\n[T\nC=2\n[U]\nD=3");
        let lines: Vec<u32> = file.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [1, 3, 4, 5, 6]);
        assert_eq!(file.assignments.len(), 1, "{:?}", file.assignments);
        assert_eq!(file.problems.get(2).map(|problem| problem.key.as_str()), Some("B"));
    }

    #[test]
    fn a_line_over_the_limit_is_one_problem() {
        let mut text = b"[S]\nA=".to_vec();
        text.resize(MAX_LINE + 100, b'x');
        text.extend_from_slice(b"\\\nmore\nB=1\n");
        let file = parse(&text);
        assert_eq!(file.problems.iter().map(|p| p.kind.clone()).collect::<Vec<_>>(), [ProblemKind::TooLong]);
        assert_eq!(file.assignments.len(), 1);
    }
}
