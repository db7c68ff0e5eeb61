//! Rules in the log.

use std::collections::BTreeSet;

use holdfast_engine::Ackers;
use holdfast_engine::mysql::argv::Start;
use holdfast_engine::mysql::rules::{RuleError, Writer, term_of};
use holdfast_model::RuleId;

use crate::cluster::{CLOSED, Cluster, rule, term};
use crate::server::{markers, waiters};

async fn alone() -> Cluster {
    let mut cluster = Cluster::new(1).await;
    cluster.nodes[0].apply(&CLOSED, &Ackers::Alone, &BTreeSet::new()).await;
    cluster
}

#[tokio::test]
async fn a_rule_written_twice_is_one_rule() {
    let mut cluster = alone().await;
    let members = cluster.members();
    let node = &mut cluster.nodes[0];
    let first = rule(1, 1, 0, &members);
    let at = node.write_rule(&first).await.unwrap();
    assert!(at.contains(markers().gtid(first.id)));
    assert_eq!(node.write_rule(&first).await.unwrap(), at);
    let second = rule(1, 2, 0, &members);
    node.write_rule(&second).await.unwrap();
    assert_eq!(node.session.newest_rules(2).await.unwrap(), [second.clone(), first.clone()]);
    assert_eq!(node.session.rules().await.unwrap(), [first, second]);
    assert_eq!(term_of(markers(), &node.session.executed().await.unwrap()), term(1));
}

#[tokio::test]
async fn an_older_or_different_rule_is_refused() {
    let mut cluster = alone().await;
    let members = cluster.members();
    let node = &mut cluster.nodes[0];
    node.write_rule(&rule(2, 3, 0, &members)).await.unwrap();
    let older = node.write_rule(&rule(2, 2, 0, &members)).await;
    let newest = RuleId { term: term(2), version: 3 };
    assert!(matches!(older, Err(RuleError::Older { newest: found, .. }) if found == newest), "{older:?}");
    let differs = node.write_rule(&rule(2, 3, 1, &members)).await;
    assert!(matches!(differs, Err(RuleError::Differs(id)) if id == newest), "{differs:?}");
    assert_eq!(markers().last_rule(&node.session.executed().await.unwrap()), Some(newest));
}

#[tokio::test]
async fn a_rule_that_waits_for_its_acks_is_in_sight() {
    let mut cluster = alone().await;
    let members = cluster.members();
    let node = &mut cluster.nodes[0];
    let sync = Ackers::AnyOf { k: 1, members: BTreeSet::new() };
    node.apply(&CLOSED, &sync, &BTreeSet::new()).await;
    let first = rule(1, 1, 1, &members);
    let at = node.write_rule(&first).await.unwrap();
    waiters(&mut node.session, 1).await;
    let executed = node.session.executed().await.unwrap();
    assert_eq!(at.minus(&executed).count(), 1, "it is in the log and not acked");
    assert_eq!(node.session.newest_rules(1).await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(node.write_rule(&first).await.unwrap(), at, "written again, it waits on");
    assert_eq!(node.session.waiters().await.unwrap(), 1);
    // Another one may follow on it.
    let second = rule(1, 2, 1, &members);
    let at = node.write_rule(&second).await.unwrap();
    assert!(at.contains(markers().gtid(second.id)));

    // The agent dies, and another one looks; then the server does.
    node.writer = Writer::new(node.server.layout.clone(), markers());
    assert_eq!(node.write_rule(&second).await.unwrap(), at);
    node.server.kill();
    node.restart(Start::Primary).await;
    assert_eq!(node.session.rules().await.unwrap(), [first, second]);
}
