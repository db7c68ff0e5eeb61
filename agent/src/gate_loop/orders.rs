//! What the gate loop is told, asked, and what it says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_engine::engine::EngineStatus;
use holdfast_engine::links::Upstream;
use holdfast_engine::postgres::standby::Hands;
use holdfast_model::peer::Part;
use holdfast_model::status::{Gate, GateClosed, Weakened};
use holdfast_model::{Member, NodeName, Position, Promise, Rule, Term, Zone};
use holdfast_replication::change::Change;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::child::process::ProcessId;
use crate::data::Tail;

/// What the gate loop is told by the rest of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GateOrders {
    /// The engine's process, if one runs.
    pub process: Option<ProcessId>,
    /// Whether this agent started it: its files are then those of a closed gate.
    pub fresh: bool,
    /// This member and what it has promised; `None` before a volume is mounted.
    pub member: Option<Membership>,
    /// Whether the last probe write returned in time.
    pub disk_healthy: bool,
    /// Whether free space is below the reserve.
    pub nearly_full: bool,
    /// Whether the server replays a restored base: its recovery is not to be touched.
    pub replays: bool,
    /// Keep the gate closed, for this reason.
    pub hold: Option<GateClosed>,
    /// Members that may attach to a server that writes, besides the voters of its rule.
    pub admit: BTreeSet<Member>,
    /// Who of those who attach reads this server's files for a rewind.
    pub borrow: BTreeSet<Member>,
    /// What to change about the rule, once this server is its open primary.
    pub change: Option<Change>,
    /// Whom to follow, while the server is in recovery.
    pub follow: Option<FollowOrder>,
    /// From where on a server in recovery keeps its log; `None` where nobody ships log.
    pub keep_log: Option<Position>,
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The member.
    pub member: Member,
    /// Its zone.
    pub zone: Zone,
    /// What it promised.
    pub promise: Option<Promise>,
    /// The rule with which a refounding begins its term, until it is in the log.
    pub opening: Option<Rule>,
    /// The term that this member was promoted to, or founded, last; none while it follows.
    pub reign: Option<Term>,
}

/// Whom to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowOrder {
    /// The primary.
    pub primary: Member,
    /// How it is reached.
    pub upstream: Upstream,
    /// All of its rules: whether it may be followed is judged by them.
    pub chain: Arc<Vec<Rule>>,
}

/// What the gate loop says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateReport {
    /// What is in force. Only ever more than `Closed` after it was proven by a probe login.
    pub gate: Gate,
    /// What the engine answered last; `None` while it does not.
    pub engine: Option<EngineStatus>,
    /// The newest rule in the engine's log, as last read.
    pub rule: Option<Rule>,
    /// What it takes part in.
    pub part: Part,
    /// When log of whom it follows was last seen to come in.
    pub received: Option<Instant>,
    /// What a diverged log has beyond the chain.
    pub tail: Option<Tail>,
    /// Nodes that an operator holds out, as last read from the engine.
    pub held_out: BTreeSet<NodeName>,
    /// Settings that weaken the promise, as last looked for.
    pub weakened: BTreeSet<Weakened>,
    /// The process that this is about.
    pub process: Option<ProcessId>,
    /// What keeps the gate from being what it should be.
    pub failing: Option<String>,
}

impl GateReport {
    /// Before anything is known.
    #[must_use]
    pub const fn unknown() -> Self {
        let gate = Gate::Closed { why: GateClosed::Starting };
        let held_out = BTreeSet::new();
        let weakened = BTreeSet::new();
        Self {
            gate,
            engine: None,
            rule: None,
            part: Part::None,
            received: None,
            tail: None,
            held_out,
            weakened,
            process: None,
            failing: None,
        }
    }
}

/// What a recruited server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The newest rule in its log and that rule's predecessor, newest first.
    pub rules: Vec<Rule>,
    /// Where its log ends, all of it applied.
    pub position: Position,
}

/// What is done between two turns, on behalf of a caller that waits for it. Each may be asked again.
#[derive(Debug)]
pub(super) enum Command {
    /// As this member: receive nothing more below this term, which is promised; say how far the log goes.
    Recruit { member: Member, term: Term, reply: oneshot::Sender<Result<Standing, String>> },
    /// As this member: begin this term, which is promised and on the volume.
    Promote { member: Member, term: Term, reply: oneshot::Sender<Result<(), String>> },
    /// The gate is held closed: end whoever is still in; say where the log ends once nobody is.
    Drain { reply: oneshot::Sender<Result<Position, String>> },
    /// Hold a node out, or not any more.
    HoldOut { node: NodeName, out: bool, reply: oneshot::Sender<Result<(), String>> },
    /// Every rule in the log.
    Rules { reply: oneshot::Sender<Result<Vec<Rule>, String>> },
}

/// Why a command has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It was done and failed.
    #[error("{0}")]
    Failed(String),
    /// Not in time. It may still be done.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// The gate loop has ended.
    #[error("the gate loop has ended")]
    Ended,
}

/// Asks the gate loop, which alone talks to the engine.
#[derive(Debug, Clone)]
pub struct GateHandle(pub(super) mpsc::Sender<Command>);

impl GateHandle {
    /// Recruits the server of `member`, which has promised the term: see [`holdfast_engine::Engine::recruit`].
    ///
    /// # Errors
    /// [`CommandError`], also when another member's server runs by now: its log is another one.
    pub async fn recruit(
        &self,
        member: Member,
        term: Term,
        within: Duration,
    ) -> Result<Standing, CommandError> {
        self.ask(within, |reply| Command::Recruit { member, term, reply }).await
    }

    /// Begins a term on the recruited server of `member`.
    ///
    /// # Errors
    /// [`CommandError`], also when another member's server runs by now.
    pub async fn promote(&self, member: Member, term: Term, within: Duration) -> Result<(), CommandError> {
        self.ask(within, |reply| Command::Promote { member, term, reply }).await
    }

    /// Ends clients behind a gate that is held closed.
    ///
    /// # Errors
    /// [`CommandError`], also while a commit waits for acks.
    pub async fn drain(&self, within: Duration) -> Result<Position, CommandError> {
        self.ask(within, |reply| Command::Drain { reply }).await
    }

    /// Holds a node out, or not any more, on a server that writes.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn hold_out(&self, node: NodeName, out: bool, within: Duration) -> Result<(), CommandError> {
        self.ask(within, |reply| Command::HoldOut { node, out, reply }).await
    }

    /// Every rule in the server's log, oldest first.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn rules(&self, within: Duration) -> Result<Vec<Rule>, CommandError> {
        self.ask(within, |reply| Command::Rules { reply }).await
    }

    async fn ask<T>(
        &self,
        within: Duration,
        command: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Command,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send(command(reply)).await.map_err(|_| CommandError::Ended)?;
            answer.await.map_err(|_| CommandError::Ended)?.map_err(CommandError::Failed)
        };
        tokio::time::timeout(within, asked).await.map_err(|_| CommandError::Late(within))?
    }
}

/// Makes the [`Hands`] that reach an engine's process.
#[derive(Clone)]
pub struct HandsOf(Arc<dyn Fn(ProcessId) -> Box<dyn Hands> + Send + Sync>);

impl HandsOf {
    /// By this function.
    pub fn new(make: impl Fn(ProcessId) -> Box<dyn Hands> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn of(&self, process: ProcessId) -> Box<dyn Hands> {
        (self.0)(process)
    }
}

impl std::fmt::Debug for HandsOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandsOf")
    }
}
