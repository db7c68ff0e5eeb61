//! What a node does about the others, by what they said.

use super::*;
use crate::{Action, Desired, EngineWanted, decide};
use holdfast_model::status::{DataView, EngineView, GateClosed, LogView, RepositoryView, RewindStage};
use holdfast_model::volume::{DeviceId, DiskHealth, Space, VolumeIdentity};
use holdfast_model::{ByteCount, ClusterId, Incarnation, Lsn, Promise, RuleId, Term, Tick};

fn member(node: &str, bits: u128) -> Member {
    Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(bits) }
}

fn rule(term: u32, primary: &Member, voters: &[Member], k: u32) -> Rule {
    let voter = |member: &Member| Voter {
        member: member.clone(),
        zone: member.node.as_str().parse().unwrap(),
        kind: VoterKind::Full,
    };
    Rule {
        id: RuleId { term: Term::new(term).unwrap(), version: 1 },
        primary: primary.clone(),
        voters: voters.iter().map(voter).collect(),
        k,
        previous: None,
        start: Lsn::ZERO.into(),
    }
}

fn peer(member: &Member, rule: Option<Rule>, part: Part) -> PeerView {
    let said = PeerSaid {
        member: Some(member.clone()),
        rule,
        promised: None,
        gate: Gate::Closed { why: GateClosed::Starting },
        part,
        flushed: None,
        shipped: None,
    };
    let zone = member.node.as_str().parse().unwrap();
    PeerView { node: member.node.clone(), zone, heard_ms: Some(100), said: Some(said), failing: None }
}

fn writes(streams: &[&Member]) -> Part {
    let streams = streams.iter().map(|member| ((*member).clone(), Lsn::ZERO.into())).collect();
    Part::Writes { streams, change: None, lends: BTreeSet::new() }
}

fn follows(primary: &Member) -> Part {
    Part::Follows { primary: primary.clone(), streaming: true }
}

/// Node `a`, first incarnation.
fn view(rule: Option<Rule>, part: Part, peers: Vec<PeerView>) -> NodeView {
    let device = DeviceId {
        path: "/d".into(),
        model: "m".into(),
        serial: "s".into(),
        diskseq: 1,
        size: ByteCount::gib(1),
    };
    let identity = Box::new(VolumeIdentity {
        cluster: "c".parse().unwrap(),
        cluster_id: None,
        node: "a".parse().unwrap(),
        incarnation: Incarnation::from_random(1),
        zone: "a".parse().unwrap(),
        engine: "postgres".into(),
        serials: vec![],
        fs_uuid: uuid::Uuid::nil(),
        created: String::new(),
        boot_id: String::new(),
    });
    let space = Space { total: ByteCount::gib(1), free: ByteCount::gib(1), nearly_full: false };
    NodeView {
        at: Tick::from_millis(0),
        cluster: "c".parse().unwrap(),
        node: "a".parse().unwrap(),
        zone: "a".parse().unwrap(),
        volume: VolumeView::Mounted { device, identity, health: DiskHealth::Healthy, space },
        data: DataView::Ready,
        engine: EngineView::Stopped { crashes: 0, since: None },
        gate: Gate::Open { term: Term::FIRST },
        rule,
        promise: None,
        part,
        peers,
        repository: RepositoryView::Disabled,
        log: LogView::default(),
        breaches: Default::default(),
        operations: vec![],
        reason: String::new(),
    }
}

fn wanted(view: &NodeView, k: u32) -> Option<Change> {
    change(view, k, &BTreeSet::new())
}

