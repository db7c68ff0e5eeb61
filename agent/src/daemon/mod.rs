//! `holdfastd run`: sets up while it has root's rights, gives them up, and runs the loops until it is told to stop.
//!
//! Order: bind the ports (so that a port that is taken is told before anything starts), prepare directories, start the
//! helper, become the unprivileged user, only then start the runtime with its threads.
//!
//! On SIGTERM the loops end; the engine, its gate and the mount stay as they are, for the next daemon to adopt.

mod control;
mod coordinate;
mod engine_tls;
mod members;
pub mod places;
mod replication;
mod shelf;
mod volumes;
mod vouched;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use holdfast_backup::repository::Location;
use holdfast_engine::postgres::hba::ClientRule;
use holdfast_engine::postgres::links::Links;
use holdfast_engine::postgres::{Deadlines, Layout, Postgres, Setup, Version};
use holdfast_model::ByteCount;
use holdfast_model::status::{
    BreachesView, DataView, EngineView, Gate, GateClosed, LogView, NodeView, RepositoryView, VolumeView,
};
use holdfast_proto::identity::Identity;
use holdfast_storage::places as volume_places;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::api::plain::MetricsText;
use crate::api::serve::{Api, ApiOptions, serve};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::config::Config;
use crate::crew::Crew;
use crate::engine_actor::EngineActor;
use crate::gate_loop::{GateLoop, GateOrders, GateReport, HandsOf};
use crate::handover::Handover;
use crate::hands::EngineHands;
use crate::helper::{self, HelperLink};
use crate::ledger::Ledger;
use crate::operations::Operations;
use crate::peers::Peers;
use crate::reconcile::{Node, Reconciler};
use crate::supervisor::breaches::Breaches;
use crate::supervisor::{Supervisor, log_tail};
use crate::tls::Reloader;
use crate::{metrics, repo_watch};

/// How long the loops may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Log that a slot may hold back; what goes beyond has to be fetched from the repository.
const SLOT_LOG_MAX: ByteCount = ByteCount::gib(4);
/// Two cores are plenty for an agent.
const THREADS: usize = 2;

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot be set up, or a loop ends by itself.
pub fn main(config: Config) -> anyhow::Result<()> {
    let setup = setup(&config)?;
    let grpc = bind("api.grpc", config.api.grpc)?;
    let http = bind("api.http", config.api.http)?;
    let users = places::Users::of(&config)?;
    places::prepare(&config, users.as_ref())?;
    #[cfg(debug_assertions)]
    crate::die_at::obey(&config.daemon.state_dir);
    let (link, mut child) = helper::start(&config.file).context("start the root helper")?;
    if let Some(users) = &users {
        places::become_daemon(users)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(run(config, setup, link, grpc, http));
    runtime.shutdown_timeout(Duration::from_secs(1));
    // The helper ends when its channel closes, which it has.
    child.wait().context("wait for the root helper")?;
    result
}

/// What `check-config` checks besides the file itself: the engine's binaries and settings.
///
/// # Errors
/// Every problem of the engine's part at once.
pub fn check(config: &Config) -> anyhow::Result<()> {
    let setup = setup(config)?;
    let nobody = holdfast_engine::Ackers::Nobody;
    let closed = Gate::Closed { why: GateClosed::Starting };
    setup.files(&closed, &nobody, &Links::default()).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(|err| format!("\n  - engine.settings: {err}")).collect();
        anyhow::anyhow!(
            "configuration {} has {} problem(s):{}",
            config.file.display(),
            all.len(),
            all.concat()
        )
    })?;
    if let Some(repository) = &config.repository {
        Location::connect(repository)?;
    }
    Ok(())
}

