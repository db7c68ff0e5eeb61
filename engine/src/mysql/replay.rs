//! Having a server apply log that was shipped: as if it had been received.
//!
//! The files lie in its data directory under the names of relay logs before it starts. A transaction that it has is skipped by its name,
//! so a replay that was cut off is begun again from the first file, and nothing is applied twice.
//!
//! Invariant: `what_was_cut_out_of_a_log_is_replayed_once`, a test in `tests/mysql/binlog.rs`.

use std::time::Duration;

use holdfast_model::GtidSet;
use tokio::time::{self, Instant};

use super::channel::ChannelError;
use super::session::{Session, quote};

/// How often it is looked.
const POLL: Duration = Duration::from_millis(50);

/// What the channel's source is called. Nobody is asked for it: the receiver is never started.
const SHIPPED: &str = "shipped";

/// The name of the file with that number; the first is 1.
#[must_use]
pub fn file_name(number: u32) -> String {
    format!("relay.{number:06}")
}

/// The file that names the others, in order, `count` of them.
#[must_use]
pub fn index(count: u32) -> (&'static str, String) {
    ("relay.index", (1..=count).map(|number| format!("./{}\n", file_name(number))).collect())
}

/// Begins to apply the files, or goes on.
///
/// # Errors
/// [`ChannelError`].
pub async fn begin(session: &mut Session) -> Result<(), ChannelError> {
    session.run("stop replication", "STOP REPLICA").await?;
    let from = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{SHIPPED}', SOURCE_AUTO_POSITION = 0, RELAY_LOG_FILE = {}, RELAY_LOG_POS = 4",
        quote(&file_name(1))
    );
    session.run("point at the shipped log", &from).await?;
    session.run("start the applier", "START REPLICA SQL_THREAD").await?;
    Ok(())
}

/// Waits until everything up to `end` is applied.
///
/// # Errors
/// [`ChannelError::Applier`], [`ChannelError::Unapplied`] at the deadline, after which it goes on.
pub async fn finish(session: &mut Session, end: &GtidSet, deadline: Duration) -> Result<(), ChannelError> {
    let until = Instant::now() + deadline;
    loop {
        let missing = end.minus(&session.executed().await?);
        if missing.is_empty() {
            break;
        }
        if let Some(said) = session.applier_error().await? {
            return Err(ChannelError::Applier { said });
        }
        if Instant::now() >= until {
            return Err(ChannelError::Unapplied { missing: missing.count(), deadline });
        }
        time::sleep(POLL).await;
    }
    session.run("stop the applier", "STOP REPLICA").await?;
    // All of it is in this server's own log by now.
    session.run("forget the shipped log", "RESET REPLICA ALL").await?;
    Ok(())
}
