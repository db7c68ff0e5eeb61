//! Any view that a node could have.

use holdfast_model::peer::{Part, PeerSaid, PeerView};
use holdfast_model::status::{
    BreachesView, DataView, EngineView, Gate, GateClosed, LogView, NodeView, Operation, OperationKind,
    OperationState, Progress, RepositoryView, RewindStage, VolumeView, Weakened,
};
use holdfast_model::volume::{DeviceId, DeviceVerdict, DiskHealth, Space, Verdict, VolumeIdentity};
use holdfast_model::{
    ByteCount, ClusterId, ClusterName, Incarnation, Lsn, Member, NodeName, Position, Promise, Rule, RuleId,
    Term, Tick, Voter, VoterKind, Zone,
};
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::Attempt;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

fn text() -> BoxedStrategy<String> {
    ".{0,20}".boxed()
}

fn cluster() -> impl Strategy<Value = ClusterName> {
    "[a-z0-9][a-z0-9-]{0,29}".prop_map(|name| name.parse().unwrap())
}

fn node() -> impl Strategy<Value = NodeName> {
    "[a-z0-9][a-z0-9-]{0,29}".prop_map(|name| name.parse().unwrap())
}

fn zone() -> impl Strategy<Value = Zone> {
    prop_oneof![Just(Zone::Unknown), "[A-Za-z0-9._-]{1,63}".prop_map(|name| name.parse().unwrap())]
}

fn term() -> impl Strategy<Value = Term> {
    (1_u32..).prop_map(|number| Term::new(number).unwrap())
}

fn position() -> impl Strategy<Value = Position> {
    let set = |count| {
        let text = if count == 0 {
            String::new()
        } else {
            format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-{count}")
        };
        Position::Gtids(text.parse().unwrap())
    };
    prop_oneof![any::<u64>().prop_map(|offset| Lsn::from_offset(offset).into()), (0..9_u32).prop_map(set)]
}

fn tick() -> impl Strategy<Value = Tick> {
    any::<u64>().prop_map(Tick::from_millis)
}

fn bytes() -> impl Strategy<Value = ByteCount> {
    any::<u64>().prop_map(ByteCount::new)
}

fn uuid() -> impl Strategy<Value = uuid::Uuid> {
    any::<u128>().prop_map(uuid::Uuid::from_u128)
}

fn cluster_id() -> impl Strategy<Value = ClusterId> {
    (cluster(), any::<u128>()).prop_map(|(name, bits)| ClusterId::new(name, bits))
}

fn member() -> impl Strategy<Value = Member> {
    (node(), any::<u128>())
        .prop_map(|(node, bits)| Member { node, incarnation: Incarnation::from_random(bits) })
}

fn device() -> impl Strategy<Value = DeviceId> {
    (text(), text(), text(), any::<u64>(), bytes()).prop_map(|(path, model, serial, diskseq, size)| {
        DeviceId { path: path.into(), model, serial, diskseq, size }
    })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Blank),
        uuid().prop_map(|fs_uuid| Verdict::Ours { fs_uuid }),
        text().prop_map(|why| Verdict::Stale { why }),
        text().prop_map(|owner| Verdict::Theirs { owner }),
        text().prop_map(|why| Verdict::Foreign { why }),
        text().prop_map(|why| Verdict::Sick { why }),
        text().prop_map(|why| Verdict::Gone { why }),
    ]
}

fn identity() -> impl Strategy<Value = VolumeIdentity> {
    let who = (cluster(), option::of(cluster_id()), node(), any::<u128>(), zone());
    (who, text(), vec(text(), 0..3), uuid(), text(), text()).prop_map(
        |((cluster, cluster_id, node, bits, zone), engine, serials, fs_uuid, created, boot_id)| {
            VolumeIdentity {
                cluster,
                cluster_id,
                node,
                incarnation: Incarnation::from_random(bits),
                zone,
                engine,
                serials,
                fs_uuid,
                created,
                boot_id,
            }
        },
    )
}

fn health() -> impl Strategy<Value = DiskHealth> {
    prop_oneof![
        Just(DiskHealth::Healthy),
        any::<u64>().prop_map(|for_ms| DiskHealth::Stalled { for_ms }),
        text().prop_map(|why| DiskHealth::Sick { why }),
        text().prop_map(|why| DiskHealth::Gone { why }),
        Just(DiskHealth::ReadOnly),
        Just(DiskHealth::ShutDown),
    ]
}

