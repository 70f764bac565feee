//! YAML as cloud-init reads it: PyYAML's `safe_load`, that is YAML 1.1, with the line of every node.
//!
//! The events come from `saphyr-parser`; which plain scalar means what is decided in `resolve`, since every Rust
//! parser speaks YAML 1.2, where `0644` is decimal and `yes` a string. Every scalar keeps its source text, so that a key that
//! wants a string gets what was written and not what a number looks like after a round trip.
//! Any text is safe to load: depth, node count and the growth through aliases are bounded.

mod load;
mod resolve;

pub(crate) use load::decode_base64;
pub use load::{YamlError, load};

use crate::diagnostics::Place;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
    /// The source text of a plain scalar; empty for everything else.
    pub text: String,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `~`, `null` or nothing.
    Null,
    /// `yes`, `off`, `true` and so on.
    Bool(bool),
    /// A number without fraction.
    Int(i64),
    /// A number with one.
    Float(f64),
    /// Text.
    Str(String),
    /// `!!binary`.
    Binary(Vec<u8>),
    /// A list.
    Seq(Vec<Node>),
    /// A map, in source order, without duplicate keys.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

impl Value {
    /// What a person would call this type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "a number",
            Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::Binary(_) => "binary data",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

impl Node {
    /// An empty map that stands nowhere.
    pub fn empty_map() -> Node {
        Node { place: Place::default(), value: Value::Map(Vec::new()), text: String::new() }
    }

    /// As JSON; binary data becomes a string as far as it is UTF-8.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as J;
        match &self.value {
            Value::Null => J::Null,
            Value::Bool(b) => J::Bool(*b),
            Value::Int(i) => J::from(*i),
            Value::Float(f) => J::from(*f),
            Value::Str(s) => J::String(s.clone()),
            Value::Binary(b) => J::String(String::from_utf8_lossy(b).into_owned()),
            Value::Seq(items) => J::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(entries) => J::Object(entries.iter().map(|e| (e.key.clone(), e.node.to_json())).collect()),
        }
    }
}
