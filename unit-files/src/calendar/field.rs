//! One place of an expression (the years, the minutes, ...): which numbers it lets pass.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Microseconds of a second.
pub(super) const SECOND: u32 = 1_000_000;

/// `start`, `start..stop`, either with `/step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Part {
    pub start: u32,
    pub stop: Option<u32>,
    /// Zero: only `start`.
    pub step: u32,
}

impl Part {
    pub const fn only(start: u32) -> Self {
        Self { start, stop: None, step: 0 }
    }

    /// The smallest number from `at` on.
    fn next(self, at: u32) -> Option<u32> {
        if at <= self.start {
            return Some(self.start);
        }
        if self.step == 0 {
            return None;
        }
        let steps = (at - self.start).div_ceil(self.step);
        let number = self.start.checked_add(steps.checked_mul(self.step)?)?;
        self.stop.is_none_or(|stop| number <= stop).then_some(number)
    }

    /// Whether it lies within `low..=high` and repeats at least once if it repeats.
    fn fits(self, low: u32, high: u32, from_end: bool) -> bool {
        // Counted from the end, the shortest month decides.
        let high = if from_end { high - 3 } else { high };
        let inside = |number: u32| (low..=high).contains(&number);
        let repeats = match self.stop {
            Some(stop) => inside(stop) && self.start.saturating_add(self.step) <= stop,
            None if from_end => self.step == 0 || self.start >= low.saturating_add(self.step),
            None => self.start.saturating_add(self.step) <= high,
        };
        inside(self.start) && self.step <= high - low && repeats
    }

    fn normalise(mut self) -> Self {
        if let Some(stop) = self.stop {
            if stop > self.start && self.step > 0 {
                let last = stop - (stop - self.start) % self.step;
                self.stop = Some(last);
                if last == self.start {
                    return Self::only(self.start);
                }
            } else if stop == self.start {
                return Self::only(self.start);
            }
        }
        self
    }
}

/// The numbers that a place lets pass; no part: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    pub(super) parts: Vec<Part>,
}

impl Field {
    pub(super) fn only(number: u32) -> Self {
        Self { parts: vec![Part::only(number)] }
    }

    pub(super) fn of(numbers: &[u32]) -> Self {
        Self { parts: numbers.iter().map(|number| Part::only(*number)).collect() }
    }

    /// Sorted, without what is said twice or cannot repeat.
    pub(super) fn normalise(&mut self) {
        for part in &mut self.parts {
            *part = part.normalise();
        }
        self.parts.sort_unstable();
        self.parts.dedup();
    }

    pub(super) fn fits(&self, low: u32, high: u32, from_end: bool) -> bool {
        self.parts.iter().all(|part| part.fits(low, high, from_end))
    }

    /// The smallest number from `at` on that it lets pass.
    pub(super) fn next(&self, at: u32) -> Option<u32> {
        if self.parts.is_empty() { Some(at) } else { self.parts.iter().filter_map(|part| part.next(at)).min() }
    }

    /// The same for days counted back from the last one of a month of `length` days.
    pub(super) fn next_from_end(&self, at: u32, length: u32) -> Option<u32> {
        if self.parts.is_empty() {
            return Some(at);
        }
        let day = |back: u32| (length + 1).checked_sub(back).filter(|day| *day > 0);
        let turned = |part: &Part| -> Option<Part> {
            match part.stop.map(day) {
                None => Some(Part { start: day(part.start)?, ..*part }),
                // What is counted from the end runs the other way round.
                Some(stop) => Some(Part { start: stop?, stop: Some(day(part.start)?), step: part.step }),
            }
        };
        self.parts.iter().filter_map(turned).filter_map(|part| part.next(at)).min()
    }

    pub(super) fn write(&self, out: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        self.write_with(out, 1, |number, out| write!(out, "{number:0width$}"), |step, out| write!(out, "{step}"))
    }

    pub(super) fn write_seconds(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn number(usec: u32, width: usize, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "{:0width$}", usec / SECOND)?;
            if !usec.is_multiple_of(SECOND) { write!(out, ".{:06}", usec % SECOND) } else { Ok(()) }
        }
        if self.parts == [(Part { start: 0, stop: None, step: SECOND })] {
            return out.write_str("*");
        }
        self.write_with(out, SECOND, |usec, out| number(usec, 2, out), |usec, out| number(usec, 1, out))
    }

    fn write_with(
        &self,
        out: &mut fmt::Formatter<'_>,
        unit: u32,
        number: impl Fn(u32, &mut fmt::Formatter<'_>) -> fmt::Result,
        step: impl Fn(u32, &mut fmt::Formatter<'_>) -> fmt::Result,
    ) -> fmt::Result {
        if self.parts.is_empty() {
            return out.write_str("*");
        }
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                out.write_str(",")?;
            }
            number(part.start, out)?;
            if let Some(stop) = part.stop {
                out.write_str("..")?;
                number(stop, out)?;
            }
            if part.step > 0 && !(part.stop.is_some() && part.step == unit) {
                out.write_str("/")?;
                step(part.step, out)?;
            }
        }
        Ok(())
    }
}
