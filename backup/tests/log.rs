//! Shipping log and reading it back: one line whatever happens, and "the end" only when it is proven.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use holdfast_backup::log::{LogError, LogReader, Segment, Shipper};
use holdfast_backup::rules::Chain;
use holdfast_backup::store::StoreFault;
use holdfast_backup::{Repository, RepositoryConfig};
use object_store::ObjectStoreExt;
use proptest::prelude::*;
use support::faulty::Fault;
use support::*;

fn one_reign() -> Chain {
    Chain::to(term(1), &[rule(1, None, 0)]).unwrap()
}

async fn reader(repository: &Repository) -> Result<LogReader, LogError> {
    LogReader::open(repository, &one_reign(), term(1), lsn(0)).await
}

async fn shipper(repository: &Repository) -> Shipper {
    Shipper::resume(repository, term(1), &member()).await.unwrap()
}

async fn delete(store: &Faulty, part: &str) {
    let keys = store.keys().await;
    let key = keys.iter().find(|key| key.contains(part)).unwrap();
    store.inner().delete(&key.as_str().into()).await.unwrap();
}

fn padded(from: u64, to: u64) -> Segment {
    let mut bytes = log(from, to);
    bytes.resize(usize::try_from(SEGMENT).unwrap(), 0);
    Segment::Bytes(bytes)
}

#[tokio::test]
async fn a_shipper_goes_on_where_the_last_one_ended() {
    let repository = repository(&Faulty::new()).await;
    let mut first = shipper(&repository).await;
    assert_eq!(first.next(), None);
    assert!(matches!(first.ship(lsn(7), &log(7, 9)).await, Err(LogError::Misaligned { .. })));
    assert_eq!(first.ship(lsn(0), &log(0, 1000)).await.unwrap(), lsn(1000));
    let mut second = shipper(&repository).await;
    assert_eq!(second.next(), Some(lsn(1000)));
    assert!(matches!(second.ship(lsn(1001), &log(1001, 1002)).await, Err(LogError::NotNext { .. })));
    assert_eq!(second.ship(lsn(900), &log(900, 1500)).await.unwrap(), lsn(1500));
    assert_eq!(second.ship(lsn(900), &log(900, 1200)).await.unwrap(), lsn(1500), "nothing new");
    let mut reader = reader(&repository).await.unwrap();
    assert_eq!(reader.end(), lsn(1500));
    assert_eq!(reader.segment(term(1), 0).await.unwrap(), padded(0, 1500));
}

#[tokio::test]
async fn two_shippers_of_one_term_make_one_line() {
    let repository = repository(&Faulty::new()).await;
    let (mut a, mut b) = (shipper(&repository).await, shipper(&repository).await);
    a.ship(lsn(0), &log(0, 300)).await.unwrap();
    assert_eq!(b.ship(lsn(0), &log(0, 200)).await.unwrap(), lsn(300), "reads where the other one ended");
    b.ship(lsn(300), &log(300, 900)).await.unwrap();
    assert_eq!(a.ship(lsn(300), &log(300, 1000)).await.unwrap(), lsn(1000));
    let mut reader = reader(&repository).await.unwrap();
    assert_eq!(reader.segment(term(1), 0).await.unwrap(), padded(0, 1000));
}

#[tokio::test]
async fn log_that_differs_from_what_was_shipped_is_refused() {
    let repository = repository(&Faulty::new()).await;
    let (mut a, mut b) = (shipper(&repository).await, shipper(&repository).await);
    let mut stranger = Shipper::resume(&repository, term(1), &member_of(2)).await.unwrap();
    a.ship(lsn(0), &log(0, 300)).await.unwrap();
    assert!(matches!(b.ship(lsn(0), &[9; 200]).await, Err(LogError::Differs { .. })));
    assert!(matches!(stranger.ship(lsn(0), &log(0, 300)).await, Err(LogError::OtherMember { .. })));
}

