//! Attempts over simulated members that keep their promises, and a network that does as it likes.

use std::collections::BTreeMap;

use holdfast_model::{ClusterId, Lsn, Promise, RuleId};
use holdfast_replication::change;
use holdfast_replication::promise::{Promised, Standing};
use proptest::prelude::*;

use super::*;
use crate::testing::{ATTEMPT, member, rule};

fn order(rule: Rule) -> Order {
    Order { attempt: ATTEMPT, rule, prefer: vec![], without_votes: false, until: None }
}

fn at(ms: u64) -> Tick {
    Tick::from_millis(ms)
}

/// A member as its agent would answer for it.
#[derive(Debug, Clone)]
struct Node {
    member: Member,
    misses_primary: bool,
    promise: Option<Promise>,
    rules: Vec<Rule>,
    end: u64,
    follows: bool,
}

impl Node {
    fn new(name: &str, rule: &Rule, end: u64) -> Self {
        let rules = vec![rule.clone()];
        Self { member: member(name), misses_primary: true, promise: None, rules, end, follows: false }
    }

    fn standing(&self) -> Standing<'_> {
        let last_rule = self.rules.first().map(|rule| rule.id);
        Standing { member: &self.member, promise: self.promise.as_ref(), last_rule }
    }

    fn answer(&mut self, request: &Request<u64>) -> Option<Answer<u64>> {
        match request {
            Request::AskVote { .. } => {
                let vote = if self.misses_primary { Vote::MissesPrimary } else { Vote::SeesPrimary };
                Some(Answer::Voted(vote))
            }
            Request::Recruit { attempt, .. } => Some(Answer::Recruited(self.recruited(*attempt))),
            Request::Promote { certificate, .. } => Some(Answer::Promoted(self.promoted(certificate))),
            Request::Follow { .. } => {
                self.follows = true;
                None
            }
            Request::Keep { .. } => None,
        }
    }

    fn recruited(&mut self, attempt: Attempt) -> Result<Report<u64>, Declined> {
        if let Promised::Now(Attempt { term, id }) = promise::recruit(self.standing(), attempt)? {
            let cluster = ClusterId::new("c".parse().unwrap(), 1);
            self.promise =
                Some(Promise { cluster, member: self.member.clone(), max_term: term, attempt: id });
        }
        let rules = self.rules.iter().take(2).cloned().collect();
        Ok(Report { member: self.member.clone(), rules, position: self.end, promised_before: None })
    }

    fn promoted(&mut self, certificate: &Certificate<u64>) -> Result<Rule, Declined> {
        promise::promote(self.standing(), certificate.attempt)?;
        if self.rules[0].id.term < certificate.attempt.term {
            let start = Lsn::from_offset(self.end).into();
            let rule = change::promoted(&certificate.rule, &self.member, certificate.attempt.term, start);
            self.rules.insert(0, rule);
            self.end += 1;
        }
        Ok(self.rules[0].clone())
    }
}

/// What the network does with one message.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    Lost,
    Twice,
}

struct World {
    nodes: BTreeMap<Member, Node>,
    attempt: Failover<u64>,
    now: Tick,
    sent: Vec<Request<u64>>,
    fates: std::vec::IntoIter<Fate>,
}

impl World {
    fn new(rule: &Rule, nodes: Vec<Node>, fates: Vec<Fate>) -> Self {
        let (attempt, requests) = Failover::begin(order(rule.clone()), Pace::default(), at(0));
        let nodes = nodes.into_iter().map(|node| (node.member.clone(), node)).collect();
        let mut world = Self { nodes, attempt, now: at(0), sent: vec![], fates: fates.into_iter() };
        world.carry(requests);
        world
    }

    fn copies(&mut self) -> usize {
        match self.fates.next().unwrap_or(Fate::Arrives) {
            Fate::Arrives => 1,
            Fate::Lost => 0,
            Fate::Twice => 2,
        }
    }

    fn carry(&mut self, mut requests: Vec<Request<u64>>) {
        while !requests.is_empty() {
            let request = requests.remove(0);
            self.sent.push(request.clone());
            for _ in 0..self.copies() {
                let answer = self.nodes.get_mut(request.to()).and_then(|node| node.answer(&request));
                let Some(answer) = answer else { continue };
                for _ in 0..self.copies() {
                    requests.extend(self.attempt.heard(request.to(), answer.clone(), self.now));
                }
            }
        }
    }

    /// To the end, or for as long as any attempt may take.
    fn run(mut self) -> (Vec<Request<u64>>, End<u64>) {
        for _ in 0..1_000 {
            if let Some(end) = self.attempt.end() {
                return (self.sent, end.clone());
            }
            if let Phase::Opening(opening) = &self.attempt.phase
                && self.nodes.values().any(|node| node.follows)
            {
                let (chosen, term) = (opening.certificate.chosen.clone(), ATTEMPT.term);
                let requests = self.attempt.heard(&chosen, Answer::Opened(term), self.now);
                self.carry(requests);
                continue;
            }
            self.now = self.attempt.wake_at().max(self.now);
            let requests = self.attempt.tick(self.now);
            self.carry(requests);
        }
        panic!("it never ended: {:?}", self.attempt)
    }
}

