//! Shell patterns: `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before a character that is meant as itself.

/// Whether the whole of `text` matches `pattern`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    matches_slices(&pattern, &text)
}

/// Whether a word has anything in it that makes it a pattern.
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

/// Backtracks only to the last `*`, so the time is bounded by the product of the lengths.
fn matches_slices(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (pattern, text);
    let mut retry: Option<(&[char], &[char])> = None;
    loop {
        if let ['*', rest @ ..] = p {
            retry = Some((rest, t));
            p = rest;
            continue;
        }
        match (t.split_first(), one(p, t.first().copied())) {
            (None, _) if p.is_empty() => return true,
            (Some((_, rest)), Some(after)) => (p, t) = (after, rest),
            _ => match retry {
                Some((star, from)) if !from.is_empty() => {
                    let next = from.get(1..).unwrap_or_default();
                    retry = Some((star, next));
                    (p, t) = (star, next);
                }
                _ => return false,
            },
        }
    }
}

/// What is left of the pattern after it matched one character.
fn one(pattern: &[char], c: Option<char>) -> Option<&[char]> {
    let c = c?;
    match pattern {
        ['?', rest @ ..] => Some(rest),
        ['\\', literal, rest @ ..] => (*literal == c).then_some(rest),
        ['[', rest @ ..] => match class(rest, c) {
            Some((true, rest)) => Some(rest),
            Some((false, _)) => None,
            None => (c == '[').then_some(rest),
        },
        [literal, rest @ ..] => (*literal == c).then_some(rest),
        [] => None,
    }
}

/// Whether `c` is in the class that begins after `[`, and what follows its `]`; `None` when it is not closed.
fn class(pattern: &[char], c: char) -> Option<(bool, &[char])> {
    let (negated, mut rest) = match pattern {
        ['!' | '^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    let mut first = true;
    loop {
        rest = match rest {
            [']', after @ ..] if !first => return Some((found != negated, after)),
            [low, '-', high, after @ ..] if *high != ']' => {
                found |= (*low..=*high).contains(&c);
                after
            }
            [one, after @ ..] => {
                found |= *one == c;
                after
            }
            [] => return None,
        };
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("en*", "ens3", true),
            ("en*", "eth0", false),
            ("*", "", true),
            ("*.service", "docker.service", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-", false),
            ("eth[0-3]", "eth2", true),
            ("eth[!0-3]", "eth2", false),
            ("eth[0", "eth[0", true),
            ("[]x]", "]", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("?", "", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        assert!(!matches(&"a*".repeat(200), &"a".repeat(2000).replace('a', "b")));
        assert!(!matches(&format!("{}c", "*a".repeat(100)), &"a".repeat(5000)));
    }
}
