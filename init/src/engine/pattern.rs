//! Shell patterns over names: `*`, `?`, `[a-z]`, `[!x]`.

/// Whether the whole text matches.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // The last star seen, and the text position that it may still swallow.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match (pattern.get(p), text.get(t)) {
            (Some('*'), _) => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            (Some('?'), Some(_)) => Some(p + 1),
            (Some('['), Some(character)) => class(&pattern, p, *character),
            (Some('\\'), Some(character)) if pattern.get(p + 1) == Some(character) => Some(p + 2),
            (Some(a), Some(b)) if a == b => Some(p + 1),
            _ => None,
        };
        match (step, star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((at, from))) => {
                p = at + 1;
                t = from + 1;
                star = Some((at, from + 1));
            }
            (None, None) => return false,
        }
    }
    pattern.iter().skip(p).all(|character| *character == '*')
}

/// Where the pattern goes on when the class at `p` has the character.
fn class(pattern: &[char], p: usize, character: char) -> Option<usize> {
    let negate = matches!(pattern.get(p + 1), Some('!' | '^'));
    let start = if negate { p + 2 } else { p + 1 };
    let end = (start + 1..pattern.len()).find(|at| pattern.get(*at) == Some(&']'))?;
    let mut found = false;
    let mut at = start;
    while at < end {
        let low = *pattern.get(at)?;
        let high = if pattern.get(at + 1) == Some(&'-') && at + 2 < end { *pattern.get(at + 2)? } else { low };
        at += if high == low && pattern.get(at + 1) != Some(&'-') { 1 } else { 3 };
        found |= (low..=high).contains(&character);
    }
    (found != negate).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_a_shell() {
        let table = [
            ("*", "", true),
            ("docker*", "docker.service", true),
            ("*.service", "docker.service", true),
            ("*.socket", "docker.service", false),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("a*b*c", "aXbYbZc", true),
            ("a", "ab", false),
            ("[", "[", false),
            ("a\\*", "a*", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
