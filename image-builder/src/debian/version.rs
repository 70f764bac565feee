//! Debian version numbers and their order (deb-version(7)): epoch, upstream version, revision, where `~` sorts before
//! the end of a part and digits compare as numbers. Works on borrowed text, since an index has a hundred thousand.

use std::cmp::Ordering;

/// Compares two version numbers as dpkg does. Any text is accepted: what dpkg would refuse still has a stable order.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a_epoch, a) = split_epoch(a);
    let (b_epoch, b) = split_epoch(b);
    let (a_upstream, a_revision) = split_revision(a);
    let (b_upstream, b_revision) = split_revision(b);
    compare_part(a_epoch, b_epoch).then_with(|| compare_part(a_upstream, b_upstream)).then_with(|| compare_part(a_revision, b_revision))
}

fn split_epoch(version: &str) -> (&str, &str) {
    version.split_once(':').unwrap_or(("0", version))
}

fn split_revision(version: &str) -> (&str, &str) {
    // A missing revision equals a revision of "0", and the empty part compares equal to it.
    version.rsplit_once('-').unwrap_or((version, ""))
}

fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let (a_text, a_rest) = split_while(a, |byte| !byte.is_ascii_digit());
        let (b_text, b_rest) = split_while(b, |byte| !byte.is_ascii_digit());
        let (a_digits, a_rest) = split_while(a_rest, |byte| byte.is_ascii_digit());
        let (b_digits, b_rest) = split_while(b_rest, |byte| byte.is_ascii_digit());
        let order = compare_text(a_text, b_text).then_with(|| compare_digits(a_digits, b_digits));
        if order.is_ne() {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
    Ordering::Equal
}

fn split_while(text: &[u8], keep: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| !keep(byte)).unwrap_or(text.len()))
}

/// Letters before everything else, `~` before even the end.
fn compare_text(a: &[u8], b: &[u8]) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    (0..a.len().max(b.len())).map(|at| weight(a.get(at)).cmp(&weight(b.get(at)))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn compare_digits(a: &[u8], b: &[u8]) -> Ordering {
    let (_, a) = split_while(a, |&byte| byte == b'0');
    let (_, b) = split_while(b, |&byte| byte == b'0');
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn orders_as_the_manual_says() {
        let ascending =
            ["1.0~~", "1.0~~a", "1.0~", "1.0-0~b", "1.0", "1.0-1", "1.0-1+b1", "1.0a", "1.0+dfsg", "1.0.1", "1.00.2", "1.10", "1:0.1"];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        for (a, b) in [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("01", "1"), ("1.0-", "1.0")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    fn dpkg(a: &str, b: &str) -> Option<Ordering> {
        let holds = |operator| Some(Command::new("dpkg").args(["--compare-versions", a, operator, b]).status().ok()?.success());
        Some(match (holds("lt")?, holds("gt")?) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Greater,
            _ => Ordering::Equal,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn agrees_with_dpkg(a in "([0-2]:)?[0-9][0-9a-c.+~]{0,5}(-[0-9a-b.+~]{1,4})?", b in "([0-2]:)?[0-9][0-9a-c.+~]{0,5}(-[0-9a-b.+~]{1,4})?") {
            if let Some(expected) = dpkg(&a, &b) {
                prop_assert_eq!(compare(&a, &b), expected, "{} against {}", a, b);
            }
        }
    }
}
