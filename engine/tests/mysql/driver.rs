//! The whole driver, as the agent's loops use it: a failover and what comes before it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use holdfast_engine::engine::Cause;
use holdfast_engine::mysql::argv::Start;
use holdfast_engine::mysql::{Deadlines, Mysql, Setup};
use holdfast_engine::postgres::recovery::RecoveryFile;
use holdfast_engine::postgres::standby::Hands;
use holdfast_engine::{Ackers, Engine};
use holdfast_model::status::Gate;
use holdfast_model::{Member, Position, Rule};
use holdfast_replication::quorum::AckQuorum;

use crate::cluster::{CLOSED, Cluster, Node, STEP, rule, term};
use crate::server::{cluster_id, eventually, waiters};

/// MySQL needs nobody's.
struct NoHands;

#[async_trait]
impl Hands for NoHands {
    async fn receivers(&self) -> Result<u32, Cause> {
        unreachable!("a receiver is a thread of the server")
    }

    async fn end_receivers(&self) -> Result<u32, Cause> {
        unreachable!("a receiver is a thread of the server")
    }

    async fn ensure_files(&self, _files: &[RecoveryFile]) -> Result<(), Cause> {
        unreachable!("a promotion writes no files")
    }
}

fn driver(node: &Node) -> Mysql {
    Mysql::new(Setup {
        layout: node.server.layout.clone(),
        cluster: cluster_id(),
        member: node.member(),
        tls: node.server.tls.clone(),
        settings: node.server.settings.clone(),
        copy_dir: node.server.dir.path().join("copy"),
        deadlines: Deadlines { query: STEP, copy: STEP },
    })
}

/// What the agents tell one another.
async fn tell(from: &mut [Mysql], to: &mut Mysql) {
    let mut held: BTreeMap<Member, Position> = BTreeMap::new();
    for member in from {
        let status = member.status().await.unwrap();
        held.insert(member.setup().member.clone(), status.flushed);
    }
    to.hear(&held);
}

/// Waits until everything up to `marker` is seen to be held as `rule` asks.
async fn acked(primary: &mut Mysql, others: &mut [Mysql], rule: &Rule, marker: &Position) {
    let quorum = AckQuorum::of(rule);
    eventually("the marker is seen acked", async || {
        tell(others, primary).await;
        primary.flushed().await.unwrap().holds(&quorum, marker)
    })
    .await;
}

