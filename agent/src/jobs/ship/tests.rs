//! Shipping from real servers: one that is lost with log that it had not shipped, and a standby that is promoted after it.

mod support;

use std::fs;
use std::path::Path;

use holdfast_backup::log::{LogReader, Segment};
use holdfast_backup::repository::{ClusterRecord, Location};
use holdfast_backup::rules::Chain;
use holdfast_backup::store::RepositoryConfig;
use holdfast_engine::postgres::wal::history::{self, History};
use holdfast_engine::standing::Promoted;
use holdfast_model::{ClusterId, Incarnation, Member, Voter, VoterKind};
use holdfast_replication::change;
use tokio::sync::mpsc;

use self::support::Server;
use super::*;
use crate::worker::job::JobEvent;

const SEGMENT: u64 = 16 << 20;

fn job_of(server: &Server, access: &Access, rule: &Rule) -> ShipJob {
    let engine = EnginePlaces::from(&server.setup.layout);
    ShipJob { access: access.clone(), engine, rule: rule.clone(), interval_ms: 100 }
}

/// A rule of one voter with k = 0.
fn rule(member: &Member, term: u32, previous: Option<RuleId>, start: Lsn) -> Rule {
    let id = RuleId { term: Term::new(term).unwrap(), version: 1 };
    let voter = Voter { member: member.clone(), zone: "zone-a".parse().unwrap(), kind: VoterKind::Full };
    Rule { id, primary: member.clone(), voters: vec![voter], k: 0, previous, start: start.into() }
}

/// A repository in a directory.
async fn repository(dir: &Path) -> Access {
    let url = format!("file://{}", dir.display());
    let repository = RepositoryConfig { url, ..RepositoryConfig::default() };
    let cluster = ClusterId::new("orders".parse().unwrap(), 7);
    let record =
        ClusterRecord { cluster: cluster.clone(), engine: "postgres".to_owned(), created: String::new() };
    Location::connect(&repository).unwrap().create(&record).await.unwrap();
    Access { repository, cluster }
}

/// What the test looks at afterwards.
struct Failover {
    standby: Server,
    access: Access,
    /// Where the first term's log ended in the repository.
    shipped: Lsn,
    rules: Vec<Rule>,
    lost: Server,
    _store: tempfile::TempDir,
}

/// A primary ships, writes more than a segment that it does not ship, and is lost; a standby that has it all is promoted.
async fn fail_over() -> Failover {
    let store = tempfile::tempdir().unwrap();
    let access = repository(store.path()).await;
    let mut lost = Server::initialised("n1");
    let mut session = lost.start().await;
    session.ensure_schema().await.unwrap();
    let first = rule(&lost.member, 1, None, Lsn::ZERO);
    session.write_rule(&first).await.unwrap();
    access.open().await.unwrap().put_rule(&first).await.unwrap();
    let (reporter, _events) = reporter();
    let job = job_of(&lost, &access, &first);
    let mut ship = Ship::start(&job).await.unwrap();
    ship.turn(&reporter).await.unwrap();
    let shipped = ship.report(None).shipped.unwrap();
    drop((ship, session));
    lost.sql("CREATE TABLE t AS SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 40000) n");
    lost.stop();

    let mut standby = Server::copied("n2", &lost);
    let mut session = standby.start().await;
    standby.sql("SELECT pg_promote()");
    let start = promoted(&standby, 2).start.lsn().unwrap();
    let second = rule(&standby.member, 2, Some(first.id), start);
    session.write_rule(&second).await.unwrap();
    standby.sql("CREATE TABLE u AS SELECT n FROM generate_series(1, 1000) n");
    assert!(start.offset() / SEGMENT > shipped.offset() / SEGMENT, "more than a segment is missing");
    Failover { standby, access, shipped, rules: vec![first, second], lost, _store: store }
}

/// By the history file of a server's timeline.
fn promoted(server: &Server, number: u32) -> Promoted {
    let term = Term::new(number).unwrap();
    let history = fs::read_to_string(server.setup.layout.wal_dir().join(history::file_name(term))).unwrap();
    History::parse(term, &history).unwrap().promoted().unwrap()
}

fn reporter() -> (Reporter, mpsc::Receiver<JobEvent>) {
    let (events, heard) = mpsc::channel(100);
    (Reporter::over(events), heard)
}

impl Failover {
    /// One interval of the new primary; returns up to where it shipped, and what it logged as an error.
    async fn ship(&self) -> (Lsn, Vec<String>) {
        let (reporter, mut events) = reporter();
        let job = job_of(&self.standby, &self.access, &self.rules[1]);
        let mut ship = Ship::start(&job).await.unwrap();
        ship.turn(&reporter).await.unwrap();
        let Shipped { shipped, acked, .. } = ship.report(None);
        assert_eq!(shipped, acked);
        drop((ship, reporter));
        let mut errors = Vec::new();
        while let Some(event) = events.recv().await {
            if let JobEvent::Log { level: LogLevel::Error, message } = event {
                errors.push(message);
            }
        }
        (shipped.unwrap(), errors)
    }

