//! `OnCalendar=` expressions. They are checked for emptiness and kept as written; working out when one elapses is not
//! done yet, and timers that use one say so.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A calendar expression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarSpec {
    /// As written.
    pub text: String,
}

/// Why a text is no calendar expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CalendarError {
    /// Nothing there.
    #[error("the expression is empty")]
    Empty,
}

impl CalendarSpec {
    /// Reads an expression.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, CalendarError> {
        if text.trim().is_empty() { Err(CalendarError::Empty) } else { Ok(Self { text: text.trim().to_owned() }) }
    }
}