#[test]
fn log_is_kept_from_where_the_primary_that_is_followed_has_not_shipped() {
    let (a, b) = (member("a", 1), member("b", 1));
    let rule = rule(2, &b, &[a.clone(), b.clone()], 1);
    let told = |part, repository, heard_ms| {
        let mut peer = peer(&b, Some(rule.clone()), writes(&[&a]));
        peer.heard_ms = Some(heard_ms);
        if let Some(said) = &mut peer.said {
            said.shipped = Some(Lsn::from_offset(5 * SEGMENT + 70).into());
        }
        keeps_log_from(&NodeView { repository, ..view(Some(rule.clone()), part, vec![peer]) })
    };
    let away = || RepositoryView::Unreachable { why: String::new() };
    assert_eq!(told(follows(&b), away(), 100), Some(Lsn::from_offset(5 * SEGMENT).into()));
    assert_eq!(told(follows(&b), away(), STALE_MS), Some(Lsn::ZERO.into()));
    assert_eq!(told(follows(&member("b", 2)), away(), 100), Some(Lsn::ZERO.into()));
    assert_eq!(told(Part::Recruited { term: Term::FIRST }, away(), 100), Some(Lsn::ZERO.into()));
    assert_eq!(told(follows(&b), RepositoryView::Disabled, 100), None);
}

#[test]
fn only_a_reigning_peer_is_followed() {
    let (a, b, c) = (member("a", 1), member("b", 1), member("c", 1));
    let all = [a, b.clone(), c.clone()];
    let (older, newer) = (rule(2, &b, &all, 1), rule(3, &c, &all, 1));
    let of = |peers| reigning(&view(None, Part::None, peers)).map(|reigning| reigning.peer.node.to_string());
    let reigns = |at: &Member, rule: &Rule| peer(at, Some(rule.clone()), writes(&[]));
    assert_eq!(of(vec![reigns(&b, &older), reigns(&c, &newer)]).as_deref(), Some("c"));
    // The other's rule, no writer, a lost incarnation's, and what was said long ago.
    assert_eq!(of(vec![reigns(&b, &newer)]), None);
    assert_eq!(of(vec![peer(&b, Some(older.clone()), Part::None)]), None);
    assert_eq!(of(vec![reigns(&member("b", 2), &older)]), None);
    assert_eq!(of(vec![PeerView { heard_ms: Some(STALE_MS), ..reigns(&b, &older) }]), None);
}

#[test]
fn an_incarnation_leaves_only_when_its_node_has_another_or_its_log_has_left_the_chain() {
    let (a, b, c) = (member("a", 1), member("b", 1), member("c", 1));
    let rule = rule(1, &a, &[a.clone(), b.clone(), c.clone()], 1);
    let with = |peers| wanted(&view(Some(rule.clone()), writes(&[&b]), peers), 1);
    let silent = PeerView { heard_ms: None, said: None, ..peer(&c, None, Part::None) };
    assert_eq!(with(vec![peer(&b, None, follows(&a)), silent]), None);
    assert_eq!(with(vec![peer(&c, None, Part::None)]), None);
    let gone = Some(Change::Remove(c.clone()));
    assert_eq!(with(vec![peer(&member("c", 2), None, Part::None)]), gone);
    assert_eq!(with(vec![peer(&c, None, Part::Diverged { why: String::new() })]), gone);
}

#[test]
fn whoever_receives_here_is_added_and_only_from_a_zone_without_a_voter() {
    let (a, b, c) = (member("a", 1), member("b", 1), member("c", 1));
    let rule = rule(1, &a, &[a.clone(), b.clone()], 1);
    let with = |peers, streams: &[&Member]| wanted(&view(Some(rule.clone()), writes(streams), peers), 1);
    let receives = || peer(&c, None, follows(&a));
    assert!(matches!(with(vec![receives()], &[&b, &c]), Some(Change::Add(voter)) if voter.member == c));
    assert_eq!(with(vec![receives()], &[&b]), None, "not seen attached here");
    assert_eq!(with(vec![peer(&c, None, follows(&b))], &[&b, &c]), None, "it says that it follows another");
    let same_zone = PeerView { zone: "b".parse().unwrap(), ..receives() };
    assert_eq!(with(vec![same_zone], &[&b, &c]), None);
    let held_out = BTreeSet::from(["c".parse().unwrap(), "b".parse().unwrap()]);
    let node = view(Some(rule.clone()), writes(&[&b, &c]), vec![receives()]);
    assert_eq!(change(&node, 1, &held_out), None, "the last acker stays");
    assert!(admitted(&node, &held_out).is_empty());
}

