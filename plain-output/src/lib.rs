//! What programs say to the people who run them: on standard output ([`print`], [`say!`]), and about errors ([`causes`]).
//!
//! Relies on nothing. Promises: a reader that has gone (`| head -1`) ends no program and is no failure, as it would be with `println!`. Signals
//! stay as they are: daemons in the same binary, and commands half-way through what they do, must not die of a closed pipe.

#![deny(unsafe_code, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

use std::error::Error;
use std::io::Write;

/// Writes to standard output.
pub fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    // Written at once: what is left in the buffer is lost silently when the program ends.
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// Writes a line to standard output, as `println!` does where somebody reads.
#[macro_export]
macro_rules! say {
    ($($what:tt)*) => {
        $crate::print(&format!("{}\n", format_args!($($what)*)))
    };
}

/// An error with what is behind it, in one line. What an error says of its cause itself is not said again.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Says(&'static str, Option<Box<Says>>);

    impl std::fmt::Display for Says {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Says {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|error| error as _)
        }
    }

    #[test]
    fn each_cause_is_said_once() {
        let error = |texts: &[&'static str]| texts.iter().rev().fold(None, |inner, text| Some(Box::new(Says(text, inner)))).unwrap();
        assert_eq!(causes(&*error(&["cannot start"])), "cannot start");
        assert_eq!(causes(&*error(&["cannot start", "/dev/vda: denied", "denied"])), "cannot start: /dev/vda: denied");
        assert_eq!(causes(&*error(&["a line\nand one", "why"])), "a line and one: why");
    }
}
