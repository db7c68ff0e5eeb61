//! Explains a view: what keeps clients from writing, what would resolve it, and which single and double faults would stop
//! writes.
//!
//! Invariants, each a test below:
//! * `an_open_gate_has_no_blockers`.
//! * `a_breach_is_told_with_a_remedy`.
//! * `a_voter_that_does_not_receive_makes_the_next_loss_stop_writes`.
//! * `a_gate_that_is_not_open_has_a_blocker_with_a_remedy`: every refusal says what would resolve it (I14).
//!
//! Not here: deciding anything; the agent's own reason comes with the view. What is remembered beside the view ([`Control`]).
//!
//! [`Control`]: super::control::Control

use std::collections::BTreeSet;

use holdfast_model::peer::Part;
use holdfast_model::status::{
    BreachesView, DataView, EngineView, Gate, GateClosed, NodeView, Operation, OperationState,
    RepositoryView, VolumeView, Weakened,
};
use holdfast_model::{Member, Rule};
use holdfast_proto::reply::{Blocker, Explanation};
use holdfast_replication::faults::{self, Outlook};

/// Explains `view`.
#[must_use]
pub fn explain(view: &NodeView) -> Explanation {
    let blockers = match view.gate {
        Gate::Open { .. } => Vec::new(),
        Gate::ReadOnly { .. } => read_only(view),
        Gate::Closed { why } => closed(why, view),
    };
    Explanation {
        gate: view.gate.clone(),
        reason: view.reason.clone(),
        blockers,
        would_stop_writes: would_stop_writes(view),
        vouch: None,
        certificate: None,
        refused: refused(view),
        breaches: breaches(&view.breaches),
    }
}

fn blocker(missing: impl Into<String>, resolve: impl Into<String>) -> Blocker {
    Blocker { missing: missing.into(), resolve: resolve.into() }
}

/// A primary writes unless its disk fills up; whoever follows lets clients read.
fn read_only(view: &NodeView) -> Vec<Blocker> {
    match &view.part {
        Part::None | Part::Writes { .. } => vec![blocker(
            "the volume is nearly full, so clients may only read",
            "delete data or drop what is not needed; writes open again by themselves",
        )],
        Part::Follows { .. }
        | Part::Recruited { .. }
        | Part::Waits { .. }
        | Part::Rewinds { .. }
        | Part::Diverged { .. } => part(view).into_iter().chain([not_primary(view)]).collect(),
    }
}

fn not_primary(view: &NodeView) -> Blocker {
    let primary = view.rule.as_ref().map(|rule| format!(", {}", rule.primary)).unwrap_or_default();
    blocker(GateClosed::NotPrimary.to_string(), format!("write on the primary of the newest rule{primary}"))
}

/// The first cause below the gate, from the disk up, then the gate's own reason.
fn closed(why: GateClosed, view: &NodeView) -> Vec<Blocker> {
    let below: Vec<Blocker> = volume(&view.volume)
        .or_else(|| data(view))
        .or_else(|| engine(&view.engine))
        .or_else(|| part(view))
        .into_iter()
        .collect();
    let resolve = match why {
        GateClosed::Starting => "wait a moment: the agent is looking at the disk and the engine",
        GateClosed::NoEngine if below.is_empty() => "wait: the agent starts the engine by itself",
        GateClosed::NoEngine => "resolve what is named first; the engine then starts by itself",
        GateClosed::NotPrimary => return below.into_iter().chain([not_primary(view)]).collect(),
        GateClosed::PromisedHigher => "finish the failover that this member promised to take part in",
        GateClosed::MarkerNotAcked => "wait for the rule marker to be acked by the voters of the rule",
        GateClosed::DiskUnsafe => "repair or replace the disk; the agent then remounts or restores",
        GateClosed::Stopping => "holdfast engine start",
    };
    below.into_iter().chain([blocker(why.to_string(), resolve)]).collect()
}

