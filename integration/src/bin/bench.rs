//! `holdfast-bench`: figures that the demo's story does not give. `make bench` runs it, optimised.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use holdfast_integration::bench::{detect, idle, load};

/// Measures on real parts, and writes JSON. Cleans up after itself, also on Ctrl-C.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// From a fault of the disk to a closed gate, by kind of fault.
    Detect(detect::Options),
    /// What an agent takes of the machine that has nothing to do.
    Idle(idle::Options),
    /// What an agent takes of the machine while its primary is loaded, and how many commits that costs.
    Load(load::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let what = Cli::parse().what;
    let measuring = async {
        match &what {
            What::Detect(options) => detect::run(options).await,
            What::Idle(options) => idle::run(options).await,
            What::Load(options) => load::run(options).await,
        }
    };
    let outcome = tokio::select! {
        measured = measuring => measured,
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

#[expect(clippy::print_stderr, reason = "the one message of a failed measurement")]
fn complain(err: &anyhow::Error) {
    eprintln!("\nnot measured: {err:#}");
}
