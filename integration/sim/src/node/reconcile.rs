//! A turn of the reconcile loop: observe, decide, act. Mirrors `agent/src/reconcile/{mod,observe,act,follow}.rs`; what is
//! decided is `holdfast-agent-decide`'s.

use std::rc::Rc;

use holdfast_agent_decide::{Action, Desired, EngineWanted, decide, members};
use holdfast_model::status::{
    DataView, EngineView, Gate, GateClosed, Operation, OperationKind, OperationState, Progress, RewindStage,
    VolumeView,
};
use holdfast_model::volume::{DeviceId, DiskHealth, Space, VolumeIdentity};
use holdfast_model::{ByteCount, Member, NodeName, Promise, Rule};
use holdfast_replication::promise::{self, Attempt, Promised, Standing};

use super::{Agent, Data, FollowOrder, GateOrders, Membership, Upstream};
use crate::engine::{Server, name};
use crate::log::position;
use crate::mutant::Mutant;
use crate::net::Body;
use crate::world::{Event, World};

const RULES_MS: u64 = 3_000;

/// The rest of the plan is not carried out.
struct EndOfTurn;

impl World {
    pub(crate) fn reconcile_is_due(&mut self, n: usize, life: u64) {
        let now = self.now;
        if self.nodes[n].agent.as_ref().is_some_and(|agent| agent.life == life && agent.reconcile_due == now)
        {
            self.with_agent(n, |world, agent| world.reconcile_turn(n, agent));
        }
    }

    fn reconcile_turn(&mut self, n: usize, agent: &mut Agent) {
        self.settle_join(n, agent);
        self.observe(n, agent);
        let want = Desired {
            engine: EngineWanted::Running,
            bootstrap: false,
            founding: None,
            refound: false,
            format_blank: true,
            has_peers: true,
            replays: matches!(self.nodes[n].disk.as_ref().map(|disk| &disk.data), Some(Data::Landed { .. })),
        };
        let plan = decide(&want, &agent.view, self.now);
        agent.reconcile_due = plan.wake_at.max(self.now.after_millis(50));
        agent.hold = None;
        self.tell_gate(n, agent);
        for action in plan.actions {
            if self.act(n, agent, action).is_err() {
                break;
            }
        }
        self.at(agent.reconcile_due, Event::Reconcile { n, life: agent.life });
    }

    /// Something changed that the loop waits for beside its own pace.
    fn wake_reconcile_soon(&mut self, n: usize, agent: &mut Agent) {
        agent.reconcile_due = self.now.after_millis(1);
        self.at(agent.reconcile_due, Event::Reconcile { n, life: agent.life });
    }

    /// What the gate loop goes by; it takes a turn when something of it is new.
    pub(super) fn tell_gate(&mut self, n: usize, agent: &mut Agent) {
        let (process, stopping) = match &self.nodes[n].server {
            Server::Alive(process) => (Some(process.id), false),
            Server::Stopping { id, .. } => (Some(*id), true),
            Server::Stopped { .. } => (None, false),
        };
        let handover = agent.handover_until.filter(|until| *until > self.now).map(|_| GateClosed::Stopping);
        let orders = GateOrders {
            process,
            fresh: process.is_some() && process == agent.started,
            member: self.membership(n, agent),
            disk_healthy: self.is_healthy(n, agent),
            replays: matches!(self.nodes[n].disk.as_ref().map(|disk| &disk.data), Some(Data::Landed { .. })),
            hold: agent.hold.or(stopping.then_some(GateClosed::Stopping)).or(handover),
            admit: members::admitted(&agent.view, &agent.report.held_out),
            change: members::change(&agent.view, self.k, &agent.report.held_out),
            follow: agent.follow.clone(),
        };
        let old = &agent.orders;
        let new = (orders.process, orders.hold, orders.disk_healthy, &orders.change, &orders.admit)
            != (old.process, old.hold, old.disk_healthy, &old.change, &old.admit)
            || orders.follow.as_ref().map(|it| &it.upstream) != old.follow.as_ref().map(|it| &it.upstream)
            || orders.member.as_ref().map(of_membership) != old.member.as_ref().map(of_membership);
        agent.orders = Rc::new(orders);
        if new {
            let at = self.now.after_millis(1);
            agent.gate_due = at;
            self.at(at, Event::Gate { n, life: agent.life });
        }
    }

