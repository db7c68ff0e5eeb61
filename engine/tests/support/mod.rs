//! A real Postgres server for one test: in a temporary folder, as its own user, on a unix socket only, and gone with
//! the test however that ends.
//!
//! As root everything runs as `postgres` through `setpriv`, since the server refuses root; otherwise as ourselves.
#![expect(dead_code, reason = "each test file compiles this module and uses its own part of it")]
#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]
#![expect(clippy::print_stderr, reason = "a failed test shows the server's log")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use holdfast_engine::Ackers;
use holdfast_engine::Launch;
use holdfast_engine::postgres::gate::install;
use holdfast_engine::postgres::links::Links;
use holdfast_engine::postgres::session::Session;
use holdfast_engine::postgres::{Deadlines, Layout, Setup, Version, argv};
use holdfast_model::status::{Gate, GateClosed};
use holdfast_model::{ByteCount, Incarnation, Lsn, Member, Rule, RuleId, Term, Voter, VoterKind};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub(crate) const CLOSED: Gate = Gate::Closed { why: GateClosed::Starting };
pub(crate) const OPEN: Gate = Gate::Open { term: Term::FIRST };
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub(crate) setup: Setup,
    pub(crate) links: Links,
    /// Appended to the command line, as a restore does.
    pub(crate) recovery: BTreeMap<&'static str, String>,
    pub(crate) dir: TempDir,
    child: Option<Child>,
    /// Processes of a server that was killed: they hold its shared memory until they are gone.
    killed: Mutex<Vec<Pid>>,
}

/// The folder of one major's programs.
pub(crate) fn bin_dir(major: u32) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let candidates = [
        PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
        root.join(format!(".cache/pg{major}/usr/lib/postgresql/{major}/bin")),
    ];
    let found = candidates.iter().find(|dir| dir.join("postgres").exists());
    let found = found.unwrap_or_else(|| panic!("postgres {major} is not installed: run make tools"));
    found.canonicalize().unwrap()
}

/// A command that runs `launch` as the engine's user, with its environment alone.
#[expect(
    clippy::disallowed_methods,
    reason = "tests start the processes that the helper starts in production"
)]
pub(crate) fn command(launch: &Launch) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--no-new-privs", "--"]);
        command.arg(&launch.program);
        command
    } else {
        Command::new(&launch.program)
    };
    command.args(&launch.args).env_clear().envs(launch.env.iter().cloned()).current_dir("/");
    command
}

/// Runs a program to its end and returns what it printed; panics when it fails.
pub(crate) fn run(launch: &Launch) -> String {
    let output = command(launch).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {stderr}", launch.program.display());
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a folder that belongs to the engine's user.
pub(crate) fn engine_folder(path: &Path) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    give_to_engine(path);
}

