//! Metrics in Prometheus' text format.

use std::fmt::Write as _;

/// Metrics of one program, put together one after the other.
#[derive(Clone, Debug)]
pub struct Metrics {
    prefix: &'static str,
    text: String,
}

impl Metrics {
    /// None yet; all names will begin with this prefix.
    #[must_use]
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, text: String::new() }
    }

    /// A metric with its samples: labels, as [`label`] and [`labels`] write them, and value. `kind` is `gauge` or `counter`.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str, samples: &[(String, u64)]) {
        let prefix = self.prefix;
        let _ = write!(self.text, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}\n");
        for (labels, value) in samples {
            let _ = writeln!(self.text, "{prefix}{name}{labels} {value}");
        }
    }

    /// A metric that is one value.
    pub fn plain(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.metric(name, kind, help, &[(String::new(), value)]);
    }

    /// All of them.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }
}

/// One label: `{name="value"}`.
#[must_use]
pub fn label(name: &str, value: &str) -> String {
    labels(&[(name, value)])
}

/// Labels: `{a="1",b="2"}`. What a value must not hold as it is becomes `_`.
#[must_use]
pub fn labels(labels: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", value.replace(['\\', '"', '\n'], "_"))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_as_prometheus_reads_it() {
        let mut metrics = Metrics::new("x_");
        metrics.plain("up", "gauge", "Whether it is there.", 1);
        metrics.metric("info", "gauge", "Names.", &[(labels(&[("a", "1"), ("b", "\"\n\\")]), 1), (label("a", "2"), 0)]);
        assert_eq!(
            metrics.into_text(),
            "# HELP x_up Whether it is there.\n# TYPE x_up gauge\nx_up 1\n\
             # HELP x_info Names.\n# TYPE x_info gauge\nx_info{a=\"1\",b=\"___\"} 1\nx_info{a=\"2\"} 0\n"
        );
    }
}
