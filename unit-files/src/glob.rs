//! The one matcher of shell patterns: `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before a character that is meant as itself. Bytes are compared, without
//! allocating: a sweep over all devices matches hundreds of thousands of times.

/// Whether `text` matches `pattern` as a whole. A star matches slashes too; callers that must not cross them match component by component.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go back to: behind the last star, and the text it has swallowed so far.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            (Some(b'?'), Some(_)) => Some(p + 1),
            (Some(b'['), Some(&byte)) => match class(pattern, p, byte) {
                Some((true, next)) => Some(next),
                Some((false, _)) => None,
                None => (byte == b'[').then_some(p + 1),
            },
            (Some(b'\\'), Some(byte)) => (pattern.get(p + 1) == Some(byte)).then_some(p + 2),
            (Some(a), Some(b)) => (a == b).then_some(p + 1),
            _ => None,
        };
        match (step, retry) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((back, swallowed))) if swallowed < text.len() => {
                p = back;
                t = swallowed + 1;
                retry = Some((back, swallowed + 1));
            }
            (None, _) => return false,
        }
    }
}

/// Whether a word has anything in it that makes it a pattern.
#[must_use]
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

/// Whether a byte is in the class that starts at `at`, and where the pattern goes on; `None` when the bracket is not closed.
fn class(pattern: &[u8], at: usize, byte: u8) -> Option<(bool, usize)> {
    let mut i = at + 1;
    let negated = matches!(pattern.get(i), Some(b'!' | b'^'));
    if negated {
        i += 1;
    }
    let first = i;
    let mut found = false;
    loop {
        let low = *pattern.get(i)?;
        if low == b']' && i > first {
            return Some((found != negated, i + 1));
        }
        match (pattern.get(i + 1), pattern.get(i + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                found |= (low..=high).contains(&byte);
                i += 3;
            }
            _ => {
                found |= low == byte;
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_modules_alias() {
        assert!(matches("virtio:d00000002v*", "virtio:d00000002v00001AF4"));
        assert!(!matches("virtio:d00000002v*", "virtio:d00000003v00001AF4"));
        assert!(matches("pci:v00008086d*sv*sd*bc0Csc03i30*", "pci:v00008086d000024CDsv00001AF4sd00001100bc0Csc03i30"));
        assert!(matches("usb:v0525d10[0-9A-F]*dc*", "usb:v0525d10A4dc00"));
        assert!(matches(
            "x86cpu:vendor:*:family:*:model:*:feature:*,0099,*",
            "x86cpu:vendor:0000:family:0006:model:000F:feature:,0000,0099,009A,"
        ));
    }

    #[test]
    fn classes_stars_and_odd_ends() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("[!a]x", "bx", true),
            ("[!a]x", "ax", false),
            ("[]]", "]", true),
            ("[ab", "[ab", true),
            ("a?c", "ac", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

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
