//! The daemon's JSON log, read back: what was said when, and whether anything was said that a test did not expect.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::eventually;

/// How loud a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Everything else.
    Trace,
    /// Everything else.
    Debug,
    /// A state changed.
    Info,
    /// Unexpected, being retried.
    Warn,
    /// Data or availability at risk.
    Error,
}

/// One line.
#[derive(Debug, Clone, Deserialize)]
pub struct Line {
    /// When, RFC 3339.
    pub timestamp: String,
    /// How loud.
    pub level: Level,
    /// The module that said it.
    #[serde(default)]
    pub target: String,
    /// What was said.
    #[serde(default)]
    pub message: String,
    /// Whatever else was attached.
    #[serde(flatten)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

impl Line {
    /// When it was said; `None` for what is no log line.
    #[must_use]
    pub fn at(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(&self.timestamp).ok()
    }

    /// What was said, with its fields, in one line.
    #[must_use]
    pub fn shown(&self) -> String {
        let attached = self.fields.iter().map(|(name, value)| match value.as_str() {
            Some(text) => format!(" {name}={text}"),
            None => format!(" {name}={value}"),
        });
        format!("{}{}", self.message, attached.collect::<String>())
    }
}

/// A log file that grows.
#[derive(Debug, Clone)]
pub struct Logs {
    file: PathBuf,
}

impl Logs {
    /// The log in `file`, which need not exist yet.
    #[must_use]
    pub const fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// All lines so far. What is not JSON (a panic, say) comes as an error line.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn lines(&self) -> Result<Vec<Line>> {
        let text = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(err).with_context(|| format!("read {}", self.file.display())),
        };
        Ok(parse(&String::from_utf8_lossy(&text)))
    }

    /// The last lines, for a person who looks at a failure.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let text = fs::read(&self.file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Waits for a line that contains `fragment` in its message or fields.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn wait_for(&self, fragment: &str, within: Duration) -> Result<Line> {
        eventually(&format!("log line {fragment:?}"), within, async || {
            let said = self.lines()?.into_iter().find(|line| line.shown().contains(fragment));
            said.with_context(|| format!("the log ends with:\n{}", self.tail(5)))
        })
        .await
    }
}

/// Only whole lines: the last one may be half written.
fn parse(text: &str) -> Vec<Line> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter(|line| !line.trim().is_empty()).map(parse_line).collect()
}

fn parse_line(line: &str) -> Line {
    serde_json::from_str(line).unwrap_or_else(|_not_json| Line {
        timestamp: String::new(),
        level: Level::Error,
        target: String::new(),
        message: line.to_owned(),
        fields: serde_json::Map::new(),
    })
}

/// What a test expects of a log: nothing of level WARN or above but what is listed.
#[derive(Debug, Clone, Copy)]
pub struct LogGate<'a> {
    /// Fragments of expected warnings and errors.
    pub expected: &'a [&'a str],
}

impl LogGate<'_> {
    /// Judges `lines`.
    ///
    /// # Errors
    /// There is a warning or an error that is not listed; all of them are named.
    pub fn judge(&self, lines: &[Line]) -> Result<()> {
        let listed = |line: &Line| self.expected.iter().any(|fragment| line.shown().contains(fragment));
        let unexpected: Vec<String> = lines
            .iter()
            .filter(|line| line.level >= Level::Warn && !listed(line))
            .map(|line| format!("{:?} {}", line.level, line.shown()))
            .collect();
        ensure!(unexpected.is_empty(), "unexpected log lines:\n{}", unexpected.join("\n"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"timestamp":"2026-01-01T00:00:00.000001Z","level":"INFO","message":"disk formatted","device":"/dev/loop0","target":"holdfast_agent::act"}
{"timestamp":"2026-01-01T00:00:01.000001Z","level":"WARN","message":"probe failed, will retry","tries":3,"target":"holdfast_agent::watch"}
{"timestamp":"2026-01-01T00:0"#;

    #[test]
    fn a_half_written_line_is_left_for_the_next_look() {
        let lines = parse(LOG);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].shown(), "disk formatted device=/dev/loop0");
    }

    #[test]
    fn a_warning_that_nobody_expected_fails_the_test() {
        let failure = LogGate { expected: &[] }.judge(&parse(LOG)).expect_err("there is a warning");
        assert_eq!(failure.to_string(), "unexpected log lines:\nWarn probe failed, will retry tries=3");
    }

    #[test]
    fn an_expected_warning_passes() {
        LogGate { expected: &["probe failed"] }.judge(&parse(LOG)).expect("it is listed");
    }

    #[test]
    fn a_panic_in_the_log_is_an_error() {
        let lines = parse("thread 'main' panicked at src/main.rs\n");
        LogGate { expected: &[] }.judge(&lines).expect_err("a panic is never expected");
    }
}
