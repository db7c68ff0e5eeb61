//! Dies after a named [`step`], once: how tests kill an agent between each two steps of a protocol, without a race. Only in
//! debug builds; in a release nothing of it exists.
//!
//! A step is told as an event, synchronously, by the thread that has done it. If `die-at` in the state directory names it, the
//! file is removed, durably, and the process sends itself SIGKILL before that thread does anything else. Other threads of
//! the agent may be in the middle of something, as in any crash.
//!
//! Invariants, each a test below:
//! * `only_the_step_that_is_named_is_died_at_and_only_once`.
//! * `steps_are_seen_whatever_is_logged`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use holdfast_model::step;
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Where the file is; known once the configuration is read.
static STATE_DIR: OnceLock<PathBuf> = OnceLock::new();

/// The name of the file, which holds the name of a step.
const FILE: &str = "die-at";

/// From now on the file in `state_dir` is obeyed. Only the first call counts.
pub(crate) fn obey(state_dir: &Path) {
    STATE_DIR.get_or_init(|| state_dir.to_owned());
}

/// Sees each step, with a filter of its own: whatever is logged.
pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    let die = |step: &str| {
        if STATE_DIR.get().is_some_and(|state_dir| is_due(state_dir, step)) {
            die();
        }
    };
    Steps { done: die }.with_filter(steps())
}

fn steps() -> Targets {
    Targets::new().with_target(step::TARGET, Level::DEBUG)
}

/// Whether `step` is the one that the file names. Then the file is gone: a file that cannot be removed is not obeyed, or
/// the next life would end there too.
fn is_due(state_dir: &Path, step: &str) -> bool {
    let file = state_dir.join(FILE);
    let named = fs::read_to_string(&file).is_ok_and(|named| named.trim() == step);
    let remove = || fs::remove_file(&file).and_then(|()| File::open(state_dir)?.sync_all());
    named && remove().is_ok()
}

fn die() -> ! {
    // Not returned from: SIGKILL is delivered before this call ends.
    kill(getpid(), Signal::SIGKILL).expect("a process may signal itself");
    std::process::abort();
}

/// Hands the name of each step to `done`.
struct Steps<F> {
    done: F,
}

impl<S: Subscriber, F: Fn(&str) + 'static> Layer<S> for Steps<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Named(&self.done));
    }
}

struct Named<'a, F>(&'a F);

impl<F: Fn(&str)> Visit for Named<'_, F> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == step::FIELD {
            (self.0)(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn only_the_step_that_is_named_is_died_at_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let (named, other) = (step::recruit::PROMISED.name(), step::recruit::STILL.name());
        assert!(!is_due(folder.path(), named), "there is no file");
        fs::write(folder.path().join(FILE), format!("{named}\n")).unwrap();
        assert!(!is_due(folder.path(), other), "another one is named");
        assert!(is_due(folder.path(), named));
        assert!(!folder.path().join(FILE).exists());
        assert!(!is_due(folder.path(), named), "it was died at already");
    }

    #[test]
    fn steps_are_seen_whatever_is_logged() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&seen);
        let done = move |step: &str| note.lock().unwrap().push(step.to_owned());
        let logged = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
        let all = tracing_subscriber::registry()
            .with(logged.with_filter(EnvFilter::new("error")))
            .with(Steps { done }.with_filter(steps()));
        tracing::subscriber::with_default(all, || {
            tracing::debug!(target: step::TARGET, step = step::promote::ASKED.name());
            tracing::debug!(step = "of something else");
        });
        assert_eq!(*seen.lock().unwrap(), [step::promote::ASKED.name()]);
    }
}