#[tokio::test]
async fn a_complete_segment_is_compacted_and_its_pieces_go() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let mut shipper = shipper(&repository).await;
    let mut at = 0;
    for step in [1000, SEGMENT - 500, 5_000_000, SEGMENT] {
        at = shipper.ship(lsn(at), &log(at, at + step)).await.unwrap().offset();
    }
    let before = LogReader::open(&repository, &one_reign(), term(1), lsn(0)).await.unwrap();
    assert_eq!(shipper.compact().await.unwrap(), 2);
    assert_eq!(shipper.compact().await.unwrap(), 0);
    let pieces =
        store.keys().await.iter().filter(|key| key.contains("/log/") && !key.contains("segment")).count();
    assert_eq!(pieces, 1);

    let next = Shipper::resume(&repository, term(1), &member()).await.unwrap().next().unwrap();
    assert_eq!(next, lsn(at));
    shipper.ship(next, &log(at, at + 50)).await.unwrap();
    let after = reader(&repository).await.unwrap();
    assert_eq!(after.end(), lsn(at + 50));
    for mut reader in [before, after] {
        for number in [0, 1] {
            let start = number * SEGMENT;
            let segment = reader.segment(term(1), number).await.unwrap();
            assert!(
                segment == padded(start, start + SEGMENT),
                "also by a reader that listed the pieces before"
            );
        }
    }
}

#[tokio::test]
async fn what_is_compacted_while_a_reader_opens_is_read_all_the_same() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    shipper(&repository).await.ship(lsn(0), &log(0, 1000)).await.unwrap();
    let piece = store.keys().await.into_iter().find(|key| key.contains("/log/")).unwrap();
    // Listed, and gone when it is read; the next listing says where its log is now.
    store.set(Fault::Gone(piece.clone(), 2));
    assert_eq!(reader(&repository).await.unwrap().end(), lsn(1000));
    store.set(Fault::Missing(piece));
    assert!(matches!(reader(&repository).await, Err(LogError::Store(err)) if err.is_missing()));
}

