//! One node without its daemon: a scratch directory, a configuration, a helper, and this test as the daemon.
//!
//! Dropping it kills its engine by cgroup and takes everything away, whatever the test left behind.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_agent::child::process;
use holdfast_agent::config::Config;
use holdfast_agent::daemon::places;
use holdfast_agent::helper::protocol::EngineProgram;
use holdfast_agent::helper::settings;
use holdfast_agent::helper::wire::{self, WireError};
use holdfast_agent::helper::{HelperClient, HelperLink};
use holdfast_agent::ledger::Ledger;
use holdfast_agent::supervisor::Supervisor;
use holdfast_agent::supervisor::stop::Patience;
use holdfast_engine::links::Tls;
use holdfast_model::Incarnation;
use holdfast_storage::ops::{Consent, FormatOrder, Response, Seen, Verb};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Any wait that has no reason to be long.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Users that every Debian has, neither of them root, with different groups.
pub(crate) const DAEMON: &str = "daemon";
pub(crate) const ENGINE: &str = "games";
/// Where the v2 hierarchy is mounted: alone, or beside v1.
const CGROUP_ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    agent: Option<Agent>,
}

/// Everything that ends when a daemon ends.
struct Agent {
    helper: Child,
    client: HelperClient,
    link: JoinSet<WireError>,
}

impl Node {
    /// On a directory.
    pub(crate) async fn new() -> Self {
        Self::on("kind = \"directory\"\npath = \"DIR/dev\"").await
    }

