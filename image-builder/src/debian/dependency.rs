//! Relations between packages (Debian Policy 7): `a (>= 1) | b:any, c [amd64]`, parsed without copying.

use std::cmp::Ordering;
use std::fmt;

use super::version;

/// How a version must relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Less,
    /// `<=`, and the old `<`
    LessOrEqual,
    /// `=`
    Equal,
    /// `>=`, and the old `>`
    GreaterOrEqual,
    /// `>>`
    Greater,
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<<" => Self::Less,
            "<=" | "<" => Self::LessOrEqual,
            "=" => Self::Equal,
            ">=" | ">" => Self::GreaterOrEqual,
            ">>" => Self::Greater,
            _ => return None,
        })
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Greater => order.is_gt(),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Less => "<<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
            Self::GreaterOrEqual => ">=",
            Self::Greater => ">>",
        })
    }
}

/// One package name with what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Package name, real or virtual.
    pub name: &'a str,
    /// Architecture after the colon, for example `any`.
    pub qualifier: Option<&'a str>,
    /// Wanted version.
    pub version: Option<(Operator, &'a str)>,
}

impl Relation<'_> {
    /// Whether a version satisfies it.
    #[must_use]
    pub fn accepts(&self, candidate: &str) -> bool {
        self.version.is_none_or(|(operator, wanted)| operator.holds(version::compare(candidate, wanted)))
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some((operator, version)) = self.version {
            write!(f, " ({operator} {version})")?;
        }
        Ok(())
    }
}

/// Alternatives, of which one is enough.
pub type Clause<'a> = Vec<Relation<'a>>;

/// The clauses of a field, all of which must hold. Parts restricted to other architectures are left out; a part that
/// cannot be read is left out too, as its package then cannot match anything.
pub fn clauses<'a>(field: &'a str, architecture: &str) -> impl Iterator<Item = Clause<'a>> {
    field.split(',').filter_map(move |clause| {
        let alternatives: Clause<'a> = clause.split('|').filter_map(|part| relation(part, architecture)).collect();
        (!alternatives.is_empty()).then_some(alternatives)
    })
}

/// One relation; `None` when it does not apply to the architecture.
#[must_use]
pub fn relation<'a>(text: &'a str, architecture: &str) -> Option<Relation<'a>> {
    let text = text.trim();
    let name_end = text.find(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '<')).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(name_end)?;
    let (name, qualifier) = name.split_once(':').map_or((name, None), |(name, qualifier)| (name, Some(qualifier)));
    let version = match bracketed(rest, '(', ')') {
        Some(inner) => {
            let end = inner.find(|c: char| !matches!(c, '<' | '>' | '=')).unwrap_or(inner.len());
            let (operator, version) = inner.split_at_checked(end)?;
            Some((Operator::parse(operator)?, version.trim()))
        }
        None => None,
    };
    if let Some(list) = bracketed(rest, '[', ']') {
        let mut words = list.split_whitespace().peekable();
        let negated = words.peek().is_some_and(|word| word.starts_with('!'));
        let named =
            words.any(|word| matches!(word.trim_start_matches('!'), word if word == architecture || word == "any" || word == "linux-any"));
        if named == negated {
            return None;
        }
    }
    (!name.is_empty()).then_some(Relation { name, qualifier, version })
}

fn bracketed(text: &str, open: char, close: char) -> Option<&str> {
    let (_, inner) = text.split_once(open)?;
    inner.split_once(close).map(|(inner, _)| inner.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_alternatives_versions_and_architectures() {
        let field = "libc6 (>= 2.36), a:any|b (<<1~) , c [!amd64], d [i386 amd64], e(= 1:2-3)";
        let read: Vec<String> =
            clauses(field, "amd64").map(|clause| clause.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")).collect();
        assert_eq!(read, ["libc6 (>= 2.36)", "a:any | b (<< 1~)", "d", "e (= 1:2-3)"]);
    }

    #[test]
    fn versions_are_checked() {
        let wanted = relation("a (>= 2)", "amd64").unwrap();
        assert!(wanted.accepts("2-1") && !wanted.accepts("2~rc1"));
    }
}
