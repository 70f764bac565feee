//! Cuts a stream of bytes into log lines, however the bytes arrive.
#![deny(clippy::indexing_slicing)]

/// A longer line is logged in pieces of this length.
pub const LONGEST_LINE: usize = 48 * 1024;

/// Bytes of a stream that are no whole line yet.
#[derive(Default)]
pub struct LineSplitter {
    pending: Vec<u8>,
}

impl LineSplitter {
    /// Takes the next bytes and hands every line that is complete (or too long) to `line`, without its newline.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (head, rest) = (bytes.get(..end).unwrap_or_default(), bytes.get(end + 1..).unwrap_or_default());
            if self.pending.is_empty() {
                pieces(head, &mut line);
            } else {
                self.pending.extend_from_slice(head);
                pieces(&self.pending, &mut line);
                self.pending.clear();
            }
            bytes = rest;
        }
        self.pending.extend_from_slice(bytes);
        while self.pending.len() > LONGEST_LINE {
            let rest = self.pending.split_off(LONGEST_LINE);
            line(&self.pending);
            self.pending = rest;
        }
    }

    /// What is left when the stream ends.
    pub fn finish(&mut self, line: impl FnMut(&[u8])) {
        if !self.pending.is_empty() {
            pieces(&std::mem::take(&mut self.pending), line);
        }
    }
}

fn pieces(text: &[u8], mut line: impl FnMut(&[u8])) {
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() {
        return;
    }
    text.chunks(LONGEST_LINE).for_each(&mut line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_lines_are_cut_at_the_limit() {
        let mut lengths = Vec::new();
        let mut splitter = LineSplitter::default();
        for chunk in vec![b'x'; LONGEST_LINE * 2 + 5].chunks(1000) {
            splitter.push(chunk, |line| lengths.push(line.len()));
        }
        splitter.push(b"\nshort", |line| lengths.push(line.len()));
        splitter.finish(|line| lengths.push(line.len()));
        assert_eq!(lengths, [LONGEST_LINE, LONGEST_LINE, 5, 5]);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_arrive(text in "[a-c\n]{0,80}", cuts in proptest::collection::vec(0usize..80, 0..6)) {
            let mut found = Vec::new();
            let mut splitter = LineSplitter::default();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                splitter.push(&text.as_bytes()[from..cut], |line| found.push(String::from_utf8(line.into()).unwrap()));
                from = cut;
            }
            splitter.finish(|line| found.push(String::from_utf8(line.into()).unwrap()));
            let expected: Vec<&str> = text.split('\n').filter(|line| !line.is_empty()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
