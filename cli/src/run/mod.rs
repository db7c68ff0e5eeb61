//! Runs a parsed command: connect, ask, follow long work, show the answer.

mod backup;
mod certs;
mod cluster;
mod follow;
mod lifecycle;
mod node;
mod volume;

use clap::CommandFactory as _;
use holdfast_model::status::{NodeView, VolumeView};
use holdfast_proto::convert::required_from_wire;
use holdfast_proto::request::{RequestId, Target};
use holdfast_proto::v1;

use crate::args::{Access, Ask, Cli, Command, OperationCommand};
use crate::client::{Agent, Credentials, connect};
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::output::Output;

/// Runs `cli`.
///
/// # Errors
/// [`Failure`], with the exit code that goes with it.
pub async fn run(cli: Cli, output: &mut Output) -> Result<(), Failure> {
    match cli.command {
        Command::Ask(command) => ask(&reach(&cli.access).await?, command, output).await,
        Command::Certs(command) => certs::run(command, output),
        Command::Completions { shell } => completions(shell, output),
    }
}

async fn ask(agent: &Agent, command: Ask, output: &mut Output) -> Result<(), Failure> {
    match command {
        Ask::Status { watch: false } => node::status(agent, output).await,
        Ask::Status { watch: true } => node::watch(agent, output).await,
        Ask::Explain => node::explain(agent, output).await,
        Ask::Operation(OperationCommand::List) => node::operations(agent, output).await,
        Ask::Operation(OperationCommand::Watch { id }) => follow::to_its_end(agent, &id, output).await,
        Ask::Volume(command) => volume::run(agent, command, output).await,
        Ask::Backup(command) => backup::run(agent, command, output).await,
        Ask::Log => backup::log(agent, output).await,
        Ask::Bootstrap(args) => lifecycle::bootstrap(agent, args, output).await,
        Ask::Restore { backup, wait } => lifecycle::restore(agent, backup, wait, output).await,
        Ask::Engine(command) => lifecycle::engine(agent, command, output).await,
        Ask::Failover(args) => cluster::failover(agent, args, output).await,
        Ask::Switchover { to, wait } => cluster::switchover(agent, to, wait, output).await,
        Ask::Member(command) => cluster::member(agent, command, output).await,
    }
}

fn completions(shell: clap_complete::Shell, output: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut script);
    output.raw(&script)
}

async fn reach(access: &Access) -> Result<Agent, Failure> {
    let given = |file: &Option<std::path::PathBuf>, option: &str| {
        let hint =
            || Failure::Usage(format!("--{option} is needed: agents answer nobody without a certificate"));
        file.clone().ok_or_else(hint)
    };
    let credentials = Credentials {
        ca: given(&access.ca, "ca")?,
        cert: given(&access.cert, "cert")?,
        key: given(&access.key, "key")?,
    };
    let local = [Endpoint::local()];
    let endpoints = if access.endpoint.is_empty() { &local[..] } else { &access.endpoint };
    connect(endpoints, credentials.load()?).await
}

async fn view(agent: &Agent) -> Result<NodeView, Failure> {
    let answer = agent.node().get_status(v1::GetStatusRequest {}).await?.into_inner();
    Ok(required_from_wire("view", answer.view)?)
}

/// Aims a mutating call at the node as it shows itself now; it refuses if it has changed when the call arrives.
async fn aim(agent: &Agent) -> Result<Target, Failure> {
    let view = view(agent).await?;
    let incarnation = match view.volume {
        VolumeView::Mounted { identity, .. } => Some(identity.incarnation),
        VolumeView::Unknown
        | VolumeView::Absent { .. }
        | VolumeView::Blank { .. }
        | VolumeView::Unmounted { .. } => None,
    };
    Ok(Target {
        request: RequestId::from_random(random_bits()),
        cluster: view.cluster,
        node: view.node,
        incarnation,
        term: view.rule.map(|rule| rule.id.term),
    })
}

fn random_bits() -> u128 {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("getrandom(2) does not fail after boot");
    u128::from_le_bytes(bytes)
}