fn volume(volume: &VolumeView) -> Option<Blocker> {
    match volume {
        VolumeView::Unknown => Some(blocker("the disk was not looked at yet", "wait a moment")),
        VolumeView::Absent { verdicts } => {
            let seen: Vec<String> =
                verdicts.iter().map(|v| format!("{} is {}", v.device.path.display(), v.verdict)).collect();
            let seen = if seen.is_empty() { "no candidate was found".to_owned() } else { seen.join("; ") };
            Some(blocker(
                format!("no usable disk: {seen}"),
                "attach a blank disk that the configuration allows, or look at holdfast volume plan",
            ))
        }
        VolumeView::Blank { device } => Some(blocker(
            format!("{device} is blank and not formatted"),
            "set volume.format_blank, or holdfast volume format",
        )),
        VolumeView::Unmounted { device } => {
            Some(blocker(format!("our volume on {device} is not mounted"), "wait: the agent mounts it"))
        }
        VolumeView::Mounted { health, .. } if health.is_healthy() => None,
        VolumeView::Mounted { device, health, .. } => {
            Some(blocker(format!("{device} is {health}"), "repair or replace the disk"))
        }
    }
}

fn data(view: &NodeView) -> Option<Blocker> {
    let whence = match &view.repository {
        RepositoryView::Ready { newest_backup: Some(_), .. } => {
            "holdfast restore brings back the newest backup"
        }
        RepositoryView::Ready { newest_backup: None, .. } => {
            "the repository holds no complete backup: find where else the data is"
        }
        RepositoryView::Empty => "holdfastd bootstrap makes a new cluster, if there never was one",
        RepositoryView::Disabled => {
            "configure a repository, or holdfastd bootstrap if there never was a cluster"
        }
        RepositoryView::Unknown | RepositoryView::Unreachable { .. } => "make the repository reachable",
    };
    match &view.data {
        // What becomes of it says its part.
        DataView::Ready | DataView::Rewinding { .. } => None,
        DataView::Unknown => Some(blocker("the data was not looked at yet", "wait a moment")),
        DataView::Absent => Some(blocker("there is no data on this volume", whence)),
        DataView::Incomplete => Some(blocker("an initialisation or a restore was not finished", whence)),
        DataView::Initialising => Some(blocker("a bootstrap is running", "wait for it to finish")),
        DataView::Restoring { progress } => Some(blocker(
            format!("a restore is running: {} of {}", progress.done, progress.total),
            "wait for it to finish; holdfast operation list shows it",
        )),
        DataView::Broken { why } => Some(blocker(format!("the data cannot be used: {why}"), whence)),
    }
}

fn engine(engine: &EngineView) -> Option<Blocker> {
    match engine {
        EngineView::Running { .. } => None,
        EngineView::Stopped { crashes: 0, .. } => None,
        EngineView::Stopped { crashes, .. } => Some(blocker(
            format!("the engine ended by itself {crashes} times"),
            "read its log; the agent tries again with growing pauses",
        )),
        EngineView::Starting { pid, .. } => Some(blocker(
            format!("the engine (pid {pid}) is starting and does not answer yet"),
            "wait: it may be replaying its log",
        )),
        EngineView::Stopping { pid, .. } => {
            Some(blocker(format!("the engine (pid {pid}) is stopping"), "wait for it to end"))
        }
        EngineView::Unkillable { pid } => Some(blocker(
            format!("the engine (pid {pid}) cannot be killed: it waits for a disk that does not answer"),
            "remove or repair the disk, or reboot the machine",
        )),
    }
}

/// Why this member does not take part as it should.
fn part(view: &NodeView) -> Option<Blocker> {
    match &view.part {
        Part::None | Part::Writes { .. } | Part::Follows { streaming: true, .. } => None,
        Part::Follows { primary, streaming: false } => Some(blocker(
            format!("{primary} is followed, and its reign is not seen to arrive"),
            format!("see that node {} serves, and that it can be reached from here", primary.node),
        )),
        Part::Recruited { term } => Some(blocker(
            format!("this member was recruited for term {term} and holds still"),
            "wait for whoever recruited it; if nobody goes on, 'holdfast failover' begins above that term",
        )),
        Part::Waits { why } => Some(blocker(
            format!("this member receives nothing: {why}"),
            "resolve that; it then follows by itself",
        )),
        Part::Rewinds { primary } => Some(blocker(
            format!("the log of this member went another way than that of {primary}"),
            "wait: a copy of its data is brought back onto that log and takes its place; what nobody acknowledged is kept",
        )),
        Part::Diverged { why } => Some(blocker(
            format!("the log of this member went another way than the cluster's: {why}"),
            format!(
                "wait: it is rewound or, once no rule counts on it, rebuilt; 'holdfast member remove {}' at the primary hurries that",
                view.node
            ),
        )),
    }
}

