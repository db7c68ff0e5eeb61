//! The steps of the stage, in order. The process is single-threaded, which `setuid` here relies on, as does [`super::rights`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgid, setgroups, setsid, setuid};

use super::lock::{self, LockError, LockFile};
use super::rights;
use super::spec::{ChildSpec, EngineStage, Go, Refusal, RunAs, StageReport};
use crate::helper::wire::Channel;

/// Sets up and execs; comes back only with the reason why not.
pub(super) fn run(spec: &ChildSpec, channel: &Channel) -> Refusal {
    match prepare_and_exec(spec, channel) {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    }
}

/// Names the step that failed.
pub(super) fn step<E: std::error::Error>(step: impl Into<String>) -> impl FnOnce(E) -> Refusal {
    let step = step.into();
    move |err| Refusal::Step { step, error: err.to_string() }
}

fn prepare_and_exec(spec: &ChildSpec, channel: &Channel) -> Result<std::convert::Infallible, Refusal> {
    super::unblock_signals().map_err(step("unblock signals"))?;
    if let Some(cgroup) = &spec.cgroup {
        join_cgroup(cgroup)?;
    }
    setsid().map_err(step("start a session"))?;
    set_oom_score(spec.oom_score_adj)?;
    limit_open_files(spec.open_files)?;
    // A core or a half-written file must not be for everybody; engines set their own mask later.
    umask(Mode::from_bits_truncate(0o077));
    let guarded = spec.engine.as_ref().map(guard_volume).transpose()?;
    if let Some(guarded) = &guarded {
        channel
            .send(&StageReport::Prepared { lock: guarded.lock }, None)
            .map_err(step("report that the stage is prepared"))?;
        channel.receive::<Go>().map_err(step("wait to be let go"))?;
        guarded.redirect()?;
    }
    if let Some(run_as) = &spec.run_as {
        become_user(run_as)?;
    }
    exec(spec)
}

fn join_cgroup(dir: &Path) -> Result<(), Refusal> {
    let failed = || format!("join cgroup {}", dir.display());
    fs::create_dir_all(dir).map_err(step(failed()))?;
    // "0" means the writer (cgroups(7)).
    fs::write(dir.join("cgroup.procs"), "0").map_err(step(failed()))
}

fn set_oom_score(score: i32) -> Result<(), Refusal> {
    match fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Ok(()) => Ok(()),
        // Lowering it needs CAP_SYS_RESOURCE, which development and many containers lack; the engine runs without as well.
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(err) => Err(step("set the out-of-memory score")(err)),
    }
}

fn limit_open_files(wanted: u64) -> Result<(), Refusal> {
    let failed = || step("limit open files");
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted) {
        // Above the hard limit, and without CAP_SYS_RESOURCE: as much as is allowed.
        Err(nix::Error::EPERM) => {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed())?;
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed())
        }
        result => result.map_err(failed()),
    }
}

/// What an engine keeps open over its exec.
struct Guarded {
    lock: LockFile,
    lock_file: File,
    log: File,
}

impl Guarded {
    /// Last step before the user changes: standard streams away from the agent, lock inherited.
    ///
    /// The channel lives on as a close-on-exec copy: its end tells that the exec worked.
    fn redirect(&self) -> Result<(), Refusal> {
        let null = File::open("/dev/null").map_err(step("open /dev/null"))?;
        nix::unistd::dup2_stdin(null.as_fd()).map_err(step("redirect standard input"))?;
        nix::unistd::dup2_stdout(self.log.as_fd()).map_err(step("redirect standard output"))?;
        nix::unistd::dup2_stderr(self.log.as_fd()).map_err(step("redirect standard error"))?;
        fcntl(&self.lock_file, FcntlArg::F_SETFD(FdFlag::empty())).map_err(step("pass the lock on"))?;
        Ok(())
    }
}

fn guard_volume(engine: &EngineStage) -> Result<Guarded, Refusal> {
    if engine.must_be_mounted && !is_mount_point(&engine.mount)? {
        return Err(Refusal::NotMounted { mount: engine.mount.clone() });
    }
    check_on_volume(&engine.data_dir, &engine.mount)?;
    let (lock_file, log) = with_rights_of(engine.daemon.as_ref(), || {
        Ok((lock::open(&engine.lock).map_err(refuse_lock)?, open_log(&engine.log)?))
    })?;
    let lock = lock::take(&lock_file, &engine.lock).map_err(refuse_lock)?;
    if lock.dev != device_of(&engine.mount)? {
        return Err(Refusal::ElsewhereThanVolume { path: engine.lock.clone(), mount: engine.mount.clone() });
    }
    Ok(Guarded { lock, lock_file, log })
}

fn refuse_lock(err: LockError) -> Refusal {
    match err {
        LockError::Held { holders, .. } => Refusal::LockHeld { holders },
        LockError::File { operation, ref path, ref source } => {
            Refusal::Step { step: format!("{operation} {}", path.display()), error: source.to_string() }
        }
    }
}

/// Append-only: the daemon truncates it at its cap, and `O_APPEND` then goes on at the start.
fn open_log(path: &Path) -> Result<File, Refusal> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(step(format!("open {}", path.display())))
}

/// Follows a link at the end: without root the volume is one, to the directory in use.
fn device_of(path: &Path) -> Result<u64, Refusal> {
    let meta = path.metadata().map_err(step(format!("look at {}", path.display())))?;
    Ok(meta.dev())
}

fn is_mount_point(dir: &Path) -> Result<bool, Refusal> {
    Ok(device_of(dir)? != device_of(&dir.join(".."))?)
}

fn check_on_volume(path: &Path, mount: &Path) -> Result<(), Refusal> {
    if device_of(path)? == device_of(mount)? {
        return Ok(());
    }
    Err(Refusal::ElsewhereThanVolume { path: path.to_owned(), mount: mount.to_owned() })
}

/// Runs `f` with another user's rights on files, then becomes root again.
fn with_rights_of<T>(user: Option<&RunAs>, f: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    rights::with_rights_of(user, f).map_err(step("take the daemon's rights"))?
}

/// For good: real, effective and saved ids.
fn become_user(user: &RunAs) -> Result<(), Refusal> {
    let failed = || step(format!("become user {}", user.uid));
    setgroups(&rights::groups(user)).map_err(failed())?;
    setgid(Gid::from_raw(user.gid)).map_err(failed())?;
    setuid(Uid::from_raw(user.uid)).map_err(failed())
}

#[expect(clippy::disallowed_methods, reason = "this is the stage that becomes the child")]
fn exec(spec: &ChildSpec) -> Result<std::convert::Infallible, Refusal> {
    let mut command = std::process::Command::new(&spec.program);
    if let Some(name) = &spec.arg0 {
        command.arg0(name);
    }
    let err = command.args(&spec.args).env_clear().envs(&spec.env).current_dir("/").exec();
    Err(step(format!("execute {}", spec.program.display()))(err))
}
