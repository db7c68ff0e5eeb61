//! Logs: for people on a terminal, one JSON object a line otherwise; always on stderr.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry};

/// What others say about each single request is no change of state; callers tell of failures that matter. Comes before
/// the configured filter, which may say otherwise.
const QUIETER: &str = "object_store=warn";

/// Starts logging. `filter` is a `tracing` filter such as `info` or `holdfast_agent=debug`.
///
/// # Errors
/// When `filter` is not valid.
pub fn start(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(format!("{QUIETER},{filter}"))?;
    let lines = fmt::layer().with_writer(stderr);
    let lines = if stderr().is_terminal() {
        lines.with_target(false).with_filter(filter).boxed()
    } else {
        lines.json().flatten_event(true).with_filter(filter).boxed()
    };
    let all = registry().with(lines);
    #[cfg(debug_assertions)]
    let all = all.with(crate::die_at::layer());
    all.init();
    Ok(())
}
