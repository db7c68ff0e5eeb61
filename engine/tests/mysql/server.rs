//! A real MySQL server for one test: in a temporary folder, as its own user, and gone with the test however that ends.
//!
//! As root it runs as `mysql` through `setpriv`, since the server refuses root; otherwise as ourselves. A data directory is made once
//! for all tests and copied.
#![expect(clippy::print_stderr, reason = "a failed test shows the server's log")]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_engine::Launch;
use holdfast_engine::links::Tls;
use holdfast_engine::mysql::argv::{self, Start};
use holdfast_engine::mysql::identity::{Markers, auto_cnf};
use holdfast_engine::mysql::session::Session;
use holdfast_engine::mysql::{Layout, config};
use holdfast_model::{ClusterId, Incarnation, Member};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take before a test fails.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

/// As whom a client of the tests logs in.
const APP: &str = "app";

pub(crate) struct Server {
    pub(crate) layout: Layout,
    pub(crate) member: Member,
    pub(crate) tls: Option<Tls>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) dir: TempDir,
    child: Option<Child>,
}

pub(crate) fn cluster_id() -> ClusterId {
    ClusterId::new("orders".parse().unwrap(), 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100)
}

pub(crate) fn markers() -> Markers {
    Markers::of(&cluster_id())
}

fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let candidates = [root.join(".cache/mysql/usr/sbin/mysqld"), PathBuf::from("/usr/sbin/mysqld")];
    let found = candidates.iter().find(|program| program.exists());
    found.expect("mysqld is not installed: run make tools").canonicalize().unwrap()
}

/// A command that runs `launch` as the engine's user, with its environment alone.
#[expect(
    clippy::disallowed_methods,
    reason = "tests start the processes that the helper starts in production"
)]
pub(crate) fn command(launch: &Launch) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--reuid=mysql", "--regid=mysql", "--init-groups", "--no-new-privs", "--"]);
        command.arg(&launch.program);
        command
    } else {
        Command::new(&launch.program)
    };
    command.args(&launch.args).env_clear().envs(launch.env.iter().cloned()).current_dir("/");
    command
}

/// Runs a program to its end; panics with what it said when it fails.
pub(crate) fn run(launch: &Launch) -> String {
    let output = command(launch).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {stderr}", launch.program.display());
    String::from_utf8(output.stdout).unwrap()
}