fn refused(view: &NodeView) -> Vec<Operation> {
    let is_refused = |operation: &&Operation| matches!(operation.state, OperationState::Refused { .. });
    view.operations.iter().filter(is_refused).cloned().collect()
}

fn would_stop_writes(view: &NodeView) -> Vec<String> {
    let (Gate::Open { .. }, Some(rule)) = (&view.gate, &view.rule) else { return Vec::new() };
    let mut faults = Vec::new();
    if rule.k == 0 {
        let kept = match &view.log.shipped {
            Some(shipped) => format!("the repository holds the log up to {shipped}"),
            None => "no log was shipped yet".to_owned(),
        };
        faults.push(format!(
            "loss of this node's disk, or of the node: no other member holds the data; {kept}"
        ));
    } else {
        faults.push("loss of this node, until another member is promoted".to_owned());
        faults.extend(losses(rule, &view.part));
    }
    faults
}

/// Losses of one or two members that no failover would mend.
fn losses(rule: &Rule, part: &Part) -> Vec<String> {
    let live: BTreeSet<Member> = match part {
        Part::Writes { streams, .. } => streams.keys().chain([&rule.primary]).cloned().collect(),
        Part::None
        | Part::Follows { .. }
        | Part::Recruited { .. }
        | Part::Waits { .. }
        | Part::Rewinds { .. }
        | Part::Diverged { .. } => rule.voters.iter().map(|voter| voter.member.clone()).collect(),
    };
    let told = faults::that_stop_writes(rule, &live).into_iter().filter_map(|(lost, then)| {
        let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
        let why = match then {
            Outlook::NotRevoked(missing) => missing.to_string(),
            Outlook::NotEstablished(missing) => missing.to_string(),
            Outlook::WritesGoOn | Outlook::FailsOver => return None,
        };
        Some(format!("loss of {}: {why}", lost.join(" and ")))
    });
    told.collect()
}

/// What broke the promise that an answered commit is held elsewhere, and what lets it be broken.
fn breaches(view: &BreachesView) -> Vec<Blocker> {
    let counted = [
        (
            view.cancelled,
            "commits that were answered without acks, since whoever waited was cancelled",
            "see the engine's log for whose they were; cancel no statement that waits for acks, and let no statement_timeout run \
             out in a procedure that commits",
        ),
        (
            view.ended,
            "commits that became visible without acks, since the session that waited was ended",
            "see the engine's log for whose they were; end no session that waits for acks",
        ),
    ];
    let counted = counted.into_iter().filter(|(count, ..)| *count > 0);
    let counted = counted
        .map(|(count, what, resolve)| blocker(format!("{what}: {count} since the agent started"), resolve));
    let weakened = view.weakened.iter().map(|weakened| {
        blocker(
            format!("commits may be answered before they are held elsewhere: {weakened}"),
            reset(weakened),
        )
    });
    counted.chain(weakened).collect()
}

/// The statement that takes a setting back.
fn reset(weakened: &Weakened) -> String {
    let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
    let (role, database) = (weakened.role.as_ref().map(quoted), weakened.database.as_ref().map(quoted));
    let whose = match (role, database) {
        (Some(role), Some(database)) => format!("ROLE {role} IN DATABASE {database}"),
        (Some(role), None) => format!("ROLE {role}"),
        (None, Some(database)) => format!("DATABASE {database}"),
        (None, None) => "ROLE ALL".to_owned(),
    };
    format!("ALTER {whose} RESET {}", weakened.setting)
}

#[cfg(test)]
pub(crate) mod tests {
    use holdfast_model::status::LogView;
    use holdfast_model::volume::{DeviceId, DiskHealth, Space, VolumeIdentity};
    use holdfast_model::{ByteCount, Incarnation, Lsn, Member, Rule, RuleId, Term, Tick, Voter, VoterKind};

    use super::*;

