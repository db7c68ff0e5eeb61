//! Making backups: deduplication, files that change while they are read, and requests that fail at every point.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use holdfast_backup::backup::{self, Backup, BackupError};
use holdfast_backup::log::Shipper;
use holdfast_backup::restore;
use holdfast_backup::{Meter, PathError, RelPath, Repository};
use holdfast_model::ByteCount;
use holdfast_model::record::{self, RecordKind};
use object_store::ObjectStoreExt;
use support::faulty::Fault;
use support::*;

async fn complete(repository: &Repository) -> usize {
    let backups = repository.backups().await.unwrap();
    backups.iter().filter(|backup| matches!(backup, Backup::Complete(_))).count()
}

#[tokio::test]
async fn a_backup_is_listed_and_shown_once_it_is_published() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    assert_eq!(complete(&repository).await, 0);
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    assert_eq!(complete(&repository).await, 1);
    let manifest = repository.backup(id).await.unwrap();
    assert_eq!((manifest.id, manifest.stop, manifest.parent), (id, lsn(600), None));
    assert_eq!(manifest.totals.files, 7, "six of the tree and one that came last");
    assert_eq!(manifest.totals.directories, 3);
    let bytes: usize = expected(&tree()).values().flatten().map(Vec::len).sum();
    assert_eq!(manifest.totals.bytes.bytes(), bytes as u64);
    let begun = store.keys().await.iter().any(|key| key.contains("/begin/"));
    assert!(!begun, "the begin record goes once the manifest is there");
}

#[tokio::test]
async fn a_second_backup_uploads_only_what_changed() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let tree = tree();
    let first = back_up(&repository, &tree, 500).await.unwrap();
    let written = store.written();
    tree.change("base/1/100", |content| content[CHUNK + 5] ^= 1);
    let second = back_up(&repository, &tree, 700).await.unwrap();
    let manifest = repository.backup(second).await.unwrap();
    assert_eq!(manifest.parent, Some(first));
    assert_eq!(manifest.packs_of, [first]);
    let late = b"START WAL LOCATION".len();
    assert_eq!(manifest.totals.new_bytes.bytes(), (CHUNK + late) as u64);
    assert!(store.written() - written < 2 * CHUNK as u64);
}

#[tokio::test]
async fn unchanged_pages_are_shared_with_the_parent() {
    let repository = repository(&Faulty::new()).await;
    let mut files = Tree::new();
    for number in 0..6000 {
        files = files.file(&format!("f{number:05}"), vec![1; 10]);
    }
    let first = back_up(&repository, &files, 500).await.unwrap();
    files.change("f05990", |content| content.push(2));
    let second = back_up(&repository, &files, 700).await.unwrap();
    let [first, second] = [repository.backup(first).await.unwrap(), repository.backup(second).await.unwrap()];
    assert!(first.pages.len() >= 2, "{} pages", first.pages.len());
    let shared = second.pages.iter().filter(|page| first.pages.contains(page)).count();
    assert_eq!(shared, first.pages.len() - 1);
}