fn wants() -> Desired {
    Desired {
        engine: EngineWanted::Running,
        bootstrap: false,
        founding: None,
        refound: true,
        format_blank: true,
        has_peers: true,
        replays: false,
    }
}

fn promised(term: u32) -> Option<Promise> {
    let cluster = ClusterId::new("c".parse().unwrap(), 7);
    Some(Promise { cluster, member: member("a", 1), max_term: Term::new(term).unwrap(), attempt: 1 })
}

fn running(in_recovery: bool, timeline: u32) -> EngineView {
    let timeline = Term::new(timeline).unwrap();
    EngineView::Running { pid: 1, version: "15".into(), in_recovery, timeline, flushed: Lsn::ZERO.into() }
}

fn actions(view: &NodeView) -> Vec<Action> {
    decide(&wants(), view, Tick::from_millis(10_000)).actions
}

#[test]
fn who_is_deposed_promises_before_it_stops_and_never_resumes() {
    let (a, b) = (member("a", 1), member("b", 1));
    let newer = rule(2, &b, &[a.clone(), b.clone()], 1);
    let reigns = peer(&b, Some(newer.clone()), writes(&[]));
    let mut node = view(Some(rule(1, &a, &[a.clone(), b], 1)), writes(&[]), vec![reigns]);
    (node.engine, node.promise) = (running(false, 1), promised(1));
    let stop = [Action::HoldGate(GateClosed::PromisedHigher), Action::StopEngine];
    let deposed: Vec<Action> = [Action::Promise(newer.clone())].into_iter().chain(stop.clone()).collect();
    assert_eq!(actions(&node), deposed);
    // Recruited, by whomever.
    (node.promise, node.peers) = (promised(3), vec![]);
    assert_eq!(actions(&node), stop);
    // Stopped, it promises before it starts, and then follows.
    node.peers = vec![peer(&member("b", 1), Some(newer.clone()), writes(&[]))];
    (node.engine, node.promise) = (EngineView::Stopped { crashes: 0, since: None }, promised(1));
    assert_eq!(actions(&node), [Action::Promise(newer), Action::StartEngine]);
    (node.engine, node.promise) = (running(true, 1), promised(2));
    assert_eq!(actions(&node), [Action::Follow("b".parse().unwrap())]);
}

#[test]
fn who_diverged_is_rewound_and_who_recruits_it_needs_it_as_it_is() {
    let (a, b) = (member("a", 1), member("b", 1));
    let newer = rule(2, &b, &[a.clone(), b.clone()], 1);
    let reigns = |rule: &Rule| peer(&b, Some(rule.clone()), writes(&[]));
    let onto = Term::new(2).unwrap();
    let mut node = view(Some(newer.clone()), Part::Rewinds { primary: b.clone() }, vec![reigns(&newer)]);
    (node.engine, node.promise) = (running(true, 1), promised(2));
    assert_eq!(actions(&node), [Action::Rewind(onto)]);
    let stopped = EngineView::Stopped { crashes: 0, since: None };
    let stop = [Action::HoldGate(GateClosed::NoEngine), Action::StopEngine];
    let mut at = |stage, engine: &EngineView, promise, peers: Vec<PeerView>| {
        node.data = DataView::Rewinding { onto, stage };
        (node.engine, node.promise, node.peers) = (engine.clone(), promised(promise), peers);
        actions(&node)
    };
    let on = || vec![reigns(&newer)];
    assert_eq!(at(RewindStage::Copying, &running(true, 1), 2, on()), stop, "the data is copied at rest");
    assert_eq!(at(RewindStage::Copying, &stopped, 2, on()), [Action::Rewind(onto)]);
    assert_eq!(at(RewindStage::Replaying, &stopped, 2, vec![]), [Action::StartEngine]);
    assert_eq!(at(RewindStage::Replaying, &running(true, 2), 2, vec![]), []);
    assert_eq!(at(RewindStage::Taking, &running(true, 2), 3, vec![]), stop);
    assert_eq!(at(RewindStage::Taking, &stopped, 3, vec![]), [Action::TakeRewound], "it is whole already");
    let beyond = reigns(&rule(3, &b, &[a, b.clone()], 1));
    for (promise, peers) in [(3, on()), (2, vec![beyond])] {
        assert_eq!(at(RewindStage::Replaying, &running(true, 2), promise, peers.clone()), stop);
        for stage in [RewindStage::Copying, RewindStage::Replaying] {
            assert_eq!(at(stage, &stopped, promise, peers.clone()), [Action::GiveUpRewind]);
        }
    }
    let late = EngineView::Starting { pid: 1, since: Tick::from_millis(0) };
    assert_eq!(at(RewindStage::Replaying, &late, 2, on()), [], "it has time");
    let crashing = EngineView::Stopped { crashes: 2, since: None };
    assert_eq!(at(RewindStage::Replaying, &crashing, 2, on()), [Action::GiveUpRewind]);
}

