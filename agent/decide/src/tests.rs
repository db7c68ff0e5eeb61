//! The table of decisions, and the properties that hold for every view.

use holdfast_model::status::{LogView, Operation, Progress};
use holdfast_model::volume::{DeviceVerdict, Space, Verdict, VolumeIdentity};
use holdfast_model::{ByteCount, ClusterId, Incarnation, Lsn, Term};
use proptest::prelude::*;

use super::*;

fn device() -> DeviceId {
    DeviceId {
        path: "/dev/x".into(),
        model: "m".into(),
        serial: "s".into(),
        diskseq: 1,
        size: ByteCount::gib(1),
    }
}

fn mounted(health: DiskHealth) -> VolumeView {
    let identity = VolumeIdentity {
        cluster: "c".parse().unwrap(),
        cluster_id: None,
        node: "n".parse().unwrap(),
        incarnation: Incarnation::from_random(1),
        zone: "z".parse().unwrap(),
        engine: "postgres".into(),
        serials: vec![],
        fs_uuid: uuid::Uuid::nil(),
        created: String::new(),
        boot_id: String::new(),
    };
    let space = Space { total: ByteCount::gib(1), free: ByteCount::gib(1), nearly_full: false };
    VolumeView::Mounted { device: device(), identity: Box::new(identity), health, space }
}

fn running() -> EngineView {
    EngineView::Running {
        pid: 1,
        version: "15".into(),
        in_recovery: false,
        timeline: Term::FIRST,
        flushed: Lsn::ZERO.into(),
    }
}

fn stopped() -> EngineView {
    EngineView::Stopped { crashes: 0, since: None }
}

fn cluster() -> ClusterId {
    ClusterId::new("c".parse().unwrap(), 1)
}

fn repository() -> RepositoryView {
    RepositoryView::Ready { cluster: cluster(), newest_term: Term::FIRST, newest_backup: None }
}

fn view(volume: VolumeView, data: DataView, engine: EngineView, repository: RepositoryView) -> NodeView {
    NodeView {
        at: Tick::from_millis(0),
        cluster: "c".parse().unwrap(),
        node: "n".parse().unwrap(),
        zone: "z".parse().unwrap(),
        volume,
        data,
        engine,
        gate: Gate::Closed { why: GateClosed::Starting },
        rule: None,
        promise: None,
        part: holdfast_model::peer::Part::None,
        peers: vec![],
        repository,
        log: LogView::default(),
        breaches: Default::default(),
        operations: vec![],
        reason: String::new(),
    }
}

fn want() -> Desired {
    Desired {
        engine: EngineWanted::Running,
        bootstrap: false,
        founding: None,
        refound: false,
        format_blank: true,
        has_peers: false,
        replays: false,
    }
}

fn check(want: &Desired, view: &NodeView, expected: &[Action]) -> Reason {
    let plan = decide(want, view, Tick::from_millis(10_000));
    assert_eq!(plan.actions, expected, "because {}", plan.reason);
    plan.reason
}

#[test]
fn a_whole_node_starts_its_engine_and_ships() {
    let mut node = view(mounted(DiskHealth::Healthy), DataView::Ready, stopped(), repository());
    check(&want(), &node, &[Action::StartEngine]);
    node.engine = EngineView::Starting { pid: 1, since: Tick::from_millis(0) };
    check(&want(), &node, &[]);
    node.engine = running();
    check(&want(), &node, &[]);
    node.gate = Gate::Open { term: Term::FIRST };
    check(&want(), &node, &[Action::StartShipping]);
    node.log.running = true;
    assert_eq!(check(&want(), &node, &[]), Reason::Serving(Term::FIRST));
}

#[test]
fn an_adopted_engine_is_stopped_only_when_its_volume_was_not_found() {
    let stop = [Action::HoldGate(GateClosed::DiskUnsafe), Action::StopEngine];
    for (volume, expected) in [
        (VolumeView::Unknown, &[][..]),
        (VolumeView::Unmounted { device: device() }, &[Action::Mount(device())]),
        (VolumeView::Absent { verdicts: vec![] }, &stop),
        (VolumeView::Blank { device: device() }, &stop),
    ] {
        check(&want(), &view(volume, DataView::Unknown, running(), repository()), expected);
    }
}

#[test]
fn a_volume_is_found_mounted_and_filled() {
    let unmounted = VolumeView::Unmounted { device: device() };
    let node = view(unmounted, DataView::Unknown, stopped(), repository());
    check(&want(), &node, &[Action::Mount(device())]);
    let node = view(mounted(DiskHealth::Healthy), DataView::Absent, stopped(), repository());
    assert_eq!(check(&want(), &node, &[]), Reason::AllLost(cluster()));
    check(&Desired { refound: true, ..want() }, &node, &[Action::Refound]);
    let node = view(mounted(DiskHealth::Healthy), DataView::Incomplete, stopped(), RepositoryView::Empty);
    check(&Desired { bootstrap: true, ..want() }, &node, &[Action::Bootstrap]);
}

