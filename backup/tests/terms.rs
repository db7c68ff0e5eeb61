//! Log of one term that is shipped by two members: its primary, which was lost, and the next one, which completes it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use holdfast_backup::Repository;
use holdfast_backup::log::{LogError, LogReader, Missing, Segment, Shipper};
use holdfast_backup::rules::Chain;
use holdfast_model::Lsn;
use support::*;

/// Where the second term begins.
const FORK: u64 = SEGMENT + 700;

fn chain() -> Chain {
    Chain::to(term(2), &[rule(1, None, 0), rule(2, Some(1), FORK)]).unwrap()
}

async fn heir(repository: &Repository) -> Shipper {
    Shipper::inherit(repository, term(1), &member_of(2)).await.unwrap()
}

async fn primary(repository: &Repository) -> Shipper {
    Shipper::resume(repository, term(1), &member()).await.unwrap()
}

async fn reader(repository: &Repository) -> Result<LogReader, LogError> {
    LogReader::open(repository, &chain(), term(1), lsn(0)).await
}

/// What a term's segment holds: the common log up to `to`, and zeros.
fn up_to(from: u64, to: u64) -> Segment {
    let mut bytes = log(from, to);
    bytes.resize(usize::try_from(SEGMENT).unwrap(), 0);
    Segment::Bytes(bytes)
}

/// Log that the first primary wrote and nobody else has: common up to the fork, its own behind it.
fn with_tail(from: u64, to: u64) -> Vec<u8> {
    let mut bytes = log(from, FORK);
    bytes.resize(usize::try_from(to - from).unwrap(), 0xEE);
    bytes
}

#[tokio::test]
async fn an_heir_completes_the_term_of_a_primary_that_is_gone() {
    let repository = repository(&Faulty::new()).await;
    let mut gone = primary(&repository).await;
    for end in [1000, SEGMENT, SEGMENT + 300] {
        let from = gone.next().map_or(0, Lsn::offset);
        gone.ship(lsn(from), &log(from, end)).await.unwrap();
    }
    let lacking = Missing { term: term(1), start: lsn(0), from: Some(lsn(SEGMENT + 300)), to: lsn(FORK) };
    assert_eq!(repository.missing_log(&chain()).await.unwrap(), [lacking]);
    let refused = reader(&repository).await.unwrap_err();
    assert!(matches!(refused, LogError::Incomplete { need, .. } if need == lsn(FORK)), "{refused:?}");

    heir(&repository).await.ship(lsn(SEGMENT + 300), &log(SEGMENT + 300, SEGMENT + 400)).await.unwrap();
    // Killed here, another one goes on.
    let mut heir = heir(&repository).await;
    assert_eq!(heir.next(), Some(lsn(SEGMENT + 400)));
    heir.ship(lsn(SEGMENT + 400), &log(SEGMENT + 400, FORK)).await.unwrap();
    assert_eq!(heir.compact().await.unwrap(), 1, "what the primary could not compact any more");
    assert_eq!(repository.missing_log(&chain()).await.unwrap(), []);

    let mut second = Shipper::resume(&repository, term(2), &member_of(2)).await.unwrap();
    second.ship(lsn(SEGMENT), &log(SEGMENT, FORK + 50)).await.unwrap();
    let mut reader = reader(&repository).await.unwrap();
    assert_eq!(reader.end(), lsn(FORK + 50));
    assert!(reader.segment(term(1), 0).await.unwrap() == up_to(0, SEGMENT));
    assert_eq!(reader.segment(term(1), 1).await.unwrap(), up_to(SEGMENT, FORK), "every byte, in one line");
    assert_eq!(reader.segment(term(2), 1).await.unwrap(), up_to(SEGMENT, FORK + 50));
}

#[tokio::test]
async fn a_primary_whose_term_has_an_heir_is_refused() {
    let repository = repository(&Faulty::new()).await;
    let mut late = primary(&repository).await;
    late.ship(lsn(0), &log(0, SEGMENT + 300)).await.unwrap();
    heir(&repository).await.ship(lsn(SEGMENT + 300), &log(SEGMENT + 300, FORK)).await.unwrap();
    // It comes back from a partition and ships what it had written; then again after a restart.
    let refused = late.ship(lsn(SEGMENT + 300), &with_tail(SEGMENT + 300, FORK + 500)).await;
    assert!(matches!(refused, Err(LogError::OtherMember { .. })), "{refused:?}");
    let refused = Shipper::resume(&repository, term(1), &member()).await;
    assert!(matches!(refused, Err(LogError::OtherMember { .. })), "{refused:?}");
    let mut reader = reader(&repository).await.unwrap();
    assert_eq!(reader.segment(term(1), 1).await.unwrap(), up_to(SEGMENT, FORK));
}

