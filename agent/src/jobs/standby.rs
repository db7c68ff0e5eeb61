//! Files on the volume that a server which follows needs, or must not have: what a restore worker does besides restoring.
//!
//! Every step may be cut off at any byte and is done again from its beginning. Nothing here replaces a file.
//!
//! Invariants, each a test below:
//! * `a_history_that_is_there_is_never_replaced`.
//! * `a_start_as_a_standby_is_prepared_twice_as_once`.
//! * `what_is_not_known_to_be_behind_stays`.
//!
//! Not here: whether a server may start as what. See `holdfast_replication::resume`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use holdfast_engine::postgres::control::{self, Control};
use holdfast_engine::postgres::recovery::RecoveryFile;
use holdfast_engine::postgres::standby::STANDBY_SIGNAL;
use holdfast_engine::postgres::standby::first_segment::FirstSegment;
use holdfast_engine::postgres::standby::promote::dangling;
use holdfast_engine::postgres::wal::history::{self, History};
use holdfast_storage_io::IoError;
use holdfast_storage_io::root::{EntryKind, Root};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{answer, later};
use crate::worker::job::JobFailure;

/// Both signals at once mean a standby (`PostgreSQL`, "Archive Recovery"), but the other one would stay behind it.
const RECOVERY_SIGNAL: &str = "recovery.signal";
const WAL_DIR: &str = "pg_wal";
/// A line per reign, which is less than a hundred bytes.
const HISTORY_BYTES_MAX: u64 = 4 << 20;
const CONTROL_BYTES_MAX: u64 = 1 << 16;
/// The largest segment that Postgres knows.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// A data directory whose next start is one of a standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeStandby {
    /// Names of the files in the log's directory that were removed: histories that led nowhere, and first segments of a
    /// timeline that were behind those of its parent.
    pub removed: Vec<String>,
}

