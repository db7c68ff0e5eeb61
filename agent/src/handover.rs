//! Keeping clients out for a handover, for a limited time: whoever asked may be gone, and the gate opens again by itself.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use holdfast_model::status::GateClosed;
use tokio::time::Instant;

/// Longer than a handover takes that goes well.
const AT_MOST: Duration = Duration::from_secs(30);

/// Until when the gate is held closed.
#[derive(Debug, Default)]
pub struct Handover(Mutex<Option<Instant>>);

impl Handover {
    /// Clients are kept out from now on.
    pub fn begin(&self) {
        self.set(Some(Instant::now() + AT_MOST));
    }

    /// They are let in again.
    pub fn end(&self) {
        self.set(None);
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Why the gate is held closed, if it is.
    #[must_use]
    pub fn hold(&self) -> Option<GateClosed> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > Instant::now()).map(|_| GateClosed::Stopping)
    }
}
