//! A base backup and its log restored by a real server: the zero-padded end (S20), exit codes of `restore_command`
//! (S21), and a new timeline that is the new term (T9).

#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use holdfast_engine::postgres::backup::{BackupEnd, BackupError, BackupSession};
use holdfast_engine::postgres::control;
use holdfast_engine::postgres::files::{FileClass, NEEDED_DIRS, classify};
use holdfast_engine::postgres::recovery::{Recovery, switch_point};
use holdfast_engine::postgres::session::Session;
use holdfast_engine::postgres::wal::scan::last_whole_record;
use holdfast_engine::postgres::wal::{Segments, history::History};
use holdfast_model::{Lsn, Term};
use support::{Server, client, engine_folder, give_to_engine};
use test_case::test_case;

const SEGMENTS: Segments = Segments::DEFAULT;

/// A server that was lost: its base, the log that was shipped, and how much of it was acked.
struct Lost {
    end: BackupEnd,
    base: BTreeMap<String, Vec<u8>>,
    log: BTreeMap<String, Vec<u8>>,
    /// Ten rows were durable here, ten more after it.
    acked: Lsn,
}

/// Begins a backup, writes on, ends it, writes ten rows, notes the position, writes ten more.
async fn lose_a_server(major: u32) -> Lost {
    let mut server = Server::init(major);
    let session = server.start().await;
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    agent.sql.batch_execute("CREATE TABLE public.t (id int)").await.unwrap();
    let deadlines = server.setup.deadlines;
    let begin = BackupSession::begin(&server.setup.layout, "test", deadlines.query, deadlines.backup_start);
    let backup = begin.await.unwrap();
    let base = read_base(&server.setup.layout.data_dir);
    let end = backup.end().await.unwrap();
    let acked = insert(&agent, &session, 1..=10).await;
    insert(&agent, &session, 11..=20).await;
    Lost { end, base, log: server.wal_files(), acked }
}

async fn insert(agent: &support::Client, session: &Session, ids: std::ops::RangeInclusive<i32>) -> Lsn {
    for id in ids {
        agent.sql.execute("INSERT INTO public.t VALUES ($1)", &[&id]).await.unwrap();
    }
    session.flushed().await.unwrap().local
}

/// Every file that belongs into a base, `pg_control` read last.
fn read_base(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut base = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if matches!(classify(&name).unwrap(), FileClass::Plain | FileClass::Pages(_)) {
                // A file that goes meanwhile was not needed.
                if let Ok(content) = fs::read(&path) {
                    base.insert(name, content);
                }
            }
        }
    }
    base.insert(control::PATH.to_owned(), fs::read(root.join(control::PATH)).unwrap());
    base
}

impl Lost {
    /// What a shipper would have: whole segments up to `acked`, the last one padded with zeros.
    fn shipped(&self) -> BTreeMap<String, Vec<u8>> {
        let mut shipped = BTreeMap::new();
        for (name, bytes) in &self.log {
            let start = SEGMENTS.parse(name).unwrap().start;
            let keep = usize::try_from(self.acked.bytes_since(start).min(SEGMENTS.bytes())).unwrap();
            if keep > 0 {
                let mut bytes = bytes.clone();
                bytes[keep..].fill(0);
                shipped.insert(name.clone(), bytes);
            }
        }
        shipped
    }

    /// Where replay must end.
    fn last_whole_record(&self) -> Lsn {
        let shipped = self.shipped();
        let page = Lsn::from_offset(self.end.start.offset() / 8192 * 8192);
        let first = SEGMENTS.holding(Term::FIRST, page);
        let log: Vec<u8> =
            shipped.range(SEGMENTS.name(first)..).flat_map(|(_, bytes)| bytes.clone()).collect();
        let skip = usize::try_from(page.bytes_since(first.start)).unwrap();
        last_whole_record(SEGMENTS, Term::FIRST, self.end.start, page, &log[skip..]).end
    }
}

/// A fresh server folder with the base, the shipped log beside it, and a fetch program that answers `missing` for
/// what is not there. Restores term 1 into term `to`.
fn restore(lost: &Lost, major: u32, missing: u8, to: u32) -> Server {
    let mut server = Server::empty(major);
    let archive = server.dir.path().join("archive");
    engine_folder(&archive);
    for (name, bytes) in lost.shipped() {
        write(&archive.join(name), &bytes);
    }
    let data = server.setup.layout.data_dir.clone();
    for folder in NEEDED_DIRS {
        make_folders(&data, folder);
    }
    for (name, bytes) in &lost.base {
        make_folders(&data, name.rsplit_once('/').map_or("", |(folder, _)| folder));
        write(&data.join(name), bytes);
    }
    write(&data.join("backup_label"), lost.end.label.as_bytes());

    let recovery = Recovery {
        from: Term::FIRST,
        history: History::default(),
        to: Some(Term::new(to).unwrap()),
        fetch_program: fetch_program(server.dir.path(), &archive, missing),
        fetch_socket: "/run/it's 100%/fetch.sock".into(),
    };
    for file in recovery.files().unwrap() {
        write(&data.join(&file.path), file.content.as_bytes());
    }
    server.recovery = recovery.settings().unwrap();
    server.install(&support::CLOSED);
    server
}