    const EVERY_WHY: [GateClosed; 7] = [
        GateClosed::Starting,
        GateClosed::NoEngine,
        GateClosed::NotPrimary,
        GateClosed::PromisedHigher,
        GateClosed::MarkerNotAcked,
        GateClosed::DiskUnsafe,
        GateClosed::Stopping,
    ];

    /// Node n1 of `orders`, alone and serving in term 3.
    pub(crate) fn serving() -> NodeView {
        let term = Term::new(3).unwrap();
        let incarnation = Incarnation::from_random(7);
        let member = Member { node: "n1".parse().unwrap(), incarnation };
        NodeView {
            at: Tick::from_millis(1000),
            cluster: "orders".parse().unwrap(),
            node: "n1".parse().unwrap(),
            zone: "eu-1a".parse().unwrap(),
            volume: VolumeView::Mounted {
                device: DeviceId {
                    path: "/dev/loop0".into(),
                    model: "loop".to_owned(),
                    serial: "64768:12".to_owned(),
                    diskseq: 9,
                    size: ByteCount::gib(1),
                },
                identity: Box::new(VolumeIdentity {
                    cluster: "orders".parse().unwrap(),
                    cluster_id: None,
                    node: "n1".parse().unwrap(),
                    incarnation,
                    zone: "eu-1a".parse().unwrap(),
                    engine: "postgres".to_owned(),
                    serials: vec!["64768:12".to_owned()],
                    fs_uuid: uuid::Uuid::nil(),
                    created: "2025-01-01T00:00:00Z".to_owned(),
                    boot_id: "b".to_owned(),
                }),
                health: DiskHealth::Healthy,
                space: Space { total: ByteCount::gib(1), free: ByteCount::mib(700), nearly_full: false },
            },
            data: DataView::Ready,
            engine: EngineView::Running {
                pid: 4242,
                version: "15.10".to_owned(),
                in_recovery: false,
                timeline: term,
                flushed: Lsn::from_offset(0x300_0000).into(),
            },
            gate: Gate::Open { term },
            rule: Some(Rule {
                id: RuleId { term, version: 1 },
                primary: member,
                voters: Vec::new(),
                k: 0,
                previous: None,
                start: Lsn::from_offset(0x200_0000).into(),
            }),
            promise: None,
            part: holdfast_model::peer::Part::None,
            peers: vec![],
            repository: RepositoryView::Unknown,
            log: LogView::default(),
            breaches: BreachesView::default(),
            operations: Vec::new(),
            reason: "serving".to_owned(),
        }
    }

    #[test]
    fn an_open_gate_has_no_blockers() {
        let told = explain(&serving());
        assert_eq!(told.blockers, []);
        assert_eq!(told.would_stop_writes.len(), 1, "alone, the node itself is the single point of failure");
    }

    #[test]
    fn a_breach_is_told_with_a_remedy() {
        assert_eq!(explain(&serving()).breaches, []);
        let weakened = |role: Option<&str>, database: Option<&str>| Weakened {
            setting: "synchronous_commit".to_owned(),
            value: "off".to_owned(),
            role: role.map(str::to_owned),
            database: database.map(str::to_owned),
        };
        let all = [(None, None), (None, Some("shop")), (Some("app"), None), (Some("a\"b"), Some("shop"))];
        let all = all.into_iter().map(|(role, database)| weakened(role, database)).collect();
        let breaches = BreachesView { cancelled: 2, ended: 0, weakened: all };
        let told = explain(&NodeView { breaches, ..serving() }).breaches;
        assert!(told[0].missing.ends_with(": 2 since the agent started"), "{told:?}");
        assert!(told[1].missing.ends_with("synchronous_commit = off for everybody"), "{told:?}");
        let resolves: Vec<&str> = told[1..].iter().map(|it| it.resolve.as_str()).collect();
        assert_eq!(
            resolves,
            [
                "ALTER ROLE ALL RESET synchronous_commit",
                "ALTER DATABASE \"shop\" RESET synchronous_commit",
                "ALTER ROLE \"a\"\"b\" IN DATABASE \"shop\" RESET synchronous_commit",
                "ALTER ROLE \"app\" RESET synchronous_commit",
            ]
        );
    }