    /// Reads both terms back, and compares them with what the servers have.
    async fn check(&self, end: Lsn) {
        let repository = self.access.open().await.unwrap();
        assert_eq!(repository.rules().await.unwrap(), self.rules);
        let chain = Chain::to(Term::new(2).unwrap(), &self.rules).unwrap();
        assert_eq!(repository.missing_log(&chain).await.unwrap(), []);
        let from = self.shipped.offset() / SEGMENT * SEGMENT;
        let mut reader =
            LogReader::open(&repository, &chain, Term::FIRST, Lsn::from_offset(from)).await.unwrap();
        assert_eq!(reader.end(), end);
        let fork = self.rules[1].start.ordinal();
        for (server, term, from, to) in [
            (&self.lost, Term::FIRST, from, fork),
            (&self.standby, Term::new(2).unwrap(), fork / SEGMENT * SEGMENT, end.offset()),
        ] {
            for start in (from / SEGMENT..to.div_ceil(SEGMENT)).map(|number| number * SEGMENT) {
                let Segment::Bytes(read) = reader.segment(term, start / SEGMENT).await.unwrap() else {
                    panic!("term {term} ends before {start}")
                };
                let length = usize::try_from(SEGMENT.min(to - start)).unwrap();
                let there = fs::read(server.wal(term, start)).unwrap();
                assert!(read[..length] == there[..length], "segment {start} of term {term} differs");
            }
        }
    }
}

#[tokio::test]
async fn a_promoted_standby_completes_the_term_before_its_own() {
    let failover = fail_over().await;
    let (end, errors) = failover.ship().await;
    assert_eq!(errors, [""; 0]);
    failover.check(end).await;
}

#[tokio::test]
async fn a_reign_that_wrote_no_rule_is_complete_as_well() {
    let mut failover = fail_over().await;
    let (standby, access, second) = (&mut failover.standby, &failover.access, &failover.rules[1]);
    // Promoted to term 3, which is over before its rule is written, and then to 4.
    standby.stop();
    let mut server = Server::copied("n3", standby);
    drop(server.start().await);
    server.sql("SELECT pg_promote()");
    server.sql("CHECKPOINT");
    server.stop();
    server.recover_again();
    let mut session = server.start().await;
    server.sql("SELECT pg_promote()");
    let four = Term::new(4).unwrap();
    let reigns = promoted(&server, 4).reigns_after(second.id.term, four).unwrap();
    let mut begun = change::promoted_through(second, &server.member, &reigns);
    let last = begun.pop().unwrap();
    session.write_rules(&begun, &last).await.unwrap();

    let (reporter, mut events) = reporter();
    let job = job_of(&server, access, &last);
    let mut ship = Ship::start(&job).await.unwrap();
    ship.turn(&reporter).await.unwrap();
    drop((ship, reporter));
    while let Some(event) = events.recv().await {
        assert!(!matches!(event, JobEvent::Log { level: LogLevel::Error, .. }), "{event:?}");
    }
    let repository = access.open().await.unwrap();
    let chain = Chain::to(four, &repository.rules().await.unwrap()).unwrap();
    assert_eq!(repository.missing_log(&chain).await.unwrap(), []);
    // What a restore tells Postgres about the timelines is what the server says of them.
    let ends = chain.reigns().iter().filter_map(|reign| Some((reign.term, reign.end?.into())));
    assert_eq!(ends.collect::<Vec<_>>(), promoted(&server, 4).left);
    assert_eq!(chain.reigns().iter().map(|reign| reign.term.number()).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn the_fork_is_read_from_the_new_timeline_when_the_old_file_is_gone() {
    let failover = fail_over().await;
    fs::remove_file(failover.standby.wal(Term::FIRST, failover.rules[1].start.ordinal())).unwrap();
    let (end, errors) = failover.ship().await;
    assert_eq!(errors, [""; 0]);
    failover.check(end).await;
}

#[tokio::test]
async fn log_that_is_gone_is_told_and_the_new_term_is_shipped_all_the_same() {
    let failover = fail_over().await;
    fs::remove_file(failover.standby.wal(Term::FIRST, failover.shipped.offset())).unwrap();
    let (end, errors) = failover.ship().await;
    let from = failover.shipped;
    assert_eq!(errors.len(), 1, "{errors:?}");
    let expected = format!("log of term 1 from {from} to {} was not shipped", failover.rules[1].start);
    assert!(errors[0].contains(&expected), "{errors:?}");
    let repository = failover.access.open().await.unwrap();
    let (_, shipped) = repository.log_range(Term::new(2).unwrap()).await.unwrap().unwrap();
    assert_eq!(shipped, end);
}

#[tokio::test]
async fn the_rules_of_a_log_are_put_once_each_by_their_first_version() {
    let store = tempfile::tempdir().unwrap();
    let repository = repository(store.path()).await.open().await.unwrap();
    let member =
        |node: &str| Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(1) };
    let first = rule(&member("n1"), 1, None, Lsn::ZERO);
    let id = |term, version| RuleId { term: Term::new(term).unwrap(), version };
    let changed =
        Rule { id: id(1, 2), previous: Some(first.id), start: Lsn::from_offset(50).into(), ..first.clone() };
    let third = rule(&member("n2"), 3, Some(changed.id), Lsn::from_offset(100));
    // A term that was reserved and never reigned is in nobody's way.
    let reserved = rule(&member("n3"), 2, Some(first.id), Lsn::from_offset(70));
    repository.put_rule(&reserved).await.unwrap();
    let newest_first = [third.clone(), changed, first.clone()];
    for _ in 0..2 {
        let begun = older::beginnings(&newest_first);
        let chain = older::put_rules(&repository, &begun, Term::new(3).unwrap()).await.unwrap();
        assert_eq!(chain.reigns().len(), 2);
        assert_eq!(repository.rules().await.unwrap(), [first.clone(), reserved.clone(), third.clone()]);
    }
    let other = [Rule { start: Lsn::from_offset(90).into(), ..third }, first];
    let refused = older::put_rules(&repository, &older::beginnings(&other), Term::new(3).unwrap()).await;
    assert!(matches!(refused, Err(ShipError::Rules(RuleError::Taken { .. }))), "{refused:?}");
}
