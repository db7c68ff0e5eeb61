//! Carries a coordinator's requests to members over `MemberService`, and brings back their answers in its words.
//!
//! What a member stands by comes back as [`Declined::Refused`]; everything else that is no answer is
//! [`Declined::Unreachable`] with its reason: it may have happened or not, and is asked again.
//!
//! Invariants, each a test in `cli/tests/coordinator.rs`:
//! * `what_a_member_stands_by_reaches_the_coordinator`.
//! * `a_node_with_another_disk_is_not_the_member`: every request names the incarnation, and so does a gate (I7).
//!
//! Not here: when to ask (`orchestrator`), what a member does about it (the daemon).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_model::status::{Gate, VolumeView};
use holdfast_model::{ClusterName, Member, NodeName, Position, Rule, Term};
use holdfast_orchestrator::drive::Members;
use holdfast_orchestrator::failover::{Declined, Vote};
use holdfast_proto::convert::{Wire, required_from_wire};
use holdfast_proto::refusal::declined;
use holdfast_proto::reply::{self, Closed};
use holdfast_proto::request::{
    AskNear, AskVote, AwaitPosition, Close, Follow, Promote, Recruit, Reopen, RequestId, Target,
};
use holdfast_proto::v1::member_service_client::MemberServiceClient;
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::Attempt;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::Promises;
use super::client::{PeerClient, PeerError};
use crate::chain::Chain;
use crate::clock::random_bits;

/// For what a member knows without doing anything.
const QUESTION: Duration = Duration::from_millis(1_500);
/// For what takes it a while. Work goes on when its call is over, and the next call is answered once it is done; a
/// connection that does not carry any more costs this long.
const WORK: Duration = Duration::from_secs(3);

/// Where certificates go to be kept.
pub type Keep = Box<dyn Fn(Certificate<Position>) + Send + Sync>;

/// The members of one cluster, as one coordinator reaches them.
pub struct MemberLines {
    cluster: ClusterName,
    lines: BTreeMap<NodeName, Arc<PeerClient>>,
    /// The newest term that is known.
    known: Term,
    promises: Arc<Promises>,
    keep: Keep,
}

impl std::fmt::Debug for MemberLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberLines").field("lines", &self.lines).field("known", &self.known).finish()
    }
}

impl MemberLines {
    /// Over `lines`, the coordinator's own node included; `known` is the newest term that was seen anywhere. `keep` is
    /// handed each certificate and returns at once.
    #[must_use]
    pub fn new(
        cluster: ClusterName,
        lines: impl IntoIterator<Item = Arc<PeerClient>>,
        known: Term,
        promises: Arc<Promises>,
        keep: Keep,
    ) -> Self {
        let lines = lines.into_iter().map(|line| (line.peer().node.clone(), line)).collect();
        Self { cluster, lines, known, promises, keep }
    }

    /// Meant for `to`, by somebody who knows of `term`.
    fn target(&self, to: &Member, term: Term) -> Target {
        Target {
            request: RequestId::from_random(random_bits()),
            cluster: self.cluster.clone(),
            node: to.node.clone(),
            incarnation: Some(to.incarnation),
            term: Some(self.known.max(term)),
        }
    }

    fn line(&self, to: &Member) -> Result<&PeerClient, Declined> {
        self.promises.stands(to).map_err(|back| Declined::Unreachable { why: back.to_string() })?;
        let unknown = || Declined::Unreachable {
            why: format!("no address of node {} is known: list it in [[cluster.peers]]", to.node),
        };
        self.lines.get(&to.node).map(AsRef::as_ref).ok_or_else(unknown)
    }

    async fn ask<R: Wire, T>(
        &self,
        to: &Member,
        within: Duration,
        request: R,
        ask: impl AsyncFnOnce(
            MemberServiceClient<Channel>,
            tonic::Request<R::Message>,
        ) -> Result<Response<T>, Status>,
    ) -> Result<T, Declined> {
        let call = self.line(to)?.call(within, request.to_wire(), async |channel, request| {
            ask(MemberServiceClient::new(channel), request).await
        });
        call.await.map_err(not_done)
    }

    /// Reads what `to` answered.
    fn read<T>(
        &self,
        to: &Member,
        answer: Result<T, holdfast_proto::convert::Invalid>,
    ) -> Result<T, Declined> {
        self.line(to)?.read(answer).map_err(not_done)
    }
}

