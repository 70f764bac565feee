//! `OnCalendar=` expressions. Today they are kept as written.

use serde::{Deserialize, Serialize};

/// A calendar expression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarSpec {
    /// As written.
    pub text: String,
}
