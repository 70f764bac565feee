//! From events to nodes: anchors, merge keys, duplicate keys and the limits.

use super::{Entry, Node, Value, resolve};
use crate::diagnostics::{Diagnostics, Place};
use base64::Engine as _;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use std::collections::BTreeMap;

/// Deeper is nobody's cloud-config.
const MAX_DEPTH: usize = 64;
/// More nodes, counted after aliases are followed, are an attack or an accident.
const MAX_NODES: usize = 200_000;

/// Why a text is not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// It is not YAML.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// Lists and maps inside each other.
    #[error("lists and maps nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Aliases that multiply, or simply too much.
    #[error("more than {MAX_NODES} values, counting what aliases repeat")]
    TooMany,
    /// `*x` inside what `&x` names.
    #[error("an alias refers to something that contains it")]
    Recursive,
    /// `? [a, b] : c`.
    #[error("a key must be a string, not {0}")]
    ComplexKey(&'static str),
    /// `<<: 3`.
    #[error("`<<` wants a map or a list of maps, not {0}")]
    BadMerge(&'static str),
}

/// Loads the first document of a text.
///
/// # Errors
/// The place and the reason when it is no YAML or passes a limit.
pub fn load(text: &str, part: u16, diagnostics: &mut Diagnostics) -> Result<Node, (Place, YamlError)> {
    let mut loader = Loader { part, diagnostics, stack: Vec::new(), anchors: BTreeMap::new(), nodes: 0, root: None };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let line = u32::try_from(e.marker().line()).unwrap_or(u32::MAX);
            (Place { part, line }, YamlError::Syntax(e.info().to_owned()))
        })?;
        let place = loader.place(&span);
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents > 1 {
                loader.diagnostics.warning(place, "a second YAML document begins here; only the first one is used");
                break;
            }
        }
        loader.event(event, place).map_err(|e| (place, e))?;
    }
    Ok(loader.root.unwrap_or_else(Node::empty_map))
}

struct Open {
    place: Place,
    anchor: usize,
    size: usize,
    kind: Kind,
}

enum Kind {
    Seq(Vec<Node>),
    Map { entries: Vec<Entry>, merges: Vec<Node>, key: Option<(String, Place, bool)> },
}

struct Loader<'d> {
    part: u16,
    diagnostics: &'d mut Diagnostics,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

impl Loader<'_> {
    fn place(&self, span: &Span) -> Place {
        Place { part: self.part, line: u32::try_from(span.start.line()).unwrap_or(u32::MAX) }
    }

    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), place);
                self.complete(node, 1, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(place, anchor, Kind::Seq(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(place, anchor, Kind::Map { entries: Vec::new(), merges: Vec::new(), key: None }),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => {
                let (node, size) = self.anchors.get(&id).ok_or(YamlError::Recursive)?;
                let size = *size;
                // Counted before it is copied: a small text must not become a large tree.
                if self.nodes.saturating_add(size) > MAX_NODES {
                    return Err(YamlError::TooMany);
                }
                let node = Node { place, ..node.clone() };
                self.complete(node, size, 0)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, place: Place, anchor: usize, kind: Kind) -> Result<(), YamlError> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(YamlError::TooDeep);
        }
        self.stack.push(Open { place, anchor, size: 1, kind });
        Ok(())
    }

    fn close(&mut self) -> Result<(), YamlError> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.kind {
            Kind::Seq(items) => Value::Seq(items),
            Kind::Map { mut entries, merges, .. } => {
                for merge in merges {
                    merge_into(&mut entries, merge)?;
                }
                Value::Map(entries)
            }
        };
        self.nodes = self.nodes.saturating_sub(open.size - 1);
        self.complete(Node { place: open.place, value, text: String::new() }, open.size, open.anchor)
    }

    /// Hands a finished node to what contains it.
    fn complete(&mut self, node: Node, size: usize, anchor: usize) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(size);
        if self.nodes > MAX_NODES {
            return Err(YamlError::TooMany);
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.size = open.size.saturating_add(size);
        match &mut open.kind {
            Kind::Seq(items) => items.push(node),
            Kind::Map { entries, merges, key } => match key.take() {
                None => {
                    let plain_merge = node.text == "<<";
                    *key = Some((key_text(&node)?, node.place, plain_merge));
                }
                Some((_, _, true)) => merges.push(node),
                Some((name, place, false)) => match entries.iter_mut().find(|e| e.key == name) {
                    Some(entry) => {
                        let earlier = entry.place.line;
                        self.diagnostics.warning(place, format!("`{name}` is here again (first on line {earlier}); this one counts"));
                        *entry = Entry { key: name, place, node };
                    }
                    None => entries.push(Entry { key: name, place, node }),
                },
            },
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Node {
        let core = tag.filter(|t| t.handle == "tag:yaml.org,2002:" || t.handle == "!!").map(|t| t.suffix.as_str());
        let (value, keep) = match (core, tag) {
            (Some("binary"), _) => (self.binary(text, place), false),
            (Some("str"), _) => (Value::Str(text.to_owned()), false),
            (Some("int"), _) => (resolve::integer(text).map_or_else(|| Value::Str(text.to_owned()), Value::Int), true),
            (Some("float"), _) => {
                let float = resolve::float(text).or_else(|| text.parse().ok());
                (float.map_or_else(|| Value::Str(text.to_owned()), Value::Float), true)
            }
            (Some(_), _) | (None, None) if style == ScalarStyle::Plain => (resolve::plain(text), true),
            (None, Some(tag)) => {
                self.diagnostics.warning(place, format!("the tag `{}{}` is not known; read as a string", tag.handle, tag.suffix));
                (Value::Str(text.to_owned()), false)
            }
            _ => (Value::Str(text.to_owned()), false),
        };
        Node { place, value, text: if keep { text.to_owned() } else { String::new() } }
    }

    fn binary(&mut self, text: &str, place: Place) -> Value {
        match decode_base64(text.as_bytes()) {
            Some(bytes) => Value::Binary(bytes),
            None => {
                self.diagnostics.error(place, "`!!binary` is not valid base64; read as a string");
                Value::Str(text.to_owned())
            }
        }
    }
}

/// Base64 with white space and with or without padding, as Python's decoder forgives it.
pub(crate) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let packed: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    engine.decode(packed).ok()
}