    fn membership(&self, n: usize, agent: &Agent) -> Option<Membership> {
        let mounted = agent.mounted.as_ref()?;
        let disk = self.nodes[n].disk.as_ref().filter(|disk| disk.member == *mounted);
        let reign = match disk.map(|disk| &disk.data) {
            Some(Data::Ready { reign }) => *reign,
            Some(Data::Absent | Data::Joining | Data::Landed { .. } | Data::Rewinding { .. }) | None => None,
        };
        Some(Membership {
            member: mounted.clone(),
            promise: disk.and_then(|disk| disk.promise.clone()),
            reign,
        })
    }

    /// Whether the disk that was mounted is still there.
    fn is_healthy(&self, n: usize, agent: &Agent) -> bool {
        agent.mounted.is_some() && agent.mounted.as_ref() == self.nodes[n].member()
    }

    fn observe(&mut self, n: usize, agent: &mut Agent) {
        let now = self.now;
        agent.view.at = now;
        self.observe_disk(n, agent);
        agent.view.engine = self.engine_view(n, agent);
        agent.view.gate = match (&agent.view.engine, &agent.report.gate) {
            (EngineView::Stopped { .. }, Gate::Open { .. } | Gate::ReadOnly { .. }) => {
                Gate::Closed { why: GateClosed::NoEngine }
            }
            (_, gate) => gate.clone(),
        };
        let known = agent.view.rule.as_ref().map(|rule| rule.id);
        if known != agent.report.rule.as_ref().map(|rule| rule.id) {
            agent.view.rule = agent.report.rule.as_ref().map(|rule| (**rule).clone());
        }
        agent.view.part = self.rewinding_part(n, agent);
        for peer in &mut agent.view.peers {
            let at = self.nodes.iter().position(|node| node.name == peer.node);
            peer.heard_ms = at.and_then(|at| agent.heard[at]).map(|heard| now.millis_since(heard));
        }
        agent.view.log.running = agent.shipping.is_some();
        let working = match (agent.joining, agent.rewinds.copying) {
            (true, _) => Some(OperationKind::Join),
            (false, true) => Some(OperationKind::Rewind),
            (false, false) => None,
        };
        if working != agent.view.operations.first().map(|operation| operation.kind) {
            let state = || OperationState::Running { progress: Progress::default() };
            let one = |kind| Operation { id: String::new(), kind, since: now, state: state() };
            agent.view.operations = working.map(one).into_iter().collect();
        }
    }

    fn observe_disk(&self, n: usize, agent: &mut Agent) {
        let node = &self.nodes[n];
        agent.view.volume = match (&agent.mounted, &node.disk) {
            (Some(mounted), disk) => {
                let there = disk.as_ref().is_some_and(|disk| disk.member == *mounted);
                let health =
                    if there { DiskHealth::Healthy } else { DiskHealth::Gone { why: String::new() } };
                match &mut agent.view.volume {
                    VolumeView::Mounted { identity, health: before, .. }
                        if identity.incarnation == mounted.incarnation =>
                    {
                        *before = health;
                        std::mem::replace(&mut agent.view.volume, VolumeView::Unknown)
                    }
                    VolumeView::Mounted { .. }
                    | VolumeView::Unknown
                    | VolumeView::Absent { .. }
                    | VolumeView::Blank { .. }
                    | VolumeView::Unmounted { .. } => VolumeView::Mounted {
                        device: device(n),
                        identity: Box::new(self.identity(n, mounted)),
                        health,
                        space: Space {
                            total: ByteCount::mib(1),
                            free: ByteCount::mib(1),
                            nearly_full: false,
                        },
                    },
                }
            }
            (None, Some(_)) => VolumeView::Unmounted { device: device(n) },
            (None, None) if node.blank => VolumeView::Blank { device: device(n) },
            (None, None) => VolumeView::Absent { verdicts: vec![] },
        };
        let disk = node.disk.as_ref().filter(|disk| Some(&disk.member) == agent.mounted.as_ref());
        agent.view.promise = disk.and_then(|disk| disk.promise.clone());
        agent.view.data = match disk.map(|disk| &disk.data) {
            None => DataView::Unknown,
            Some(Data::Absent) if agent.joining => DataView::Incomplete,
            Some(Data::Absent) => DataView::Absent,
            Some(Data::Joining) if agent.joining => DataView::Restoring { progress: Progress::default() },
            Some(Data::Joining) => DataView::Incomplete,
            Some(Data::Landed { .. } | Data::Ready { .. }) => DataView::Ready,
            Some(Data::Rewinding { onto, taking, .. }) => {
                let stage = if *taking { RewindStage::Taking } else { RewindStage::Copying };
                DataView::Rewinding { onto: *onto, stage }
            }
        };
    }

