//! Follows long work with a progress bar, to its end.
//!
//! The work goes on without us: a command that is interrupted, or loses its agent, stops nothing.

use holdfast_model::status::{Operation, OperationState, Progress};
use holdfast_proto::convert::required_from_wire;
use holdfast_proto::v1;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Wait;
use crate::client::Agent;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

/// Shows what was begun, and follows it unless told not to.
pub(super) async fn begun(
    agent: &Agent,
    operation: Option<v1::Operation>,
    wait: Wait,
    output: &mut Output,
) -> Result<(), Failure> {
    let operation: Operation = required_from_wire("operation", operation)?;
    if wait.no_wait {
        return output.answer(&operation, render::operation_line);
    }
    output.note(&format!("begun; to follow it elsewhere: holdfast operation watch {}", operation.id));
    to_its_end(agent, &operation.id, output).await
}

/// Follows operation `id`; its failure is the command's failure.
pub(super) async fn to_its_end(agent: &Agent, id: &str, output: &mut Output) -> Result<(), Failure> {
    let request = v1::WatchOperationRequest { id: id.to_owned() };
    let mut changes = agent.operation().watch_operation(request).await?.into_inner();
    let bar = bar(output.wants_progress());
    while let Some(answer) = changes.message().await? {
        let operation: Operation = required_from_wire("operation", answer.operation)?;
        match &operation.state {
            OperationState::Running { progress } => advance(&bar, progress),
            OperationState::Done { .. } => {
                bar.finish_and_clear();
                return output.answer(&operation, render::operation_line);
            }
            OperationState::Failed { why } => {
                bar.finish_and_clear();
                return Err(Failure::Operation { id: id.to_owned(), why: why.clone() });
            }
            OperationState::Refused { why } => {
                bar.finish_and_clear();
                return Err(Failure::OperationRefused { id: id.to_owned(), why: why.clone() });
            }
        }
    }
    Err(Failure::Unreachable(format!(
        "the agent stopped telling about operation {id}, which may go on; see holdfast operation list"
    )))
}

fn bar(shown: bool) -> ProgressBar {
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(None, target)
}

/// Work without bytes, such as a failover, is told by its phase.
const NOTHING_COUNTED: &str = "{spinner} {elapsed} {msg}";
const OPEN_END: &str = "{spinner} {bytes} {binary_bytes_per_sec} {msg}";
const KNOWN_END: &str = "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta} {msg}";

fn advance(bar: &ProgressBar, progress: &Progress) {
    let template = match (progress.done.bytes(), progress.total.bytes()) {
        (0, 0) => NOTHING_COUNTED,
        (_, 0) => OPEN_END,
        (_, _) => KNOWN_END,
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the templates are constants"));
    if progress.total.bytes() > 0 {
        bar.set_length(progress.total.bytes());
    }
    bar.set_position(progress.done.bytes());
    bar.set_message(progress.phase.clone());
}
