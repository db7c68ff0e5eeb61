//! `holdfastd`: the daemon, its root helper, its workers and the stage before an engine, in one binary.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use holdfast_agent::{bootstrap, child, config::Config, daemon, fetch, helper, logging, worker};

/// Holdfast's node agent: makes a local disk safe to keep a database on.
#[derive(Debug, Parser)]
#[command(name = "holdfastd", version, max_term_width = 110)]
struct Cli {
    /// What to log, such as `info` or `info,holdfast_agent=debug`.
    #[arg(long, env = "HOLDFAST_LOG", default_value = "info", global = true)]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon. Started as root, it keeps a small root helper and becomes [daemon] user itself.
    Run {
        /// The configuration file.
        #[arg(long, env = "HOLDFAST_CONFIG")]
        config: PathBuf,
    },
    /// Validate a configuration file and print every problem at once.
    CheckConfig {
        /// The configuration file.
        #[arg(long, env = "HOLDFAST_CONFIG")]
        config: PathBuf,
    },
    /// Ask this node's daemon, once, to make a new cluster on a blank disk. An empty disk alone never means that.
    Bootstrap {
        /// The configuration file.
        #[arg(long, env = "HOLDFAST_CONFIG")]
        config: PathBuf,
        /// The cluster's name, repeated, so that no other cluster is made by mistake.
        #[arg(long)]
        token: String,
    },
    /// Postgres' restore_command: fetch one file of the log from the log worker.
    #[command(hide = true)]
    FetchLog {
        /// The log worker's socket.
        #[arg(long)]
        socket: PathBuf,
        /// The file's name (%f).
        name: String,
        /// Where to write it (%p).
        target: PathBuf,
    },
    /// The root helper; started by `run`.
    #[command(hide = true)]
    Helper {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// One privileged step; started by the helper.
    #[command(hide = true)]
    Op,
    /// A worker on the data disk; started by the helper.
    #[command(hide = true)]
    Worker {
        /// What it is for.
        role: String,
    },
    /// Set a child up and become it; started by the helper.
    #[command(hide = true)]
    ExecChild {
        /// What it is to become, as JSON.
        spec: String,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(err) = logging::start(&cli.log) {
        return fail(&anyhow::Error::new(err).context("read --log"));
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(err) => fail(&err),
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { config } => daemon::main(Config::load(&config)?).map(|()| ExitCode::SUCCESS),
        Command::CheckConfig { config } => {
            let config = Config::load(&config)?;
            daemon::check(&config)?;
            say(&format!("{}: valid", config.file.display()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Bootstrap { config, token } => {
            bootstrap::request(&Config::load(&config)?, &token)?;
            say(
                "requested: the daemon makes the cluster on the next blank disk; watch it with 'holdfast status'",
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::FetchLog { socket, name, target } => Ok(match fetch::fetch(&socket, &name, &target) {
            Ok(fetched) => ExitCode::from(fetched.exit_code()),
            Err(err) => {
                fail(&anyhow::Error::new(err));
                ExitCode::from(fetch::EXIT_FAILED)
            }
        }),
        Command::Helper { config } => helper::main(Config::load(&config)?),
        Command::Op => Ok(child::op_main()),
        Command::Worker { role } => Ok(worker::main(&role)),
        Command::ExecChild { spec } => Ok(child::main(&spec)),
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command that a person typed")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "the last words of a command that failed")]
fn fail(err: &anyhow::Error) -> ExitCode {
    eprintln!("holdfastd: {err:#}");
    ExitCode::FAILURE
}
