//! Debian's control syntax: paragraphs of `Name: value` fields, continued on lines that begin with a space. Everything
//! borrows from the text, because a package index is 50 MB of it.

/// The paragraphs of a text, in order, without the empty lines between them.
pub fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let end = find(rest.as_bytes(), b"\n\n").map_or(rest.len(), |at| at + 1);
        let (paragraph, after) = rest.split_at_checked(end)?;
        rest = after;
        Some(paragraph)
    })
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, pattern)
}

/// The fields of one paragraph: name, and value with its continuation lines (leading spaces and line ends kept inside).
/// Comment lines are skipped; a line that is neither field nor continuation is skipped too.
pub fn fields(paragraph: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = paragraph;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let mut end = line_end(rest, 0);
            while rest.as_bytes().get(end).is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
                end = line_end(rest, end);
            }
            let (field, after) = rest.split_at_checked(end)?;
            rest = after;
            if field.starts_with('#') {
                continue;
            }
            if let Some((name, value)) = field.split_once(':') {
                return Some((name, value.trim()));
            }
        }
        None
    })
}

/// The value of one field; names are compared without regard to case.
#[must_use]
pub fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    fields(paragraph).find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn line_end(text: &str, from: usize) -> usize {
    let rest = text.as_bytes().get(from..).unwrap_or_default();
    memchr::memchr(b'\n', rest).map_or(text.len(), |at| from + at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_paragraphs_and_fields() {
        let text = "\n# note\nA: 1\nB: x\n y\n\tz\n\n\nA: 2\nnonsense\nC:\n";
        let all: Vec<Vec<(&str, &str)>> = paragraphs(text).map(|paragraph| fields(paragraph).collect()).collect();
        assert_eq!(all, [vec![("A", "1"), ("B", "x\n y\n\tz")], vec![("A", "2"), ("C", "")]]);
        assert_eq!(field("Foo: bar\n", "foo"), Some("bar"));
    }
}
