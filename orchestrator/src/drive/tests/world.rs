//! Members in memory that keep their promises, and lines to them that lose, delay and repeat.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_model::{ClusterId, Lsn, Member, Position, Promise, Rule, RuleId, Term};
use holdfast_replication::change;
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::{self, Attempt, Promised, Refused, Standing};

use super::super::Members;
use crate::failover::{Declined, Vote};
use crate::testing::{member, rule};

/// How long a line waits for an answer: longer than a core waits before it asks again.
const DEADLINE: Duration = Duration::from_millis(1_500);

/// A member as its agent would answer for it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) misses_primary: bool,
    pub(super) promise: Option<Promise>,
    pub(super) rules: Vec<Rule>,
    pub(super) end: u64,
    /// Whose reign it receives.
    pub(super) follows: Option<Term>,
    pub(super) closed: bool,
    /// How often it was closed.
    pub(super) closings: u32,
    pub(super) near: bool,
    member: Member,
}

impl Node {
    fn new(name: &str, rule: &Rule) -> Self {
        Self {
            misses_primary: true,
            promise: None,
            rules: vec![rule.clone()],
            end: 10,
            follows: Some(rule.id.term),
            closed: false,
            closings: 0,
            near: true,
            member: member(name),
        }
    }

    fn standing(&self) -> Standing<'_> {
        let last_rule = self.rules.first().map(|rule| rule.id);
        Standing { member: &self.member, promise: self.promise.as_ref(), last_rule }
    }

    pub(super) fn promises(&mut self, Attempt { term, id }: Attempt) {
        let cluster = ClusterId::new("c".parse().unwrap(), 1);
        self.promise = Some(Promise { cluster, member: self.member.clone(), max_term: term, attempt: id });
    }

    fn recruited(&mut self, attempt: Attempt) -> Result<Report<Position>, Declined> {
        if let Promised::Now(attempt) = promise::recruit(self.standing(), attempt)? {
            self.promises(attempt);
        }
        self.follows = None;
        let (rules, position) =
            (self.rules.iter().take(2).cloned().collect(), Lsn::from_offset(self.end).into());
        Ok(Report { member: self.member.clone(), rules, position, promised_before: None })
    }

    fn promoted(&mut self, certificate: &Certificate<Position>) -> Result<Rule, Declined> {
        promise::promote(self.standing(), certificate.attempt)?;
        if self.rules[0].id.term < certificate.attempt.term {
            let start = Lsn::from_offset(self.end).into();
            let rule = change::promoted(&certificate.rule, &self.member, certificate.attempt.term, start);
            self.rules.insert(0, rule);
            self.end += 1;
        }
        Ok(self.rules[0].clone())
    }

    fn follow(&mut self, rule: &Rule, attempt: Attempt) -> Result<(), Declined> {
        if let Promised::Now(attempt) = promise::follow(self.standing(), rule, attempt)? {
            self.promises(attempt);
        }
        if self.rules[0].id < rule.id {
            self.rules.insert(0, rule.clone());
        }
        self.follows = Some(rule.id.term);
        Ok(())
    }
}

/// What a line does with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is answered after so many milliseconds.
    After(u64),
    /// It never arrives.
    Lost,
    /// It is done, and the answer never arrives.
    Unanswered,
    /// Its member stands by something else.
    Refused(Refused),
}

/// All members, and what became of them.
pub(super) struct World {
    pub(super) nodes: Mutex<BTreeMap<Member, Node>>,
    /// Who began each term.
    begun: Mutex<BTreeMap<Term, Member>>,
    pub(super) kept: Mutex<Vec<Certificate<Position>>>,
}

impl World {
    /// Rule (1,1) over `a`, `b` and `c`; those of `alive` answer.
    pub(super) fn of(alive: &[&str]) -> Arc<Self> {
        let nodes = alive.iter().map(|name| (member(name), Node::new(name, &rule(3)))).collect();
        Arc::new(Self { nodes: Mutex::new(nodes), begun: Mutex::default(), kept: Mutex::default() })
    }

    pub(super) fn nodes(&self) -> MutexGuard<'_, BTreeMap<Member, Node>> {
        self.nodes.lock().unwrap()
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Node)) {
        change(self.nodes().get_mut(&member(name)).unwrap());
    }

    /// One writer a term (I2).
    fn note_begun(&self, rule: &Rule) {
        let mut begun = self.begun.lock().unwrap();
        let first = begun.entry(rule.id.term).or_insert_with(|| rule.primary.clone());
        assert_eq!(*first, rule.primary, "one writer per term");
    }

    /// The gate opens once one other member receives the term.
    pub(super) fn gate(&self, of: &Member) -> Option<Term> {
        let nodes = self.nodes();
        let node = nodes.get(of)?;
        let RuleId { term, .. } = node.rules[0].id;
        let promised = node.promise.as_ref().map_or(Term::FIRST, |promise| promise.max_term);
        let acked = nodes.values().any(|other| other.member != *of && other.follows == Some(term));
        (node.rules[0].primary == *of && promised == term && acked && !node.closed).then_some(term)
    }
}