#[tokio::test]
async fn a_file_longer_than_a_page_goes_on_in_the_next() {
    let repository = finely_cut().await;
    let long = Tree::new().file("long", vec![7; 4100 * FINE + 1]).file("short", vec![1]);
    let id = back_up(&repository, &long, 500).await.unwrap();
    assert_eq!(repository.backup(id).await.unwrap().pages.len(), 2);
    let again = back_up(&repository, &long, 700).await.unwrap();
    let new_bytes = repository.backup(again).await.unwrap().totals.new_bytes.bytes();
    assert_eq!(new_bytes, b"START WAL LOCATION".len() as u64, "found in both pages of the parent");
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_read_ends_where_it_was_short() {
    let repository = repository(&Faulty::new()).await;
    let tree = tree().shrinks("base/1/100", CHUNK + 9).shrinks("base/1/101", 0);
    let id = back_up(&repository, &tree, 500).await.unwrap();
    let manifest = repository.backup(id).await.unwrap();
    let bytes: usize = expected(&tree).values().flatten().map(Vec::len).sum();
    assert_eq!(manifest.totals.bytes.bytes(), bytes as u64);
    assert_eq!(manifest.totals.files, 6, "what has vanished is left out");
}

#[tokio::test]
async fn nothing_is_published_before_its_log_is_shipped() {
    let repository = repository(&Faulty::new()).await;
    let sealed = seal(&repository, &tree(), 500).await.unwrap();
    assert!(matches!(sealed.publish().await, Err(BackupError::LogIncomplete { .. })));
    ship_to(&repository, 599).await;
    assert!(matches!(sealed.publish().await, Err(BackupError::LogIncomplete { .. })));
    assert_eq!(complete(&repository).await, 0);
    ship_to(&repository, 600).await;
    sealed.publish().await.unwrap();
    sealed.publish().await.unwrap();
    assert_eq!(complete(&repository).await, 1);
}

#[tokio::test]
async fn a_tombstone_stops_a_late_publication() {
    let repository = repository(&Faulty::new()).await;
    let sealed = seal(&repository, &tree(), 500).await.unwrap();
    ship_to(&repository, 600).await;
    let id = sealed.manifest().id;
    assert!(repository.abort_backup(id, "collected").await.unwrap());
    assert!(matches!(sealed.publish().await, Err(BackupError::Aborted { .. })));
    assert_eq!(complete(&repository).await, 0);
    let later = back_up(&repository, &tree(), 700).await.unwrap();
    assert!(!repository.abort_backup(later, "too late").await.unwrap());
    assert_eq!(repository.backup(later).await.unwrap().parent, None, "a tombstone is nobody's parent");
}

#[tokio::test]
async fn condemned_packs_are_never_used_again() {
    const CONDEMNED: RecordKind = RecordKind { tag: *b"cond", version: 1, name: "condemned record" };
    let store = Faulty::new();
    let repository = repository(&store).await;
    let first = back_up(&repository, &tree(), 500).await.unwrap();
    let condemn = |what: serde_json::Value, name: &str| {
        let key = format!("site/a/{}/condemned/{name}", record().cluster).into();
        let bytes = Bytes::from(record::encode(CONDEMNED, &what));
        let store = store.clone();
        async move { store.put(&key, bytes.into()).await.unwrap() }
    };
    let packs: Vec<String> = store
        .keys()
        .await
        .iter()
        .filter_map(|key| key.split_once("/packs/").map(|(_, pack)| pack.to_owned()))
        .collect();
    condemn(serde_json::json!({ "packs": packs, "manifests": [] }), "1").await;
    let second = back_up(&repository, &tree(), 700).await.unwrap();
    let manifest = repository.backup(second).await.unwrap();
    assert_eq!(manifest.totals.new_bytes, manifest.totals.bytes);
    assert!(manifest.packs_of.is_empty());

    condemn(serde_json::json!({ "packs": [], "manifests": [second] }), "2").await;
    let third = back_up(&repository, &tree(), 800).await.unwrap();
    assert_eq!(repository.backup(third).await.unwrap().parent, Some(first));
}

#[tokio::test]
async fn a_damaged_parent_costs_space_and_not_the_backup() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let first = back_up(&repository, &tree(), 500).await.unwrap();
    store.set(Fault::Flip("packs/".to_owned(), u64::MAX));
    let second = back_up(&repository, &tree(), 700).await.unwrap();
    let manifest = repository.backup(second).await.unwrap();
    assert_eq!(manifest.parent, Some(first));
    assert_eq!(manifest.totals.new_bytes, manifest.totals.bytes);
}