fn volume() -> impl Strategy<Value = VolumeView> {
    let found = (device(), verdict()).prop_map(|(device, verdict)| DeviceVerdict { device, verdict });
    let space = (bytes(), bytes(), any::<bool>()).prop_map(|(total, free, nearly_full)| Space {
        total,
        free,
        nearly_full,
    });
    prop_oneof![
        Just(VolumeView::Unknown),
        vec(found, 0..3).prop_map(|verdicts| VolumeView::Absent { verdicts }),
        device().prop_map(|device| VolumeView::Blank { device }),
        device().prop_map(|device| VolumeView::Unmounted { device }),
        (device(), identity(), health(), space).prop_map(|(device, identity, health, space)| {
            VolumeView::Mounted { device, identity: Box::new(identity), health, space }
        }),
    ]
}

fn progress() -> impl Strategy<Value = Progress> {
    (text(), bytes(), bytes()).prop_map(|(phase, done, total)| Progress { phase, done, total })
}

fn data() -> impl Strategy<Value = DataView> {
    prop_oneof![
        Just(DataView::Unknown),
        Just(DataView::Absent),
        Just(DataView::Incomplete),
        Just(DataView::Initialising),
        progress().prop_map(|progress| DataView::Restoring { progress }),
        Just(DataView::Ready),
        (term(), rewind_stage()).prop_map(|(onto, stage)| DataView::Rewinding { onto, stage }),
        text().prop_map(|why| DataView::Broken { why }),
    ]
}

fn engine() -> impl Strategy<Value = EngineView> {
    prop_oneof![
        (any::<u32>(), option::of(tick()))
            .prop_map(|(crashes, since)| EngineView::Stopped { crashes, since }),
        (any::<i32>(), tick()).prop_map(|(pid, since)| EngineView::Starting { pid, since }),
        (any::<i32>(), text(), any::<bool>(), term(), position()).prop_map(
            |(pid, version, in_recovery, timeline, flushed)| EngineView::Running {
                pid,
                version,
                in_recovery,
                timeline,
                flushed,
            }
        ),
        (any::<i32>(), tick()).prop_map(|(pid, since)| EngineView::Stopping { pid, since }),
        any::<i32>().prop_map(|pid| EngineView::Unkillable { pid }),
    ]
}

fn gate() -> impl Strategy<Value = Gate> {
    let why = prop::sample::select(vec![
        GateClosed::Starting,
        GateClosed::NoEngine,
        GateClosed::NotPrimary,
        GateClosed::PromisedHigher,
        GateClosed::MarkerNotAcked,
        GateClosed::DiskUnsafe,
        GateClosed::Stopping,
    ]);
    prop_oneof![
        why.prop_map(|why| Gate::Closed { why }),
        term().prop_map(|term| Gate::ReadOnly { term }),
        term().prop_map(|term| Gate::Open { term }),
    ]
}

fn rule_id() -> impl Strategy<Value = RuleId> {
    (term(), any::<u32>()).prop_map(|(term, version)| RuleId { term, version })
}

fn rule() -> impl Strategy<Value = Rule> {
    let kind = prop::sample::select(vec![VoterKind::Full, VoterKind::Log]);
    let voter = (member(), zone(), kind).prop_map(|(member, zone, kind)| Voter { member, zone, kind });
    (rule_id(), member(), vec(voter, 0..4), any::<u32>(), option::of(rule_id()), position()).prop_map(
        |(id, primary, voters, k, previous, start)| Rule { id, primary, voters, k, previous, start },
    )
}

fn promise() -> impl Strategy<Value = Promise> {
    (cluster_id(), member(), term(), any::<u128>()).prop_map(|(cluster, member, max_term, attempt)| Promise {
        cluster,
        member,
        max_term,
        attempt,
    })
}

fn repository() -> impl Strategy<Value = RepositoryView> {
    prop_oneof![
        Just(RepositoryView::Unknown),
        Just(RepositoryView::Disabled),
        text().prop_map(|why| RepositoryView::Unreachable { why }),
        Just(RepositoryView::Empty),
        (cluster_id(), term(), option::of(text())).prop_map(|(cluster, newest_term, newest_backup)| {
            RepositoryView::Ready { cluster, newest_term, newest_backup }
        }),
    ]
}

fn log() -> impl Strategy<Value = LogView> {
    (any::<bool>(), option::of(position()), option::of(position()), option::of(text()))
        .prop_map(|(running, shipped, acked, failing)| LogView { running, shipped, acked, failing })
}

