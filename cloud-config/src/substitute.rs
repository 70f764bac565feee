//! `$private_ipv4` and its three relatives, replaced in the raw text as CoreOS did, so that they reach scripts and file
//! bodies; `\$private_ipv4` stays, without its backslash.
//!
//! What has no value is not replaced by nothing, which once broke many etcd URLs in silence: it is marked, and the reader leaves out
//! the item that holds the mark, with the line.

/// Stands before the name of a token that has no value. Private use characters: valid YAML, in nobody's text.
const MARK_BEGIN: char = '\u{E0F1}';
/// Stands after it.
const MARK_END: char = '\u{E0F2}';

const NAMES: [&str; 4] = ["public_ipv4", "private_ipv4", "public_ipv6", "private_ipv6"];

/// The addresses of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// `$public_ipv4`.
    pub public_ipv4: Option<String>,
    /// `$private_ipv4`.
    pub private_ipv4: Option<String>,
    /// `$public_ipv6`.
    pub public_ipv6: Option<String>,
    /// `$private_ipv6`.
    pub private_ipv6: Option<String>,
}

impl Addresses {
    /// Stand-ins from the documentation ranges, for checking a cloud-config away from its host.
    pub fn examples() -> Addresses {
        let some = |s: &str| Some(s.to_owned());
        Addresses {
            public_ipv4: some("192.0.2.1"),
            private_ipv4: some("192.0.2.2"),
            public_ipv6: some("2001:db8::1"),
            private_ipv6: some("2001:db8::2"),
        }
    }

    /// Reads `COREOS_PRIVATE_IPV4=...` lines, as `/run/garboard/environment` has them.
    pub fn from_environment(text: &str) -> Addresses {
        let find = |name: &str| {
            let value = text.lines().rev().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix('='))?;
            Some(value.trim().trim_matches(['"', '\'']).to_owned()).filter(|v| !v.is_empty())
        };
        Addresses {
            public_ipv4: find("COREOS_PUBLIC_IPV4"),
            private_ipv4: find("COREOS_PRIVATE_IPV4"),
            public_ipv6: find("COREOS_PUBLIC_IPV6"),
            private_ipv6: find("COREOS_PRIVATE_IPV6"),
        }
    }

    /// These, and where one is missing the other's.
    pub fn or(self, other: Addresses) -> Addresses {
        Addresses {
            public_ipv4: self.public_ipv4.or(other.public_ipv4),
            private_ipv4: self.private_ipv4.or(other.private_ipv4),
            public_ipv6: self.public_ipv6.or(other.public_ipv6),
            private_ipv6: self.private_ipv6.or(other.private_ipv6),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        match name {
            "public_ipv4" => self.public_ipv4.as_deref(),
            "private_ipv4" => self.private_ipv4.as_deref(),
            "public_ipv6" => self.public_ipv6.as_deref(),
            "private_ipv6" => self.private_ipv6.as_deref(),
            _ => None,
        }
    }
}

/// Replaces every token of a text.
pub fn substitute(text: &str, addresses: &Addresses) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        let Some(name) = token(from) else {
            out.push_str(before);
            out.push('$');
            rest = from.get(1..).unwrap_or_default();
            continue;
        };
        rest = from.get(name.len() + 1..).unwrap_or_default();
        if let Some(unescaped) = before.strip_suffix('\\') {
            out.push_str(unescaped);
            out.push('$');
            out.push_str(name);
            continue;
        }
        out.push_str(before);
        match addresses.get(name) {
            Some(value) => out.push_str(value),
            None => out.extend([MARK_BEGIN].into_iter().chain(name.chars()).chain([MARK_END])),
        }
    }
    out.push_str(rest);
    out
}

/// Whether a text has a token that these addresses cannot fill.
pub fn lacks(text: &str, addresses: &Addresses) -> bool {
    unresolved(&substitute(text, addresses)).is_some()
}

/// The first token without a value in a substituted text: its name, and how many lines come before it.
pub fn unresolved(text: &str) -> Option<(&str, usize)> {
    let (before, after) = text.split_once(MARK_BEGIN)?;
    let (name, _) = after.split_once(MARK_END)?;
    Some((name, before.matches('\n').count()))
}

/// The name at the start of `$name...`, unless a longer word goes on.
fn token(from: &str) -> Option<&'static str> {
    let after = from.strip_prefix('$')?;
    NAMES
        .into_iter()
        .find(|name| after.strip_prefix(name).is_some_and(|tail| !tail.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_wherever_they_stand() {
        let addresses = Addresses { private_ipv4: Some("10.0.0.1".into()), ..Addresses::default() };
        for (text, expected) in [
            ("a: http://$private_ipv4:2380", "a: http://10.0.0.1:2380"),
            ("$private_ipv4$private_ipv4", "10.0.0.110.0.0.1"),
            ("\\$private_ipv4", "$private_ipv4"),
            ("$private_ipv4x $HOME $ é$", "$private_ipv4x $HOME $ é$"),
        ] {
            assert_eq!(substitute(text, &addresses), expected);
        }
    }

    #[test]
    fn a_token_without_a_value_is_found_with_its_line() {
        let text = substitute("a\nb $public_ipv4 c", &Addresses::default());
        assert_eq!(unresolved(&text), Some(("public_ipv4", 1)));
        assert!(!lacks("\\$public_ipv4", &Addresses::default()));
    }

    #[test]
    fn the_environment_file_is_read_with_its_last_value() {
        let text = "COREOS_PRIVATE_IPV4=\nCOREOS_PUBLIC_IPV4=1.2.3.4\nCOREOS_PUBLIC_IPV4=\"5.6.7.8\"\n";
        let addresses = Addresses::from_environment(text);
        assert_eq!((addresses.public_ipv4.as_deref(), addresses.private_ipv4), (Some("5.6.7.8"), None));
    }
}