#[test]
fn an_empty_disk_never_means_a_new_cluster() {
    for repository in [
        RepositoryView::Unknown,
        RepositoryView::Disabled,
        RepositoryView::Empty,
        RepositoryView::Unreachable { why: "no route".into() },
        repository(),
    ] {
        let node = view(mounted(DiskHealth::Healthy), DataView::Absent, stopped(), repository.clone());
        check(&want(), &node, &[]);
        let unreadable = matches!(repository, RepositoryView::Unknown | RepositoryView::Unreachable { .. });
        if unreadable {
            check(&Desired { bootstrap: true, refound: true, ..want() }, &node, &[]);
        }
    }
    let node = view(mounted(DiskHealth::Healthy), DataView::Absent, stopped(), repository());
    assert_eq!(check(&Desired { bootstrap: true, ..want() }, &node, &[]), Reason::ClusterExists(cluster()));
}

#[test]
fn only_a_blank_device_is_formatted_and_only_for_a_reason() {
    let blank = VolumeView::Blank { device: device() };
    let node = view(blank, DataView::Unknown, stopped(), RepositoryView::Empty);
    assert_eq!(check(&want(), &node, &[]), Reason::NoClusterYet);
    let bootstrap = Desired { bootstrap: true, ..want() };
    check(&bootstrap, &node, &[Action::Format(device())]);
    check(&Desired { format_blank: false, ..bootstrap.clone() }, &node, &[]);
    let foreign = DeviceVerdict { device: device(), verdict: Verdict::Foreign { why: "ext4".into() } };
    let node = view(
        VolumeView::Absent { verdicts: vec![foreign] },
        DataView::Unknown,
        stopped(),
        RepositoryView::Empty,
    );
    let reason = check(&bootstrap, &node, &[]);
    assert_eq!(
        reason.to_string(),
        "no usable disk: /dev/x is foreign: ext4; attach a blank one, or see 'holdfast volume plan'"
    );
}

#[test]
fn an_unhealthy_disk_is_taken_down_in_order() {
    let close_and_stop = [Action::HoldGate(GateClosed::DiskUnsafe), Action::StopEngine];
    for health in [
        DiskHealth::Stalled { for_ms: 2_001 },
        DiskHealth::Sick { why: "EIO".into() },
        DiskHealth::Gone { why: "no device".into() },
        DiskHealth::ReadOnly,
        DiskHealth::ShutDown,
    ] {
        let at = |engine| view(mounted(health.clone()), DataView::Ready, engine, repository());
        check(&want(), &at(running()), &close_and_stop);
        check(&want(), &at(EngineView::Starting { pid: 1, since: Tick::from_millis(0) }), &close_and_stop);
        check(&want(), &at(EngineView::Stopping { pid: 1, since: Tick::from_millis(0) }), &[]);
        let fence: &[Action] = if health == DiskHealth::ShutDown { &[] } else { &[Action::FenceVolume] };
        check(&want(), &at(EngineView::Unkillable { pid: 1 }), fence);
        check(&want(), &at(stopped()), &[Action::Unmount]);
    }
}

#[test]
fn a_bootstrap_that_was_cut_short_goes_on_after_it_told_the_repository() {
    let node = view(mounted(DiskHealth::Healthy), DataView::Incomplete, stopped(), repository());
    let founding = Desired { bootstrap: true, founding: Some(cluster()), refound: true, ..want() };
    check(&founding, &node, &[Action::Bootstrap]);
}

#[test]
fn an_engine_goes_on_serving_while_a_restarted_agent_looks_for_its_disk() {
    let node = view(VolumeView::Unknown, DataView::Unknown, running(), RepositoryView::Unknown);
    check(&want(), &node, &[]);
    let lost =
        view(VolumeView::Absent { verdicts: vec![] }, DataView::Unknown, running(), RepositoryView::Unknown);
    check(&want(), &lost, &[Action::HoldGate(GateClosed::DiskUnsafe), Action::StopEngine]);
}

