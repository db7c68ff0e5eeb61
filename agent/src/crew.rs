//! The agent's loops as owned tasks: one that ends early stops all, and all end within a deadline.

use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Why the crew stopped.
#[derive(Debug, thiserror::Error)]
pub enum CrewError {
    /// A loop ended although nobody asked it to.
    #[error("loop {0} ended early")]
    EndedEarly(&'static str),
    /// A loop panicked.
    #[error("a loop panicked")]
    Panicked(#[source] JoinError),
    /// Loops were still busy at the deadline.
    #[error("loops did not end within {} ms", .0.as_millis())]
    DrainTimedOut(Duration),
}

/// A set of loops and the token that stops them.
#[derive(Debug)]
pub struct Crew {
    tasks: JoinSet<&'static str>,
    cancel: CancellationToken,
}

impl Crew {
    /// No loops yet; `cancel` stops all of them.
    #[must_use]
    pub fn new(cancel: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), cancel }
    }

    /// Adds a loop; it must return soon after its token is cancelled.
    pub fn add<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = run(self.cancel.child_token());
        self.tasks.spawn(async move {
            work.await;
            name
        });
    }

    /// Runs until cancelled or until a loop ends, then waits at most `drain` for the others.
    ///
    /// # Errors
    /// [`CrewError`].
    pub async fn run(mut self, drain: Duration) -> Result<(), CrewError> {
        let verdict = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Ok(()), // cancel-safe
            Some(ended) = self.tasks.join_next() => Err(match ended { // cancel-safe
                Ok(name) => CrewError::EndedEarly(name),
                Err(err) => CrewError::Panicked(err),
            }),
        };
        self.cancel.cancel();
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(drain, all_ended).await.is_err() {
            return Err(CrewError::DrainTimedOut(drain));
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_ends_early_stops_the_others() {
        let mut crew = Crew::new(CancellationToken::new());
        crew.add("patient", |cancel| async move { cancel.cancelled().await });
        crew.add("hasty", |_| async {});
        let err = crew.run(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(err.to_string(), "loop hasty ended early");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_stop_is_reported() {
        let cancel = CancellationToken::new();
        let mut crew = Crew::new(cancel.clone());
        crew.add("deaf", |_| std::future::pending());
        cancel.cancel();
        assert!(matches!(crew.run(Duration::from_secs(1)).await, Err(CrewError::DrainTimedOut(_))));
    }
}
