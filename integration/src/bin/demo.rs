//! `holdfast-demo`: shows on real parts, in a few minutes, what holdfast is for. `make demo` runs it.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use holdfast_integration::demo::single;

/// What holdfast does, told scene by scene on real parts. Cleans up after itself, also on Ctrl-C.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    story: Story,
}

#[derive(Debug, Subcommand)]
enum Story {
    /// One node loses its only disk under load, and comes back from object storage by itself.
    Single(single::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Story::Single(options) = Cli::parse().story;
    let outcome = tokio::select! {
        played = single::play(&options) => played,
        interrupted = tokio::signal::ctrl_c() => report_interrupt(interrupted),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            complain(&err);
            ExitCode::FAILURE
        }
    }
}

fn report_interrupt(interrupted: std::io::Result<()>) -> Result<()> {
    interrupted?;
    anyhow::bail!("interrupted; everything was taken down")
}

#[expect(clippy::print_stderr, reason = "the one message of a failed demo")]
fn complain(err: &anyhow::Error) {
    eprintln!("\nthe demo failed: {err:#}");
}
