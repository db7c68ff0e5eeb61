//! What happened when: named moments around a zero, and the phases between them as a table.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

/// Moments, before or after a zero.
#[derive(Debug, Clone)]
pub struct Timeline {
    zero: Instant,
    moments: Vec<(String, Instant)>,
}

impl Timeline {
    /// Counts from `zero`.
    #[must_use]
    pub const fn since(zero: Instant) -> Self {
        Self { zero, moments: Vec::new() }
    }

    /// Marks a moment; in the order in which they are to be shown.
    pub fn mark_at(&mut self, what: impl Into<String>, at: Instant) {
        self.moments.push((what.into(), at));
    }

    /// Orders the moments by when they were.
    pub fn sort(&mut self) {
        self.moments.sort_by_key(|(_, at)| *at);
    }

    /// A table: when, how long after the moment before, what.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::from("        at      took  what\n");
        let mut before = self.moments.first().map_or(self.zero, |(_, at)| *at);
        for (what, at) in &self.moments {
            let took = at.saturating_duration_since(before);
            let sign = if *at < self.zero { "-" } else { "" };
            let distance = at.saturating_duration_since(self.zero) + self.zero.saturating_duration_since(*at);
            writeln!(table, "{:>10}{:>10}  {what}", format!("{sign}{}", seconds(distance)), seconds(took))
                .expect("a string takes all text");
            before = *at;
        }
        table
    }
}

/// `12.34 s`.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_before_zero_are_negative() {
        let zero = Instant::now() + Duration::from_secs(10);
        let mut timeline = Timeline::since(zero);
        timeline.mark_at("last ack", zero - Duration::from_millis(250));
        timeline.mark_at("gate closed", zero + Duration::from_millis(500));
        let expected =
            "        at      took  what\n   -0.25 s    0.00 s  last ack\n    0.50 s    0.75 s  gate closed\n";
        assert_eq!(timeline.table(), expected);
    }
}