#[tokio::test]
async fn a_backup_cut_short_at_any_request_leaves_no_backup_and_the_next_one_works() {
    for lost_answer in [false, true] {
        for n in 0.. {
            let store = Faulty::new();
            let repository = repository(&store).await;
            let first = back_up(&repository, &tree(), 500).await.unwrap();
            ship_to(&repository, 1000).await;
            let changed = tree();
            changed.change("base/1/100", |content| content[0] ^= 1);
            store.set(if lost_answer { Fault::AnswerLostFrom(n) } else { Fault::DownFrom(n) });
            let result = async { seal(&repository, &changed, 700).await?.publish().await.map(drop) }.await;
            store.set(Fault::None);
            // A lost answer to the last PUT is the one case in which it is there although it failed.
            let there = complete(&repository).await;
            assert!(there == 1 || (there == 2 && (result.is_ok() || lost_answer)), "request {n}: {there}");
            let next = back_up(&repository, &changed, 900).await.unwrap();
            let parent = repository.backup(next).await.unwrap().parent.unwrap();
            assert!(parent == first || there == 2);
            if result.is_ok() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_backup_that_is_dropped_half_way_leaves_no_backup() {
    let repository = repository(&Faulty::new()).await;
    let meter = Meter::unwatched();
    let copying = backup::copy(&repository, spec(500), Arc::new(tree()), &meter);
    assert!(futures::FutureExt::now_or_never(copying).is_none());
    assert_eq!(complete(&repository).await, 0);
    back_up(&repository, &tree(), 700).await.unwrap();
    assert_eq!(complete(&repository).await, 1);
}

#[tokio::test]
async fn a_name_is_used_once() {
    let repository = repository(&Faulty::new()).await;
    let spec = spec(500);
    let copy = |member| {
        let mut spec = spec.clone();
        spec.member = member;
        let repository = &repository;
        async move { backup::copy(repository, spec, Arc::new(tree()), &Meter::unwatched()).await }
    };
    copy(member()).await.unwrap();
    assert!(matches!(copy(member_of(2)).await, Err(BackupError::Exists { .. })));
}

#[tokio::test]
async fn a_source_that_walks_out_of_order_is_refused() {
    struct Backwards;
    impl backup::Source for Backwards {
        fn entries(
            &self,
        ) -> Box<dyn Iterator<Item = Result<backup::SourceEntry, backup::SourceError>> + Send + '_> {
            let file =
                |path| backup::SourceEntry::File { path: RelPath::new(path).unwrap(), mode: 0o600, size: 1 };
            Box::new(["b", "a"].into_iter().map(file).map(Ok))
        }
        fn open(&self, _: &RelPath) -> Result<Option<Box<dyn backup::SourceFile>>, backup::SourceError> {
            Ok(None)
        }
    }
    let repository = repository(&Faulty::new()).await;
    let result = backup::copy(&repository, spec(500), Arc::new(Backwards), &Meter::unwatched()).await;
    assert!(matches!(result, Err(BackupError::Order(PathError { .. }))), "{result:?}");
}

#[tokio::test]
async fn our_own_record_is_not_backed_up() {
    let repository = repository(&Faulty::new()).await;
    let id = back_up(&repository, &tree().file(".holdfast-restore", vec![1]), 500).await.unwrap();
    assert_eq!(repository.backup(id).await.unwrap().totals.files, 7);
}

/// A multi-threaded caller can only spawn these if their futures are `Send`: this compiles, or they are not.
#[tokio::test]
async fn every_long_operation_can_be_spawned() {
    fn spawnable<T>(future: impl Future<Output = T> + Send) {
        drop(future);
    }
    let repository = repository(&Faulty::new()).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let plan = restore::plan(&repository, id, ByteCount::gib(1)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (meter, member) = (Meter::unwatched(), member());
    spawnable(backup::copy(&repository, spec(700), Arc::new(tree()), &meter));
    spawnable(restore::plan(&repository, id, ByteCount::gib(1)));
    spawnable(restore::run(&plan, io(directory.path()), &member, &meter));
    let mut shipper = Shipper::resume(&repository, term(1), &member).await.unwrap();
    spawnable(shipper.ship(lsn(0), &[]));
    spawnable(shipper.compact());
}