#[tokio::test]
async fn a_failover_keeps_every_acked_commit_and_nothing_else() {
    let mut cluster = Cluster::new(3).await;
    let members = cluster.members();
    let others: BTreeSet<Member> = members[1..].iter().cloned().collect();
    let mut engines: Vec<Mysql> = cluster.nodes.iter().map(driver).collect();
    let (first, rest) = engines.split_first_mut().unwrap();

    // Alone, then with voters: bootstrap, two that follow, and a rule that asks for their acks.
    first.apply_gate(&CLOSED, &Ackers::Alone).await.unwrap();
    let node = &mut cluster.nodes[0];
    node.server.prepare_clients(&mut node.session).await;
    first.write_rules(&[], &rule(1, 1, 0, &members[..1])).await.unwrap();
    first.admit(&others, &BTreeSet::new()).await.unwrap();
    first.apply_gate(&CLOSED, &Ackers::Alone).await.unwrap();
    for (engine, member) in rest.iter_mut().zip(&members[1..]) {
        let upstream = cluster.nodes[0].upstream_for(member, 1);
        let following = engine.follow(&upstream, STEP).await.unwrap();
        assert_eq!(following.term, term(1));
        assert!(engine.lets_clients_in().await.unwrap(), "a replica may be read");
    }
    let two = rule(1, 2, 1, &members);
    let marker = first.write_rules(&[], &two).await.unwrap();
    acked(first, rest, &two, &marker).await;
    for (engine, member) in rest.iter_mut().zip(&members[1..]) {
        let upstream = cluster.nodes[0].upstream_for(member, 1);
        eventually("it is asked for acks", async || {
            engine.following(&upstream).await.unwrap().is_some()
                && engine.session().await.unwrap().acks().await.unwrap()
        })
        .await;
    }
    first.apply_gate(&Gate::Open { term: term(1) }, &Ackers::of(&two)).await.unwrap();
    assert_eq!(first.streams().await.unwrap().len(), 2);
    cluster.nodes[0].client().await.write(1).await.unwrap();

    let written = first.flushed().await.unwrap().local;
    for engine in rest.iter_mut() {
        eventually("both hold it", async || engine.status().await.unwrap().flushed >= written).await;
    }

    // Both are recruited; what the primary takes from then on is nobody's.
    let mut reports = Vec::new();
    for engine in rest.iter_mut() {
        let report = engine.recruit(&NoHands, STEP).await.unwrap();
        assert!(!engine.lets_clients_in().await.unwrap());
        assert_eq!(report.rule.as_ref(), Some(&two));
        reports.push(report);
    }
    assert_eq!(reports[0], reports[1]);
    let mut waiting = cluster.nodes[0].server.begin_write(2).await;
    waiters(&mut cluster.nodes[0].session, 1).await;
    cluster.nodes[0].server.kill();
    waiting.answer().await.unwrap_err();

    // One of them begins a reign.
    let (chosen, other) = rest.split_first_mut().unwrap();
    let promoted = chosen.promote(&NoHands, term(2), STEP).await.unwrap();
    assert_eq!((promoted.from, &promoted.start), (term(1), &reports[0].position));
    assert!(!chosen.status().await.unwrap().in_recovery);
    let reign = Rule {
        previous: Some(two.id),
        start: promoted.start,
        ..rule(2, 1, 1, &[members[1].clone(), members[0].clone(), members[2].clone()])
    };
    chosen.admit(&[members[2].clone()].into(), &BTreeSet::new()).await.unwrap();
    chosen.apply_gate(&CLOSED, &Ackers::of(&reign)).await.unwrap();
    let marker = chosen.write_rules(&[], &reign).await.unwrap();
    let upstream = cluster.nodes[1].upstream_for(&members[2], 2);
    other[0].follow(&upstream, STEP).await.unwrap();
    acked(chosen, other, &reign, &marker).await;
    chosen.apply_gate(&Gate::Open { term: term(2) }, &Ackers::of(&reign)).await.unwrap();
    let mut client = cluster.nodes[1].client().await;
    client.write(3).await.unwrap();
    assert_eq!(client.ids().await.unwrap(), [1, 3]);
    assert_eq!(chosen.status().await.unwrap().term, term(2));

    // The old one comes back with what nobody acked (M4), and is seen to have left the chain.
    cluster.nodes[0].restart(Start::Standby).await;
    let mut back = driver(&cluster.nodes[0]);
    let report = back.recruit(&NoHands, STEP).await.unwrap();
    let held = holdfast_replication::chain::Held {
        rule: report.rule.map(|rule| rule.id),
        reign: report.term,
        end: report.position,
    };
    let chain = chosen.rules().await.unwrap();
    let diverged = holdfast_replication::chain::may_follow(&held, &chain).unwrap_err();
    assert!(matches!(diverged, holdfast_replication::chain::Diverged::PastFork { .. }), "{diverged}");
}

#[tokio::test]
async fn what_weakens_commits_is_named() {
    let mut cluster = Cluster::new(1).await;
    let mut engine = driver(&cluster.nodes[0]);
    assert_eq!(engine.weakened().await.unwrap(), BTreeSet::new());
    let session = &mut cluster.nodes[0].session;
    for sql in [
        "SET GLOBAL sync_binlog = 0",
        "SET GLOBAL rpl_semi_sync_source_enabled = OFF",
        "CREATE USER boss@'%' IDENTIFIED BY 'x'",
        "GRANT CONNECTION_ADMIN ON *.* TO boss@'%'",
    ] {
        session.run("weaken", sql).await.unwrap();
    }
    let found: Vec<String> = engine.weakened().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(found, ["privilege = CONNECTION_ADMIN for role 'boss'@'%'", "sync_binlog = 0 for everybody"]);
}
