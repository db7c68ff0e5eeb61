//! A served API over a daemon that does nothing, with certificates of a throw-away authority.

#![expect(dead_code, reason = "each test file uses its own part")]

pub(crate) mod view;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use clap::Parser as _;
use holdfast_agent::api::control::{
    AllowWipe, AskNear, AskVote, AwaitPosition, Backup, BackupDetail, Bootstrap, CallError, ChangeMember,
    Close, Control, Failover, Follow, FormatVolume, LogStatus, PlannedDevice, Promote, Reason, Recruit,
    Reopen, Restore, Switchover, Target, Vote, WipeConsent, WipeVolume,
};
use holdfast_agent::api::plain::MetricsText;
use holdfast_agent::api::{Api, ApiError, ApiOptions, serve};
use holdfast_agent::config::TlsConfig;
use holdfast_agent::tls::Reloader;
use holdfast_cli::args::Cli;
use holdfast_cli::certs::{CertFiles, Issue, init, issue};
use holdfast_cli::client::Credentials;
use holdfast_cli::endpoint::Endpoint;
use holdfast_cli::failure::Failure;
use holdfast_cli::output::Output;
use holdfast_model::status::{NodeView, Operation, OperationKind, OperationState};
use holdfast_model::{Lsn, NodeName, Position, Rule, Term, Tick, Vouch};
use holdfast_proto::identity::{Caller, Role};
use holdfast_proto::refusal::Refusal;
use holdfast_replication::account::LossCertificate;
use holdfast_replication::choose::Report;
use holdfast_replication::promise;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Records who was asked what; long work ends at once.
pub(crate) struct FakeControl {
    pub(crate) view: watch::Sender<Arc<NodeView>>,
    pub(crate) asked: Mutex<Vec<&'static str>>,
    /// What a coordinator was asked, in words.
    pub(crate) asked_of_cluster: Mutex<Vec<String>>,
}

impl FakeControl {
    fn note(&self, verb: &'static str) {
        self.asked.lock().unwrap().push(verb);
    }

    fn done(&self, verb: &'static str, kind: OperationKind) -> Operation {
        self.ended(verb, kind, OperationState::Done { result: format!("{verb} done") })
    }

    fn ended(&self, verb: &'static str, kind: OperationKind, state: OperationState) -> Operation {
        self.note(verb);
        let operation = Operation { id: format!("op-{verb}"), kind, since: Tick::from_millis(2500), state };
        self.view.send_modify(|view| Arc::make_mut(view).operations.push(operation.clone()));
        operation
    }
}