fn promotions(sent: &[Request<u64>]) -> BTreeSet<Member> {
    let promoted = sent.iter().filter(|request| matches!(request, Request::Promote { .. }));
    promoted.map(|request| request.to().clone()).collect()
}

#[test]
fn the_most_advanced_of_the_others_takes_over() {
    let rule = rule(3);
    let nodes = vec![Node::new("b", &rule, 10), Node::new("c", &rule, 12)];
    let (sent, end) = World::new(&rule, nodes, vec![]).run();
    let End::Opened { certificate, rule: first } = end else { panic!("{end:?}") };
    assert!(certificate.holds());
    assert_eq!((certificate.chosen, first.primary), (member("c"), member("c")));
    let asked: BTreeSet<&Member> = sent.iter().map(Request::to).collect();
    assert!(asked.contains(&member("a")), "the old primary is recruited as well, if it can be reached");
    assert!(sent.iter().any(|request| matches!(request, Request::Keep { .. })));
}

#[test]
fn nobody_is_recruited_while_too_few_miss_the_primary() {
    let rule = rule(3);
    let sees = Node { misses_primary: false, ..Node::new("b", &rule, 10) };
    let nodes = vec![Node::new("a", &rule, 10), sees, Node::new("c", &rule, 10)];
    let nodes = nodes.into_iter().map(|node| Node { misses_primary: node.member == member("c"), ..node });
    let (sent, end) = World::new(&rule, nodes.collect(), vec![]).run();
    assert!(sent.iter().all(|request| matches!(request, Request::AskVote { .. })), "{sent:?}");
    let End::Stopped(stopped @ Stopped::NotMissed { .. }) = end else { panic!("{end:?}") };
    assert!(stopped.to_string().contains("2 still hear of it"), "{stopped}");
}

#[test]
fn an_operator_who_vouches_for_it_leaves_out_the_votes_and_nothing_else() {
    let order = Order { without_votes: true, ..order(rule(3)) };
    let (mut attempt, requests) = Failover::<u64>::begin(order, Pace::default(), at(0));
    assert!(requests.iter().all(|request| matches!(request, Request::Recruit { .. })));
    let mut alone = Node::new("b", &rule(3), 10);
    let answer = alone.answer(&requests[1]).unwrap();
    assert!(attempt.heard(&member("b"), answer, at(1)).is_empty());
    assert!(attempt.tick(at(60_000)).is_empty());
    let Some(End::Stopped(Stopped::NotChosen { refused, .. })) = attempt.end() else { panic!("{attempt:?}") };
    assert!(matches!(refused, choose::Refused::NotRevoked { .. }), "{refused}");
}

#[test]
fn the_voters_of_a_newer_rule_are_recruited_too() {
    let (old, new) = (rule(3), rule(4));
    let new = Rule { id: RuleId { term: Term::FIRST, version: 2 }, previous: Some(old.id), ..new };
    let knows = |name| Node { rules: vec![new.clone(), old.clone()], ..Node::new(name, &new, 10) };
    let (sent, end) = World::new(&old, vec![knows("b"), knows("c"), knows("d")], vec![]).run();
    assert!(sent.iter().any(|it| matches!(it, Request::Recruit { to, .. } if *to == member("d"))));
    let End::Opened { certificate, .. } = end else { panic!("{end:?}") };
    assert_eq!(certificate.rule, new);
}

#[test]
fn who_is_named_by_the_predecessor_alone_is_recruited_when_it_takes_that() {
    // The removal of c was written, and c is still there. With k = 0 each of the three could go on alone.
    let old = Rule { k: 0, ..rule(3) };
    let mut new =
        Rule { id: RuleId { term: Term::FIRST, version: 2 }, previous: Some(old.id), ..old.clone() };
    new.voters.retain(|voter| voter.member != member("c"));
    let knows = |name| Node { rules: vec![new.clone(), old.clone()], ..Node::new(name, &new, 10) };
    let nodes = vec![knows("a"), knows("b"), Node::new("c", &old, 9)];
    let (sent, end) = World::new(&new, nodes, vec![]).run();
    let End::Opened { certificate, .. } = end else { panic!("{end:?}") };
    assert!(certificate.holds() && certificate.chosen != member("c"), "{certificate:?}");
    assert!(sent.iter().any(|it| matches!(it, Request::Recruit { to, .. } if *to == member("c"))));
}