/// Makes each file unless it is there, and all of them durable.
pub(super) async fn ensure_files(data_dir: PathBuf, files: Vec<RecoveryFile>) -> Result<Value, JobFailure> {
    on_disk(data_dir, move |root| {
        for file in &files {
            root.ensure(Path::new(&file.path), file.content.as_bytes(), 0o600)?;
        }
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

/// In order: the placeholders go while nobody can start it as something else by mistake, then the signal is made durable.
pub(super) async fn make_standby(data_dir: PathBuf) -> Result<Value, JobFailure> {
    let removed = on_disk(data_dir, |root| {
        let mut removed = remove_dangling(root)?;
        removed.extend(remove_first_segments_behind(root)?);
        root.ensure(Path::new(STANDBY_SIGNAL), b"", 0o600)?;
        root.remove_file(Path::new(RECOVERY_SIGNAL))?;
        root.sync_dir(Path::new(""))?;
        Ok(removed)
    })
    .await?;
    answer(&MadeStandby { removed })
}

/// As [`make_standby`] for whoever starts as what it was: only what must not be there goes.
pub(super) async fn mend_log(data_dir: PathBuf) -> Result<Value, JobFailure> {
    let removed = on_disk(data_dir, remove_first_segments_behind).await?;
    answer(&MadeStandby { removed })
}

/// Of a change to another timeline that was cut off: see [`holdfast_engine::postgres::standby::first_segment`].
fn remove_first_segments_behind(root: &Root) -> Result<Vec<String>, IoError> {
    let control = root.read(Path::new(control::PATH), CONTROL_BYTES_MAX)?.unwrap_or_default();
    // Without one the server says so itself.
    let Ok(control) = Control::parse(&control) else { return Ok(Vec::new()) };
    let file = |name: &str| Path::new(WAL_DIR).join(name);
    let mut behind = BTreeSet::new();
    for entry in root.list(Path::new(WAL_DIR))? {
        let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(timeline) = history::parse_file_name(name).filter(|_| entry.kind == EntryKind::File) else {
            continue;
        };
        let Some(text) = root.read(&entry.path, HISTORY_BYTES_MAX)? else { continue };
        let Ok(history) = History::parse(timeline, &String::from_utf8_lossy(&text)) else { continue };
        let read = |name: &str| root.read(&file(name), SEGMENT_BYTES_MAX);
        let beside = FirstSegment::of(timeline, &history, control.segments);
        let Some(parent) = beside.last() else { continue };
        let Some(newer) = read(&parent.newer)? else { continue };
        // Nearly every one is: a segment may hold the forks of many reigns, and each has its files.
        if parent.is_whole(&newer) {
            continue;
        }
        for first in beside {
            if read(&first.older)?.is_some_and(|older| first.is_behind(&newer, &older)) {
                behind.insert(first.newer);
            }
        }
    }
    // None is removed before all were compared: the next one may be behind the same.
    for name in &behind {
        root.remove_file(&file(name))?;
    }
    let removed = behind.into_iter().collect();
    root.sync_dir(Path::new(WAL_DIR))?;
    Ok(removed)
}

fn remove_dangling(root: &Root) -> Result<Vec<String>, IoError> {
    let mut histories = Vec::new();
    for entry in root.list(Path::new(WAL_DIR))? {
        let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if entry.kind != EntryKind::File || history::parse_file_name(name).is_none() {
            continue;
        }
        let Some(bytes) = root.read(&entry.path, HISTORY_BYTES_MAX)? else { continue };
        // One that is not text has no ancestors that anybody could read: it is not taken for a placeholder either.
        histories.push((name.to_owned(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    let named: Vec<(&str, &str)> =
        histories.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let removed: Vec<String> = dangling(&named).into_iter().map(str::to_owned).collect();
    for name in &removed {
        root.remove_file(&Path::new(WAL_DIR).join(name))?;
    }
    root.sync_dir(Path::new(WAL_DIR))?;
    Ok(removed)
}

async fn on_disk<T: Send + 'static>(
    data_dir: PathBuf,
    work: impl FnOnce(&Root) -> Result<T, IoError> + Send + 'static,
) -> Result<T, JobFailure> {
    let done = tokio::task::spawn_blocking(move || Root::open(&data_dir).and_then(|root| work(&root)));
    done.await.map_err(|err| later(&err))?.map_err(|err| later(&err))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const REAL: &str = "3\t0/3000000\tno recovery target specified\n";

    fn data_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(WAL_DIR)).unwrap();
        dir
    }

    fn put(dir: &tempfile::TempDir, name: &str, text: &str) {
        fs::write(dir.path().join(name), text).unwrap();
    }

    fn names(dir: &tempfile::TempDir, below: &str) -> Vec<String> {
        let entries = fs::read_dir(dir.path().join(below)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_history_that_is_there_is_never_replaced() {
        let dir = data_dir();
        put(&dir, "pg_wal/00000005.history", REAL);
        let placeholder =
            |name: &str| RecoveryFile { path: format!("pg_wal/{name}"), content: String::new() };
        let files = vec![placeholder("00000004.history"), placeholder("00000005.history")];
        for _ in 0..2 {
            ensure_files(dir.path().to_owned(), files.clone()).await.unwrap();
            assert_eq!(names(&dir, WAL_DIR), ["00000004.history", "00000005.history"]);
            assert_eq!(fs::read_to_string(dir.path().join("pg_wal/00000005.history")).unwrap(), REAL);
        }
        let outside = RecoveryFile { path: "../outside".to_owned(), content: String::new() };
        assert!(ensure_files(dir.path().to_owned(), vec![outside]).await.is_err());
    }

    #[tokio::test]
    async fn a_start_as_a_standby_is_prepared_twice_as_once() {
        let dir = data_dir();
        for (name, text) in [
            ("00000004.history", ""),
            ("00000005.history", REAL),
            ("00000006.history", ""),
            ("0000000A.history", ""),
        ] {
            put(&dir, &format!("pg_wal/{name}"), text);
        }
        put(&dir, "pg_wal/000000050000000000000003", "log");
        put(&dir, RECOVERY_SIGNAL, "");
        let mut removed = Vec::new();
        for _ in 0..2 {
            let made = make_standby(dir.path().to_owned()).await.unwrap();
            removed.push(serde_json::from_value::<MadeStandby>(made).unwrap().removed);
            let left = ["00000004.history", "00000005.history", "000000050000000000000003"];
            assert_eq!(names(&dir, WAL_DIR), left);
            assert_eq!(names(&dir, ""), [WAL_DIR, STANDBY_SIGNAL]);
        }
        assert_eq!(removed, [vec!["00000006.history", "0000000A.history"], vec![]]);
    }

    #[tokio::test]
    async fn what_is_not_known_to_be_behind_stays() {
        let dir = data_dir();
        put(&dir, "pg_wal/00000005.history", REAL);
        for name in ["000000030000000000000003", "000000050000000000000003"] {
            put(&dir, &format!("pg_wal/{name}"), "neither is log");
        }
        let before = names(&dir, WAL_DIR);
        mend_log(dir.path().to_owned()).await.unwrap();
        assert_eq!(names(&dir, WAL_DIR), before);
        assert!(mend_log(dir.path().join("none")).await.is_err(), "no data directory is no answer");
    }
}
