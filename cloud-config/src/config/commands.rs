//! `runcmd` and `bootcmd`: lists of shell lines and argument lists become one shell script.

use super::reader::{Placed, Reader};
use crate::yaml::{Node, Value};

impl Reader<'_> {
    /// A script for /bin/sh. A text is a line of shell, a list is one command whose arguments are quoted.
    pub fn commands(&mut self, node: &Node, at: &str) -> Option<Placed<String>> {
        let mut script = String::from("#!/bin/sh\n");
        let before = script.len();
        for (path, item) in self.list(node, at) {
            let line = self.item(|r| match &item.value {
                Value::Null => None,
                Value::Seq(_) => {
                    let mut words = Vec::new();
                    for (path, word) in r.list(item, &path) {
                        words.push(shell_quote(&r.text(word, &path)?));
                    }
                    Some(words.join(" "))
                }
                _ => r.text(item, &path),
            });
            if let Some(line) = line.filter(|l| !l.trim().is_empty()) {
                script.push_str(line.trim_end_matches('\n'));
                script.push('\n');
            }
        }
        (script.len() > before).then_some(Placed { place: node.place, value: script })
    }
}

/// `it's` -> `'it'\''s'`.
pub fn shell_quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
