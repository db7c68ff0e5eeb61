//! The one way to wait in tests: ask again until it is so, or say what was still missing at the deadline.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{self, Instant};

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Calls `look` until it answers `Ok`, at most for `within`.
///
/// `look` answers `Err` for "not yet", with what is missing; one call is cut off at the deadline too.
///
/// # Errors
/// `what` was not seen in time. The last answer of `look` is the cause.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    let mut missing = anyhow::anyhow!("never looked");
    loop {
        match time::timeout_at(deadline, look()).await {
            Ok(Ok(seen)) => return Ok(seen),
            Ok(Err(not_yet)) => missing = not_yet,
            Err(_cut_off) => return Err(missing).with_context(|| message(what, within)),
        }
        if Instant::now() + PAUSE >= deadline {
            return Err(missing).with_context(|| message(what, within));
        }
        time::sleep(PAUSE).await;
    }
}

/// Looks again and again for `how_long`, and fails as soon as a look fails: for what must not happen.
///
/// # Errors
/// That of the look.
pub async fn throughout(how_long: Duration, mut look: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + how_long;
    while Instant::now() < end {
        look().await?;
        time::sleep(PAUSE).await;
    }
    Ok(())
}

fn message(what: &str, within: Duration) -> String {
    format!("not seen within {within:?}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_answer_is_returned_as_soon_as_there_is_one() -> Result<()> {
        let began = Instant::now();
        let mut looks = 0;
        let seen = eventually("third look", Duration::from_secs(60), async || {
            looks += 1;
            if looks < 3 { Err(anyhow::anyhow!("only {looks}")) } else { Ok(looks) }
        })
        .await?;
        assert_eq!(seen, 3);
        assert!(began.elapsed() < Duration::from_secs(1));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_failure_says_what_was_missing_at_the_deadline() {
        let failure = eventually("a door", Duration::from_secs(2), async || {
            Err::<(), _>(anyhow::anyhow!("it is a wall"))
        })
        .await
        .expect_err("there is no door");
        assert_eq!(format!("{failure:#}"), "not seen within 2s: a door: it is a wall");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_cut_off() {
        let hung =
            eventually("an end", Duration::from_secs(1), async || std::future::pending::<Result<()>>().await)
                .await;
        assert!(hung.is_err());
    }
}
