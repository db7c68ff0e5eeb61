//! What the fake daemon shows: one node of `orders` that serves, and things about it.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_model::peer::{Part, PeerSaid, PeerView};
use holdfast_model::status::{
    BreachesView, DataView, EngineView, Gate, GateClosed, LogView, NodeView, Operation, OperationKind,
    OperationState, Progress, RepositoryView, VolumeView, Weakened,
};
use holdfast_model::volume::{DeviceId, DeviceVerdict, DiskHealth, Space, Verdict, VolumeIdentity};
use holdfast_model::{
    ByteCount, ClusterId, Incarnation, Lsn, Member, Position, Rule, RuleId, Term, Tick, Voter, VoterKind,
    Vouch,
};
use holdfast_proto::reply::{
    Backup, BackupContent, BackupDetail, LogRange, LogStatus, PlannedDevice, PlannedStep, WipeConsent,
};
use holdfast_replication::account::{DiscardedTail, LossCertificate};
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::Attempt;

fn device(path: &str, serial: &str) -> DeviceId {
    DeviceId {
        path: path.into(),
        model: "loop".to_owned(),
        serial: serial.to_owned(),
        diskseq: 9,
        size: ByteCount::gib(1),
    }
}

pub(crate) fn member() -> Member {
    of_node("n1", 7)
}

pub(crate) fn of_node(node: &str, incarnation: u128) -> Member {
    Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(incarnation) }
}

fn term() -> Term {
    Term::new(3).unwrap()
}

fn mounted() -> VolumeView {
    VolumeView::Mounted {
        device: device("/dev/loop0", "64768:12"),
        identity: Box::new(VolumeIdentity {
            cluster: "orders".parse().unwrap(),
            cluster_id: None,
            node: "n1".parse().unwrap(),
            incarnation: Incarnation::from_random(7),
            zone: "eu-1a".parse().unwrap(),
            engine: "postgres".to_owned(),
            serials: vec!["64768:12".to_owned()],
            fs_uuid: uuid::Uuid::nil(),
            created: "2025-01-01T00:00:00Z".to_owned(),
            boot_id: "b".to_owned(),
        }),
        health: DiskHealth::Healthy,
        space: Space { total: ByteCount::gib(1), free: ByteCount::mib(700), nearly_full: false },
    }
}

pub(crate) fn serving() -> NodeView {
    NodeView {
        at: Tick::from_millis(12_345),
        cluster: "orders".parse().unwrap(),
        node: "n1".parse().unwrap(),
        zone: "eu-1a".parse().unwrap(),
        volume: mounted(),
        data: DataView::Ready,
        engine: EngineView::Running {
            pid: 4242,
            version: "15.10".to_owned(),
            in_recovery: false,
            timeline: term(),
            flushed: Lsn::from_offset(0x300_0000).into(),
        },
        gate: Gate::Open { term: term() },
        rule: Some(Rule {
            id: RuleId { term: term(), version: 1 },
            primary: member(),
            voters: Vec::new(),
            k: 0,
            previous: None,
            start: Lsn::from_offset(0x200_0000).into(),
        }),
        promise: None,
        part: Part::Writes { streams: BTreeMap::new(), change: None, lends: BTreeSet::new() },
        peers: vec![],
        repository: RepositoryView::Ready {
            cluster: ClusterId::new("orders".parse().unwrap(), 0xabc),
            newest_term: term(),
            newest_backup: Some("b2".to_owned()),
        },
        log: LogView {
            running: true,
            shipped: Some(Lsn::from_offset(0x2FF_0000).into()),
            acked: Some(Lsn::from_offset(0x300_0000).into()),
            failing: None,
        },
        breaches: BreachesView::default(),
        operations: Vec::new(),
        reason: "serving".to_owned(),
    }
}

/// Node n1 with n2, which follows, and n3, which lost its disk and is not heard any more.
pub(crate) fn three_zones() -> NodeView {
    let voter = |node: &str, incarnation, zone: &str| Voter {
        member: of_node(node, incarnation),
        zone: zone.parse().unwrap(),
        kind: VoterKind::Full,
    };
    let alone = serving();
    let rule = Rule {
        voters: vec![voter("n1", 7, "eu-1a"), voter("n2", 8, "eu-1b"), voter("n3", 9, "eu-1c")],
        k: 1,
        ..alone.rule.clone().unwrap()
    };
    let peer = |node: &str, zone: &str, heard_ms, said| PeerView {
        node: node.parse().unwrap(),
        zone: zone.parse().unwrap(),
        heard_ms,
        said: Some(said),
        failing: None,
    };
    let follows = PeerSaid {
        member: Some(of_node("n2", 8)),
        rule: Some(rule.clone()),
        promised: Some(term()),
        gate: Gate::ReadOnly { term: term() },
        part: Part::Follows { primary: member(), streaming: true },
        flushed: Some(Lsn::from_offset(0x300_0000).into()),
        shipped: None,
    };
    let waits = PeerSaid {
        member: Some(of_node("n3", 10)),
        rule: None,
        promised: None,
        gate: Gate::Closed { why: GateClosed::NotPrimary },
        part: Part::Waits { why: "n1 has not admitted it yet".to_owned() },
        flushed: Some(Lsn::from_offset(0x200_0000).into()),
        shipped: None,
    };
    let silent = PeerView {
        failing: Some("connection refused".to_owned()),
        ..peer("n3", "eu-1c", Some(12_340), waits)
    };
    let streams = BTreeMap::from([(of_node("n2", 8), Lsn::from_offset(0x300_0000).into())]);
    NodeView {
        rule: Some(rule),
        part: Part::Writes { streams, change: Some("removing n3".to_owned()), lends: BTreeSet::new() },
        peers: vec![peer("n2", "eu-1b", Some(420), follows), silent],
        breaches: breaches(),
        ..alone
    }
}