#[tokio::test]
async fn a_tail_that_is_shipped_late_is_never_read() {
    for (shipped, ends) in [(FORK, FORK + 500), (SEGMENT + 300, FORK + 500), (SEGMENT + 300, SEGMENT + 500)] {
        let repository = repository(&Faulty::new()).await;
        let mut late = primary(&repository).await;
        late.ship(lsn(0), &log(0, shipped)).await.unwrap();
        let mut heir = heir(&repository).await;
        // Both ship at once, and the one whose term is over is the first.
        let tail = if ends > FORK { with_tail(shipped, ends) } else { log(shipped, ends) };
        late.ship(lsn(shipped), &tail).await.unwrap();
        heir.ship(lsn(shipped), &log(shipped, FORK)).await.unwrap();
        assert_eq!(repository.missing_log(&chain()).await.unwrap(), []);
        let mut second = Shipper::resume(&repository, term(2), &member_of(2)).await.unwrap();
        second.ship(lsn(SEGMENT), &log(SEGMENT, FORK + 50)).await.unwrap();
        let mut reader = reader(&repository).await.unwrap();
        assert_eq!(reader.segment(term(1), 1).await.unwrap(), up_to(SEGMENT, FORK), "{shipped} {ends}");
        assert_eq!(reader.segment(term(1), 2).await.unwrap(), Segment::PastEnd);
        assert_eq!(reader.end(), lsn(FORK + 50));
    }
}

#[tokio::test]
async fn an_heir_never_goes_on_behind_log_that_differs() {
    let repository = repository(&Faulty::new()).await;
    let mut late = primary(&repository).await;
    late.ship(lsn(0), &log(0, SEGMENT + 300)).await.unwrap();
    let mut heir = heir(&repository).await;
    late.ship(lsn(SEGMENT + 300), &[0xEE; 100]).await.unwrap();
    let refused = heir.ship(lsn(SEGMENT + 300), &log(SEGMENT + 300, FORK)).await;
    assert!(matches!(refused, Err(LogError::Differs { .. })), "{refused:?}");
}

#[tokio::test]
async fn every_reign_back_to_one_that_is_complete_is_looked_at() {
    let repository = repository(&Faulty::new()).await;
    let rules = [
        rule(1, None, 0),
        rule(2, Some(1), FORK),
        rule(4, Some(2), FORK + 100),
        rule(5, Some(4), FORK + 200),
    ];
    let chain = Chain::to(term(5), &rules).unwrap();
    let missing = async || {
        let missing = repository.missing_log(&chain).await.unwrap();
        missing.iter().map(|m| (m.term.number(), m.from.map(Lsn::offset), m.to.offset())).collect::<Vec<_>>()
    };
    primary(&repository).await.ship(lsn(0), &log(0, 1000)).await.unwrap();
    // The second reign shipped nothing, the third all but its end.
    let mut third = Shipper::resume(&repository, term(4), &member_of(4)).await.unwrap();
    third.ship(lsn(SEGMENT), &log(SEGMENT, FORK + 150)).await.unwrap();
    let all = [(1, Some(1000), FORK), (2, None, FORK + 100), (4, Some(FORK + 150), FORK + 200)];
    assert_eq!(missing().await, all);
    heir(&repository).await.ship(lsn(1000), &log(1000, FORK)).await.unwrap();
    assert_eq!(missing().await, all[1..]);
    let mut second = Shipper::inherit(&repository, term(2), &member_of(5)).await.unwrap();
    assert_eq!(second.next(), None);
    second.ship(lsn(SEGMENT), &log(SEGMENT, FORK + 100)).await.unwrap();
    let mut third = Shipper::inherit(&repository, term(4), &member_of(5)).await.unwrap();
    third.ship(lsn(FORK + 150), &log(FORK + 150, FORK + 200)).await.unwrap();
    assert_eq!(missing().await, []);
}
