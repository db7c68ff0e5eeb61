//! The only place that prints: answers to standard output, everything else to standard error.
//!
//! A reader that goes away (`holdfast status --watch | head`) ends the command without noise.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Where answers go, and in which form.
pub struct Output {
    answers: Box<dyn Write + Send>,
    json: bool,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("json", &self.json).finish_non_exhaustive()
    }
}

impl Output {
    /// Answers to standard output.
    #[must_use]
    pub fn stdout(json: bool) -> Self {
        Self::to(Box::new(io::stdout()), json)
    }

    /// Answers to `answers`.
    #[must_use]
    pub fn to(answers: Box<dyn Write + Send>, json: bool) -> Self {
        Self { answers, json }
    }

    /// Whether somebody watches who would like a progress bar.
    #[must_use]
    pub fn wants_progress(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// Answers with `value` as JSON, or as `render` shows it.
    ///
    /// # Errors
    /// [`Failure::Print`].
    pub fn answer<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        render: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string(value).map_err(|err| Failure::Print(err.into()))?
        } else {
            render(value)
        };
        self.line(&text)
    }

    /// Answers with bytes as they are.
    ///
    /// # Errors
    /// [`Failure::Print`].
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.answers.write_all(bytes).and_then(|()| self.answers.flush()).map_err(Failure::Print)
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.answers, "{}", text.trim_end())
            .and_then(|()| self.answers.flush())
            .map_err(Failure::Print)
    }

    /// Says something beside the answer, for people only.
    pub fn note(&mut self, text: &str) {
        if !self.json {
            complain(text);
        }
    }

    /// Tells a failure with all its causes.
    pub fn failure(&mut self, failure: &Failure) {
        let gone = matches!(failure, Failure::Print(err) if err.kind() == io::ErrorKind::BrokenPipe);
        if !gone {
            complain(&format!("holdfast: {}", chain(failure)));
        }
    }
}

fn chain(err: &dyn Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}

/// Nobody can be told when standard error is gone, too.
fn complain(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}
