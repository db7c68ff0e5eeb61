//! Measures what chunk sizes cost: `chunk_size <snapshot> <later snapshot> <scratch directory>`.
//!
//! For each size both snapshots are backed up to a `file://` repository in the scratch directory, and the second is
//! restored there. The figures behind docs/decisions/0002-chunk-size.md come from here.

#![expect(clippy::print_stdout, reason = "a table is what it is for")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use holdfast_backup::backup::{self, BackupSpec, Source, SourceEntry, SourceError, SourceFile, Stopped};
use holdfast_backup::log::Shipper;
use holdfast_backup::manifest::{EngineFacts, Manifest};
use holdfast_backup::{
    BackupId, ClusterRecord, Location, Meter, RelPath, Repository, RepositoryConfig, restore,
};
use holdfast_model::{ByteCount, ClusterId, Incarnation, Lsn, Member, Term};
use holdfast_storage_io::IoError;
use holdfast_storage_io::bulk::{BlockingIo, BulkFile, BulkIo};
use holdfast_storage_io::root::{EntryKind, Root};
use tokio::time::Instant;

/// Every regular file below a directory.
struct Snapshot(BlockingIo);

impl Snapshot {
    fn walk(&self, path: &Path, into: &mut Vec<SourceEntry>) -> Result<(), IoError> {
        for entry in self.0.list(path)? {
            let Ok(name) = RelPath::new(&entry.path.to_string_lossy()) else { continue };
            match entry.kind {
                EntryKind::Dir => {
                    into.push(SourceEntry::Directory { path: name, mode: 0o700 });
                    self.walk(&entry.path, into)?;
                }
                EntryKind::File => {
                    into.push(SourceEntry::File { path: name, mode: 0o600, size: entry.size });
                }
                EntryKind::Symlink | EntryKind::Other => {}
            }
        }
        Ok(())
    }
}

fn failed(error: IoError) -> SourceError {
    SourceError::Read { path: error.path.display().to_string(), source: error.source }
}

impl Source for Snapshot {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<SourceEntry, SourceError>> + Send + '_> {
        let mut entries = Vec::new();
        match self.walk(Path::new(""), &mut entries) {
            Ok(()) => Box::new(entries.into_iter().map(Ok)),
            Err(error) => Box::new(std::iter::once(Err(failed(error)))),
        }
    }

    fn open(&self, path: &RelPath) -> Result<Option<Box<dyn SourceFile>>, SourceError> {
        let file = self.0.open_read(Path::new(path.as_str())).map_err(failed)?;
        Ok(Some(Box::new(Open { io: self.0.clone(), file })))
    }
}

struct Open {
    io: BlockingIo,
    file: BulkFile,
}

impl SourceFile for Open {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        self.io.read_at(&self.file, offset, buffer).map_err(failed)
    }
}

async fn back_up(repository: &Repository, member: &Member, from: &Path, start: u64) -> Result<Manifest> {
    let engine = EngineFacts {
        engine: "postgres".to_owned(),
        version: String::new(),
        major: 15,
        page_size: 8192,
        checksums: true,
        system_identifier: String::new(),
        locale_providers: BTreeMap::new(),
    };
    let spec = BackupSpec {
        id: BackupId::random(Term::FIRST, Lsn::from_offset(start)),
        member: member.clone(),
        created: String::new(),
        engine,
        expected: ByteCount::ZERO,
    };
    let source = Arc::new(Snapshot(BlockingIo::new(Root::open(from)?)));
    let copied = backup::copy(repository, spec, source, &Meter::unwatched()).await?;
    let sealed = copied
        .seal(Stopped { stop: Lsn::from_offset(start + 1), finished: String::new(), files: Vec::new() })
        .await?;
    Ok(sealed.publish().await?.clone())
}

fn mib(bytes: u64) -> String {
    format!("{}.{}", bytes >> 20, ((bytes >> 10) & 0x3FF) * 10 / 1024)
}

async fn measure(size: ByteCount, snapshots: [&Path; 2], scratch: &Path) -> Result<()> {
    let member = Member { node: "n1".parse()?, incarnation: Incarnation::from_random(1) };
    let url = format!("file://{}/repository", scratch.display());
    let location = Location::connect(&RepositoryConfig { url, ..RepositoryConfig::default() })?;
    let record = ClusterRecord {
        cluster: ClusterId::new("measured".parse()?, 1),
        engine: "postgres".to_owned(),
        created: String::new(),
    };
    let repository = location.create_cut(&record, size).await?;
    Shipper::resume(&repository, Term::FIRST, &member).await?.ship(Lsn::ZERO, &[0; 100]).await?;

    let began = Instant::now();
    let first = back_up(&repository, &member, snapshots[0], 1).await?;
    let first_ms = began.elapsed().as_millis();
    let began = Instant::now();
    let second = back_up(&repository, &member, snapshots[1], 10).await?;
    let second_ms = began.elapsed().as_millis();

    let plan = restore::plan(&repository, second.id, ByteCount::gib(1024)).await?;
    let target = scratch.join("restored");
    std::fs::create_dir(&target)?;
    let io = Arc::new(BlockingIo::new(Root::open(&target)?));
    let began = Instant::now();
    restore::run(&plan, io, &member, &Meter::unwatched()).await?;
    let restore_ms = began.elapsed().as_millis();

    let pages: u64 = second.pages.iter().map(|page| u64::from(page.stored)).sum();
    println!(
        "| {size} | {} | {} | {first_ms} | {} | {} | {second_ms} | {} | {} | {restore_ms} |",
        mib(first.totals.bytes.bytes()),
        mib(first.totals.packed.bytes()),
        mib(second.totals.new_bytes.bytes()),
        mib(second.totals.packed.bytes()),
        pages >> 10,
        plan.gets(),
    );
    for made in ["repository", "restored"] {
        std::fs::remove_dir_all(scratch.join(made))?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [first, second, scratch] = arguments.as_slice() else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput))
            .context("give two snapshots and a scratch directory");
    };
    println!(
        "| chunk | data MiB | first stored MiB | ms | second new MiB | stored MiB | ms | pages KiB | GETs | restore ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for size in [16, 64, 128, 256, 512, 1024, 4096] {
        measure(ByteCount::kib(size), [first, second], scratch).await?;
    }
    Ok(())
}
