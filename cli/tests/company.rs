//! The nodes of a cluster, as one of them sees them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use fake::view;
use holdfast_cli::company::{Heard, NodeLine, Votes, lines};

fn told(line: &NodeLine) -> (String, Votes, Heard) {
    let member = line.member.as_ref().unwrap().clone();
    (
        format!("{}#{}", member.node, member.incarnation.to_string().trim_start_matches('0')),
        line.votes,
        line.heard.clone(),
    )
}

#[test]
fn every_node_is_listed_once_and_the_one_that_was_asked_too() {
    let lines = lines(&view::three_zones());
    let told: Vec<_> = lines.iter().filter(|line| line.heard != Heard::Unclaimed).map(told).collect();
    assert_eq!(
        told,
        [
            ("n1#7".to_owned(), Votes::Primary, Heard::Here),
            ("n2#8".to_owned(), Votes::Full, Heard::Ago { ms: 420 }),
            ("n3#a".to_owned(), Votes::No, Heard::Ago { ms: 12_340 }),
        ]
    );
}

#[test]
fn a_voter_that_no_node_claims_is_listed() {
    let lines = lines(&view::three_zones());
    let lost: Vec<_> = lines.iter().filter(|line| line.heard == Heard::Unclaimed).map(told).collect();
    assert_eq!(lost, [("n3#9".to_owned(), Votes::Full, Heard::Unclaimed)]);
}

#[test]
fn a_node_that_was_never_heard_is_listed_by_its_name() {
    let mut view = view::three_zones();
    view.peers[1].said = None;
    view.peers[1].heard_ms = None;
    let lines = lines(&view);
    let silent = lines.iter().find(|line| line.heard == Heard::Never).unwrap();
    assert_eq!((silent.node.as_str(), &silent.member, &silent.gate), ("n3", &None, &None));
}

#[test]
fn the_newest_rule_counts_whoever_holds_it() {
    let mut view = view::three_zones();
    view.rule = None;
    assert_eq!(told(&lines(&view)[0]).1, Votes::Primary, "n2 has told");
}