#[test]
fn a_primary_writes_a_checkpoint_for_those_who_cannot_read_its_files_yet() {
    let (a, b) = (member("a", 1), member("b", 1));
    let own = rule(1, &a, &[a.clone(), b.clone()], 1);
    let rewinds = |onto: &Member| peer(&b, None, Part::Rewinds { primary: onto.clone() });
    let mut node = view(Some(own.clone()), writes(&[]), vec![rewinds(&a)]);
    (node.engine, node.promise) = (running(false, 1), promised(1));
    assert_eq!(change(&node, 1, &BTreeSet::new()), None, "it stays a voter");
    assert!(admitted(&node, &BTreeSet::new()).contains(&b));
    assert_eq!(actions(&node), [Action::Checkpoint]);
    node.part = Part::Writes { streams: [].into(), change: None, lends: [b.clone()].into() };
    assert_eq!(actions(&node), []);
    node.peers = vec![rewinds(&b)];
    let before = [b.clone()].into();
    assert_eq!(borrowers(&node, &before), BTreeSet::new(), "onto another one");
    for quiet in [peer(&b, None, Part::None), PeerView { heard_ms: None, said: None, ..rewinds(&a) }] {
        node.peers = vec![quiet];
        assert_eq!(
            (borrowers(&node, &before), borrowers(&node, &BTreeSet::new())),
            (before.clone(), [].into())
        );
    }
    node.peers = vec![peer(&member("b", 2), None, Part::None)];
    assert_eq!(borrowers(&node, &before), BTreeSet::new());
    let lender = peer(&a, Some(own), node.part.clone());
    let other = view(None, Part::None, vec![lender]);
    let reigning = reigning(&other).unwrap();
    assert!(lends(&reigning, &b) && !lends(&reigning, &a));
}

#[test]
fn a_lost_node_joins_whoever_reigns_and_never_refounds_beside_it() {
    let b = member("b", 1);
    let held = rule(2, &b, std::slice::from_ref(&b), 0);
    let mut node = view(None, Part::None, vec![peer(&b, Some(held.clone()), writes(&[]))]);
    node.data = DataView::Absent;
    let cluster = ClusterId::new("c".parse().unwrap(), 7);
    node.repository = RepositoryView::Ready { cluster, newest_term: Term::FIRST, newest_backup: None };
    assert_eq!(actions(&node), [Action::Join("b".parse().unwrap())]);
    node.peers = vec![peer(&b, Some(held), Part::None)];
    assert_eq!(actions(&node), [], "b has data, and may reign again");
    node.peers = vec![peer(&b, None, Part::None)];
    assert_eq!(actions(&node), [Action::Refound]);
}

#[test]
fn k_rises_only_when_enough_members_receive() {
    let (a, b) = (member("a", 1), member("b", 1));
    let with = |k, streams: &[&Member]| {
        let rule = rule(1, &a, &[a.clone(), b.clone()], k);
        wanted(&view(Some(rule), writes(streams), vec![peer(&b, None, follows(&a))]), 1)
    };
    assert_eq!(with(0, &[&b]), Some(Change::SetK(1)));
    assert_eq!(with(0, &[]), None);
    assert_eq!(with(1, &[]), None, "never lowered by itself");
}