/// Gives a file or folder to the engine's user.
pub(crate) fn give_to_engine(path: &Path) {
    if geteuid().is_root() {
        let user = User::from_name("postgres").unwrap().expect("user postgres exists");
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

impl Server {
    /// An initialised, stopped server with a closed gate.
    pub(crate) fn init(major: u32) -> Self {
        let server = Self::empty(major);
        run(&argv::initdb(&server.setup.layout).arg("--no-sync"));
        server
    }

    /// Everything but the data directory.
    pub(crate) fn empty(major: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("hf-engine-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let layout = Layout {
            bin_dir: bin_dir(major),
            data_dir: dir.path().join("pgdata"),
            socket_dir: dir.path().join("run"),
            conf_dir: dir.path().join("conf"),
            port: 5432,
            listen: String::new(),
        };
        engine_folder(&layout.data_dir);
        engine_folder(&layout.socket_dir);
        fs::create_dir(&layout.conf_dir).unwrap();
        let version = Version::parse(&run(&argv::version(layout.bin_dir.clone()))).unwrap().check().unwrap();
        let me = User::from_uid(geteuid()).unwrap().unwrap().name;
        let setup = Setup {
            layout,
            version,
            cluster: "orders".parse().unwrap(),
            agent_users: vec![me, "postgres".to_owned()],
            clients: Vec::new(),
            tls: None,
            settings: BTreeMap::from([("shared_buffers".to_owned(), "16MB".to_owned())]),
            slot_log_max: ByteCount::gib(1),
            deadlines: Deadlines { query: Duration::from_secs(20), backup_start: DEADLINE },
        };
        Self {
            setup,
            links: Links::default(),
            recovery: BTreeMap::new(),
            dir,
            child: None,
            killed: Mutex::default(),
        }
    }

    /// Initialised and answering.
    pub(crate) async fn start_new(major: u32) -> Self {
        let mut server = Self::init(major);
        server.start().await;
        server
    }

    pub(crate) fn install(&self, gate: &Gate) {
        self.install_with(gate, &Ackers::Alone);
    }

    pub(crate) fn install_with(&self, gate: &Gate, sync: &Ackers) {
        let files = self.setup.files(gate, sync, &self.links).unwrap();
        install(&self.setup.layout, &files).unwrap();
    }

    /// Starts with a closed gate and waits for an answer.
    pub(crate) async fn start(&mut self) -> Session {
        self.install(&CLOSED);
        self.spawn();
        self.session().await
    }

    /// Starts the process on whatever files are installed.
    pub(crate) fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let launch = self.setup.launch().unwrap();
        let launch = self.recovery.iter().fold(launch, |launch, (name, value)| launch.setting(name, value));
        let mut command = command(&launch);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits until the server answers; panics with its log when it ends instead.
    pub(crate) async fn session(&mut self) -> Session {
        let until = Instant::now() + DEADLINE;
        loop {
            match Session::connect(&self.setup.layout, Duration::from_secs(20)).await {
                Ok(session) => return session,
                Err(err) => {
                    let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
                    let late = Instant::now() > until;
                    assert!(ended.is_none() && !late, "no answer ({ended:?}): {err:?}\n{}", self.log());
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the server to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + DEADLINE;
        let child = self.child.as_mut().expect("it was started");
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                break status;
            }
            assert!(Instant::now() < until, "the server did not end");
            sleep(Duration::from_millis(20)).await;
        };
        let killed = std::mem::take(&mut *self.killed.lock().unwrap());
        eventually("its killed processes are gone", async || {
            killed.iter().all(|pid| kill(*pid, None).is_err())
        })
        .await;
        status
    }

    /// The postmaster, which `setpriv` has become.
    pub(crate) fn postmaster(&self) -> Pid {
        pid_of(self.child.as_ref().expect("it was started"))
    }

    /// Signals the postmaster alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.postmaster(), signal).unwrap();
    }

    /// The postmaster's children; each has a process group of its own (T7).
    pub(crate) fn children(&self) -> Vec<Pid> {
        children(self.postmaster())
    }

    /// Kills the whole server, as a power loss would end it.
    pub(crate) fn kill(&self) {
        self.killed.lock().unwrap().extend(kill_with_children(self.postmaster()));
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir.path().join("engine.log")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Segment files of the log with their content, in order.
    pub(crate) fn wal_files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.setup.layout.wal_dir()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.len() == 24)
            .map(|name| (name.clone(), fs::read(self.setup.layout.wal_dir().join(name)).unwrap()))
            .collect()
    }
}

/// A child that was not waited for, so the pid is still its own.
fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("pids fit"))
}

/// Freezes the postmaster, so that it forks and reaps nobody, kills its children, then it; returns the children.
fn kill_with_children(postmaster: Pid) -> Vec<Pid> {
    send(postmaster, Signal::SIGSTOP);
    let children = children(postmaster);
    for child in &children {
        send(*child, Signal::SIGKILL);
    }
    send(postmaster, Signal::SIGKILL);
    children
}

fn send(to: Pid, signal: Signal) {
    match kill(to, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(err) => eprintln!("{signal} did not reach process {to}: {err}"),
    }
}

/// Living children by `/proc/<pid>/stat`: `pid (name) state parent ...`, where the name may hold parentheses.
pub(crate) fn children(of: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_whitespace();
        let lives = fields.next().is_some_and(|state| state != "Z");
        lives && fields.next() == Some(of.to_string().as_str())
    };
    pids.filter(is_child).map(Pid::from_raw).collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        kill_with_children(pid_of(&child));
        if let Err(err) = child.wait() {
            eprintln!("the server was not reaped: {err}");
        }
        if std::thread::panicking() {
            eprintln!("--- engine.log\n{}", self.log());
        }
    }
}

/// Polls until `done`; panics after a minute.
pub(crate) async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !done().await {
        assert!(Instant::now() < until, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A rule of one voter with k = 0.
pub(crate) fn lone_rule(term: u32, version: u32) -> Rule {
    let member = Member { node: "n1".parse().unwrap(), incarnation: Incarnation::from_random(1) };
    let zone = "eu-1a".parse().unwrap();
    Rule {
        id: RuleId { term: Term::new(term).unwrap(), version },
        primary: member.clone(),
        voters: vec![Voter { member, zone, kind: VoterKind::Full }],
        k: 0,
        previous: None,
        start: Lsn::ZERO.into(),
    }
}

/// A client that logs in as `role` over the unix socket, with the task that drives it.
pub(crate) struct Client {
    pub(crate) sql: tokio_postgres::Client,
    _connection: tokio::task::JoinSet<()>,
}

pub(crate) async fn client(layout: &Layout, role: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(&layout.socket_dir).port(layout.port).user(role).dbname("postgres");
    let (sql, connection) = config.connect(tokio_postgres::NoTls).await?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        // A server that is killed under its clients is what some tests are about.
        drop(connection.await);
    });
    Ok(Client { sql, _connection: tasks })
}