/// Gives a file or folder to the engine's user.
pub(crate) fn give(path: &Path) {
    if geteuid().is_root() {
        let user = User::from_name("mysql").unwrap().expect("there is a user mysql: run make tools");
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

fn folder(path: &Path) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
    give(path);
}

#[expect(clippy::disallowed_methods, reason = "cp keeps owners and holes, which our own copying does not")]
fn copy(from: &Path, to: &Path) {
    let done = Command::new("/bin/cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success(), "cp failed");
}

/// An initialised data directory that is copied and never started; made by the first test that needs it.
fn template() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Another one for another server or other accounts.
    let mut recipe = DefaultHasher::new();
    (program(), argv::init_sql("")).hash(&mut recipe);
    let made = home.join(format!("mysql-{:x}", recipe.finish()));
    let lock = File::options().create(true).append(true).open(home.join("mysql.lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, err)| err).unwrap();
    if !made.exists() {
        let server = Server::empty("template", 1);
        let data = server.layout.data_dir.clone();
        folder(&data);
        run(&argv::initialize(&server.layout));
        fs::remove_file(data.join("auto.cnf")).unwrap();
        let half = home.join("mysql.half");
        // Of a test that was cut off here.
        drop(fs::remove_dir_all(&half));
        copy(&data, &half);
        fs::rename(&half, &made).unwrap();
    }
    made
}

fn free_port() -> u16 {
    let [port] = holdfast_integration::ports::free().unwrap();
    port
}

impl Server {
    /// Everything but the data directory.
    fn empty(node: &str, incarnation: u128) -> Self {
        let dir = tempfile::Builder::new().prefix("hf-mysql-").tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let layout = Layout {
            program: program(),
            data_dir: dir.path().join("mysql"),
            socket_dir: dir.path().join("run"),
            conf_dir: dir.path().join("conf"),
            port: free_port(),
            listen: "127.0.0.1".to_owned(),
        };
        folder(&layout.socket_dir);
        folder(&layout.conf_dir);
        let member = Member {
            node: node.parse().unwrap(),
            incarnation: Incarnation::from_random(incarnation << 96 | 0xc0de),
        };
        let small = [("innodb_buffer_pool_size", "32M"), ("innodb_redo_log_capacity", "16M")];
        let settings = small.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let server = Self { layout, member, tls: None, settings, dir, child: None };
        server.install();
        let me = User::from_uid(geteuid()).unwrap().unwrap().name;
        fs::write(server.layout.init_file(), argv::init_sql(&me)).unwrap();
        give(&server.layout.init_file());
        server
    }

    /// An initialised, stopped server.
    pub(crate) fn init(node: &str, incarnation: u128) -> Self {
        let template = template();
        let server = Self::empty(node, incarnation);
        copy(&template, &server.layout.data_dir);
        let identity = server.layout.identity_file();
        fs::write(&identity, auto_cnf(&server.member)).unwrap();
        give(&identity);
        server
    }

    /// Writes the configuration.
    pub(crate) fn install(&self) {
        let settings = config::Settings {
            layout: &self.layout,
            member: &self.member,
            tls: self.tls.as_ref(),
            user: &self.settings,
        };
        let path = self.layout.config_file();
        fs::write(&path, config::render(&settings).unwrap()).unwrap();
        give(&path);
    }

    /// Starts the process, with `more` on its command line.
    pub(crate) fn spawn(&mut self, start: Start, more: &[&str]) {
        self.install();
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let launch = more.iter().fold(argv::mysqld(&self.layout, start), |launch, more| launch.arg(more));
        let mut command = command(&launch);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts and waits for an answer.
    pub(crate) async fn start(&mut self, start: Start) -> Session {
        self.spawn(start, &[]);
        self.session().await
    }

    /// Waits until the server answers; panics with its log when it ends instead.
    pub(crate) async fn session(&mut self) -> Session {
        let until = Instant::now() + WAIT;
        loop {
            match Session::connect(&self.layout, Duration::from_secs(20)).await {
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

    /// Makes the account and the table of the tests' clients. The gate need not be open; commits must not wait.
    pub(crate) async fn prepare_clients(&self, session: &mut Session) {
        for sql in [
            "CREATE DATABASE app",
            "CREATE TABLE app.acked (id BIGINT PRIMARY KEY)",
            "CREATE USER app@'%' IDENTIFIED BY ''",
            "GRANT ALL ON app.* TO app@'%'",
        ] {
            session.run("prepare for clients", sql).await.unwrap();
        }
    }

    /// A client over TCP.
    pub(crate) async fn client(&self) -> Result<Client, mysql_async::Error> {
        let opts = OptsBuilder::default()
            .socket(Some(self.layout.socket().to_string_lossy().into_owned()))
            .user(Some(APP))
            .stmt_cache_size(0);
        Conn::new(opts).await.map(Client)
    }

    /// A client that has begun to write `id`, and waits for the answer.
    pub(crate) async fn begin_write(&self, id: u64) -> Waiting {
        let mut client = self.client().await.unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move { client.write(id).await });
        Waiting(task)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("it was started").id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// Kills the server, as a power loss would end it, and reaps it.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.take().unwrap().wait().unwrap();
    }

    /// Waits for the server to end by itself.
    pub(crate) async fn ended(&mut self) {
        eventually("the server ended", async || {
            self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
        })
        .await;
        self.child = None;
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir.path().join("engine.log")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        drop(child.kill());
        if let Err(err) = child.wait() {
            eprintln!("the server was not reaped: {err}");
        }
        if std::thread::panicking() {
            eprintln!("--- {} engine.log\n{}", self.member.node, self.log());
        }
    }
}

/// A client of the database, without any right of the agent's.
pub(crate) struct Client(pub(crate) Conn);

impl Client {
    pub(crate) async fn write(&mut self, id: u64) -> Result<(), mysql_async::Error> {
        self.0.query_drop(format!("INSERT INTO app.acked VALUES ({id})")).await
    }

    pub(crate) async fn ids(&mut self) -> Result<Vec<u64>, mysql_async::Error> {
        self.0.query("SELECT id FROM app.acked ORDER BY id").await
    }
}

/// A write that is under way.
pub(crate) struct Waiting(JoinSet<Result<(), mysql_async::Error>>);

impl Waiting {
    /// What the client is told in the end.
    pub(crate) async fn answer(&mut self) -> Result<(), mysql_async::Error> {
        let answer = timeout(WAIT, self.0.join_next()).await.expect("it is answered");
        answer.expect("it is asked for once").unwrap()
    }

    pub(crate) fn is_answered(&mut self) -> bool {
        self.0.try_join_next().is_some()
    }
}

/// Polls until `done`; panics after a minute.
pub(crate) async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + WAIT;
    while !done().await {
        assert!(Instant::now() < until, "not within {WAIT:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until `count` commits wait for acks.
pub(crate) async fn waiters(session: &mut Session, count: u64) {
    eventually("commits wait for acks", async || session.waiters().await.unwrap() == count).await;
}
