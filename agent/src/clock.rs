//! The one place that reads clocks, names this boot and draws random bits. Everything else is told.
//!
//! Safety never depends on what is read here (I12): the wall clock is for people, ticks are for patience.

use std::time::SystemTime;

use holdfast_model::Tick;

/// Monotonic milliseconds since the agent started.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// Starts counting now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick::from_millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The instant at which `tick` is reached.
    #[must_use]
    pub fn instant(&self, tick: Tick) -> tokio::time::Instant {
        self.start + std::time::Duration::from_millis(tick.millis())
    }
}

/// The wall clock as RFC 3339 in UTC, for people.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall_clock() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// The wall clock in milliseconds since 1970, for deadlines that people were told.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// 128 random bits from the kernel.
///
/// # Panics
/// When the kernel has no randomness, which `getrandom(2)` rules out once the machine is up.
#[must_use]
pub fn random_bits() -> u128 {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("getrandom(2) does not fail after boot");
    u128::from_le_bytes(bytes)
}