fn bind(field: &'static str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address} ({field})"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A single node's engine is not given certificates: its clients' TLS stays the operator's to set.
fn setup(config: &Config) -> anyhow::Result<Setup> {
    let layout = Layout {
        bin_dir: config.engine.bin_dir.clone(),
        data_dir: config.volume.mount.join(volume_places::data_dir("postgres")),
        socket_dir: config.daemon.run_dir.clone(),
        conf_dir: places::conf_dir(config),
        port: config.engine.port,
        listen: config.engine.listen.clone(),
    };
    let (clients, bad): (Vec<_>, Vec<_>) =
        config.engine.hba.iter().map(|line| ClientRule::parse(line)).partition(Result::is_ok);
    if !bad.is_empty() {
        let all: Vec<String> =
            bad.into_iter().filter_map(Result::err).map(|err| format!("\n  - engine.hba: {err}")).collect();
        anyhow::bail!(
            "configuration {} has {} problem(s):{}",
            config.file.display(),
            all.len(),
            all.concat()
        );
    }
    let version = version(config)?;
    Ok(Setup {
        layout,
        version,
        cluster: config.cluster.clone(),
        agent_users: vec![config.daemon.user.clone(), config.engine.user.clone(), own_user()],
        clients: clients.into_iter().filter_map(Result::ok).collect(),
        tls: (!config.peers.is_empty())
            .then(|| places::engine_tls(config, nix::unistd::Uid::effective().is_root())),
        settings: config.engine.settings.iter().cloned().collect(),
        slot_log_max: SLOT_LOG_MAX,
        deadlines: Deadlines::default(),
    })
}

/// Without root everything runs as whoever started it.
fn own_user() -> String {
    let uid = nix::unistd::Uid::effective();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn version(config: &Config) -> anyhow::Result<Version> {
    let program = config.engine.bin_dir.join("postgres");
    let output = crate::child::output_of(&program, &["--version"])
        .with_context(|| format!("run {} ([engine] bin_dir)", program.display()))?;
    Ok(Version::parse(&output).and_then(Version::check)?)
}

fn first_view(config: &Config, clock: Clock) -> NodeView {
    NodeView {
        at: clock.now(),
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        zone: config.zone.clone(),
        volume: VolumeView::Unknown,
        data: DataView::Unknown,
        engine: EngineView::Stopped { crashes: 0, since: None },
        gate: Gate::Closed { why: GateClosed::Starting },
        rule: None,
        promise: None,
        part: holdfast_model::peer::Part::None,
        peers: vec![],
        repository: RepositoryView::Unknown,
        log: LogView::default(),
        breaches: BreachesView::default(),
        operations: vec![],
        reason: "starting".to_owned(),
    }
}

async fn run(
    config: Config,
    setup: Setup,
    link: OwnedFd,
    grpc: TcpListener,
    http: TcpListener,
) -> anyhow::Result<()> {
    let clock = Clock::start();
    let own = Identity::node(config.cluster.clone(), config.zone.clone(), config.node.clone());
    let tls = Reloader::start(config.tls.clone(), own).context("read [tls]")?;
    let ledger = Ledger::open(&config.daemon.state_dir)?;
    let (client, link) = HelperLink::new(link).context("talk to the root helper")?;
    let mut link = Box::pin(link.run());
    if setup.tls.is_some() {
        tokio::select! {
            installed = engine_tls::first(&client) => installed.context("give the engine its certificates")?,
            err = &mut link => return Err(err).context("talk to the root helper"),
        };
    }
    let supervisor = Supervisor::new(client.clone(), ledger.clone())?;
    let (engine, actor) = EngineActor::new(supervisor.clone(), clock)?;
    let (send_orders, orders) = watch::channel(GateOrders::default());
    let (send_report, gate) = watch::channel(GateReport::unknown());
    let (send_repository, repository) = watch::channel(RepositoryView::Unknown);
    let repository_wake = Arc::new(Notify::new());
    let (peers, polling) = Peers::new(&config.peers, &config.cluster, &config.tls, clock);
    let (helper, data_dir) = (client.clone(), setup.layout.data_dir.clone());
    let hands = HandsOf::new(move |process| {
        let (helper, data_dir) = (helper.clone(), data_dir.clone());
        Box::new(EngineHands { helper, process, data_dir })
    });
    let (gate_loop, gate_task) = GateLoop::new(Postgres::new(setup.clone()), hands, orders, send_report);
    let node = Arc::new(Node {
        peers,
        gate_loop,
        desk: watch::channel(None).0,
        handover: Handover::default(),
        backup_begins: tokio::sync::Mutex::default(),
        rewind_ended: crate::reconcile::RewindEnded::default(),
        setup,
        clock,
        ledger,
        operations: Operations::new(clock),
        helper: client,
        engine,
        supervisor,
        orders: Arc::new(send_orders),
        gate,
        breaches: Arc::new(Breaches::default()),
        repository,
        repository_wake: Arc::clone(&repository_wake),
        wake: Notify::new(),
        view: watch::channel(Arc::new(first_view(&config, clock))).0,
        program: std::env::current_exe().context("find this program")?,
        tasks: TaskTracker::new(),
        config,
    });
    let cancel = CancellationToken::new();
    let mut crew = Crew::new(cancel.clone());
    crew.add("helper link", |cancel| async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            err = link => warn!(error = %Chain(&err), "root helper is gone"),
        }
    });
    crew.add("engine", |cancel| actor.run(cancel));
    if node.setup.tls.is_some() {
        let (engine, supervisor) = (node.engine.clone(), node.supervisor.clone());
        let (helper, swapped) = (node.helper.clone(), tls.config());
        crew.add("engine tls", |cancel| engine_tls::follow(helper, supervisor, engine, swapped, cancel));
    }
    crew.add("gate", |cancel| gate_task.run(cancel));
    crew.add("peers", |cancel| polling.run(cancel));
    let (place, name) = (node.config.repository.clone(), node.config.cluster.clone());
    crew.add("repository", |cancel| repo_watch::run(place, name, repository_wake, send_repository, cancel));
    let engine_log = node.config.daemon.state_dir.join("log/engine.log");
    let counting = Arc::clone(&node.breaches);
    crew.add("engine log", |cancel| log_tail::follow(engine_log, counting, cancel));
    crew.add("reconcile", |cancel| Reconciler::new(Arc::clone(&node)).run(cancel));
    let api = api(&node, tls, grpc, http)?;
    crew.add("api", |cancel| async move {
        if let Err(err) = serve(api, cancel).await {
            warn!(error = %Chain(&err), "api ended");
        }
    });
    crew.add("signals", stop_on_signal);
    info!(node = %node.config.node, cluster = %node.config.cluster, version = env!("CARGO_PKG_VERSION"), "holdfastd running");
    let ended = crew.run(DRAIN).await;
    match ended {
        Err(crate::crew::CrewError::EndedEarly("signals")) | Ok(()) => {
            info!("holdfastd stopped; the engine goes on");
            Ok(())
        }
        Err(err) => Err(err.into()),
    }
}

fn api(node: &Arc<Node>, tls: Reloader, grpc: TcpListener, http: TcpListener) -> anyhow::Result<Api<Node>> {
    let view = node.view.subscribe();
    Ok(Api {
        grpc: tokio::net::TcpListener::from_std(grpc)?,
        http: tokio::net::TcpListener::from_std(http)?,
        tls,
        control: Arc::clone(node),
        metrics: MetricsText::new(move || metrics::render(&view.borrow())),
        options: ApiOptions {
            cluster: node.config.cluster.clone(),
            remote_format: node.config.api.remote_format,
        },
    })
}

/// Ends when the process is asked to stop.
async fn stop_on_signal(cancel: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        cancel.cancelled().await;
        return;
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        _ = term.recv() => info!("asked to stop by SIGTERM"),
        _ = int.recv() => info!("asked to stop by SIGINT"),
    }
}