#[tokio::test]
async fn compaction_cut_short_at_any_request_loses_nothing() {
    for lost_answer in [false, true] {
        for n in 0.. {
            let store = Faulty::new();
            let repository = repository(&store).await;
            let mut shipper = shipper(&repository).await;
            let mut at = 0;
            for end in [1000, 2000, SEGMENT, SEGMENT + 10] {
                at = shipper.ship(lsn(at), &log(at, end)).await.unwrap().offset();
            }
            store.set(if lost_answer { Fault::AnswerLostFrom(n) } else { Fault::DownFrom(n) });
            let result = shipper.compact().await;
            store.set(Fault::None);
            let mut between = reader(&repository).await.unwrap();
            assert!(between.segment(term(1), 0).await.unwrap() == padded(0, SEGMENT), "request {n}");
            let mut resumed = self::shipper(&repository).await;
            resumed.compact().await.unwrap();
            resumed.ship(lsn(at), &log(at, at + 5)).await.unwrap();
            let mut reader = reader(&repository).await.unwrap();
            assert_eq!(reader.end(), lsn(at + 5), "request {n}");
            assert!(reader.segment(term(1), 0).await.unwrap() == padded(0, SEGMENT), "request {n}");
            if result.is_ok() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_segment_that_was_compacted_wins_over_its_pieces() {
    let repository = repository(&Faulty::new()).await;
    // A worker that was thought dead wakes up and ships again what was compacted meanwhile.
    let mut zombie = shipper(&repository).await;
    let mut shipper = shipper(&repository).await;
    shipper.ship(lsn(0), &log(0, SEGMENT + 100)).await.unwrap();
    shipper.compact().await.unwrap();
    zombie.ship(lsn(0), &log(0, 400)).await.unwrap();
    assert_eq!(reader(&repository).await.unwrap().end(), lsn(SEGMENT + 100));
    let resumed = self::shipper(&repository).await;
    assert_eq!(resumed.next(), Some(lsn(SEGMENT + 100)));
    assert_eq!(resumed.compact().await.unwrap(), 1, "what the zombie left is deleted");
    assert_eq!(reader(&repository).await.unwrap().end(), lsn(SEGMENT + 100));
}

#[tokio::test]
async fn past_the_end_is_said_only_when_it_is_proven() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let mut shipper = shipper(&repository).await;
    shipper.ship(lsn(0), &log(0, 2 * SEGMENT + 5)).await.unwrap();
    shipper.compact().await.unwrap();
    let mut reader = reader(&repository).await.unwrap();
    assert_eq!(reader.segment(term(1), 3).await.unwrap(), Segment::PastEnd);
    assert!(matches!(reader.segment(term(2), 0).await, Err(LogError::OtherHistory { .. })));
    assert!(matches!(reader.segment(term(1), u64::MAX).await, Err(LogError::OutOfRange { .. })));
    delete(&store, "segment/0000000001000000").await;
    let gone = reader.segment(term(1), 1).await;
    assert!(matches!(gone, Err(LogError::Incomplete { .. })), "{gone:?}");
    assert_eq!(reader.segment(term(1), 2).await.unwrap(), padded(2 * SEGMENT, 2 * SEGMENT + 5));
}

#[tokio::test]
async fn a_missing_piece_is_a_gap_and_never_the_end() {
    let keys = ["/log/0000000000000001/0000000000000000", "/00000000000003e8", "/segment/0000000001000000"];
    for key in keys {
        let store = Faulty::new();
        let repository = repository(&store).await;
        let mut shipper = shipper(&repository).await;
        if key.contains("segment") {
            shipper.ship(lsn(0), &log(0, 3 * SEGMENT + 1)).await.unwrap();
            shipper.compact().await.unwrap();
        } else {
            for at in [0, 1000, 2000] {
                shipper.ship(lsn(at), &log(at, at + 1000)).await.unwrap();
            }
        }
        delete(&store, key).await;
        let error = reader(&repository).await.unwrap_err();
        assert!(matches!(error, LogError::Gap { .. }), "{key}: {error:?}");
    }
}

#[tokio::test]
async fn a_replaced_object_breaks_the_line() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let mut shipper = shipper(&repository).await;
    shipper.ship(lsn(0), &log(0, 1000)).await.unwrap();
    shipper.ship(lsn(1000), &log(1000, 2000)).await.unwrap();
    delete(&store, "/log/0000000000000001/0000000000000000").await;
    // The same place and length, other content: as a store that lost a write and got it again elsewhere.
    let elsewhere = Faulty::new();
    let foreign = self::repository(&elsewhere).await;
    self::shipper(&foreign).await.ship(lsn(0), &[3; 1000]).await.unwrap();
    let key = elsewhere.keys().await.into_iter().find(|key| key.contains("/log/")).unwrap();
    let bytes = elsewhere.inner().get(&key.as_str().into()).await.unwrap().bytes().await.unwrap();
    store.inner().put(&key.as_str().into(), bytes.into()).await.unwrap();
    let error = reader(&repository).await.unwrap_err();
    assert!(matches!(error, LogError::Line { .. }), "{error:?}");
}

#[tokio::test]
async fn an_unreachable_store_never_looks_like_the_end() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    shipper(&repository).await.ship(lsn(0), &log(0, SEGMENT + 1000)).await.unwrap();
    for n in 0.. {
        store.set(Fault::Once(n));
        let result = async {
            let mut reader = reader(&repository).await?;
            Ok::<_, LogError>((reader.segment(term(1), 1).await?, reader.segment(term(1), 2).await?))
        }
        .await;
        match result {
            Ok((last, after)) => {
                assert!(last == padded(SEGMENT, SEGMENT + 1000) && after == Segment::PastEnd);
                break;
            }
            Err(LogError::Store(error)) => assert_eq!(error.fault, StoreFault::Busy),
            Err(other) => panic!("request {n}: {other:?}"),
        }
    }
    store.set(Fault::None);
    // Objects that the store denies having after it listed them are no end either.
    let mut reader = reader(&repository).await.unwrap();
    store.set(Fault::Missing("/log/0000000000000001/".to_owned()));
    assert!(matches!(reader.segment(term(1), 1).await, Err(LogError::Store(_))));
}

#[tokio::test]
async fn damaged_log_is_an_error() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    shipper(&repository).await.ship(lsn(0), &log(0, 1000)).await.unwrap();
    let mut open = reader(&repository).await.unwrap();
    store.set(Fault::Flip("/log/".to_owned(), u64::MAX));
    assert!(matches!(open.segment(term(1), 0).await, Err(LogError::Object { .. })));
    assert!(matches!(reader(&repository).await, Err(LogError::Object { .. })));
}