    fn identity(&self, n: usize, member: &Member) -> VolumeIdentity {
        VolumeIdentity {
            cluster: self.cluster.name().clone(),
            cluster_id: Some(self.cluster.clone()),
            node: member.node.clone(),
            incarnation: member.incarnation,
            zone: self.nodes[n].zone.clone(),
            engine: String::new(),
            serials: vec![],
            fs_uuid: uuid::Uuid::nil(),
            created: String::new(),
            boot_id: String::new(),
        }
    }

    fn engine_view(&self, n: usize, agent: &Agent) -> EngineView {
        let pid = 1;
        match &self.nodes[n].server {
            Server::Stopped { crashes, since } => EngineView::Stopped { crashes: *crashes, since: *since },
            Server::Stopping { since, .. } => EngineView::Stopping { pid, since: *since },
            Server::Alive(process) => {
                let report = &agent.report;
                match report.engine.filter(|_| report.process == Some(process.id)) {
                    Some(status) => EngineView::Running {
                        pid,
                        version: String::new(),
                        in_recovery: status.recovers,
                        timeline: status.timeline,
                        flushed: position(status.flushed),
                    },
                    None => EngineView::Starting { pid, since: process.since },
                }
            }
        }
    }

    fn act(&mut self, n: usize, agent: &mut Agent, action: Action) -> Result<(), EndOfTurn> {
        if self.cut_here(agent) {
            return Err(EndOfTurn);
        }
        match action {
            Action::HoldGate(why) => {
                agent.hold = Some(why);
                self.tell_gate(n, agent);
                self.gate_turn(n, agent);
            }
            Action::StopEngine => {
                agent.shipping = None;
                self.stop_server(n);
            }
            Action::Unmount => {
                (agent.mounted, agent.follow, agent.shipping, agent.joining) = (None, None, None, false);
                agent.rewinds = super::Rewinds::default();
                self.wake_reconcile_soon(n, agent);
            }
            Action::Format(_) => {
                let same = self.mutates(Mutant::SameIncarnation);
                let disk = self.nodes[n].format(same);
                self.say(|| format!("{} formats a disk: {}", name(n), disk.member));
                self.counts.one("disk formatted");
                if same {
                    self.oracle.forget_promise(n);
                }
                agent.mounted = Some(disk.member.clone());
                self.nodes[n].blank = false;
                self.nodes[n].disk = Some(disk);
                self.wake_reconcile_soon(n, agent);
            }
            Action::Mount(_) => {
                agent.mounted = self.nodes[n].member().cloned();
                self.wake_reconcile_soon(n, agent);
            }
            Action::Join(_) => self.begin_join(n, agent),
            Action::Promise(rule) => self.promise_reign(n, agent, &rule)?,
            Action::Follow(node) => self.look_up_chain(n, agent, &node),
            Action::GiveUpData => {
                if matches!(self.nodes[n].disk.as_ref().map(|disk| &disk.data), Some(Data::Ready { .. })) {
                    self.counts.one("data given up");
                    if !self.write_data(n, agent, Data::Joining) {
                        return Err(EndOfTurn);
                    }
                    agent.follow = None;
                }
            }
            Action::StartEngine => self.start_engine(n, agent),
            Action::StartShipping => self.start_shipping(n, agent),
            Action::StartBackup | Action::Checkpoint | Action::FailRewind => {}
            Action::Rewind(onto) => self.rewind(n, agent, onto),
            Action::GiveUpRewind => self.give_up_rewind(n, agent),
            Action::TakeRewound => self.take_rewound(n, agent),
            Action::FenceVolume | Action::Bootstrap | Action::Refound => {
                self.violated(format!("{} does what nothing here calls for: {action:?}", name(n)));
            }
        }
        Ok(())
    }

