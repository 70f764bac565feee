//! Renders progress and results: a bar on a terminal, plain lines in CI, JSON lines for machines, nothing with `-q`.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use plain_output::say;
use serde::Serialize;

use crate::progress::{Event, Phase, Progress};

/// How to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Bars on standard error.
    Bars,
    /// Lines on standard error.
    Plain,
    /// JSON objects on standard output, one a line.
    Json,
    /// Not at all.
    Quiet,
}

impl Style {
    /// The style that fits the flags and where standard error goes.
    #[must_use]
    pub fn choose(json: bool, quiet: bool) -> Self {
        match (json, quiet) {
            (true, _) => Self::Json,
            (_, true) => Self::Quiet,
            _ if std::io::stderr().is_terminal() => Self::Bars,
            _ => Self::Plain,
        }
    }
}

/// Speaks in the chosen style.
#[derive(Debug)]
pub struct Report {
    style: Style,
    bar: Mutex<Option<ProgressBar>>,
}

/// An event as JSON.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum JsonEvent {
    Begin { phase: String, total_bytes: Option<u64> },
    Step { phase: String, text: String },
    End { phase: String, summary: String },
    Warning { text: String },
}

impl Report {
    /// Begins to speak.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self { style, bar: Mutex::new(None) }
    }

    /// Prints a result for a person, or `value` as one JSON line.
    pub fn result(&self, text: &str, value: &impl Serialize) {
        self.finish();
        match self.style {
            Style::Json => print_json(value),
            Style::Quiet => {}
            Style::Bars | Style::Plain => say!("{text}"),
        }
    }

    /// Removes a bar that is still drawn.
    pub fn finish(&self) {
        self.replace_bar(None);
    }

    fn replace_bar(&self, bar: Option<ProgressBar>) {
        let mut slot = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *slot, bar) {
            old.finish_and_clear();
        }
    }

    fn on_bar(&self, act: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = &*self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            act(bar);
        }
    }

    fn bars(&self, event: Event) {
        match event {
            Event::Begin { phase, total } => self.replace_bar(Some(new_bar(phase, total))),
            Event::Advance { bytes } => self.on_bar(|bar| bar.inc(bytes)),
            Event::End { phase, summary } => {
                self.replace_bar(None);
                eprintln!("{:>8}  {summary}", phase.to_string());
            }
            Event::Step { phase, text } => self.above_bar(&format!("{:>8}  {text}", phase.to_string())),
            Event::Warning { text } => self.above_bar(&format!(" warning  {text}")),
        }
    }

    fn above_bar(&self, line: &str) {
        match &*self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}

impl Progress for Report {
    fn event(&self, event: Event) {
        match (self.style, event) {
            (Style::Bars, event) => self.bars(event),
            (Style::Plain, Event::End { phase, summary: text } | Event::Step { phase, text }) => eprintln!("{phase}: {text}"),
            (Style::Plain, Event::Warning { text }) => eprintln!("warning: {text}"),
            (Style::Json, Event::Begin { phase, total }) => print_json(&JsonEvent::Begin { phase: phase.to_string(), total_bytes: total }),
            (Style::Json, Event::Step { phase, text }) => print_json(&JsonEvent::Step { phase: phase.to_string(), text }),
            (Style::Json, Event::End { phase, summary }) => print_json(&JsonEvent::End { phase: phase.to_string(), summary }),
            (Style::Json, Event::Warning { text }) => print_json(&JsonEvent::Warning { text }),
            (Style::Plain | Style::Json | Style::Quiet, _) => {}
        }
    }
}

fn new_bar(phase: Phase, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{prefix:>8}  [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"),
        None => (ProgressBar::new_spinner(), "{prefix:>8}  {spinner}"),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    // A template that does not parse leaves the default style.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_prefix(phase.to_string())
}

fn print_json(value: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(value) {
        say!("{line}");
    }
}