#[async_trait]
impl Control for FakeControl {
    fn view(&self) -> watch::Receiver<Arc<NodeView>> {
        self.view.subscribe()
    }
    async fn plan_volume(&self) -> Result<Vec<PlannedDevice>, CallError> {
        self.note("plan");
        Ok(view::planned())
    }
    async fn format_volume(&self, _: FormatVolume) -> Result<Operation, CallError> {
        Ok(self.done("format", OperationKind::Format))
    }
    async fn allow_wipe(&self, _: AllowWipe) -> Result<WipeConsent, CallError> {
        self.note("allow wipe");
        Ok(view::consent())
    }
    async fn wipe_volume(&self, _: WipeVolume) -> Result<Operation, CallError> {
        Ok(self.done("wipe", OperationKind::Format))
    }
    async fn bootstrap(&self, _: Bootstrap) -> Result<Operation, CallError> {
        Ok(self.done("bootstrap", OperationKind::Bootstrap))
    }
    async fn start_engine(&self, _: Target) -> Result<(), CallError> {
        self.note("start");
        Ok(())
    }
    async fn stop_engine(&self, _: Target) -> Result<(), CallError> {
        self.note("stop");
        Ok(())
    }
    async fn restore(&self, _: Restore) -> Result<Operation, CallError> {
        self.note("restore");
        Err(Refusal::new(Reason::DataPresent, "there is data on the volume", "remove it first").into())
    }
    async fn create_backup(&self, _: Target) -> Result<Operation, CallError> {
        Ok(self.done("backup", OperationKind::Backup))
    }
    async fn list_backups(&self, _: u32) -> Result<Vec<Backup>, CallError> {
        self.note("list");
        Ok(view::backups())
    }
    async fn show_backup(&self, id: &str) -> Result<BackupDetail, CallError> {
        self.note("show");
        Err(Refusal::new(Reason::NotFound, format!("no backup {id:?}"), "holdfast backup list").into())
    }
    async fn log_status(&self) -> Result<LogStatus, CallError> {
        let why = "connection refused".to_owned();
        Err(CallError::Unavailable { what: "the repository", why })
    }
    async fn rules(&self) -> Result<Vec<Rule>, CallError> {
        self.note("rules");
        Ok(view::serving().rule.into_iter().collect())
    }
    async fn ask_vote(&self, _: AskVote) -> Result<Vote, CallError> {
        self.note("vote");
        Ok(Vote::SeesPrimary)
    }
    async fn ask_near(&self, _: AskNear) -> Result<bool, CallError> {
        self.note("near");
        Ok(true)
    }
    /// Has promised term 5.
    async fn recruit(&self, request: Recruit) -> Result<Report<Position>, CallError> {
        self.note("recruit");
        let (promised, asked) = (Term::new(5).unwrap(), request.attempt.term);
        if asked <= promised {
            return Err(promise::Refused::Promised { promised, asked }.into());
        }
        Ok(view::report(request.attempt))
    }
    async fn promote(&self, request: Promote) -> Result<Rule, CallError> {
        self.note("promote");
        Err(promise::Refused::NotRecruited { asked: request.certificate.attempt.term }.into())
    }
    async fn follow(&self, _: Follow) -> Result<(), CallError> {
        self.note("follow");
        Ok(())
    }
    async fn close(&self, _: Close) -> Result<Position, CallError> {
        self.note("close");
        Ok(Lsn::from_offset(0x300_0000).into())
    }
    async fn await_position(&self, _: AwaitPosition) -> Result<(), CallError> {
        self.note("await");
        Err(CallError::Unavailable { what: "the log", why: "it has not arrived yet".to_owned() })
    }
    async fn reopen(&self, _: Reopen) -> Result<(), CallError> {
        self.note("reopen");
        Ok(())
    }
    async fn failover(&self, request: Failover, by: &str) -> Result<Operation, CallError> {
        let Failover { prefer, vouched_until_unix_ms: until, why, .. } = request;
        let word = if until.is_some() { format!("{why}, says {by}") } else { why };
        self.asked_of_cluster.lock().unwrap().push(format!("{prefer:?} {word}"));
        Ok(self.done("failover", OperationKind::Failover))
    }
    async fn vouch(&self) -> Result<Option<Vouch>, CallError> {
        Ok(Some(view::vouch()))
    }
    async fn certificate(&self) -> Result<Option<LossCertificate>, CallError> {
        Ok(Some(view::certificate()))
    }
    /// Ends badly, as one whose candidate is too far behind.
    async fn switchover(&self, request: Switchover) -> Result<Operation, CallError> {
        let why = format!("{} is too far behind", request.to);
        Ok(self.ended("switchover", OperationKind::Switchover, OperationState::Failed { why }))
    }
    async fn change_member(&self, request: ChangeMember) -> Result<Operation, CallError> {
        self.asked_of_cluster.lock().unwrap().push(format!("{:?} {}", request.change, request.node));
        Ok(self.done("change", OperationKind::ChangeMember))
    }
}

/// A folder with an authority of `cluster`, and certificates in it.
pub(crate) struct Authority {
    pub(crate) dir: TempDir,
}

