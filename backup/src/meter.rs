//! Tells others how far long work is.

use holdfast_model::ByteCount;
use holdfast_model::status::Progress;
use tokio::sync::watch;

/// Where progress is written to; readers watch, and never slow the work down.
#[derive(Debug)]
pub struct Meter(watch::Sender<Progress>);

impl Meter {
    /// A meter and what its readers watch.
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Progress>) {
        let (sender, receiver) = watch::channel(Progress::default());
        (Self(sender), receiver)
    }

    /// A meter that nobody reads.
    #[must_use]
    pub fn unwatched() -> Self {
        Self::new().0
    }

    pub(crate) fn phase(&self, phase: &str, total: ByteCount) {
        self.0.send_replace(Progress { phase: phase.to_owned(), done: ByteCount::ZERO, total });
    }

    pub(crate) fn at(&self, done: ByteCount) {
        self.0.send_modify(|progress| progress.done = done);
    }
}