    fn promise_reign(&mut self, n: usize, agent: &mut Agent, rule: &Rule) -> Result<(), EndOfTurn> {
        let Some(disk) = &self.nodes[n].disk else { return Err(EndOfTurn) };
        let (member, held) = (disk.member.clone(), disk.promise.clone());
        let standing = Standing { member: &member, promise: held.as_ref(), last_rule: None };
        let attempt = Attempt { term: rule.id.term, id: self.chance.bits() };
        if let Ok(Promised::Now(Attempt { term, id })) = promise::follow(standing, rule, attempt) {
            let promise = Promise { cluster: self.cluster.clone(), member, max_term: term, attempt: id };
            if !self.persist_promise(n, agent, promise) {
                return Err(EndOfTurn);
            }
        }
        Ok(())
    }

    /// Asks whoever reigns for the rules by which it is judged whether the own log may follow.
    fn look_up_chain(&mut self, n: usize, agent: &mut Agent, node: &NodeName) {
        let Some(reigning) = members::reigning(&agent.view).filter(|it| it.peer.node == *node) else {
            return;
        };
        let rule = reigning.rule.clone();
        let same = |order: &FollowOrder| {
            order.primary == rule.primary
                && order.upstream.term == rule.id.term
                && Some(&order.upstream.member) == agent.mounted.as_ref()
        };
        let asks = agent.asks_rules.as_ref().is_some_and(|(_, _, until)| *until > self.now);
        if agent.follow.as_ref().is_some_and(same) || asks {
            return;
        }
        let Some(peer) = self.nodes.iter().position(|it| it.name == *node) else { return };
        agent.asks_rules = Some((rule, peer, self.now.after_millis(RULES_MS)));
        self.send(n, peer, Body::AskRules { life: agent.life });
    }

    pub(crate) fn take_rules(&mut self, n: usize, from: usize, life: u64, rules: Vec<Rule>) {
        self.with_agent(n, |world, agent| {
            if agent.life != life || agent.asks_rules.as_ref().is_none_or(|(_, peer, _)| *peer != from) {
                return;
            }
            let Some((rule, node, until)) = agent.asks_rules.take() else { return };
            let Some(member) = agent.mounted.clone().filter(|_| until > world.now) else { return };
            let data = world.nodes[n].disk.as_ref().map(|disk| disk.data.clone());
            if let Some(Data::Ready { reign: Some(_) }) = data
                && !world.write_data(n, agent, Data::Ready { reign: None })
            {
                return;
            }
            let upstream = Upstream { node, member, term: rule.id.term };
            agent.follow = Some(FollowOrder { primary: rule.primary, upstream, chain: Rc::new(rules) });
            world.tell_gate(n, agent);
        });
    }

    /// It starts as a primary only if it reigned in the term that it promised.
    fn start_engine(&mut self, n: usize, agent: &mut Agent) {
        agent.handover_until = None;
        let Some(disk) = &mut self.nodes[n].disk else { return };
        let promised = disk.promise.as_ref().map(|promise| promise.max_term);
        match disk.data {
            Data::Ready { reign } if reign.is_none() || reign != promised => disk.files.standby = true,
            Data::Landed { .. } => disk.files.standby = true,
            Data::Ready { .. } | Data::Absent | Data::Joining | Data::Rewinding { .. } => {}
        }
        agent.follow = None;
        self.start_server(n);
        agent.started = self.running(n);
    }
}

/// What of a membership a gate loop goes by.
fn of_membership(membership: &Membership) -> (&Member, Option<&Promise>, Option<holdfast_model::Term>) {
    (&membership.member, membership.promise.as_ref(), membership.reign)
}

fn device(n: usize) -> DeviceId {
    DeviceId {
        path: name(n).into(),
        model: String::new(),
        serial: String::new(),
        diskseq: 0,
        size: ByteCount::mib(1),
    }
}