    #[test]
    fn a_gate_that_is_not_open_has_a_blocker_with_a_remedy() {
        let closed = EVERY_WHY.map(|why| Gate::Closed { why });
        for gate in closed.into_iter().chain([Gate::ReadOnly { term: Term::FIRST }]) {
            let told = explain(&NodeView { gate: gate.clone(), ..serving() });
            assert!(!told.blockers.is_empty(), "{gate}");
            assert!(told.blockers.iter().all(|b| !b.missing.is_empty() && !b.resolve.is_empty()), "{gate}");
            assert!(told.would_stop_writes.is_empty(), "{gate}: writes are stopped already");
        }
    }

    #[test]
    fn a_member_that_takes_no_part_says_why() {
        let primary = Member { node: "n2".parse().unwrap(), incarnation: Incarnation::from_random(8) };
        let why = "no peer holds a newer rule".to_owned();
        for (part, named) in [
            (Part::Waits { why: why.clone() }, why.as_str()),
            (Part::Diverged { why: why.clone() }, &why),
            (Part::Recruited { term: Term::FIRST }, "recruited for term 1"),
            (Part::Follows { primary, streaming: false }, "n2"),
        ] {
            let gates = [Gate::Closed { why: GateClosed::NotPrimary }, Gate::ReadOnly { term: Term::FIRST }];
            for gate in gates {
                let told = explain(&NodeView { gate, part: part.clone(), ..serving() });
                let missing: Vec<&str> = told.blockers.iter().map(|b| b.missing.as_str()).collect();
                assert!(missing[0].contains(named), "{part:?}: {missing:?}");
                assert_eq!(missing[1], GateClosed::NotPrimary.to_string());
                assert!(told.blockers[1].resolve.contains("n1."), "names the primary");
            }
        }
    }

    #[test]
    fn a_voter_that_does_not_receive_makes_the_next_loss_stop_writes() {
        let member = |node: &str, id| Member {
            node: node.parse().unwrap(),
            incarnation: Incarnation::from_random(id),
        };
        let voters = [("n1", 7, "a"), ("n2", 8, "b"), ("n3", 9, "c")].map(|(node, id, zone)| Voter {
            member: member(node, id),
            zone: zone.parse().unwrap(),
            kind: VoterKind::Full,
        });
        let view = |receiving: &[Member]| {
            let rule = Rule { k: 1, voters: voters.to_vec(), ..serving().rule.unwrap() };
            let streams = receiving.iter().map(|member| (member.clone(), Lsn::ZERO.into())).collect();
            NodeView {
                rule: Some(rule),
                part: Part::Writes { streams, change: None, lends: BTreeSet::new() },
                ..serving()
            }
        };
        let told = |receiving: &[Member]| explain(&view(receiving)).would_stop_writes;
        let both = told(&[member("n2", 8), member("n3", 9)]);
        assert_eq!(both.len(), 1 + 3, "this node for a while, and any two: {both:?}");
        assert!(both[1..].iter().all(|fault| fault.contains(" and ")), "{both:?}");
        let one = told(&[member("n2", 8)]);
        assert!(one[1].starts_with("loss of n1.") && one[2].starts_with("loss of n2."), "{one:?}");
        assert!(!one[1..].iter().any(|fault| fault.contains(" and n")), "{one:?}");
    }

    #[test]
    fn who_follows_is_not_said_to_be_full() {
        let primary = Member { node: "n2".parse().unwrap(), incarnation: Incarnation::from_random(8) };
        let part = Part::Follows { primary, streaming: true };
        let told = explain(&NodeView { gate: Gate::ReadOnly { term: Term::FIRST }, part, ..serving() });
        assert_eq!(told.blockers.len(), 1);
        assert_eq!(told.blockers[0].missing, GateClosed::NotPrimary.to_string());
    }

    #[test]
    fn the_deepest_cause_comes_first() {
        let gate = Gate::Closed { why: GateClosed::NoEngine };
        let volume = VolumeView::Absent { verdicts: Vec::new() };
        let told = explain(&NodeView { gate, volume, data: DataView::Unknown, ..serving() });
        assert_eq!(told.blockers[0].missing, "no usable disk: no candidate was found");
        assert_eq!(told.blockers[1].missing, "the engine is not running");
    }
}
