//! The kernel command line: words split as the kernel splits them, the last of a name wins.

/// A parsed command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    words: Vec<(String, Option<String>)>,
}

impl CommandLine {
    /// Splits at white space outside double quotes; quotes themselves vanish.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut quoted = false;
        for c in text.chars().chain(std::iter::once(' ')) {
            match c {
                '"' => quoted = !quoted,
                c if c.is_ascii_whitespace() && !quoted => {
                    if !word.is_empty() {
                        words.push(split(&word));
                        word.clear();
                    }
                }
                c => word.push(c),
            }
        }
        if !word.trim().is_empty() {
            words.push(split(word.trim_end()));
        }
        Self { words }
    }

    /// The running kernel's.
    #[must_use]
    pub fn of_kernel() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    /// The last value given for a name; `-` and `_` in names are the same, as for module parameters.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.words.iter().rev().find(|(word, value)| same_name(word, name) && value.is_some()).and_then(|(_, value)| value.as_deref())
    }

    /// Every value given for a name, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.words.iter().filter(move |(word, _)| same_name(word, name)).filter_map(|(_, value)| value.as_deref())
    }

    /// Whether a word is there as a flag: alone, or with a value that means yes.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.words
            .iter()
            .rev()
            .find(|(word, _)| same_name(word, name))
            .is_some_and(|(_, value)| value.as_deref().is_none_or(|value| matches!(value, "1" | "yes" | "true" | "on")))
    }

    /// All words in order, as name and value.
    pub fn words(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.words.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}

fn split(word: &str) -> (String, Option<String>) {
    match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    }
}

fn same_name(a: &str, b: &str) -> bool {
    let fold = |c: char| if c == '-' { '_' } else { c };
    a.chars().map(fold).eq(b.chars().map(fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_spaces_and_the_last_wins() {
        let line = CommandLine::parse("a=1 b \"c=x y\" d=\"p q\"  a=2\n");
        assert_eq!(line.value("a"), Some("2"));
        assert_eq!(line.values("a").collect::<Vec<_>>(), ["1", "2"]);
        assert!(line.flag("b") && !line.flag("missing"));
        assert_eq!(line.value("c"), Some("x y"));
        assert_eq!(line.value("d"), Some("p q"));
    }

    #[test]
    fn an_unclosed_quote_runs_to_the_end() {
        assert_eq!(CommandLine::parse("x=\"1 2").value("x"), Some("1 2"));
    }

    #[test]
    fn dashes_and_underscores_are_the_same_and_flags_can_be_off() {
        let line = CommandLine::parse("my-flag quiet=no");
        assert!(line.flag("my_flag"));
        assert!(!line.flag("quiet"));
    }
}
