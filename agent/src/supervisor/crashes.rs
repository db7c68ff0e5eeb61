//! Counts how often the engine ended by itself lately. Pure; how long to wait then is `decide`'s.
//!
//! Invariant: `a_minute_of_running_forgives_and_being_asked_does_not_count`.

use holdfast_model::Tick;

/// An engine that ran this long has recovered from whatever made it crash before.
const FORGIVEN_AFTER_MS: u64 = 60_000;

/// Crashes since the engine last ran for a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crashes {
    count: u32,
    running_since: Option<Tick>,
    last_end: Option<Tick>,
}

/// Whether an end was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was being stopped.
    AsAsked,
    /// It was not. An adopted engine's end counts as this, since nobody can tell how it ended.
    ByItself,
}

impl Crashes {
    /// An engine runs from now on.
    pub const fn started(&mut self, now: Tick) {
        self.running_since = Some(now);
    }

    /// It ended, or a start failed.
    pub fn ended(&mut self, now: Tick, end: End) {
        let ran_ms = self.running_since.take().map_or(0, |since| now.millis_since(since));
        if ran_ms >= FORGIVEN_AFTER_MS {
            self.count = 0;
        }
        self.count = match end {
            End::AsAsked => 0,
            End::ByItself => self.count.saturating_add(1),
        };
        self.last_end = Some(now);
    }

    /// Crashes in a row.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// When it last ended under this agent.
    #[must_use]
    pub const fn last_end(&self) -> Option<Tick> {
        self.last_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_of_running_forgives_and_being_asked_does_not_count() {
        let at = Tick::from_millis;
        let mut crashes = Crashes::default();
        let mut runs = |from, to, end| {
            crashes.started(at(from));
            crashes.ended(at(to), end);
            crashes.count()
        };
        assert_eq!(runs(0, 10, End::ByItself), 1);
        assert_eq!(runs(1000, 1010, End::ByItself), 2);
        assert_eq!(runs(3000, 62_999, End::ByItself), 3);
        assert_eq!(runs(70_000, 130_000, End::ByItself), 1);
        assert_eq!(runs(131_000, 131_001, End::AsAsked), 0);
        crashes.ended(at(140_000), End::ByItself);
        assert_eq!(
            (crashes.count(), crashes.last_end()),
            (1, Some(at(140_000))),
            "a start that failed counts"
        );
    }
}