fn key_text(node: &Node) -> Result<String, YamlError> {
    match &node.value {
        Value::Str(s) => Ok(s.clone()),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => Ok(node.text.clone()),
        other => Err(YamlError::ComplexKey(other.type_name())),
    }
}

/// What is written wins over what is merged in, and the first of several merged maps over the next.
fn merge_into(entries: &mut Vec<Entry>, merge: Node) -> Result<(), YamlError> {
    match merge.value {
        Value::Map(merged) => {
            for entry in merged {
                if !entries.iter().any(|e| e.key == entry.key) {
                    entries.push(entry);
                }
            }
            Ok(())
        }
        Value::Seq(items) => items.into_iter().try_for_each(|item| match item.value {
            Value::Map(_) => merge_into(entries, item),
            other => Err(YamlError::BadMerge(other.type_name())),
        }),
        other => Err(YamlError::BadMerge(other.type_name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn ok(text: &str) -> Node {
        load(text, 1, &mut Diagnostics::default()).unwrap()
    }

    #[test]
    fn yaml_1_1_is_what_is_read() {
        let text = "perm: 0644\nlock: no\nquoted: \"no\"\nlit: |2\n   a\n  b\nfold: >-\n  a\n  b\n\n  c\nbin: !!binary |\n  aGVs\n  bG8=\n";
        assert_eq!(
            ok(text).to_json(),
            json!({"perm": 420, "lock": false, "quoted": "no", "lit": " a\nb\n", "fold": "a b\nc", "bin": "hello"})
        );
    }

    #[test]
    fn merge_keys_fill_what_is_missing_and_the_last_duplicate_counts() {
        let text = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\nuse:\n  x: 9\n  <<: [*b, *m]\nk: 1\nk: 2\n";
        let mut diagnostics = Diagnostics::default();
        let node = load(text, 1, &mut diagnostics).unwrap();
        assert_eq!(node.to_json(), json!({"base": {"x": 1, "y": 2}, "more": {"y": 3, "z": 4}, "use": {"x": 9, "y": 2, "z": 4}, "k": 2}));
        assert_eq!(diagnostics.sorted().remove(0).to_string(), "line 7: warning: `k` is here again (first on line 6); this one counts");
    }

    #[test]
    fn laughs_depth_and_cycles_are_refused() {
        let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let alias = format!("*a{}", i - 1);
            laughs.push_str(&format!("a{i}: &a{i} [{}]\n", vec![alias; 9].join(",")));
        }
        let error = |text: &str| load(text, 1, &mut Diagnostics::default()).unwrap_err().1;
        assert_eq!(error(&laughs), YamlError::TooMany);
        assert_eq!(error(&"[".repeat(100)), YamlError::TooDeep);
        assert_eq!(error("a: &a [*a]"), YamlError::Recursive);
        assert_eq!(error("? [a]\n: b"), YamlError::ComplexKey("a list"));
    }

    #[test]
    fn syntax_errors_name_the_line() {
        let (place, error) = load("a: 1\nb: [1, 2\nc: 3\n", 1, &mut Diagnostics::default()).unwrap_err();
        assert!(place.line >= 2, "{place:?} {error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = load(&text, 1, &mut Diagnostics::default());
        }

        #[test]
        fn no_yaml_like_text_panics(text in "[-:#\\[\\]{}&*!|>'\"%@`,?~<a0 \n\t]{0,80}") {
            let _ = load(&text, 1, &mut Diagnostics::default());
        }
    }
}