fn breaches() -> impl Strategy<Value = BreachesView> {
    let weakened = ("[a-z_]{1,20}", text(), option::of(text()), option::of(text()))
        .prop_map(|(setting, value, role, database)| Weakened { setting, value, role, database });
    (any::<u64>(), any::<u64>(), btree_set(weakened, 0..3))
        .prop_map(|(cancelled, ended, weakened)| BreachesView { cancelled, ended, weakened })
}

fn rewind_stage() -> impl Strategy<Value = RewindStage> {
    prop::sample::select(vec![RewindStage::Copying, RewindStage::Replaying, RewindStage::Taking])
}

fn operation() -> impl Strategy<Value = Operation> {
    let kind = prop::sample::select(vec![
        OperationKind::Bootstrap,
        OperationKind::Backup,
        OperationKind::Restore,
        OperationKind::Format,
        OperationKind::Join,
        OperationKind::Rewind,
        OperationKind::Failover,
        OperationKind::Switchover,
        OperationKind::ChangeMember,
    ]);
    let state = prop_oneof![
        progress().prop_map(|progress| OperationState::Running { progress }),
        text().prop_map(|result| OperationState::Done { result }),
        text().prop_map(|why| OperationState::Failed { why }),
        text().prop_map(|why| OperationState::Refused { why }),
    ];
    ("[a-z0-9-]{1,20}", kind, tick(), state).prop_map(|(id, kind, since, state)| Operation {
        id,
        kind,
        since,
        state,
    })
}

fn part() -> impl Strategy<Value = Part> {
    let streams = proptest::collection::btree_map(member(), position(), 0..4);
    let lends = proptest::collection::btree_set(member(), 0..3);
    prop_oneof![
        Just(Part::None),
        (streams, option::of(text()), lends).prop_map(|(streams, change, lends)| Part::Writes {
            streams,
            change,
            lends
        }),
        member().prop_map(|primary| Part::Rewinds { primary }),
        (member(), any::<bool>()).prop_map(|(primary, streaming)| Part::Follows { primary, streaming }),
        term().prop_map(|term| Part::Recruited { term }),
        text().prop_map(|why| Part::Waits { why }),
        text().prop_map(|why| Part::Diverged { why }),
    ]
}

fn peer() -> impl Strategy<Value = PeerView> {
    let (who, held) = ((option::of(member()), gate(), part()), (option::of(rule()), option::of(term())));
    let said = (who, held, option::of(position()), option::of(position())).prop_map(
        |((member, gate, part), (rule, promised), flushed, shipped)| PeerSaid {
            member,
            rule,
            promised,
            gate,
            part,
            flushed,
            shipped,
        },
    );
    (node(), zone(), option::of(any::<u64>()), option::of(said), option::of(text()))
        .prop_map(|(node, zone, heard_ms, said, failing)| PeerView { node, zone, heard_ms, said, failing })
}

pub(crate) fn attempt() -> impl Strategy<Value = Attempt> {
    (term(), any::<u128>()).prop_map(|(term, id)| Attempt { term, id })
}

pub(crate) fn certificate() -> impl Strategy<Value = Certificate<Position>> {
    let report = (member(), vec(rule(), 0..3), position(), option::of(term())).prop_map(
        |(member, rules, position, promised_before)| Report { member, rules, position, promised_before },
    );
    let choice = (vec(member(), 0..3), member(), position());
    (attempt(), vec(report, 0..3), rule(), choice).prop_map(
        |(attempt, reports, rule, (absent, chosen, position))| Certificate {
            attempt,
            reports,
            rule,
            absent,
            chosen,
            position,
        },
    )
}

pub(crate) fn node_view() -> impl Strategy<Value = NodeView> {
    let who = (tick(), cluster(), node(), zone());
    let below = (volume(), data(), engine(), gate());
    let beyond = (option::of(rule()), option::of(promise()), repository(), log());
    let company = (part(), vec(peer(), 0..3));
    let beyond = (beyond, breaches());
    (who, below, beyond, company, vec(operation(), 0..3), text()).prop_map(
        |(who, below, (beyond, breaches), (part, peers), operations, reason)| {
            let (at, cluster, node, zone) = who;
            let (volume, data, engine, gate) = below;
            let (rule, promise, repository, log) = beyond;
            NodeView {
                at,
                cluster,
                node,
                zone,
                volume,
                data,
                engine,
                gate,
                rule,
                promise,
                part,
                peers,
                repository,
                log,
                breaches,
                operations,
                reason,
            }
        },
    )
}