impl Authority {
    pub(crate) fn of(cluster: &str) -> Self {
        let dir = TempDir::new().unwrap();
        init(dir.path(), &cluster.parse().unwrap(), 10).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn issue(&self, caller: Caller) -> CertFiles {
        issue(self.path(), Issue { caller, addresses: Vec::new(), days: 1 }).unwrap()
    }

    pub(crate) fn node(&self, name: &str) -> CertFiles {
        self.issue_node(name, false)
    }

    /// A node that may coordinate.
    pub(crate) fn coordinator(&self, name: &str) -> CertFiles {
        self.issue_node(name, true)
    }

    fn issue_node(&self, name: &str, promote: bool) -> CertFiles {
        self.issue(Caller::Node { zone: "eu-1a".parse().unwrap(), node: name.parse().unwrap(), promote })
    }

    pub(crate) fn user(&self, name: &str, roles: impl IntoIterator<Item = Role>) -> CertFiles {
        let name: NodeName = name.parse().unwrap();
        self.issue(Caller::User { name, roles: roles.into_iter().collect::<BTreeSet<_>>() })
    }

    pub(crate) fn ca(&self) -> std::path::PathBuf {
        self.path().join("ca.pem")
    }

    pub(crate) fn credentials(&self, files: &CertFiles) -> Credentials {
        Credentials { ca: self.ca(), cert: files.cert.clone(), key: files.key.clone() }
    }

    pub(crate) fn tls(&self, node: &CertFiles) -> TlsConfig {
        TlsConfig { ca: self.ca(), cert: node.cert.clone(), key: node.key.clone() }
    }
}

/// Node n1 of `orders`, served on ports of its own until dropped.
pub(crate) struct Served {
    pub(crate) authority: Authority,
    pub(crate) control: Arc<FakeControl>,
    pub(crate) grpc: Endpoint,
    pub(crate) http: SocketAddr,
    cancel: CancellationToken,
    tasks: JoinSet<Result<(), ApiError>>,
}

impl Served {
    pub(crate) async fn start(remote_format: bool) -> Self {
        let authority = Authority::of("orders");
        Self::start_with(authority, remote_format).await
    }

    pub(crate) async fn start_with(authority: Authority, remote_format: bool) -> Self {
        let tls = authority.tls(&authority.node("n1"));
        let own = "holdfast://orders/node/eu-1a/n1".parse().unwrap();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = Arc::new(FakeControl {
            view: watch::Sender::new(Arc::new(view::serving())),
            asked: Mutex::default(),
            asked_of_cluster: Mutex::default(),
        });
        let (grpc_at, http_at) = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
        let api = Api {
            grpc,
            http,
            tls: Reloader::start(tls, own).unwrap(),
            control: Arc::clone(&control),
            metrics: MetricsText::new(|| "# EOF\n".to_owned()),
            options: ApiOptions { cluster: "orders".parse().unwrap(), remote_format },
        };
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(api, cancel.clone()));
        let grpc = format!("https://{grpc_at}").parse().unwrap();
        Self { authority, control, grpc, http: http_at, cancel, tasks }
    }

    /// Stops it and waits for its end.
    pub(crate) async fn stop(mut self) {
        self.cancel.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }

    pub(crate) fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.control.asked.lock().unwrap())
    }

    /// Runs `holdfast` as `who` with `args`, and returns its answer.
    pub(crate) async fn holdfast(&self, who: &CertFiles, args: &[&str]) -> Result<String, Failure> {
        self.holdfast_at(&self.grpc.to_string(), who, args).await
    }

    /// As [`Self::holdfast`], asking other endpoints.
    pub(crate) async fn holdfast_at(
        &self,
        endpoints: &str,
        who: &CertFiles,
        args: &[&str],
    ) -> Result<String, Failure> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut line = ["holdfast", "--endpoint", endpoints].map(str::to_owned).to_vec();
        line.extend(["--ca".to_owned(), text(&self.authority.ca())]);
        line.extend(["--cert".to_owned(), text(&who.cert), "--key".to_owned(), text(&who.key)]);
        line.extend(args.iter().map(|arg| (*arg).to_owned()));
        let cli = Cli::try_parse_from(line).unwrap();
        let answer = Shared::default();
        let mut output = Output::to(Box::new(answer.clone()), cli.json);
        holdfast_cli::run::run(cli, &mut output).await?;
        let bytes = answer.0.lock().unwrap().clone();
        Ok(String::from_utf8(bytes).unwrap())
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