#[test]
fn a_choice_that_a_newer_rule_takes_back_waits_to_settle_anew() {
    let (old, reports) = (rule(3), |name, rules: &[&Rule]| {
        let rules = rules.iter().map(|rule| (*rule).clone()).collect();
        let report = Report { member: member(name), rules, position: 10, promised_before: None };
        Answer::Recruited(Ok(report))
    });
    let mut new =
        Rule { id: RuleId { term: Term::FIRST, version: 2 }, previous: Some(old.id), ..old.clone() };
    new.voters.retain(|voter| voter.member == member("a"));
    for (node, zone) in [("d", "z3"), ("e", "z4")] {
        let voter = &new.voters[0];
        let voter =
            holdfast_model::Voter { member: member(node), zone: zone.parse().unwrap(), kind: voter.kind };
        new.voters.push(voter);
    }
    let order = Order { without_votes: true, ..order(old.clone()) };
    let (mut attempt, _) = Failover::begin(order, Pace::default(), at(0));
    attempt.heard(&member("b"), reports("b", &[&old]), at(1));
    attempt.heard(&member("c"), reports("c", &[&old]), at(1));
    assert_eq!(attempt.wake_at(), at(501), "enough, unless the third holds more");
    attempt.heard(&member("a"), reports("a", &[&new, &old]), at(400));
    assert!(attempt.tick(at(600)).is_empty() && attempt.end().is_none());
    assert!(attempt.wake_at() > at(600), "d and e may be in touch without a: nobody is chosen yet");
}

#[test]
fn a_term_that_is_taken_names_the_next_one() {
    let rule = rule(3);
    let cluster = ClusterId::new("c".parse().unwrap(), 1);
    let promise = |name| Promise {
        cluster: cluster.clone(),
        member: member(name),
        max_term: Term::new(5).unwrap(),
        attempt: 1,
    };
    let promised = |name| Node { promise: Some(promise(name)), ..Node::new(name, &rule, 10) };
    let (_, end) = World::new(&rule, vec![promised("a"), promised("b"), promised("c")], vec![]).run();
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert_eq!(above(&stopped), Term::new(6), "{stopped}");
}

#[test]
fn a_refused_attempt_does_not_wait_for_a_primary_that_is_gone() {
    let order = Order { without_votes: true, ..order(rule(3)) };
    let (mut attempt, _) = Failover::<u64>::begin(order, Pace::default(), at(0));
    let recruited = |refused| Answer::Recruited(Err(refused));
    attempt.heard(&member("a"), recruited(Declined::Unreachable { why: "gone".to_owned() }), at(1));
    let refused = promise::Refused::OtherAttempt { term: ATTEMPT.term };
    attempt.heard(&member("b"), recruited(Declined::Refused(refused)), at(2));
    let answer = Node::new("c", &rule(3), 10).answer(&Request::Recruit { to: member("c"), attempt: ATTEMPT });
    attempt.heard(&member("c"), answer.unwrap(), at(3));
    assert!(attempt.end().is_none(), "a and c would suffice");
    assert_eq!(attempt.wake_at(), at(502));
    attempt.tick(at(502));
    let Some(End::Stopped(stopped)) = attempt.end() else { panic!("{attempt:?}") };
    assert_eq!(above(stopped), ATTEMPT.term.next());
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![4 => Just(Fate::Arrives), 3 => Just(Fate::Lost), 1 => Just(Fate::Twice)]
}

proptest! {
    #[test]
    fn one_member_is_promoted_and_only_once_u_and_e_hold(
        ends in proptest::collection::vec(proptest::option::weighted(0.8, 5..15_u64), 3),
        misses in proptest::collection::vec(proptest::bool::weighted(0.8), 3),
        fates in proptest::collection::vec(fate(), 0..80),
    ) {
        let rule = rule(3);
        let nodes = ["a", "b", "c"].iter().zip(ends).zip(misses).filter_map(|((name, end), misses_primary)| {
            Some(Node { misses_primary, ..Node::new(name, &rule, end?) })
        });
        let (sent, end) = World::new(&rule, nodes.collect(), fates).run();
        prop_assert!(promotions(&sent).len() <= 1);
        for request in &sent {
            if let Request::Promote { certificate, .. } = request {
                prop_assert!(certificate.holds());
            }
        }
        let voted = sent.iter().position(|it| matches!(it, Request::Recruit { .. }));
        let asked = sent.iter().position(|it| matches!(it, Request::AskVote { .. }));
        prop_assert!(voted.is_none_or(|voted| asked.is_some_and(|asked| asked < voted)));
        if let End::Opened { certificate, .. } = end {
            prop_assert!(promotions(&sent).contains(&certificate.chosen));
        }
    }

    #[test]
    fn every_attempt_ends_and_says_why(fates in proptest::collection::vec(fate(), 0..200), lost in 0..3_usize) {
        let rule = rule(3);
        let mut nodes: Vec<Node> = ["a", "b", "c"].iter().map(|name| Node::new(name, &rule, 10)).collect();
        nodes.truncate(3 - lost);
        let (_, end) = World::new(&rule, nodes, fates).run();
        match end {
            End::Opened { certificate, .. } => prop_assert!(certificate.holds()),
            End::Stopped(stopped) => prop_assert!(!stopped.to_string().is_empty()),
        }
    }
}
