//! What people see. A changed table is a changed snapshot, to be looked at.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use fake::view;
use holdfast_cli::company::lines;
use holdfast_cli::render;
use holdfast_model::peer::Part;
use holdfast_model::status::{DataView, EngineView, Gate, GateClosed, NodeView, RepositoryView, VolumeView};
use holdfast_proto::reply::{Blocker, Explanation};
use insta::assert_snapshot;

#[test]
fn a_serving_node() {
    assert_snapshot!(render::node(&view::serving()));
}

#[test]
fn a_node_among_others() {
    assert_snapshot!(render::node(&view::three_zones()));
}

#[test]
fn a_list_of_members() {
    assert_snapshot!(render::members(&lines(&view::three_zones())));
}

#[test]
fn a_node_at_work() {
    let node = NodeView {
        volume: VolumeView::Absent {
            verdicts: view::planned().into_iter().map(|planned| planned.found).collect(),
        },
        data: DataView::Absent,
        engine: EngineView::Stopped { crashes: 2, since: None },
        gate: Gate::Closed { why: GateClosed::NoEngine },
        rule: None,
        part: Part::Diverged { why: "after 0/2000000; waits to be removed from the rule".to_owned() },
        repository: RepositoryView::Unreachable { why: "connection refused".to_owned() },
        operations: view::operations(),
        reason: "no usable disk".to_owned(),
        ..view::serving()
    };
    assert_snapshot!(render::node(&node));
}

#[test]
fn one_line_for_a_watcher() {
    assert_snapshot!(render::view_line(&view::serving()));
}

#[test]
fn an_explanation() {
    let blocker =
        |missing: &str, resolve: &str| Blocker { missing: missing.to_owned(), resolve: resolve.to_owned() };
    assert_snapshot!(render::explanation(&Explanation {
        gate: Gate::Closed { why: GateClosed::NoEngine },
        reason: "no usable disk".to_owned(),
        blockers: vec![blocker("no usable disk", "attach one"), blocker("the engine is not running", "wait"),],
        would_stop_writes: vec!["loss of this node's disk".to_owned()],
        vouch: Some(view::vouch()),
        certificate: Some(view::certificate()),
        refused: view::operations().into_iter().filter(|operation| operation.id == "op-4").collect(),
        breaches: vec![blocker("commits that were answered without acks: 2", "cancel no commit that waits")],
    }));
}

#[test]
fn a_plan() {
    assert_snapshot!(render::plan(&view::planned()));
}

#[test]
fn a_consent_to_wipe() {
    assert_snapshot!(render::consent(&view::consent()));
}

#[test]
fn a_list_of_backups() {
    assert_snapshot!(render::backups(&view::backups()));
}

#[test]
fn one_backup() {
    assert_snapshot!(render::backup_detail(&view::backup_detail()));
}

#[test]
fn the_log() {
    assert_snapshot!(render::log_status(&view::log_status()));
}