/// One coordinator's lines to all members.
pub(super) struct Lines {
    world: Arc<World>,
    /// What happens to requests of a kind to a member, in turn; then, and to all others, it is `usually`.
    fates: Mutex<BTreeMap<(Member, &'static str), VecDeque<Fate>>>,
    usually: Mutex<VecDeque<Fate>>,
    under_way: Mutex<BTreeMap<(Member, &'static str), u32>>,
    asked: Mutex<Vec<(Member, &'static str)>>,
}

/// Counts a request as long as it is under way.
struct UnderWay<'a>(&'a Lines, (Member, &'static str));

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.lock().unwrap().insert(self.1.clone(), 0);
    }
}

impl Lines {
    /// Lines on which everything arrives, after `usually` is used up.
    pub(super) fn new(world: &Arc<World>, usually: Vec<Fate>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            fates: Mutex::default(),
            usually: Mutex::new(usually.into()),
            under_way: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    /// Decides about the next requests `asked` of `to`.
    pub(super) fn set(&self, to: &str, asked: &'static str, fates: impl IntoIterator<Item = Fate>) {
        self.fates.lock().unwrap().insert((member(to), asked), fates.into_iter().collect());
    }

    /// How often `asked` was asked of `to`.
    pub(super) fn times(&self, to: &str, asked: &'static str) -> usize {
        let all = self.asked.lock().unwrap();
        all.iter().filter(|(member, kind)| *kind == asked && *member == self::member(to)).count()
    }

    fn fate(&self, asked: &(Member, &'static str)) -> Fate {
        let decided = self.fates.lock().unwrap().get_mut(asked).and_then(VecDeque::pop_front);
        decided.or_else(|| self.usually.lock().unwrap().pop_front()).unwrap_or(Fate::After(2))
    }

    async fn ask<T: Send>(
        &self,
        to: &Member,
        asked: &'static str,
        act: impl FnOnce(&mut Node) -> Result<T, Declined> + Send,
    ) -> Result<T, Declined> {
        let asked = (to.clone(), asked);
        let before = self.under_way.lock().unwrap().insert(asked.clone(), 1).unwrap_or_default();
        assert_eq!(before, 0, "{asked:?} is under way already");
        let _under_way = UnderWay(self, asked.clone());
        self.asked.lock().unwrap().push(asked.clone());
        let lost = || Declined::Unreachable { why: "no answer in time".to_owned() };
        let acted = |act| self.world.nodes().get_mut(to).map_or_else(|| Err(lost()), act);
        match self.fate(&asked) {
            Fate::After(ms) => {
                passed(Duration::from_millis(ms / 2)).await;
                let answer = acted(act);
                passed(Duration::from_millis(ms - ms / 2)).await;
                answer
            }
            Fate::Lost => {
                passed(DEADLINE).await;
                Err(lost())
            }
            Fate::Unanswered => {
                drop(acted(act));
                passed(DEADLINE).await;
                Err(lost())
            }
            Fate::Refused(refused) => Err(refused.into()),
        }
    }
}

async fn passed(wait: Duration) {
    let never: Result<(), _> = tokio::time::timeout(wait, pending()).await;
    never.unwrap_err();
}

#[async_trait]
impl Members for Lines {
    async fn ask_vote(&self, to: &Member, primary: &Member) -> Result<Vote, Declined> {
        self.ask(to, "vote", |node| {
            let misses = node.misses_primary && node.rules[0].primary == *primary;
            Ok(if misses { Vote::MissesPrimary } else { Vote::SeesPrimary })
        })
        .await
    }

    async fn recruit(&self, to: &Member, attempt: Attempt) -> Result<Report<Position>, Declined> {
        self.ask(to, "recruit", |node| node.recruited(attempt)).await
    }

    async fn promote(&self, to: &Member, certificate: &Certificate<Position>) -> Result<Rule, Declined> {
        assert!(certificate.holds());
        let promoted = self.ask(to, "promote", |node| {
            let promoted = node.promoted(certificate);
            promoted.iter().for_each(|rule| self.world.note_begun(rule));
            promoted
        });
        promoted.await
    }

    async fn follow(&self, to: &Member, rule: &Rule, attempt: Attempt) -> Result<(), Declined> {
        self.ask(to, "follow", |node| node.follow(rule, attempt)).await
    }

    async fn opened(&self, member: &Member) -> Option<Term> {
        self.ask(member, "gate", |_| Ok(())).await.ok().and_then(|()| self.world.gate(member))
    }

    async fn keep(&self, certificate: &Certificate<Position>) {
        passed(10 * DEADLINE).await;
        self.world.kept.lock().unwrap().push(certificate.clone());
    }

    async fn ask_near(&self, to: &Member, candidate: &Member) -> Result<bool, Declined> {
        let near = self.world.nodes().get(candidate).is_some_and(|node| node.near);
        self.ask(to, "near", |_| Ok(near)).await
    }

    async fn close(&self, to: &Member) -> Result<Position, Declined> {
        self.ask(to, "close", |node| {
            node.closed = true;
            node.closings += 1;
            Ok(Lsn::from_offset(node.end).into())
        })
        .await
    }

    async fn await_position(&self, to: &Member, position: &Position) -> Result<(), Declined> {
        self.ask(to, "await", |node| {
            let behind = || Declined::Unreachable { why: "not in time".to_owned() };
            (node.end >= position.ordinal()).then_some(()).ok_or_else(behind)
        })
        .await
    }

    async fn reopen(&self, to: &Member) -> Result<(), Declined> {
        self.ask(to, "reopen", |node| {
            node.closed = false;
            Ok(())
        })
        .await
    }
}
