//! `holdfast-demo`: shows on real parts, in a few minutes, what holdfast is for. `make demo` runs it.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use holdfast_integration::demo::{single, zones};

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
    /// Three nodes in three zones lose engines, links and disks, and no commit.
    Zones(zones::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let story = Cli::parse().story;
    let playing = async {
        match &story {
            Story::Single(options) => single::play(options).await,
            Story::Zones(options) => zones::play(options).await,
        }
    };
    let outcome = tokio::select! {
        played = playing => played,
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
