//! Loop disks, a node's specification, and taking everything down again, whatever the test did.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use holdfast_model::Incarnation;
use holdfast_model::volume::{Filesystem, Verdict, VolumeKind};
use holdfast_storage::judge::Owner;
use holdfast_storage::mount::{Unmount, release_mount_point, unmount};
use holdfast_storage::mountinfo::Mounts;
use holdfast_storage::ops::{
    Consent, FormatOrder, OpError, Outcome, Planned, Request, Response, Seen, Verb, perform,
};
use holdfast_storage::probe::{Context, Probed, probe};
use holdfast_storage::spec::{Access, VolumeSpec};
use holdfast_storage::sysfs::Sysfs;
use holdfast_storage_io::loopdev::LoopDevice;

/// Big enough for ext4 here, small enough to hash.
pub(crate) const SMALL_MIB: u64 = 64;
/// Big enough for XFS.
pub(crate) const XFS_MIB: u64 = 320;
/// What must not block returns within this.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// A file as a disk.
pub(crate) struct Disk {
    pub(crate) file: PathBuf,
    pub(crate) device: LoopDevice,
}

impl Disk {
    pub(crate) fn path(&self) -> &Path {
        self.device.path()
    }

    /// Writes to the medium behind the device's back.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        OpenOptions::new().write(true).open(&self.file).unwrap().write_all_at(bytes, offset).unwrap();
        // The device's own cache must not hide it.
        let device = File::open(self.path()).unwrap();
        nix::fcntl::posix_fadvise(&device, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .unwrap();
    }

    /// Takes the medium away by emptying its file; the device is told.
    pub(crate) fn truncate(&self) {
        OpenOptions::new().write(true).open(&self.file).unwrap().set_len(0).unwrap();
        self.device.size_from_file().unwrap();
    }

    pub(crate) fn size(&self) -> u64 {
        self.file.metadata().unwrap().len()
    }

    /// Checksum of the whole medium.
    pub(crate) fn checksum(&self) -> u32 {
        let mut file = File::open(&self.file).unwrap();
        let mut buf = vec![0; 1 << 20];
        let mut sum = 0;
        loop {
            let n = file.read(&mut buf).unwrap();
            if n == 0 {
                return sum;
            }
            sum = crc32c::crc32c_append(sum, &buf[..n]);
        }
    }
}

/// A node with its mount point.
pub(crate) struct Rig {
    pub(crate) spec: VolumeSpec,
    dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new(filesystem: Filesystem) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = VolumeSpec {
            kind: VolumeKind::Block,
            devices: vec![],
            models: vec![],
            serials: vec![],
            path: None,
            mount: dir.path().join("mnt"),
            filesystem,
            cluster: "orders".parse().unwrap(),
            node: "n1".parse().unwrap(),
            zone: "eu-1a".parse().unwrap(),
            engine: "postgres".to_owned(),
            access: Access { daemon_uid: 1234, daemon_gid: 1234, engine_uid: 2345, engine_gid: 2345 },
            token_dir: dir.path().join("tokens"),
        };
        Self { spec, dir }
    }

    /// Where other files of the test may lie.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A disk of zeros; the node's next candidate.
    pub(crate) fn disk(&mut self, mib: u64) -> Disk {
        let file = self.dir.path().join(format!("disk-{}", self.spec.devices.len()));
        File::create(&file).unwrap().set_len(mib << 20).unwrap();
        self.attach(file)
    }

    /// A disk whose medium is `file`; the node's next candidate.
    pub(crate) fn attach(&mut self, file: PathBuf) -> Disk {
        let device = LoopDevice::attach(&file).unwrap();
        self.spec.devices.push(device.path().to_owned());
        Disk { file, device }
    }

    pub(crate) fn context(&self) -> Context {
        Context {
            owner: Owner { cluster: self.spec.cluster.clone(), node: self.spec.node.clone() },
            mount: self.spec.mount.clone(),
            sysfs: Sysfs::default(),
            mounts: Mounts::of_this_process().unwrap(),
            seed: 7,
        }
    }

    pub(crate) fn probe(&self, disk: &Disk) -> Probed {
        probe(disk.path(), &self.context())
    }

    pub(crate) fn verdict(&self, disk: &Disk) -> Verdict {
        self.probe(disk).verdict()
    }

    pub(crate) fn perform(&self, verb: Verb) -> Result<Outcome, OpError> {
        perform(&Request { spec: self.spec.clone(), verb }, None)
    }

    pub(crate) fn plan(&self) -> Vec<Planned> {
        let planned = self.perform(Verb::Plan).unwrap().response;
        let Response::Planned { devices } = planned else { panic!("a plan answers with a plan") };
        devices
    }

    pub(crate) fn seen(&self, disk: &Disk) -> Seen {
        let probed = self.probe(disk);
        Seen::of(probed.device(), &probed.verdict())
    }

    pub(crate) fn order(seen: Seen) -> FormatOrder {
        FormatOrder {
            seen,
            incarnation: Incarnation::from_random(42),
            created: "2026-11-23T06:00:00Z".to_owned(),
            consent: Consent::Blank,
        }
    }

    /// Formats and mounts a blank disk.
    pub(crate) fn format(&self, disk: &Disk) -> Outcome {
        self.perform(Verb::Format(Self::order(self.seen(disk)))).unwrap()
    }

    pub(crate) fn mount(&self, disk: &Disk) -> Result<Outcome, OpError> {
        self.perform(Verb::Mount { seen: self.seen(disk) })
    }

    pub(crate) fn unmount(&self) {
        self.perform(Verb::Unmount { how: Unmount::Plain }).unwrap();
    }

    pub(crate) fn is_mounted(&self) -> bool {
        Mounts::of_this_process().unwrap().at(&self.spec.mount).is_some()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // What was never mounted has no mount point; nothing more can be done about the rest.
        drop(unmount(&self.spec.mount, Unmount::Lazy));
        drop(release_mount_point(&self.spec.mount));
    }
}

/// A file system mounted by the test itself.
pub(crate) struct TestMount(pub(crate) PathBuf);

impl TestMount {
    pub(crate) fn new(device: &Path, target: PathBuf) -> Self {
        std::fs::create_dir_all(&target).unwrap();
        run("mount", &[device.to_str().unwrap(), target.to_str().unwrap()]);
        Self(target)
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        drop(unmount(&self.0, Unmount::Lazy));
    }
}

/// Runs a program, which must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = run_to_any_end(program, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// Runs a program, which may fail.
pub(crate) fn run_to_any_end(program: &str, arguments: &[&str]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "tests set their devices up with the system's own tools")]
    std::process::Command::new(program).args(arguments).output().unwrap()
}

/// A shell that does something and holds on to it until dropped.
pub(crate) struct Holding(Child);

impl Holding {
    /// Runs `script` in a shell below `wrapper` (such as `unshare -m`) and waits until it is done, then keeps the
    /// shell, and what it holds, alive.
    pub(crate) fn new(wrapper: &[&str], script: &str) -> Self {
        let script = format!("set -e; {script}; echo ready; read -r end");
        let words: Vec<&str> = wrapper.iter().copied().chain(["sh", "-c", &script]).collect();
        #[expect(clippy::disallowed_methods, reason = "tests play other users of a device")]
        let mut child = std::process::Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
