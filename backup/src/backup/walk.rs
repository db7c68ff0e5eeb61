//! Walks a source, reads, names and compresses its chunks on several blocking threads, and hands them on in order.
//!
//! ```text
//! walker thread -> [entries] -> lookup in the parent -> [steps] -> up to WORKERS threads -> Draft, in order
//! ```
//! Every channel is bounded, so memory does not depend on the size of the data. Dropping the future closes the
//! channels; blocking threads end with the chunk that they are at.

use std::cell::RefCell;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use holdfast_storage_io::buffer::AlignedBuf;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::draft::{Draft, Prepared};
use super::parent::Parent;
use super::source::{Source, SourceEntry, SourceError, SourceFile};
use super::{BackupError, Meter};
use crate::chunk::{self, ChunkRef, NameKey};
use crate::path::{RelPath, WalkOrder};
use crate::restore::RESERVED;

/// Chunks being read, hashed and compressed at once.
const WORKERS: usize = 4;
/// Files opened ahead of their turn.
const OPEN_AHEAD: usize = 16;

type Opened = Arc<dyn SourceFile>;

enum Walked {
    Directory { path: RelPath, mode: u32 },
    File { path: RelPath, mode: u32, size: u64, file: Opened },
}

enum Step {
    Directory { path: RelPath, mode: u32 },
    File { path: RelPath, mode: u32 },
    Chunk(Task),
}

enum Outcome {
    Directory { path: RelPath, mode: u32 },
    File { path: RelPath, mode: u32 },
    Chunk(Prepared),
}

struct Task {
    file: Opened,
    offset: u64,
    length: usize,
    known: Option<ChunkRef>,
    name_key: NameKey,
}

/// Reads everything in `source` into `draft`.
pub(crate) async fn run(
    source: Arc<dyn Source>,
    parent: Parent,
    name_key: NameKey,
    draft: &mut Draft,
    meter: &Meter,
) -> Result<(), BackupError> {
    let chunk_size = u64::from(draft.chunk_size());
    let (to_lookup, walked) = mpsc::channel(OPEN_AHEAD);
    let (to_workers, steps) = mpsc::channel(WORKERS);
    let walking =
        async { spawn_blocking(move || walk(&*source, &to_lookup)).await.map_err(BackupError::Panicked)? };
    let looking_up = look_up(walked, to_workers, parent, Cut { chunk_size, name_key });
    let outcomes = stream::unfold(steps, |mut steps| async { steps.recv().await.map(|step| (step, steps)) })
        .map(|step| perform(step).boxed())
        .buffered(WORKERS);
    let drafting = async {
        let mut outcomes = outcomes.boxed();
        while let Some(outcome) = outcomes.try_next().await? {
            match outcome {
                Outcome::Directory { path, mode } => draft.directory(path, mode).await?,
                Outcome::File { path, mode } => draft.file(path, mode).await?,
                Outcome::Chunk(prepared) => draft.chunk(prepared).await?,
            }
            meter.at(draft.done());
        }
        Ok(())
    };
    futures::try_join!(walking, Box::pin(looking_up), Box::pin(drafting))?;
    draft.end_walk().await
}

/// Ends early, without an error, when nobody listens any more: then the listener has the error.
fn walk(source: &dyn Source, to: &mpsc::Sender<Walked>) -> Result<(), BackupError> {
    let mut order = WalkOrder::default();
    for entry in source.entries() {
        let entry = entry?;
        if RESERVED.contains(&entry.path().as_str()) {
            continue;
        }
        let walked = match entry {
            SourceEntry::Directory { path, mode } => {
                order.directory(&path).map_err(BackupError::Order)?;
                Walked::Directory { path, mode: mode & 0o777 }
            }
            SourceEntry::File { path, mode, size } => {
                order.file(&path).map_err(BackupError::Order)?;
                let Some(file) = source.open(&path)? else { continue };
                Walked::File { path, mode: mode & 0o777, size, file: file.into() }
            }
        };
        if to.blocking_send(walked).is_err() {
            break;
        }
    }
    Ok(())
}

struct Cut {
    chunk_size: u64,
    name_key: NameKey,
}

async fn look_up(
    mut walked: mpsc::Receiver<Walked>,
    to: mpsc::Sender<Step>,
    mut parent: Parent,
    cut: Cut,
) -> Result<(), BackupError> {
    while let Some(entry) = walked.recv().await {
        let (path, mode, size, file) = match entry {
            Walked::Directory { path, mode } => {
                if to.send(Step::Directory { path, mode }).await.is_err() {
                    break;
                }
                continue;
            }
            Walked::File { path, mode, size, file } => (path, mode, size, file),
        };
        if to.send(Step::File { path: path.clone(), mode }).await.is_err() {
            break;
        }
        let mut offset = 0;
        while offset < size {
            let known = parent.known(&path, offset).await?;
            let length = usize::try_from(cut.chunk_size.min(size - offset)).expect("a chunk fits in memory");
            let task =
                Task { file: Arc::clone(&file), offset, length, known, name_key: cut.name_key.clone() };
            if to.send(Step::Chunk(task)).await.is_err() {
                return Ok(());
            }
            offset += cut.chunk_size;
        }
    }
    Ok(())
}

async fn perform(step: Step) -> Result<Outcome, BackupError> {
    match step {
        Step::Directory { path, mode } => Ok(Outcome::Directory { path, mode }),
        Step::File { path, mode } => Ok(Outcome::File { path, mode }),
        Step::Chunk(task) => {
            let prepared = spawn_blocking(move || prepare(&task)).await.map_err(BackupError::Panicked)??;
            Ok(Outcome::Chunk(prepared))
        }
    }
}

thread_local! {
    /// Reused, because touching fresh memory costs more than reading into it.
    static BUFFER: RefCell<AlignedBuf> = RefCell::new(AlignedBuf::zeroed(0));
}

fn prepare(task: &Task) -> Result<Prepared, SourceError> {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < task.length {
            *buffer = AlignedBuf::zeroed(task.length);
        }
        let mut read = 0;
        while read < task.length {
            let more = task.file.read_at(task.offset + read as u64, &mut buffer[read..task.length])?;
            if more == 0 {
                break;
            }
            read += more;
        }
        Ok(name_and_deflate(task, &buffer[..read]))
    })
}

fn name_and_deflate(task: &Task, plain: &[u8]) -> Prepared {
    if plain.is_empty() {
        return Prepared::Nothing;
    }
    let name = task.name_key.name(plain);
    let size = u32::try_from(plain.len()).expect("no longer than a chunk");
    match task.known {
        Some(known) if known.name == name && known.plain == size => Prepared::Known(known),
        Some(_) | None => Prepared::New { name, plain: size, stored: chunk::deflate(plain) },
    }
}
