//! Splitting values into words: quotes and C escapes.
//!
//! The rules are those of systemd's `extract_first_word`: blanks separate, quotes may begin anywhere in a word, and
//! escapes count inside and outside of them.

use thiserror::Error;

/// Why a text cannot be split.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WordError {
    /// A quote without its end.
    #[error("a quote is not closed")]
    OpenQuote,
    /// `\` at the end of the text.
    #[error("the text ends in the middle of an escape")]
    OpenEscape,
    /// Escapes that make bytes which are no text, or a NUL.
    #[error("an escape makes a text that is not UTF-8 or has a NUL byte")]
    NotText,
}

/// What a backslash does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escapes {
    /// C escapes; an unknown one stays as it is.
    C,
    /// Nothing: for unit names and paths that hold `\x2d`.
    Keep,
}

/// What is unusual in a text that was split all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// There was an escape that means nothing; it was kept.
    pub unknown_escape: bool,
}

/// Blanks, as systemd counts them.
pub(crate) const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// Takes words off the front of a text.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    rest: &'a str,
    escapes: Escapes,
    /// Filled while words are taken.
    pub oddities: Oddities,
}

impl<'a> Words<'a> {
    /// Over a text.
    #[must_use]
    pub fn new(text: &'a str, escapes: Escapes) -> Self {
        Self { rest: text.trim_start_matches(BLANKS), escapes, oddities: Oddities::default() }
    }

    /// What was not taken yet, without leading blanks.
    #[must_use]
    pub fn rest(&self) -> &'a str {
        self.rest
    }

    /// Passes over a literal token that stands alone (`;`); says whether it was there.
    pub fn skip_token(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(after) if after.is_empty() || after.starts_with(BLANKS) => {
                self.rest = after.trim_start_matches(BLANKS);
                true
            }
            _ => false,
        }
    }

    /// The next word; `None` at the end.
    ///
    /// # Errors
    /// When the rest cannot be split; nothing more can be taken then.
    pub fn next_word(&mut self) -> Result<Option<String>, WordError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut out = Vec::new();
        let mut quote: Option<char> = None;
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((position, character)) = chars.next() {
            match (quote, character) {
                (Some(open), _) if character == open => quote = None,
                (None, '\'' | '"') => quote = Some(character),
                (None, character) if BLANKS.contains(&character) => {
                    end = position;
                    break;
                }
                (_, '\\') if self.escapes == Escapes::C => {
                    let after = self.rest.get(position + 1..).unwrap_or_default();
                    let Some(next) = after.chars().next() else { return Err(WordError::OpenEscape) };
                    let taken = match unescape_one(after)? {
                        Some((bytes, taken)) => {
                            out.extend_from_slice(&bytes);
                            taken
                        }
                        None => {
                            self.oddities.unknown_escape = true;
                            out.push(b'\\');
                            out.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
                            next.len_utf8()
                        }
                    };
                    chars = self.rest.get(position + 1 + taken..).unwrap_or_default().char_indices();
                    self.rest = self.rest.get(position + 1 + taken..).unwrap_or_default();
                    end = self.rest.len();
                }
                (_, character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if quote.is_some() {
            self.rest = "";
            return Err(WordError::OpenQuote);
        }
        self.rest = self.rest.get(end..).unwrap_or_default().trim_start_matches(BLANKS);
        String::from_utf8(out).map(Some).map_err(|_| WordError::NotText)
    }
}

/// One escape after its backslash: the bytes it means and how many bytes of text it takes; `None` when it means nothing.
fn unescape_one(text: &str) -> Result<Option<(Vec<u8>, usize)>, WordError> {
    let Some(first) = text.bytes().next() else { return Err(WordError::OpenEscape) };
    let simple = match first {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b's' => b' ',
        b'\\' | b'"' | b'\'' => first,
        b'x' => return number(text, 1, 2, 16, false),
        b'u' => return number(text, 1, 4, 16, true),
        b'U' => return number(text, 1, 8, 16, true),
        b'0'..=b'7' => return number(text, 0, 3, 8, false),
        _ => return Ok(None),
    };
    Ok(Some((vec![simple], 1)))
}

fn number(text: &str, skip: usize, digits: usize, radix: u32, unicode: bool) -> Result<Option<(Vec<u8>, usize)>, WordError> {
    let Some(field) = text.get(skip..skip + digits).filter(|field| field.bytes().all(|byte| byte.is_ascii_alphanumeric())) else {
        return Ok(None);
    };
    let Ok(value) = u32::from_str_radix(field, radix) else { return Ok(None) };
    let bytes = match (value, unicode) {
        (0, _) => return Err(WordError::NotText),
        (value, true) => char::from_u32(value).map(|character| character.to_string().into_bytes()),
        (value, false) => u8::try_from(value).ok().map(|byte| vec![byte]),
    };
    Ok(bytes.map(|bytes| (bytes, skip + digits)))
}

/// All words of a text.
///
/// # Errors
/// When it cannot be split.
pub fn split(text: &str, escapes: Escapes) -> Result<Vec<String>, WordError> {
    let mut words = Words::new(text, escapes);
    let mut all = Vec::new();
    while let Some(word) = words.next_word()? {
        all.push(word);
    }
    Ok(all)
}

/// All words of a text whose quotes may be wrong: an open quote ends with the text. For values of variables.
#[must_use]
pub fn split_relaxed(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, '\\') => word.get_or_insert_default().push(chars.next().unwrap_or('\\')),
            (None, character) if BLANKS.contains(&character) => all.extend(word.take()),
            (_, character) => word.get_or_insert_default().push(character),
        }
    }
    all.extend(word);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(text: &str) -> Vec<String> {
        split(text, Escapes::C).unwrap()
    }

    #[test]
    fn quotes_wrap_words_wherever_they_begin() {
        assert_eq!(c(r#"a 'b c' "d e"f g"h i""#), ["a", "b c", "d ef", "gh i"]);
        assert_eq!(c(r#" '' "" "#), ["", ""]);
    }

    #[test]
    fn escapes_are_those_of_c() {
        assert_eq!(c(r#"a\tb \x41\102\u00e9 "x\"y" \s \\"#), ["a\tb", "AB\u{e9}", "x\"y", " ", "\\"]);
        assert_eq!(c(r"\d+ \xzz"), [r"\d+", r"\xzz"], "unknown escapes stay");
    }

    #[test]
    fn unit_names_keep_their_backslashes() {
        assert_eq!(split(r"dev-a\x2db.device x", Escapes::Keep).unwrap(), [r"dev-a\x2db.device", "x"]);
    }

    #[test]
    fn what_is_open_or_no_text_is_an_error() {
        assert_eq!(split("a 'b", Escapes::C), Err(WordError::OpenQuote));
        assert_eq!(split("a\\", Escapes::C), Err(WordError::OpenEscape));
        assert_eq!(split(r"\x00", Escapes::C), Err(WordError::NotText));
        assert_eq!(split(r"\xff", Escapes::C), Err(WordError::NotText));
    }

    #[test]
    fn values_of_variables_split_whatever_they_hold() {
        assert_eq!(split_relaxed(r#" -a "b c" 'd"#), ["-a", "b c", "d"]);
        assert!(split_relaxed("  ").is_empty());
    }
}
