//! A real server for one test: in a temporary folder, as the engine's user, on a unix socket only.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_engine::Ackers;
use holdfast_engine::Launch;
use holdfast_engine::postgres::gate::install;
use holdfast_engine::postgres::links::Links;
use holdfast_engine::postgres::session::Session;
use holdfast_engine::postgres::standby::STANDBY_SIGNAL;
use holdfast_engine::postgres::wal::Segments;
use holdfast_engine::postgres::{Deadlines, Layout, Setup, Version, argv};
use holdfast_model::status::{Gate, GateClosed};
use holdfast_model::{ByteCount, Incarnation, Lsn, Member, Term};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(60);

/// A server of one node, which ends with the test.
pub(super) struct Server {
    dir: tempfile::TempDir,
    pub(super) setup: Setup,
    pub(super) member: Member,
    child: Option<Child>,
}

#[expect(clippy::disallowed_methods, reason = "the test starts what the helper starts in production")]
fn as_engine(launch: &Launch) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(&launch.program);
    command.args(&launch.args).env_clear().envs(launch.env.iter().cloned()).current_dir("/");
    command
}

fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn give_to_engine(path: &Path) {
    let user = User::from_name("postgres").unwrap().expect("user postgres exists");
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
}

async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !done().await {
        assert!(Instant::now() < until, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Server {
    /// Everything but the data.
    fn empty(node: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("hf-ship-").tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let layout = Layout {
            bin_dir: PathBuf::from("/usr/lib/postgresql/15/bin"),
            data_dir: dir.path().join("pgdata"),
            socket_dir: dir.path().join("run"),
            conf_dir: dir.path().join("conf"),
            port: 5432,
            listen: String::new(),
        };
        for path in [&layout.socket_dir, &layout.conf_dir] {
            fs::create_dir(path).unwrap();
            give_to_engine(path);
        }
        let version = run(as_engine(&argv::version(layout.bin_dir.clone())));
        let setup = Setup {
            layout,
            version: Version::parse(&version).unwrap(),
            cluster: "orders".parse().unwrap(),
            agent_users: vec!["root".to_owned(), "postgres".to_owned()],
            clients: Vec::new(),
            tls: None,
            settings: BTreeMap::from([("shared_buffers".to_owned(), "16MB".to_owned())]),
            slot_log_max: ByteCount::gib(1),
            deadlines: Deadlines::default(),
        };
        let member = Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(1) };
        Self { dir, setup, member, child: None }
    }

    /// A new cluster.
    pub(super) fn initialised(node: &str) -> Self {
        let server = Self::empty(node);
        fs::create_dir(&server.setup.layout.data_dir).unwrap();
        give_to_engine(&server.setup.layout.data_dir);
        run(as_engine(&argv::initdb(&server.setup.layout).arg("--no-sync")));
        server
    }

    /// A standby that has all that `of` had when it was stopped.
    pub(super) fn copied(node: &str, of: &Self) -> Self {
        let server = Self::empty(node);
        let copy = Launch::new("/bin/cp".into()).arg("--archive").arg(of.setup.layout.data_dir.clone());
        run(as_root(&copy.arg(server.setup.layout.data_dir.clone())));
        server.recover_again();
        server
    }

    /// Its next start is that of a standby.
    pub(super) fn recover_again(&self) {
        let signal = self.setup.layout.data_dir.join(STANDBY_SIGNAL);
        fs::write(&signal, "").unwrap();
        give_to_engine(&signal);
    }

    pub(super) async fn start(&mut self) -> Session {
        let gate = Gate::Closed { why: GateClosed::Starting };
        let files = self.setup.files(&gate, &Ackers::Alone, &Links::default()).unwrap();
        install(&self.setup.layout, &files).unwrap();
        let log = File::create(self.dir.path().join("engine.log")).unwrap();
        let mut command = as_engine(&self.setup.launch().unwrap());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let mut session = None;
        eventually("the server answers", async || {
            session = Session::connect(&self.setup.layout, SOON).await.ok();
            session.is_some()
        })
        .await;
        session.unwrap()
    }

    /// Ends it in order, with all its log on disk.
    pub(super) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        kill(pid(&child), Signal::SIGINT).unwrap();
        child.wait().unwrap();
    }

    pub(super) fn sql(&self, sql: &str) -> String {
        let layout = &self.setup.layout;
        let psql = Launch::new(layout.bin_dir.join("psql")).arg("--host").arg(layout.socket_dir.clone());
        let psql =
            psql.arg("--username=holdfast").arg("--dbname=postgres").arg("--no-psqlrc").arg("--tuples-only");
        run(as_root(&psql.arg("--no-align").arg("--command").arg(sql)))
    }

    pub(super) fn wal(&self, timeline: Term, start: u64) -> PathBuf {
        let segment = Segments::DEFAULT.holding(timeline, Lsn::from_offset(start));
        self.setup.layout.wal_dir().join(Segments::DEFAULT.name(segment))
    }
}

#[expect(clippy::disallowed_methods, reason = "the test starts what the helper starts in production")]
fn as_root(launch: &Launch) -> Command {
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear().envs(launch.env.iter().cloned()).current_dir("/");
    command
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        kill(pid(&child), Signal::SIGQUIT).ok();
        drop(child.wait());
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("engine.log")).unwrap_or_default();
            eprintln!("--- engine.log of {}\n{log}", self.member);
        }
    }
}
