//! What the tests of this crate share: a faulty store, a tree of files in memory as a source, and short names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "each test file uses its own part of this")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use holdfast_backup::backup::{
    self, BackupError, BackupSpec, LateFile, Sealed, Source, SourceEntry, SourceError, SourceFile, Stopped,
};
use holdfast_backup::log::Shipper;
use holdfast_backup::manifest::EngineFacts;
use holdfast_backup::{BackupId, ClusterRecord, Location, Meter, RelPath, Repository};
use holdfast_model::{ByteCount, ClusterId, Incarnation, Lsn, Member, Rule, RuleId, Term};
use holdfast_storage_io::bulk::{BlockingIo, BulkIo};
use holdfast_storage_io::root::Root;

pub(crate) mod faulty;

pub(crate) use faulty::Faulty;

pub(crate) const CHUNK: usize = 256 << 10;
/// The finest cut that a repository may have.
pub(crate) const FINE: usize = 4 << 10;
pub(crate) const SEGMENT: u64 = 16 << 20;

pub(crate) fn term(number: u32) -> Term {
    Term::new(number).unwrap()
}

pub(crate) fn lsn(offset: u64) -> Lsn {
    Lsn::from_offset(offset)
}

pub(crate) fn member() -> Member {
    member_of(1)
}

pub(crate) fn member_of(incarnation: u128) -> Member {
    Member { node: "n1".parse().unwrap(), incarnation: Incarnation::from_random(incarnation) }
}

pub(crate) fn record() -> ClusterRecord {
    let cluster = ClusterId::new("orders".parse().unwrap(), 7);
    ClusterRecord { cluster, engine: "postgres".to_owned(), created: "2026-11-23T00:00:00Z".to_owned() }
}

pub(crate) async fn repository(store: &Faulty) -> Repository {
    Location::over(Arc::new(store.clone()), "site/a").create(&record()).await.unwrap()
}

/// A repository in which a page of a manifest is full after 16 MiB of a file.
pub(crate) async fn finely_cut() -> Repository {
    let location = Location::over(Arc::new(Faulty::new()), "");
    location.create_cut(&record(), ByteCount::new(FINE as u64)).await.unwrap()
}

pub(crate) fn rule(number: u32, previous: Option<u32>, start: u64) -> Rule {
    let id = |number| RuleId { term: term(number), version: 1 };
    let previous = previous.map(id);
    Rule { id: id(number), primary: member(), voters: Vec::new(), k: 0, previous, start: lsn(start).into() }
}

/// Bytes that do not compress and are the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// Files in memory. A directory is a path without content. Clones share the files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    files: Arc<Mutex<BTreeMap<String, Option<Vec<u8>>>>>,
    /// Files that are shorter, when they are read, than the walk said.
    shrunk: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, path: &str, content: Vec<u8>) -> Self {
        self.files.lock().unwrap().insert(path.to_owned(), Some(content));
        self
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.files.lock().unwrap().insert(path.to_owned(), None);
        self
    }

    pub(crate) fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.files.lock().unwrap().get_mut(path).unwrap().as_mut().unwrap());
    }

    /// The file will have `length` bytes (0: be gone) when it is opened.
    pub(crate) fn shrinks(self, path: &str, length: usize) -> Self {
        self.shrunk.lock().unwrap().insert(path.to_owned(), length);
        self
    }

    /// Path and content of everything, as it must come out of a restore.
    pub(crate) fn content(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut files = self.files.lock().unwrap().clone();
        for (path, &length) in &*self.shrunk.lock().unwrap() {
            match length {
                0 => drop(files.remove(path)),
                _ => files.get_mut(path).unwrap().as_mut().unwrap().truncate(length),
            }
        }
        files
    }
}

