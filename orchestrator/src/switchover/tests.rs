//! Switchovers against members that do as they are told, or do not.

use holdfast_replication::change;
use holdfast_replication::choose::{Certificate, Report};

use super::*;
use crate::testing::{ATTEMPT, member, rule};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    NeverNear,
    NeverClosed,
    NeverDrained,
    NeverReopened,
    CandidateLost,
}

fn order() -> Order {
    Order { attempt: ATTEMPT, rule: rule(3), candidate: member("b") }
}

/// What the asked member answers. Everybody's log ends at 10.
fn answer(request: &Request<u64>, trouble: Trouble) -> Option<(Member, Answer<u64>)> {
    use failover::{Answer as Told, Request as Asked};
    let (to, answer) = match request {
        Request::AskNear { to, .. } => (to, Answer::Near(trouble != Trouble::NeverNear)),
        Request::Close { .. } if trouble == Trouble::NeverClosed => return None,
        Request::Close { to } => (to, Answer::Closed(Ok(10))),
        Request::Await { .. } if matches!(trouble, Trouble::NeverDrained | Trouble::NeverReopened) => {
            return None;
        }
        Request::Await { to, .. } => (to, Answer::Holds(Ok(()))),
        Request::Reopen { .. } if trouble == Trouble::NeverReopened => return None,
        Request::Reopen { to } => (to, Answer::Reopened),
        Request::Failover(asked) if trouble == Trouble::CandidateLost && *asked.to() == member("b") => {
            return None;
        }
        Request::Failover(Asked::Recruit { to, .. }) => {
            let report =
                Report { member: to.clone(), rules: vec![rule(3)], position: 10, promised_before: None };
            (to, Answer::Failover(Told::Recruited(Ok(report))))
        }
        Request::Failover(Asked::Promote { to, certificate }) => {
            let first =
                change::promoted(&certificate.rule, to, ATTEMPT.term, holdfast_model::Lsn::ZERO.into());
            (to, Answer::Failover(Told::Promoted(Ok(first))))
        }
        Request::Failover(Asked::Follow { rule, .. }) => {
            (&rule.primary, Answer::Failover(Told::Opened(ATTEMPT.term)))
        }
        Request::Failover(Asked::AskVote { .. } | Asked::Keep { .. }) => return None,
    };
    Some((to.clone(), answer))
}

/// Everything that was asked, in order, and the end.
fn run(order: Order, trouble: Trouble) -> (Vec<Request<u64>>, End<u64>) {
    let mut now = Tick::from_millis(0);
    let (mut switchover, mut requests) = Switchover::begin(order, Pace::default(), now);
    let mut asked = Vec::new();
    for _ in 0..2_000 {
        while !requests.is_empty() {
            let request = requests.remove(0);
            asked.push(request.clone());
            if let Some((from, answer)) = answer(&request, trouble) {
                requests.extend(switchover.heard(&from, answer, now));
            }
        }
        if let Some(end) = switchover.end() {
            return (asked, end.clone());
        }
        now = switchover.wake_at().max(now);
        requests = switchover.tick(now);
    }
    panic!("it never ended: {switchover:?}")
}

fn opened(end: End<u64>) -> (Certificate<u64>, Rule) {
    let End::Failover(end) = end else { panic!("{end:?}") };
    let failover::End::Opened { certificate, rule } = *end else { panic!("{end:?}") };
    (*certificate, rule)
}

fn recruits(asked: &[Request<u64>]) -> usize {
    asked.iter().filter(|it| matches!(it, Request::Failover(failover::Request::Recruit { .. }))).count()
}

#[test]
fn the_candidate_serves_in_the_end() {
    let (_, end) = run(order(), Trouble::None);
    let (certificate, rule) = opened(end);
    assert_eq!((certificate.chosen, rule.primary), (member("b"), member("b")));
}

#[test]
fn writes_are_refused_only_once_the_candidate_is_near() {
    let (asked, end) = run(order(), Trouble::NeverNear);
    assert!(asked.iter().all(|it| matches!(it, Request::AskNear { .. })), "{asked:?}");
    assert_eq!(end, End::Kept(Kept::TooFarBehind { candidate: member("b") }));
}

#[test]
fn nobody_is_recruited_before_the_candidate_holds_everything() {
    let (asked, _) = run(order(), Trouble::None);
    let at = |wanted: fn(&Request<u64>) -> bool| asked.iter().position(wanted).unwrap();
    let closed = at(|it| matches!(it, Request::Close { .. }));
    let drained = at(|it| matches!(it, Request::Await { position: 10, .. }));
    let recruited = at(|it| matches!(it, Request::Failover(failover::Request::Recruit { .. })));
    assert!(closed < drained && drained < recruited, "{asked:?}");
}

#[test]
fn whatever_fails_before_that_reopens_the_primary() {
    for (trouble, because) in [
        (Trouble::NeverClosed, Kept::NotClosed { primary: member("a") }),
        (Trouble::NeverDrained, Kept::NotDrained { candidate: member("b") }),
    ] {
        let (asked, end) = run(order(), trouble);
        assert_eq!(end, End::Kept(because), "{trouble:?}");
        assert_eq!(asked.last(), Some(&Request::Reopen { to: member("a") }));
        assert_eq!(recruits(&asked), 0);
    }
    let (asked, end) = run(order(), Trouble::NeverReopened);
    assert!(matches!(end, End::NotReopened(Kept::NotDrained { .. })), "{end:?}");
    assert!(asked.iter().filter(|it| matches!(it, Request::Reopen { .. })).count() > 1, "it is told again");
}

#[test]
fn a_candidate_that_is_lost_after_the_recruits_gives_way_to_another() {
    let (_, end) = run(order(), Trouble::CandidateLost);
    let (certificate, _) = opened(end);
    assert!(certificate.chosen != member("b") && certificate.holds());
}

#[test]
fn who_cannot_take_over_is_refused_at_once() {
    let (asked, end) = run(Order { candidate: member("a"), ..order() }, Trouble::None);
    assert_eq!((asked, end), (vec![], End::Kept(Kept::IsPrimary(member("a")))));
    let mut log_voter = order();
    log_voter.rule.voters[1].kind = VoterKind::Log;
    for order in [log_voter, Order { candidate: member("d"), ..order() }] {
        let (asked, end) = run(order, Trouble::None);
        assert!(asked.is_empty() && matches!(end, End::Kept(Kept::NotACandidate { .. })), "{end:?}");
    }
}