#[tokio::test]
async fn log_beyond_the_start_of_the_next_reign_is_never_returned() {
    let repository = repository(&Faulty::new()).await;
    let cut = SEGMENT + 700;
    shipper(&repository).await.ship(lsn(0), &log(0, SEGMENT + 1000)).await.unwrap();
    let mut second = Shipper::resume(&repository, term(2), &member_of(2)).await.unwrap();
    let mut continued = log(SEGMENT, cut);
    continued.extend_from_slice(&[9; 100]);
    second.ship(lsn(SEGMENT), &continued).await.unwrap();

    let chain = Chain::to(term(2), &[rule(1, None, 0), rule(2, Some(1), cut)]).unwrap();
    let mut reader = LogReader::open(&repository, &chain, term(1), lsn(10)).await.unwrap();
    assert_eq!(reader.end(), lsn(cut + 100));
    assert_eq!(reader.segment(term(1), 1).await.unwrap(), padded(SEGMENT, cut));
    assert_eq!(reader.segment(term(1), 2).await.unwrap(), Segment::PastEnd);
    assert_eq!(reader.segment(term(2), 0).await.unwrap(), Segment::PastEnd, "that term never was there");
    let Segment::Bytes(bytes) = reader.segment(term(2), 1).await.unwrap() else { panic!("past the end") };
    assert_eq!(&bytes[..continued.len()], continued);
    assert!(bytes[continued.len()..].iter().all(|&b| b == 0));

    let beyond = Chain::to(term(2), &[rule(1, None, 0), rule(2, Some(1), SEGMENT + 2000)]).unwrap();
    let error = LogReader::open(&repository, &beyond, term(1), lsn(0)).await.unwrap_err();
    assert!(matches!(error, LogError::Incomplete { .. }), "{error:?}");
}

#[tokio::test]
async fn the_last_segment_is_padded_with_zeros() {
    let repository = repository(&Faulty::new()).await;
    shipper(&repository).await.ship(lsn(0), &log(0, 77)).await.unwrap();
    assert_eq!(reader(&repository).await.unwrap().segment(term(1), 0).await.unwrap(), padded(0, 77));
}

#[tokio::test]
async fn a_history_without_any_log_ends_where_it_begins() {
    let repository = repository(&Faulty::new()).await;
    let mut reader = LogReader::open(&repository, &one_reign(), term(1), lsn(500)).await.unwrap();
    assert_eq!(reader.end(), lsn(500));
    assert_eq!(reader.segment(term(1), 1).await.unwrap(), Segment::PastEnd);
    assert!(matches!(reader.segment(term(1), 0).await, Err(LogError::Incomplete { .. })));
    let lacking = repository.require_log(term(1), lsn(500), lsn(501)).await;
    assert!(matches!(lacking, Err(LogError::Incomplete { .. })));
}

#[tokio::test]
async fn log_is_shipped_to_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let config = RepositoryConfig { url, ..RepositoryConfig::default() };
    let location = holdfast_backup::Location::connect(&config).unwrap();
    let repository = location.create(&record()).await.unwrap();
    let mut shipper = shipper(&repository).await;
    shipper.ship(lsn(0), &log(0, SEGMENT + 9)).await.unwrap();
    shipper.ship(lsn(0), &log(0, SEGMENT + 20)).await.unwrap();
    shipper.compact().await.unwrap();
    assert_eq!(reader(&repository).await.unwrap().end(), lsn(SEGMENT + 20));
    assert_eq!(repository.log_terms().await.unwrap(), [term(1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_lost_and_repeated_one_line_comes_out(
        steps in prop::collection::vec((1u64..3_000_000, 0u64..6, any::<bool>(), any::<bool>()), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Faulty::new();
            let repository = repository(&store).await;
            let (mut acked, mut written) = (0, 0);
            let mut shipper = shipper(&repository).await;
            for (more, n, lost_answer, compact) in steps {
                written += more * 3;
                store.set(if lost_answer { Fault::AnswerLostFrom(n) } else { Fault::DownFrom(n) });
                let from = shipper.next().map_or(0, holdfast_model::Lsn::offset);
                if let Ok(next) = shipper.ship(lsn(from), &log(from, written)).await {
                    acked = next.offset();
                }
                if compact {
                    drop(shipper.compact().await);
                }
                store.set(Fault::None);
                if lost_answer {
                    shipper = self::shipper(&repository).await;
                }
                let mut reader = reader(&repository).await.unwrap();
                let end = reader.end().offset();
                prop_assert!(acked <= end && end <= written);
                let last = end.saturating_sub(1) / SEGMENT;
                if end > 0 {
                    let start = last * SEGMENT;
                    prop_assert!(reader.segment(term(1), last).await.unwrap() == padded(start, end));
                }
                prop_assert_eq!(reader.segment(term(1), last + 1).await.unwrap(), Segment::PastEnd);
            }
            Ok(())
        })?;
    }
}