impl Source for Tree {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<SourceEntry, SourceError>> + Send + '_> {
        let mut entries: Vec<_> = self
            .files
            .lock()
            .unwrap()
            .iter()
            .map(|(path, content)| {
                let path = RelPath::new(path).unwrap();
                match content {
                    Some(content) => SourceEntry::File { path, mode: 0o600, size: content.len() as u64 },
                    None => SourceEntry::Directory { path, mode: 0o700 },
                }
            })
            .collect();
        entries.sort_by(|a, b| a.path().cmp(b.path()));
        Box::new(entries.into_iter().map(Ok))
    }

    fn open(&self, path: &RelPath) -> Result<Option<Box<dyn SourceFile>>, SourceError> {
        let content = self.content().remove(path.as_str()).flatten();
        Ok(content.map(|content| Box::new(Content(content)) as Box<dyn SourceFile>))
    }
}

struct Content(Vec<u8>);

impl SourceFile for Content {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

pub(crate) fn engine() -> EngineFacts {
    EngineFacts {
        engine: "postgres".to_owned(),
        version: "15.18".to_owned(),
        major: 15,
        page_size: 8192,
        checksums: true,
        system_identifier: "7000000000000000001".to_owned(),
        locale_providers: BTreeMap::new(),
    }
}

/// A backup of term 1 that starts at `start`.
pub(crate) fn spec(start: u64) -> BackupSpec {
    BackupSpec {
        id: BackupId::random(term(1), lsn(start)),
        member: member(),
        created: "2026-11-23T00:00:00Z".to_owned(),
        engine: engine(),
        expected: ByteCount::ZERO,
    }
}

pub(crate) fn stopped(stop: u64) -> Stopped {
    let path = RelPath::new("backup_label").unwrap();
    let content = Bytes::from_static(b"START WAL LOCATION");
    Stopped { stop: lsn(stop), finished: String::new(), files: vec![LateFile { path, mode: 0o600, content }] }
}

pub(crate) async fn seal(repository: &Repository, tree: &Tree, start: u64) -> Result<Sealed, BackupError> {
    let copied = backup::copy(repository, spec(start), Arc::new(tree.clone()), &Meter::unwatched()).await?;
    copied.seal(stopped(start + 100)).await
}

/// A whole backup with its log.
pub(crate) async fn back_up(
    repository: &Repository,
    tree: &Tree,
    start: u64,
) -> Result<BackupId, BackupError> {
    let sealed = seal(repository, tree, start).await?;
    ship_to(repository, start + 100).await;
    Ok(sealed.publish().await?.id)
}

/// Ships log of term 1 so that it reaches `end`.
pub(crate) async fn ship_to(repository: &Repository, end: u64) {
    let mut shipper = Shipper::resume(repository, term(1), &member()).await.unwrap();
    let next = shipper.next().map_or(0, Lsn::offset);
    if next < end {
        shipper.ship(lsn(next), &log(next, end)).await.unwrap();
    }
}

/// Log bytes of term 1: the same for the same position.
pub(crate) fn log(from: u64, to: u64) -> Vec<u8> {
    (from..to).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

pub(crate) fn io(directory: &Path) -> Arc<dyn BulkIo> {
    Arc::new(BlockingIo::new(Root::open(directory).unwrap()))
}

/// Path and content of everything below a directory, our own record left out.
pub(crate) fn read_back(directory: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                open.push(path);
            } else if !name.starts_with(".holdfast-restore") {
                found.insert(name, Some(std::fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// What a restore of `tree` must give.
pub(crate) fn expected(tree: &Tree) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut content = tree.content();
    content.insert("backup_label".to_owned(), Some(b"START WAL LOCATION".to_vec()));
    content
}

/// A tree with everything that matters: nested and empty directories, an empty file, files of less than, exactly and
/// more than a chunk.
pub(crate) fn tree() -> Tree {
    Tree::new()
        .directory("base")
        .directory("base/1")
        .directory("empty")
        .file("base/1/100", noise(1, 3 * CHUNK + 17))
        .file("base/1/101", noise(2, CHUNK))
        .file("base/1/102", vec![0; 2 * CHUNK])
        .file("base/1/PG_VERSION", b"15\n".to_vec())
        .file("base/1-empty", Vec::new())
        .file("PG_VERSION", b"15\n".to_vec())
}
