//! A rewind's steps on plain directories; with real servers see `integration/tests/cluster/rewound.rs`.

use std::fs;

use super::*;
use holdfast_model::Incarnation;

struct Both {
    dir: tempfile::TempDir,
}

impl Both {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for side in ["pgdata/pg_wal", "pgdata/base/5", "beside/pg_wal"] {
            fs::create_dir_all(dir.path().join(side)).unwrap();
        }
        Self { dir }
    }

    fn sides(&self) -> Sides {
        Sides { data_dir: self.dir.path().join("pgdata"), beside: self.dir.path().join("beside") }
    }

    fn put(&self, path: &str, text: &str) {
        fs::write(self.dir.path().join(path), text).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.dir.path().join(path)).ok()
    }
}

fn tail() -> Tail {
    Tail {
        term: Term::FIRST,
        start: Lsn::from_offset(0x0300_0010).into(),
        end: Lsn::from_offset(0x0300_0020).into(),
    }
}

#[test]
fn a_copy_has_what_a_rewind_needs_and_nothing_that_starts_a_server() {
    let both = Both::new();
    both.put("pgdata/base/5/1", "rows");
    both.put("pgdata/pg_wal/000000010000000000000003", "log");
    for name in LEFT_OUT {
        both.put(&format!("pgdata/{name}"), "");
    }
    both.put("beside/left over", "");
    for _ in 0..2 {
        let copied = copy(&both.sides()).unwrap();
        assert_eq!(copied.bytes, ByteCount::new(7));
        assert_eq!(both.read("beside/base/5/1").as_deref(), Some("rows"));
        assert_eq!(both.read("beside/pg_wal/000000010000000000000003").as_deref(), Some("log"));
        assert!(LEFT_OUT.iter().all(|name| both.read(&format!("beside/{name}")).is_none()));
        assert_eq!(both.read("beside/left over"), None);
    }
    both.put("beside/base/5/1", "other");
    assert_eq!(both.read("pgdata/base/5/1").as_deref(), Some("rows"), "a copy, not the same file");
    std::os::unix::fs::symlink("/", both.dir.path().join("pgdata/base/link")).unwrap();
    assert_eq!(copy(&both.sides()).unwrap_err().retry, JobRetry::Never);
}

#[test]
fn a_copy_that_was_not_brought_back_is_not_made_ready() {
    let both = Both::new();
    assert!(prepare(&both.sides(), Term::FIRST, &tail(), Lsn::ZERO).is_err(), "there is no pg_control");
    assert_eq!(both.read(&format!("beside/{STANDBY_SIGNAL}")), None);
}

#[test]
fn log_that_only_the_rewound_server_still_has_is_brought_along() {
    let both = Both::new();
    for (name, text) in [
        ("000000010000000000000001", "own"),
        ("000000010000000000000002", "own"),
        ("000000010000000000000003", "with the fork"),
        ("000000010000000000000004", "past it"),
        ("00000002.history", "own"),
    ] {
        both.put(&format!("pgdata/pg_wal/{name}"), text);
    }
    both.put("beside/pg_wal/000000010000000000000002", "theirs");
    let root = |side| Root::open(&both.dir.path().join(side)).unwrap();
    for _ in 0..2 {
        bring_log(&root("pgdata"), &root("beside"), "000000010000000000000003").unwrap();
        let brought = |name: &str| both.read(&format!("beside/pg_wal/{name}"));
        assert_eq!(brought("000000010000000000000001").as_deref(), Some("own"));
        assert_eq!(brought("000000010000000000000002").as_deref(), Some("theirs"));
        assert_eq!(brought("000000010000000000000003"), None);
        assert_eq!(brought("000000010000000000000004"), None);
        assert_eq!(brought("00000002.history"), None);
    }
}

#[test]
fn log_that_the_source_may_still_lose_is_not_in_a_copy() {
    let both = Both::new();
    let whole = "x".repeat(16 << 20);
    for name in [
        "000000020000000000000003",
        "000000020000000000000004",
        "000000020000000000000005",
        "000000010000000000000005",
    ] {
        both.put(&format!("beside/pg_wal/{name}"), &whole);
    }
    let root = Root::open(&both.dir.path().join("beside")).unwrap();
    for _ in 0..2 {
        cut_log(&root, Term::new(2).unwrap(), Lsn::from_offset(0x0400_0100), Segments::DEFAULT).unwrap();
        let left = |name: &str| both.read(&format!("beside/pg_wal/{name}"));
        assert_eq!(left("000000020000000000000003").as_deref(), Some(whole.as_str()));
        let cut = left("000000020000000000000004").unwrap();
        assert_eq!((cut.len(), cut.trim_end_matches('\0').len()), (whole.len(), 0x100));
        assert_eq!(left("000000020000000000000005"), None);
        assert!(left("000000010000000000000005").is_some(), "of another timeline");
    }
}

#[tokio::test]
async fn the_mark_is_in_the_directory_that_is_replaced_and_nowhere_else() {
    let both = Both::new();
    both.put(&format!("beside/{REPLACED}"), "of the source");
    let marked = |side: &str| both.read(&format!("{side}/{REPLACED}")).is_some();
    for _ in 0..2 {
        mark(&both.sides(), tail()).unwrap();
        assert!(marked("pgdata") && !marked("beside"));
    }
    let member = || Member { node: "n1".parse().unwrap(), incarnation: Incarnation::from_random(1) };
    let clear = || clear(both.sides(), member(), None);
    // Given up before the copy took the place.
    clear().await.unwrap();
    assert!(!marked("pgdata"));
    // What was replaced has to be kept somewhere first.
    both.put(&format!("beside/{REPLACED}"), &serde_json::to_string(&tail()).unwrap());
    assert_eq!(clear().await.unwrap_err().retry, JobRetry::Never);
    assert!(marked("beside"));
    assert_eq!(tail_of(&both.sides().beside).unwrap(), Some(tail()));
}