/// Why there is no answer, as the coordinator takes it.
fn not_done(err: PeerError) -> Declined {
    let stands_by = match &err {
        PeerError::Status { status, .. } => declined(status),
        PeerError::Late { .. } | PeerError::Answer { .. } => None,
    };
    match stands_by {
        Some(refused) => Declined::Refused(refused),
        None => Declined::Unreachable { why: Chain(&err).to_string() },
    }
}

#[async_trait]
impl Members for MemberLines {
    async fn ask_vote(&self, to: &Member, primary: &Member) -> Result<Vote, Declined> {
        let request = AskVote { target: self.target(to, self.known), primary: primary.clone() };
        let answer = self
            .ask(to, QUESTION, request, async |mut member, request| member.ask_vote(request).await)
            .await?;
        self.read(to, reply::Vote::from_wire(answer)).map(|vote| match vote {
            reply::Vote::MissesPrimary => Vote::MissesPrimary,
            reply::Vote::SeesPrimary => Vote::SeesPrimary,
        })
    }

    async fn recruit(&self, to: &Member, attempt: Attempt) -> Result<Report<Position>, Declined> {
        let request = Recruit { target: self.target(to, attempt.term), attempt };
        let answer =
            self.ask(to, WORK, request, async |mut member, request| member.recruit(request).await).await?;
        let report: Report<Position> = self.read(to, required_from_wire("report", answer.report))?;
        // None when it had promised this attempt already.
        if report.promised_before.is_some() {
            let held = self.promises.check(to, report.promised_before);
            held.map_err(|back| Declined::Unreachable { why: back.to_string() })?;
        }
        Ok(report)
    }

    async fn promote(&self, to: &Member, certificate: &Certificate<Position>) -> Result<Rule, Declined> {
        let target = self.target(to, certificate.attempt.term);
        let request = Promote { target, certificate: certificate.clone() };
        let answer =
            self.ask(to, WORK, request, async |mut member, request| member.promote(request).await).await?;
        self.read(to, required_from_wire("rule", answer.rule))
    }

    async fn follow(&self, to: &Member, rule: &Rule, attempt: Attempt) -> Result<(), Declined> {
        let request = Follow { target: self.target(to, rule.id.term), rule: rule.clone(), attempt };
        self.ask(to, WORK, request, async |mut member, request| member.follow(request).await).await?;
        Ok(())
    }

    async fn opened(&self, member: &Member) -> Option<Term> {
        let view = self.line(member).ok()?.status().await.ok()?;
        let is_it = match &view.volume {
            VolumeView::Mounted { identity, .. } => identity.incarnation == member.incarnation,
            VolumeView::Unknown
            | VolumeView::Absent { .. }
            | VolumeView::Blank { .. }
            | VolumeView::Unmounted { .. } => false,
        };
        match view.gate {
            Gate::Open { term } if is_it => Some(term),
            Gate::Open { .. } | Gate::ReadOnly { .. } | Gate::Closed { .. } => None,
        }
    }

    async fn keep(&self, certificate: &Certificate<Position>) {
        (self.keep)(certificate.clone());
    }

    async fn ask_near(&self, to: &Member, candidate: &Member) -> Result<bool, Declined> {
        let request = AskNear { target: self.target(to, self.known), candidate: candidate.clone() };
        let answer = self
            .ask(to, QUESTION, request, async |mut member, request| member.ask_near(request).await)
            .await?;
        Ok(answer.near)
    }

    async fn close(&self, to: &Member) -> Result<Position, Declined> {
        let request = Close { target: self.target(to, self.known) };
        let answer =
            self.ask(to, WORK, request, async |mut member, request| member.close(request).await).await?;
        self.read(to, Closed::from_wire(answer)).map(|closed| closed.position)
    }

    async fn await_position(&self, to: &Member, position: &Position) -> Result<(), Declined> {
        let request = AwaitPosition { target: self.target(to, self.known), position: position.clone() };
        self.ask(to, WORK, request, async |mut member, request| member.await_position(request).await).await?;
        Ok(())
    }

    async fn reopen(&self, to: &Member) -> Result<(), Declined> {
        let request = Reopen { target: self.target(to, self.known) };
        self.ask(to, QUESTION, request, async |mut member, request| member.reopen(request).await).await?;
        Ok(())
    }
}
