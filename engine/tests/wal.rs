//! The log scanner against the log of a real server: records of all sizes, segment switches, and cuts anywhere.

#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]

mod support;

use std::collections::BTreeSet;

use holdfast_engine::postgres::session::Session;
use holdfast_engine::postgres::wal::Segments;
use holdfast_engine::postgres::wal::scan::{Scanner, Stop, last_whole_record};
use holdfast_model::{Lsn, Term};
use support::{Server, client};
use test_case::test_case;

const SEGMENTS: Segments = Segments::DEFAULT;

/// A stretch of log that begins with a segment, and where the server says that it ends.
struct Log {
    first: Lsn,
    bytes: Vec<u8>,
    end: Lsn,
}

impl Log {
    fn scan(&self, bytes: &[u8]) -> holdfast_engine::postgres::wal::scan::Scanned {
        last_whole_record(SEGMENTS, Term::FIRST, self.first, self.first, bytes)
    }
}

/// Small rows, rows of many pages, a segment switch, and more.
async fn write_log(server: &Server, session: &Session) -> Log {
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    for sql in [
        "CREATE TABLE public.t (id int, body bytea)",
        "INSERT INTO public.t SELECT i, '' FROM generate_series(1, 500) i",
        "SELECT pg_logical_emit_message(true, 'big', repeat('0123456789', 300000))",
        "SELECT pg_switch_wal()",
        "INSERT INTO public.t SELECT i, decode(repeat('ab', i * 7), 'hex') FROM generate_series(1, 300) i",
        "CHECKPOINT",
        "UPDATE public.t SET id = id + 1",
    ] {
        agent.sql.batch_execute(sql).await.unwrap();
    }
    quiet_log(server, session).await
}

/// Copies the log at a moment when nothing is being added to it.
async fn quiet_log(server: &Server, session: &Session) -> Log {
    loop {
        let end = session.insert_position().await.unwrap();
        let files = server.wal_files();
        let flushed = session.flushed().await.unwrap().local;
        if end != flushed || end != session.insert_position().await.unwrap() {
            continue;
        }
        let first = SEGMENTS.parse(files.keys().next().unwrap()).unwrap();
        // Files after the last used one are recycled: names of the future with content of the past.
        let used = files.into_iter().filter(|(name, _)| SEGMENTS.parse(name).unwrap().start < end);
        return Log { first: first.start, bytes: used.flat_map(|(_, bytes)| bytes).collect(), end };
    }
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn the_scan_ends_where_the_server_says_its_log_ends(major: u32) {
    let mut server = Server::init(major);
    let session = server.start().await;
    let log = write_log(&server, &session).await;
    let scanned = log.scan(&log.bytes);
    assert_eq!(scanned.end, log.end, "{scanned:?}");
    assert!(scanned.records > 1500, "{scanned:?}");
    assert_ne!(scanned.stop, Stop::Checksum);
    // From a record in the middle, as after a base backup.
    let middle = log.scan(&log.bytes[..log.bytes.len() / 3]).end;
    let page = Lsn::from_offset(middle.offset() / 8192 * 8192);
    let rest = &log.bytes[usize::try_from(page.bytes_since(log.first)).unwrap()..];
    assert_eq!(last_whole_record(SEGMENTS, Term::FIRST, middle, page, rest).end, log.end);
}

#[tokio::test]
async fn a_cut_anywhere_ends_the_scan_at_a_record_before_the_cut() {
    let mut server = Server::init(15);
    let session = server.start().await;
    let log = write_log(&server, &session).await;
    let all = usize::try_from(log.end.bytes_since(log.first)).unwrap();
    // The last stretch alone, so that each of thousands of scans is short.
    let from = log.scan(&log.bytes[..all - 100_000]).end;
    let page = Lsn::from_offset(from.offset() / 8192 * 8192);
    let tail = &log.bytes[usize::try_from(page.bytes_since(log.first)).unwrap()..];
    let scan = |bytes: &[u8]| last_whole_record(SEGMENTS, Term::FIRST, from, page, bytes);
    let whole = usize::try_from(log.end.bytes_since(page)).unwrap();
    let (mut last, mut ends) = (from, BTreeSet::new());
    for cut in (0..whole).step_by(97).chain(whole - 2000..=whole) {
        let mut padded = tail[..cut].to_vec();
        let bare = scan(&padded);
        padded.resize(whole + 20_000, 0);
        let scanned = scan(&padded);
        // A record's end is rounded up to 8 bytes, so it may lie up to 7 bytes past the cut.
        assert!(bare.end <= page.plus(cut as u64 + 7).max(from), "cut at {cut}: {bare:?}");
        // Padding completes a record only when what was cut off was zeros too.
        let end = usize::try_from(scanned.end.bytes_since(page)).unwrap().max(cut);
        let same = scanned.end == bare.end || tail[cut..end].iter().all(|byte| *byte == 0);
        assert!(same, "cut at {cut}: {bare:?}, padded {scanned:?}");
        last = scanned.end;
        ends.insert(scanned.end);
    }
    assert_eq!(last, log.end);
    assert!(ends.len() > 20, "{}", ends.len());
}

#[tokio::test]
async fn pieces_of_any_size_scan_alike() {
    let mut server = Server::init(15);
    let session = server.start().await;
    let log = write_log(&server, &session).await;
    for piece in [1000, 8192, 100_003] {
        let mut scanner = Scanner::new(SEGMENTS, Term::FIRST, log.first, log.first);
        log.bytes.chunks(piece).for_each(|bytes| scanner.push(bytes));
        assert_eq!(scanner.finish().end, log.end);
    }
}

#[tokio::test]
async fn a_flipped_bit_ends_the_log_at_the_record_before_it() {
    let mut server = Server::init(15);
    let session = server.start().await;
    let log = write_log(&server, &session).await;
    let all = usize::try_from(log.end.bytes_since(log.first)).unwrap();
    let mut bytes = log.bytes.clone();
    for at in (all - 4000..all).step_by(97) {
        bytes[at] ^= 0x10;
        let scanned = log.scan(&bytes);
        bytes[at] ^= 0x10;
        // A flip in the padding between two records is no damage.
        let harmless = scanned.end == log.end;
        assert!(harmless || scanned.end <= log.first.plus(at as u64), "flip at {at}: {scanned:?}");
    }
}

#[tokio::test]
async fn a_log_that_a_crash_cut_in_a_record_is_scanned_past_the_repair() {
    let mut server = Server::init(15);
    server.start().await;
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    for _ in 0..3 {
        let sql = "SELECT pg_logical_emit_message(false, 'big', repeat('0123456789', 90000))";
        agent.sql.batch_execute(sql).await.unwrap();
    }
    server.kill();
    server.ended().await;
    let session = server.start().await;
    agent_writes_again(&server).await;
    let log = quiet_log(&server, &session).await;
    assert_eq!(log.scan(&log.bytes).end, log.end);
}

async fn agent_writes_again(server: &Server) {
    let agent = client(&server.setup.layout, "holdfast").await.unwrap();
    agent.sql.batch_execute("CREATE TABLE public.after (id int)").await.unwrap();
}
