//! What the agent reads from a real server, in SQL and in bytes: status, rules, control file, pages.
#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]

mod support;

use std::fs;
use std::path::Path;

use holdfast_engine::postgres::control::{self, ClusterState, Control};
use holdfast_engine::postgres::files::{FileClass, classify};
use holdfast_engine::postgres::page::{LogWindow, PAGE_BYTES, PageVerdict, judge};
use holdfast_engine::postgres::session::rules::RuleError;
use holdfast_engine::postgres::session::status::LogRole;
use holdfast_engine::postgres::{argv, version};
use holdfast_model::Lsn;
use support::{Server, lone_rule};
use test_case::test_case;

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_new_server_is_a_primary_of_term_one_with_checksums(major: u32) {
    let mut server = Server::empty(major);
    support::run(&argv::initdb(&server.setup.layout));
    let session = server.start().await;
    let facts = session.facts().await.unwrap();
    assert_eq!(facts.version, server.setup.version);
    assert!(facts.checksums);
    let status = session.status().await.unwrap();
    assert_eq!(status.timeline.number(), 1);
    assert!(matches!(status.log, LogRole::Primary { flushed } if flushed > Lsn::ZERO), "{status:?}");
    assert_eq!(session.file_errors().await.unwrap(), Vec::<String>::new());
    let pg_version = fs::read_to_string(server.setup.layout.data_dir.join("PG_VERSION")).unwrap();
    assert_eq!(version::parse_pg_version(&pg_version), Ok(major));
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn pg_control_of_a_real_server_says_what_the_server_says(major: u32) {
    let mut server = Server::init(major);
    let path = server.setup.layout.data_dir.join(control::PATH);
    let before = Control::parse(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(before.state, ClusterState::ShutDown);

    let session = server.start().await;
    session.checkpoint(server.setup.deadlines.backup_start).await.unwrap();
    let control = Control::parse(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(control.state, ClusterState::InProduction);
    assert_eq!(control.system_identifier, session.facts().await.unwrap().system_identifier);
    assert_eq!(control.timeline.number(), 1);
    assert_eq!(control.checksum_version, 1);
    assert_eq!(control.segments.bytes(), u64::from(argv::SEGMENT_BYTES));
    assert!(control.redo <= control.checkpoint && control.checkpoint > before.checkpoint);
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_rule_written_twice_is_one_rule(major: u32) {
    let mut server = Server::init(major);
    let mut session = server.start().await;
    assert_eq!(session.newest_rules(2).await.unwrap(), []);
    session.ensure_schema().await.unwrap();
    session.ensure_schema().await.unwrap();
    let (first, second) = (lone_rule(1, 1), lone_rule(1, 2));
    let at = session.write_rule(&first).await.unwrap();
    assert!(session.write_rule(&first).await.unwrap() >= at);
    assert!(session.write_rule(&second).await.unwrap() > at);
    assert_eq!(session.newest_rules(2).await.unwrap(), [second.clone(), first]);
    assert_eq!(session.newest_rules(1).await.unwrap(), [second]);
    assert!(session.flushed().await.unwrap().local > at);
}

#[tokio::test]
async fn an_older_or_different_rule_is_refused() {
    let mut server = Server::init(15);
    let mut session = server.start().await;
    session.ensure_schema().await.unwrap();
    session.write_rule(&lone_rule(2, 1)).await.unwrap();
    let older = session.write_rule(&lone_rule(1, 9)).await.unwrap_err();
    assert_eq!(older.to_string(), "rule (1,9) is older than rule (2,1), which is in the log");
    let mut other = lone_rule(2, 1);
    other.start = Lsn::from_offset(1).into();
    assert!(matches!(session.write_rule(&other).await, Err(RuleError::Differs(_))));
}

#[tokio::test]
async fn rules_written_together_are_there_together() {
    let mut server = Server::init(15);
    let mut session = server.start().await;
    session.ensure_schema().await.unwrap();
    session.write_rule(&lone_rule(1, 1)).await.unwrap();
    let (missing, last) = ([lone_rule(2, 1), lone_rule(4, 1)], lone_rule(5, 1));
    for _ in 0..2 {
        session.write_rules(&missing, &last).await.unwrap();
        let terms =
            session.rules().await.unwrap().iter().map(|rule| rule.id.term.number()).collect::<Vec<_>>();
        assert_eq!(terms, [1, 2, 4, 5]);
    }
    // One of them is there already: none is written.
    let refused = session.write_rules(&[lone_rule(5, 1)], &lone_rule(6, 1)).await;
    assert!(matches!(refused, Err(RuleError::Older { .. })), "{refused:?}");
    assert_eq!(session.newest_rules(1).await.unwrap(), [last]);
}

#[tokio::test]
async fn a_rule_is_written_under_read_only_defaults_and_an_ack_list_that_nobody_satisfies() {
    let mut server = Server::init(15);
    let mut session = server.start().await;
    session.ensure_schema().await.unwrap();
    let mut postgres = holdfast_engine::postgres::Postgres::new(server.setup.clone());
    let read_only = holdfast_model::status::Gate::ReadOnly { term: holdfast_model::Term::FIRST };
    let nobody = holdfast_engine::Ackers::Nobody;
    holdfast_engine::Engine::apply_gate(&mut postgres, &read_only, &nobody).await.unwrap();
    session.write_rule(&lone_rule(1, 1)).await.unwrap();
}

#[tokio::test]
async fn the_marker_is_in_the_log_as_json() {
    let mut server = Server::init(15);
    let mut session = server.start().await;
    session.ensure_schema().await.unwrap();
    let rule = lone_rule(7, 3);
    session.write_rule(&rule).await.unwrap();
    let json = serde_json::to_vec(&rule).unwrap();
    let found = |bytes: &Vec<u8>| bytes.windows(json.len()).any(|window| window == json);
    assert!(server.wal_files().values().any(found), "no segment holds the marker");
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn every_page_of_a_real_server_is_good(major: u32) {
    let mut server = Server::init(major);
    let mut session = server.start().await;
    session.ensure_schema().await.unwrap();
    session.checkpoint(server.setup.deadlines.backup_start).await.unwrap();
    let end = session.insert_position().await.unwrap();
    let window = LogWindow { start: end, end };
    let root = &server.setup.layout.data_dir;
    let mut good = 0;
    for path in files_below(root) {
        let FileClass::Pages(file) = classify(&path).unwrap() else { continue };
        // A file may go while the server works; the backup takes that for granted too.
        let content = fs::read(root.join(&path)).unwrap_or_default();
        for (index, page) in (0..).zip(content.chunks_exact(PAGE_BYTES)) {
            let verdict = judge(page.try_into().unwrap(), file.first_block() + index, window);
            match verdict {
                PageVerdict::Good => good += 1,
                PageVerdict::AllZero | PageVerdict::NewerThanStart => {}
                PageVerdict::Bad(why) => panic!("{path}: {why}"),
            }
        }
    }
    assert!(good > 500, "only {good} pages were checked");
}

/// Every file below `root`, relative to it.
fn files_below(root: &Path) -> Vec<String> {
    let mut folders = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files
}
