//! What happened when: named moments since a start, and the phases between them as a table.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

/// Moments in the order in which they were marked.
#[derive(Debug, Clone)]
pub struct Timeline {
    start: Instant,
    moments: Vec<(String, Duration)>,
}

impl Timeline {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), moments: Vec::new() }
    }

    /// Time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Marks this moment.
    pub fn mark(&mut self, what: impl Into<String>) {
        self.moments.push((what.into(), self.start.elapsed()));
    }

    /// When `what` was first marked.
    #[must_use]
    pub fn at(&self, what: &str) -> Option<Duration> {
        self.moments.iter().find(|(name, _)| name == what).map(|(_, at)| *at)
    }

    /// A table: when, how long after the moment before, what.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::from("       at     took  what\n");
        let mut before = Duration::ZERO;
        for (what, at) in &self.moments {
            let took = at.saturating_sub(before);
            writeln!(table, "{:>9} {:>8}  {what}", seconds(*at), seconds(took))
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

    #[tokio::test(start_paused = true)]
    async fn a_table_shows_when_and_how_long() {
        let mut timeline = Timeline::start();
        tokio::time::advance(Duration::from_millis(1500)).await;
        timeline.mark("disk vanished");
        tokio::time::advance(Duration::from_millis(250)).await;
        timeline.mark("gate closed");
        assert_eq!(
            timeline.table(),
            "       at     took  what\n   1.50 s   1.50 s  disk vanished\n   1.75 s   0.25 s  gate closed\n"
        );
    }
}