fn breaches() -> BreachesView {
    let weakened = |value: &str, role: Option<&str>, database: Option<&str>| Weakened {
        setting: "synchronous_commit".to_owned(),
        value: value.to_owned(),
        role: role.map(str::to_owned),
        database: database.map(str::to_owned),
    };
    let weakened = [weakened("off", Some("app"), None), weakened("local", Some("app"), Some("shop"))].into();
    BreachesView { cancelled: 2, ended: 1, weakened }
}

pub(crate) fn report(attempt: Attempt) -> Report<Position> {
    Report {
        member: member(),
        rules: serving().rule.into_iter().collect(),
        position: Lsn::from_offset(0x300_0000).into(),
        promised_before: attempt.term.number().checked_sub(1).and_then(Term::new),
    }
}

pub(crate) fn operations() -> Vec<Operation> {
    let operation =
        |id: &str, kind, state| Operation { id: id.to_owned(), kind, since: Tick::from_millis(9_900), state };
    let progress =
        Progress { phase: "reading chunks".to_owned(), done: ByteCount::mib(64), total: ByteCount::mib(256) };
    vec![
        operation("op-3", OperationKind::Restore, OperationState::Running { progress }),
        operation("op-2", OperationKind::Backup, OperationState::Done { result: "b2".to_owned() }),
        operation("op-1", OperationKind::Format, OperationState::Failed { why: "disk went away".to_owned() }),
        operation("op-4", OperationKind::Failover, OperationState::Refused { why: "not missed".to_owned() }),
    ]
}

pub(crate) fn planned() -> Vec<PlannedDevice> {
    let planned = |path: &str, serial: &str, verdict, step, why: &str| PlannedDevice {
        found: DeviceVerdict { device: device(path, serial), verdict },
        step,
        why: why.to_owned(),
    };
    let foreign = Verdict::Foreign { why: "holds an ext4 file system".to_owned() };
    vec![
        planned("/dev/loop0", "64768:12", Verdict::Blank, PlannedStep::Format, "the first blank candidate"),
        planned("/dev/loop1", "64768:13", foreign, PlannedStep::None, "not ours: a person must look"),
    ]
}

pub(crate) fn consent() -> WipeConsent {
    let found = planned().remove(1).found;
    WipeConsent { token: "t-0123".to_owned(), valid_for_ms: 300_000, found }
}

pub(crate) fn backups() -> Vec<Backup> {
    let backup = |id: &str, added, parent: Option<&str>| Backup {
        id: id.to_owned(),
        member: member(),
        term: term(),
        start: Lsn::from_offset(0x200_0028).into(),
        stop: Lsn::from_offset(0x200_0130).into(),
        started: "2025-01-01T00:00:00Z".to_owned(),
        finished: "2025-01-01T00:01:00Z".to_owned(),
        engine_version: "15.10".to_owned(),
        data: ByteCount::gib(2),
        added,
        parent: parent.map(str::to_owned),
    };
    vec![backup("b2", ByteCount::mib(12), Some("b1")), backup("b1", ByteCount::mib(700), None)]
}

pub(crate) fn backup_detail() -> BackupDetail {
    let content = BackupContent { files: 1042, chunks: 8192, packs: 1, shares_with: vec!["b1".to_owned()] };
    BackupDetail { backup: backups().remove(0), content }
}

pub(crate) fn log_status() -> LogStatus {
    let range = |term, start, end| LogRange {
        term: Term::new(term).unwrap(),
        start: Lsn::from_offset(start).into(),
        end: Lsn::from_offset(end).into(),
    };
    let ranges = vec![range(1, 0x100_0000, 0x200_0000), range(3, 0x200_0000, 0x2FF_0000)];
    LogStatus { log: serving().log, ranges }
}

pub(crate) fn vouch() -> Vouch {
    Vouch {
        by: "holdfast://orders/user/ops?roles=observe,promote".to_owned(),
        why: "the rack burnt".to_owned(),
        primary: of_node("n2", 8),
        term: Term::new(3).unwrap(),
        given_unix_ms: 1_700_000_000_000,
        until_unix_ms: 1_700_000_300_000,
        outcome: Some("n1 serves in term 3".to_owned()),
    }
}

/// n1 had written what nobody acked, and n2 took over.
pub(crate) fn certificate() -> LossCertificate {
    let at = |offset| Position::from(Lsn::from_offset(offset));
    let old = Rule { k: 1, voters: vec![], ..serving().rule.unwrap() };
    let report = |node, rules, end| Report {
        member: of_node(node, 7),
        rules,
        position: at(end),
        promised_before: Term::new(3),
    };
    let certificate = Certificate {
        attempt: Attempt { term: Term::new(4).unwrap(), id: 9 },
        reports: vec![report("n2", vec![old.clone()], 0x300_0000), report("n3", vec![], 0x2ff_0000)],
        rule: old,
        absent: vec![of_node("n1", 7)],
        chosen: of_node("n2", 7),
        position: at(0x300_0000),
    };
    LossCertificate {
        certificate,
        at: "2025-01-01T00:00:00Z".to_owned(),
        revoked: vec!["under rule (3,1): n1 has nobody left".to_owned()],
        established: "n3 can ack n2".to_owned(),
        discarded: vec![DiscardedTail {
            member: of_node("n3", 7),
            term: Term::new(2).unwrap(),
            start: at(0x100_0000),
            end: at(0x100_0100),
        }],
    }
}
