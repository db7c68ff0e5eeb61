//! `holdfast`: the command line.

use std::process::ExitCode;

use clap::Parser as _;
use holdfast_cli::args::Cli;
use holdfast_cli::output::Output;
use holdfast_cli::run::run;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut output = Output::stdout(cli.json);
    match run(cli, &mut output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