#[test]
fn data_of_an_older_reign_is_not_served() {
    let mut node = view(mounted(DiskHealth::Healthy), DataView::Ready, stopped(), RepositoryView::Unknown);
    assert_eq!(check(&want(), &node, &[]), Reason::AskingRepository);
    let member =
        holdfast_model::Member { node: "n".parse().unwrap(), incarnation: Incarnation::from_random(1) };
    let promise = |term| holdfast_model::Promise {
        cluster: cluster(),
        member: member.clone(),
        max_term: Term::new(term).unwrap(),
        attempt: 1,
    };
    let newest_term = Term::new(2).unwrap();
    node.repository = RepositoryView::Ready { cluster: cluster(), newest_term, newest_backup: None };
    node.promise = Some(promise(1));
    assert_eq!(check(&want(), &node, &[]), Reason::Superseded(newest_term));
    node.promise = Some(promise(2));
    check(&want(), &node, &[Action::StartEngine]);
    node.promise = Some(promise(1));
    node.repository = RepositoryView::Unreachable { why: "no route".into() };
    check(&want(), &node, &[Action::StartEngine]);
}

#[test]
fn a_crash_loop_backs_off() {
    for (crashes, since, expected) in [
        (0, None, 0),
        (1, Some(9_900), 200),
        (2, Some(9_500), 500),
        (4, Some(9_000), 3_000),
        (64, Some(0), 50_000),
    ] {
        let since = since.map(Tick::from_millis);
        assert_eq!(backoff_left_ms(crashes, since, Tick::from_millis(10_000)), expected, "{crashes} crashes");
    }
}

#[test]
fn long_work_is_observed_and_not_begun_twice() {
    let mut node = view(mounted(DiskHealth::Healthy), DataView::Absent, stopped(), repository());
    let state = OperationState::Running { progress: Progress::default() };
    let since = Tick::from_millis(0);
    node.operations = vec![Operation { id: "1".into(), kind: OperationKind::Restore, since, state }];
    check(&Desired { refound: true, ..want() }, &node, &[]);
}

#[test]
fn coordinating_does_not_keep_a_node_from_its_own_work() {
    let since = Tick::from_millis(0);
    for kind in [OperationKind::Failover, OperationKind::Switchover, OperationKind::ChangeMember] {
        let mut node = view(mounted(DiskHealth::Healthy), DataView::Ready, stopped(), repository());
        let state = OperationState::Running { progress: Progress::default() };
        node.operations = vec![Operation { id: "1".into(), kind, since, state }];
        check(&want(), &node, &[Action::StartEngine]);
    }
}

fn any_view() -> impl Strategy<Value = NodeView> {
    let volume = prop_oneof![
        Just(VolumeView::Unknown),
        Just(VolumeView::Absent { verdicts: vec![] }),
        Just(VolumeView::Blank { device: device() }),
        Just(VolumeView::Unmounted { device: device() }),
        Just(mounted(DiskHealth::Healthy)),
        Just(mounted(DiskHealth::Gone { why: String::new() })),
    ];
    let data = prop_oneof![
        Just(DataView::Unknown),
        Just(DataView::Absent),
        Just(DataView::Incomplete),
        Just(DataView::Ready),
        Just(DataView::Broken { why: String::new() }),
    ];
    let engine = prop_oneof![
        Just(stopped()),
        Just(running()),
        Just(EngineView::Stopping { pid: 1, since: Tick::from_millis(0) }),
        Just(EngineView::Unkillable { pid: 1 }),
    ];
    let repository =
        prop_oneof![Just(RepositoryView::Unknown), Just(RepositoryView::Empty), Just(repository())];
    (volume, data, engine, repository).prop_map(|(v, d, e, r)| view(v, d, e, r))
}

fn any_want() -> impl Strategy<Value = Desired> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(bootstrap, refound, format_blank)| Desired {
        has_peers: false,
        replays: false,
        engine: EngineWanted::Running,
        bootstrap,
        founding: None,
        refound,
        format_blank,
    })
}

proptest! {
    #[test]
    fn an_engine_never_starts_on_data_that_is_not_ready(want in any_want(), node in any_view()) {
        let plan = decide(&want, &node, Tick::from_millis(0));
        if plan.actions.contains(&Action::StartEngine) {
            prop_assert_eq!(&node.data, &DataView::Ready);
            let healthy = matches!(&node.volume, VolumeView::Mounted { health, .. } if health.is_healthy());
            prop_assert!(healthy);
        }
    }

    #[test]
    fn data_is_never_replaced_while_some_is_ready_or_an_engine_runs(want in any_want(), node in any_view()) {
        let plan = decide(&want, &node, Tick::from_millis(0));
        let replaces = plan.actions.iter().any(|a| matches!(a, Action::Bootstrap | Action::Refound));
        if replaces {
            prop_assert!(matches!(node.data, DataView::Absent | DataView::Incomplete));
            prop_assert!(!engine_may_run(&node.engine));
        }
    }
}