    /// On what the `[volume]` section says; `DIR` stands for the scratch directory.
    pub(crate) async fn on(volume: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = format!(
            "t{}",
            dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_lowercase()
        );
        let cluster: String = cluster.chars().filter(char::is_ascii_alphanumeric).collect();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["bin", "dev", "state", "state/log", "run"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for name in ["postgres", "initdb"] {
            fs::copy("/bin/bash", dir.path().join("bin").join(name)).unwrap();
        }
        let config = config(&cluster, volume).replace("DIR", dir.path().to_str().unwrap());
        fs::write(dir.path().join("holdfast.toml"), config).unwrap();
        let mut node = Self { dir, agent: None };
        for name in ["state", "state/log", "run"] {
            node.give_to_daemon(&node.path(name));
        }
        node.start_agent().await;
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn give_to_daemon(&self, path: &Path) {
        let user = nix::unistd::User::from_name(DAEMON).unwrap().unwrap();
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }

    pub(crate) fn mount(&self) -> PathBuf {
        self.path("mnt")
    }

    pub(crate) fn client(&self) -> HelperClient {
        self.agent.as_ref().unwrap().client.clone()
    }

    pub(crate) fn helper_pid(&self) -> i32 {
        self.agent.as_ref().unwrap().helper.id().cast_signed()
    }

    pub(crate) fn supervisor(&self) -> Supervisor {
        Supervisor::new(self.client(), Ledger::open(&self.path("state")).unwrap()).unwrap()
    }

    /// As the daemon does before it drops its rights, with some words before the command.
    pub(crate) async fn start_agent_through(&mut self, prefix: &[&str]) {
        let (ours, theirs) = wire::pair().unwrap();
        let config = self.path("holdfast.toml");
        let helper = [env!("CARGO_BIN_EXE_holdfastd"), "helper", "--config", config.to_str().unwrap()];
        let words: Vec<&str> = prefix.iter().copied().chain(helper).collect();
        let helper = command(words[0]).args(&words[1..]).stdin(Stdio::from(theirs)).spawn().unwrap();
        let (client, link) = HelperLink::new(ours).unwrap();
        let mut crew = JoinSet::new();
        crew.spawn(link.run());
        self.agent = Some(Agent { helper, client, link: crew });
    }

    pub(crate) async fn start_agent(&mut self) {
        self.start_agent_through(&[]).await;
    }

    /// The daemon dies: its channel closes, and the helper ends by itself. Returns how long that took.
    pub(crate) async fn kill_agent(&mut self) -> Duration {
        let Some(mut agent) = self.agent.take() else { return Duration::ZERO };
        let begun = Instant::now();
        agent.link.shutdown().await;
        drop(agent.client);
        wait_until("the helper ended", || agent.helper.try_wait().unwrap().is_some()).await;
        begun.elapsed()
    }

    /// Formats and mounts the one blank candidate.
    pub(crate) async fn format(&self) {
        let Response::Planned { devices } = self.client().volume(Verb::Plan, SOON).await.unwrap() else {
            panic!("a plan is answered with one")
        };
        let found = &devices[0].found;
        let order = FormatOrder {
            seen: Seen::of(&found.device, &found.verdict),
            incarnation: Incarnation::from_random(u128::MAX),
            created: "2026-11-23T06:00:00Z".to_owned(),
            consent: Consent::Blank,
        };
        let formatted = self.client().volume(Verb::Format(order), SOON).await.unwrap();
        assert!(matches!(formatted, Response::Mounted { .. }), "{formatted:?}");
    }

    /// What the engine printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("state/log/engine.log")).unwrap_or_default()
    }

    pub(crate) async fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} is in the log"), || self.log().contains(text)).await;
    }

    /// Where the engine's certificates are.
    pub(crate) fn engine_tls(&self) -> Tls {
        places::engine_tls(&Config::load(&self.path("holdfast.toml")).unwrap(), true)
    }

    /// As `/proc/PID/cgroup` shows it, without the leading slash.
    pub(crate) fn cgroup_name(&self) -> String {
        settings::cgroup_name(&Config::load(&self.path("holdfast.toml")).unwrap())
    }

    pub(crate) fn cgroup(&self) -> PathBuf {
        let root = CGROUP_ROOTS.iter().map(Path::new).find(|root| root.join("cgroup.procs").exists());
        root.expect("a v2 hierarchy").join(self.cgroup_name())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            drop(agent.helper.kill());
            drop(agent.helper.wait());
        }
        let lock = self.mount().join(".holdfast/engine.lock");
        for pid in process::holders_of(&lock.canonicalize().unwrap_or(lock)).unwrap() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        if self.mount().is_dir() && !self.mount().is_symlink() {
            // A volume of kind `block`, unless the test unmounted it.
            nix::mount::umount2(&self.mount(), nix::mount::MntFlags::MNT_DETACH).ok();
        }
        let cgroup = self.cgroup();
        drop(fs::write(cgroup.join("cgroup.kill"), "1"));
        let until = Instant::now() + SOON;
        while fs::remove_dir(&cgroup).is_err_and(|err| err.raw_os_error() == Some(nix::libc::EBUSY)) {
            assert!(Instant::now() < until, "the engine's cgroup does not become empty");
            std::thread::yield_now();
        }
        drop(cgroup.parent().map(fs::remove_dir));
        drop(fs::remove_dir_all(self.engine_tls().ca.parent().unwrap()));
    }
}

/// The engine runs this.
pub(crate) fn script(text: &str) -> (EngineProgram, Vec<String>) {
    (EngineProgram::Postgres, vec!["-c".to_owned(), text.to_owned()])
}

/// Steps that no test wants to wait for.
pub(crate) fn impatient() -> Patience {
    let short = Duration::from_millis(300);
    Patience { fast: short, immediate: short, kill: SOON }
}

#[expect(clippy::disallowed_methods, reason = "tests start what the agent does not")]
pub(crate) fn command(program: &str) -> Command {
    Command::new(program)
}

pub(crate) async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A process that a test started itself; killed when dropped.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn config(cluster: &str, volume: &str) -> String {
    format!(
        r#"
[cluster]
name = "{cluster}"
[node]
name = "n1"
zone = "z1"
[daemon]
user = "{DAEMON}"
state_dir = "DIR/state"
run_dir = "DIR/run"
[volume]
mount = "DIR/mnt"
{volume}
[engine]
bin_dir = "DIR/bin"
user = "{ENGINE}"
[tls]
ca = "DIR/pki/ca.pem"
cert = "DIR/pki/node.pem"
key = "DIR/pki/node.key"
"#
    )
}
