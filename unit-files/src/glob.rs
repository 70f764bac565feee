//! Shell patterns over unit names: `*`, `?`, `[a-z]`, `[!a]`.

/// Whether a text matches a pattern as a whole.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Where to go on when what follows the last `*` does not fit: one character further.
    let mut retry: Option<(&[char], &[char])> = None;
    let (mut p, mut t) = (pattern.as_slice(), text.as_slice());
    loop {
        let step = match (p.split_first(), t.split_first()) {
            (Some(('*', rest)), _) => {
                retry = Some((rest, t));
                Some((rest, t))
            }
            (None, None) => return true,
            (Some(('?', rest)), Some((_, tail))) => Some((rest, tail)),
            (Some(('[', rest)), Some((character, tail))) => match set(rest, *character) {
                Some((true, rest)) => Some((rest, tail)),
                Some((false, _)) => None,
                // No end: the bracket stands for itself.
                None => (*character == '[').then_some((rest, tail)),
            },
            (Some(('\\', [escaped, rest @ ..])), Some((character, tail))) => (escaped == character).then_some((rest, tail)),
            (Some((literal, rest)), Some((character, tail))) => (literal == character).then_some((rest, tail)),
            _ => None,
        };
        if let Some((next_p, next_t)) = step {
            (p, t) = (next_p, next_t);
            continue;
        }
        match retry {
            Some((after_star, [_, further @ ..])) => {
                retry = Some((after_star, further));
                (p, t) = (after_star, further);
            }
            _ => return false,
        }
    }
}

/// Whether a character is in the set that begins after `[`, and what follows the set.
fn set(pattern: &[char], character: char) -> Option<(bool, &[char])> {
    let (negate, mut rest) = match pattern {
        ['!' | '^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (mut inside, mut first) = (false, true);
    loop {
        match rest {
            [']', after @ ..] if !first => return Some((inside != negate, after)),
            [from, '-', to, after @ ..] if *to != ']' => {
                inside |= (*from..=*to).contains(&character);
                rest = after;
            }
            [one, after @ ..] => {
                inside |= *one == character;
                rest = after;
            }
            [] => return None,
        }
        first = false;
    }
}

/// Whether a text is a pattern rather than a name.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text) in
            [("*", ""), ("a*.service", "ab.service"), ("?[a-c]", "xb"), ("[!x]*y*", "ayy"), ("[]]", "]"), ("a[", "a["), ("*b*c", "abbc")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("?", ""), ("[a-c]", "d"), ("[!x]", "x"), ("*.socket", "a.service"), ("a\\*", "ab")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