/// Stands in for `holdfastd fetch-log --socket S NAME TARGET`.
fn fetch_program(folder: &Path, archive: &Path, missing: u8) -> PathBuf {
    let path = folder.join("fetch 'it'");
    let archive = archive.display();
    let script = format!(
        "#!/bin/sh\n[ \"$1 $2 $3\" = \"fetch-log --socket /run/it's 100%/fetch.sock\" ] || exit 255\n\
         case \"$4\" in *.history) exit 1;; esac\n\
         [ -e \"{archive}/$4\" ] || exit {missing}\nexec cp \"{archive}/$4\" \"$5\"\n"
    );
    write(&path, script.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    give_to_engine(path);
}

fn make_folders(root: &Path, relative: &str) {
    let mut path = root.to_owned();
    for name in relative.split('/').filter(|name| !name.is_empty()) {
        path.push(name);
        engine_folder(&path);
    }
}

async fn promoted(session: &Session) {
    let done = async || !session.status().await.unwrap().in_recovery();
    support::eventually("the server is promoted", done).await;
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_restore_holds_all_that_was_acked_and_begins_the_new_term(major: u32) {
    let lost = lose_a_server(major).await;
    let mut server = restore(&lost, major, 1, 5);
    server.spawn();
    let session = server.session().await;
    promoted(&session).await;
    assert_eq!(session.status().await.unwrap().timeline, Term::new(5).unwrap());
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    let rows = agent.sql.query_one("SELECT count(*), max(id) FROM public.t", &[]).await.unwrap();
    assert_eq!((rows.get::<_, i64>(0), rows.get::<_, i32>(1)), (10, 10));

    let history = fs::read_to_string(server.setup.layout.wal_dir().join("00000005.history")).unwrap();
    let switch = switch_point(Term::FIRST, Term::new(5).unwrap(), &history).unwrap();
    assert_eq!(switch, lost.last_whole_record(), "replay ended at the last whole record");
    assert_eq!(switch, lost.acked);
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_record_ends_replay_at_the_last_whole_one() {
    let mut lost = lose_a_server(15).await;
    lost.acked = lost.acked.plus(20);
    let expected = lost.last_whole_record();
    assert!(expected < lost.acked);
    let mut server = restore(&lost, 15, 1, 2);
    server.spawn();
    let session = server.session().await;
    promoted(&session).await;
    let history = fs::read_to_string(server.setup.layout.wal_dir().join("00000002.history")).unwrap();
    assert_eq!(switch_point(Term::FIRST, Term::new(2).unwrap(), &history).unwrap(), expected);
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_segment_that_cannot_be_fetched_never_looks_like_the_end_of_the_log(major: u32) {
    let lost = lose_a_server(major).await;
    let mut server = restore(&lost, major, 255, 2);
    let archive = server.dir.path().join("archive");
    for (name, _) in lost.shipped() {
        fs::remove_file(archive.join(name)).unwrap();
    }
    server.spawn();
    let status = server.ended().await;
    assert!(!status.success(), "{}", server.log());
    assert!(!server.log().contains("ready to accept connections"), "{}", server.log());
    // Nothing was lost by the attempt: with the log back the same folder restores.
    for (name, bytes) in lost.shipped() {
        write(&archive.join(name), &bytes);
    }
    fetch_program(server.dir.path(), &archive, 1);
    server.spawn();
    let session = server.session().await;
    promoted(&session).await;
    let history = fs::read_to_string(server.setup.layout.wal_dir().join("00000002.history")).unwrap();
    assert_eq!(switch_point(Term::FIRST, Term::new(2).unwrap(), &history).unwrap(), lost.last_whole_record());
}

#[tokio::test]
async fn an_end_of_log_that_came_too_early_shows_in_the_switch_point() {
    let mut lost = lose_a_server(15).await;
    let expected = lost.last_whole_record();
    // The shipper's last ten rows are gone, and the fetch program says "proven past the end": the trap of S21.
    lost.acked = lost.end.stop;
    let mut server = restore(&lost, 15, 1, 2);
    server.spawn();
    let session = server.session().await;
    promoted(&session).await;
    let history = fs::read_to_string(server.setup.layout.wal_dir().join("00000002.history")).unwrap();
    assert!(switch_point(Term::FIRST, Term::new(2).unwrap(), &history).unwrap() < expected);
}

#[tokio::test]
async fn a_backup_whose_session_is_lost_is_void() {
    let mut server = Server::init(15);
    server.start().await;
    let deadlines = server.setup.deadlines;
    let begin = BackupSession::begin(&server.setup.layout, "test", deadlines.query, deadlines.backup_start);
    let backup = begin.await.unwrap();
    assert!(backup.log_end().await.unwrap() >= backup.start());
    assert!(!backup.is_void());
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    agent.sql.batch_execute(sql).await.unwrap();
    assert!(matches!(backup.end().await, Err(BackupError::Stop(_))));
}
