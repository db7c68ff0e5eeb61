//! Requests under way: all at once, each of them only once.
//!
//! Not here: when to repeat one. The cores ask again, and what is still under way is not carried a second time.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_model::{Member, Position};
use holdfast_replication::promise::Attempt;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::task::TaskTracker;

use super::members::Members;
use crate::course::{Answer, Request};
use crate::failover;

/// What a member is asked, without the details: those do not change within one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Vote,
    Recruit,
    Promote,
    Follow,
    Gate,
    Near,
    Close,
    Await,
    Reopen,
}

/// Whose task ended, and what it brought; nothing when it was lost.
type Heard = (Member, Option<Answer>);

/// The requests of one attempt that are under way.
pub(super) struct Carrying {
    members: Arc<dyn Members>,
    attempt: Attempt,
    /// Those whose answer is waited for; they end with the attempt.
    waited_for: JoinSet<Heard>,
    /// Those that nobody waits for; they go on after the attempt.
    loose: TaskTracker,
    under_way: BTreeMap<(Asked, Member), AbortHandle>,
}

impl Carrying {
    pub(super) fn new(members: Arc<dyn Members>, attempt: Attempt, loose: TaskTracker) -> Self {
        Self { members, attempt, waited_for: JoinSet::new(), loose, under_way: BTreeMap::new() }
    }

    /// Sends each of `requests` on its way, unless the same is.
    pub(super) fn carry(&mut self, requests: Vec<Request>) {
        for request in requests {
            match asked(&request) {
                Some(asked) if self.is_under_way(&asked) => {}
                Some(asked) => self.start(asked, request),
                None => self.keep(request),
            }
        }
    }

    /// Asks whether the gate of `member` is open.
    pub(super) fn look_at_gate(&mut self, member: &Member) {
        let asked = (Asked::Gate, member.clone());
        if self.is_under_way(&asked) {
            return;
        }
        let (members, member) = (Arc::clone(&self.members), member.clone());
        let look = async move {
            let opened = members.opened(&member).await;
            (member, opened.map(|term| Answer::Failover(failover::Answer::Opened(term))))
        };
        self.under_way.insert(asked, self.waited_for.spawn(look));
    }

    /// The next answer; none while nothing is under way whose answer is waited for. Cancel-safe.
    pub(super) async fn heard(&mut self) -> Option<Heard> {
        loop {
            // An error is a request that was given up below, or a bug that the panic hook has told: an answer that never
            // comes.
            if let Ok(heard) = self.waited_for.join_next().await? {
                return Some(heard);
            }
        }
    }

    fn is_under_way(&mut self, asked: &(Asked, Member)) -> bool {
        self.under_way.get(asked).is_some_and(|task| !task.is_finished())
    }

    fn start(&mut self, asked: (Asked, Member), request: Request) {
        if asked.0 == Asked::Reopen
            && let Some(closing) = self.under_way.remove(&(Asked::Close, asked.1.clone()))
        {
            // What was asked first must not be done last.
            closing.abort();
        }
        let carried = carried(Arc::clone(&self.members), request, self.attempt);
        let task = match asked.0 {
            Asked::Follow => self.loose.spawn(carried).abort_handle(),
            Asked::Vote
            | Asked::Recruit
            | Asked::Promote
            | Asked::Gate
            | Asked::Near
            | Asked::Close
            | Asked::Await
            | Asked::Reopen => self.waited_for.spawn(carried),
        };
        self.under_way.insert(asked, task);
    }

    fn keep(&self, request: Request) {
        self.loose.spawn(carried(Arc::clone(&self.members), request, self.attempt));
    }
}

/// What is asked of whom; none of what is asked of the repository, once.
fn asked(request: &Request) -> Option<(Asked, Member)> {
    use failover::Request as Forward;
    let (asked, to) = match request {
        Request::AskNear { to, .. } => (Asked::Near, to),
        Request::Close { to } => (Asked::Close, to),
        Request::Await { to, .. } => (Asked::Await, to),
        Request::Reopen { to } => (Asked::Reopen, to),
        Request::Failover(Forward::AskVote { to, .. }) => (Asked::Vote, to),
        Request::Failover(Forward::Recruit { to, .. }) => (Asked::Recruit, to),
        Request::Failover(Forward::Promote { to, .. }) => (Asked::Promote, to),
        Request::Failover(Forward::Follow { to, .. }) => (Asked::Follow, to),
        Request::Failover(Forward::Keep { .. }) => return None,
    };
    Some((asked, to.clone()))
}

/// Carries one request. What the cores have no word for (a vote that was not heard) is silence.
async fn carried(members: Arc<dyn Members>, request: Request, attempt: Attempt) -> Heard {
    match request {
        Request::AskNear { to, candidate } => {
            let near = members.ask_near(&to, &candidate).await;
            (to, near.ok().map(Answer::Near))
        }
        Request::Close { to } => {
            let closed = members.close(&to).await;
            (to, Some(Answer::Closed(closed)))
        }
        Request::Await { to, position } => {
            let holds = members.await_position(&to, &position).await;
            (to, Some(Answer::Holds(holds)))
        }
        Request::Reopen { to } => {
            let reopened = members.reopen(&to).await;
            (to, reopened.ok().map(|()| Answer::Reopened))
        }
        Request::Failover(request) => {
            let (to, answer) = carried_forward(members, request, attempt).await;
            (to, answer.map(Answer::Failover))
        }
    }
}

async fn carried_forward(
    members: Arc<dyn Members>,
    request: failover::Request<Position>,
    attempt: Attempt,
) -> (Member, Option<failover::Answer<Position>>) {
    use failover::{Answer, Request};
    match request {
        Request::AskVote { to, primary } => {
            let vote = members.ask_vote(&to, &primary).await;
            (to, vote.ok().map(Answer::Voted))
        }
        Request::Recruit { to, attempt } => {
            let report = members.recruit(&to, attempt).await;
            (to, Some(Answer::Recruited(report)))
        }
        Request::Promote { to, certificate } => {
            let rule = members.promote(&to, &certificate).await;
            (to, Some(Answer::Promoted(rule)))
        }
        Request::Follow { to, rule } => {
            // Whoever declines finds its way by itself, or says in its status why it does not.
            drop(members.follow(&to, &rule, attempt).await);
            (to, None)
        }
        Request::Keep { certificate } => {
            members.keep(&certificate).await;
            (certificate.chosen, None)
        }
    }
}
