//! Logs: for people on a terminal, one JSON object a line otherwise; always on stderr.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// What others say about each single request is no change of state; callers tell of failures that matter. Comes before
/// the configured filter, which may say otherwise.
const QUIETER: &str = "object_store=warn";

/// Starts logging. `filter` is a `tracing` filter such as `info` or `holdfast_agent=debug`.
///
/// # Errors
/// When `filter` is not valid.
pub fn start(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(format!("{QUIETER},{filter}"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    if stderr().is_terminal() {
        lines.with_target(false).init();
    } else {
        lines.json().flatten_event(true).init();
    }
    Ok(())
}
