//! Restoring: what comes out is what went in, damage is never written, and a restore cut short goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::sync::Arc;

use holdfast_backup::restore::{self, HistoryError, RestoreError, RestorePlan, RestoreState, Restored};
use holdfast_backup::rules::Chain;
use holdfast_backup::{BackupId, FetchError, Meter, Repository, WalkError};
use holdfast_model::ByteCount;
use holdfast_storage_io::IoError;
use holdfast_storage_io::bulk::{BulkFile, BulkIo};
use holdfast_storage_io::root::Root;
use proptest::prelude::*;
use support::faulty::Fault;
use support::*;

const PLENTY: ByteCount = ByteCount::gib(1);

async fn plan(repository: &Repository, id: BackupId) -> RestorePlan {
    restore::plan(repository, id, PLENTY).await.unwrap()
}

async fn run(plan: &RestorePlan, directory: &Path) -> Result<Restored, RestoreError> {
    restore::run(plan, io(directory), &member(), &Meter::unwatched()).await
}

fn state(directory: &Path) -> Option<RestoreState> {
    RestoreState::read(&Root::open(directory).unwrap()).unwrap()
}

#[tokio::test]
async fn what_comes_out_is_what_went_in() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&repository, id).await;
    assert_eq!(plan.files(), 7);
    assert_eq!(plan.bytes(), plan.manifest().totals.bytes);
    assert_eq!(plan.gets(), 2, "one for all files of a small pack, one for what came last");
    run(&plan, directory.path()).await.unwrap();
    assert_eq!(read_back(directory.path()), expected(&tree()));
    let verified =
        matches!(state(directory.path()), Some(RestoreState::Verified { what, .. }) if what.backup == id);
    assert!(verified);
    assert!(!store.keys().await.iter().any(|key| key.contains("/pin/")), "the pin goes at the end");
    run(&plan, directory.path()).await.unwrap();
}

#[tokio::test]
async fn a_backup_of_several_backups_packs_is_restored() {
    let repository = repository(&Faulty::new()).await;
    let tree = tree();
    back_up(&repository, &tree, 500).await.unwrap();
    tree.change("base/1/100", |content| content[CHUNK + 5] ^= 1);
    back_up(&repository, &tree, 700).await.unwrap();
    tree.change("base/1/101", |content| content.truncate(100));
    let id = back_up(&repository, &tree, 900).await.unwrap();
    assert_eq!(repository.backup(id).await.unwrap().packs_of.len(), 2);
    let directory = tempfile::tempdir().unwrap();
    run(&plan(&repository, id).await, directory.path()).await.unwrap();
    assert_eq!(read_back(directory.path()), expected(&tree));
}

#[tokio::test]
async fn a_file_of_many_pages_is_restored() {
    let repository = finely_cut().await;
    let mut content = vec![7; 4097 * FINE + 1];
    content[4096 * FINE] = 8;
    let long = Tree::new().file("long", content);
    let id = back_up(&repository, &long, 500).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&repository, id).await;
    assert_eq!(plan.manifest().pages.len(), 2);
    run(&plan, directory.path()).await.unwrap();
    assert!(read_back(directory.path()) == expected(&long));
}

#[tokio::test]
async fn a_page_may_be_full_where_a_file_begins() {
    let repository = finely_cut().await;
    for chunks in 4092..4098 {
        let tree = Tree::new().file("a", vec![1; chunks * FINE]).file("b", vec![2; 9]).file("c", Vec::new());
        let id = back_up(&repository, &tree, 500 + chunks as u64).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        run(&plan(&repository, id).await, directory.path()).await.unwrap();
        assert!(read_back(directory.path()) == expected(&tree), "{chunks} chunks");
    }
}

#[tokio::test]
async fn a_restore_cut_short_at_any_request_is_continued() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let plan = plan(&repository, id).await;
    for lost_answer in [false, true] {
        for n in 0.. {
            let directory = tempfile::tempdir().unwrap();
            store.set(if lost_answer { Fault::AnswerLostFrom(n) } else { Fault::DownFrom(n) });
            let first = run(&plan, directory.path()).await;
            let done = matches!(state(directory.path()), Some(RestoreState::Verified { .. }));
            assert_eq!(first.is_ok(), done, "request {n}");
            store.set(Fault::None);
            run(&plan, directory.path()).await.unwrap();
            assert_eq!(read_back(directory.path()), expected(&tree()), "request {n}");
            let requests = store.requests();
            if first.is_ok() && n >= requests {
                break;
            }
        }
    }
}

#[tokio::test]
async fn only_the_last_step_writes_verified() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let plan = plan(&repository, id).await;
    let directory = tempfile::tempdir().unwrap();
    store.set(Fault::Down("packs/".to_owned()));
    run(&plan, directory.path()).await.unwrap_err();
    let what = match state(directory.path()) {
        Some(RestoreState::Running { what, pages_done: 0, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what.member, member());
}

#[tokio::test]
async fn what_is_there_already_is_kept() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let plan = plan(&repository, id).await;
    let directory = tempfile::tempdir().unwrap();
    run(&plan, directory.path()).await.unwrap();
    // As a kill just before the first page was recorded would leave it.
    let root = Root::open(directory.path()).unwrap();
    let Some(RestoreState::Verified { what, .. }) = state(directory.path()) else { panic!("not verified") };
    let pin = format!("pin/{id}-0000000000000001");
    let json = serde_json::json!({ "state": "running", "what": what, "pin": pin, "pages_done": 0 });
    let kind = holdfast_model::record::RecordKind { tag: *b"rest", version: 1, name: "restore record" };
    root.replace(Path::new(restore::RECORD), &holdfast_model::record::encode(kind, &json), 0o600).unwrap();
    std::fs::write(directory.path().join("PG_VERSION"), "99\n").unwrap();
    store.set(Fault::None);
    run(&plan, directory.path()).await.unwrap();
    assert_eq!(read_back(directory.path()), expected(&tree()));
    // pin, manifest, page, one chunk that was wrong, the late file, deletion of the pin
    assert_eq!(store.requests(), 6);
}

#[tokio::test]
async fn a_damaged_chunk_is_never_written() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let content = noise(9, CHUNK);
    let id = back_up(&repository, &Tree::new().file("f", content.clone()), 500).await.unwrap();
    let plan = plan(&repository, id).await;
    for fault in [Fault::Flip, Fault::Cut] {
        let directory = tempfile::tempdir().unwrap();
        store.set(fault("packs/".to_owned(), u64::MAX));
        let error = run(&plan, directory.path()).await.unwrap_err();
        let refused =
            matches!(error, RestoreError::Chunk(_) | RestoreError::Refused(WalkError::Fetch { .. }));
        assert!(refused, "{error:?}");
        assert!(!matches!(state(directory.path()), Some(RestoreState::Verified { .. })));
        let found = read_back(directory.path());
        assert!(found.values().flatten().all(|bytes| bytes.iter().all(|&b| b == 0) || *bytes == content));
    }
}

#[tokio::test]
async fn damage_on_the_way_is_fetched_again() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let plan = plan(&repository, id).await;
    let directory = tempfile::tempdir().unwrap();
    store.set(Fault::Flip("packs/".to_owned(), 2));
    run(&plan, directory.path()).await.unwrap();
    assert_eq!(read_back(directory.path()), expected(&tree()));
}

#[tokio::test]
async fn a_missing_pack_is_named() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    store.set(Fault::Missing("packs/".to_owned()));
    let error = restore::plan(&repository, id, PLENTY).await.unwrap_err();
    let RestoreError::Refused(WalkError::Fetch { source, .. }) = error else { panic!("{error:?}") };
    let FetchError::Store { source, .. } = *source else { panic!("{source:?}") };
    assert!(source.is_missing() && source.to_string().contains("packs/"), "{source}");
}

#[tokio::test]
async fn a_directory_that_holds_anything_else_is_refused() {
    let repository = repository(&Faulty::new()).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let plan = plan(&repository, id).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("mine"), "precious").unwrap();
    let error = run(&plan, directory.path()).await.unwrap_err();
    assert!(matches!(error, RestoreError::NotEmpty { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn the_directory_of_another_restore_is_refused() {
    let repository = repository(&Faulty::new()).await;
    let first = back_up(&repository, &tree(), 500).await.unwrap();
    let second = back_up(&repository, &tree(), 700).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    run(&plan(&repository, first).await, directory.path()).await.unwrap();
    let error = run(&plan(&repository, second).await, directory.path()).await.unwrap_err();
    assert!(matches!(error, RestoreError::OtherRestore { .. }), "{error:?}");
    let plan = plan(&repository, first).await;
    let for_another =
        restore::run(&plan, io(directory.path()), &member_of(2), &Meter::unwatched()).await.unwrap_err();
    assert!(matches!(for_another, RestoreError::OtherRestore { .. }), "another incarnation's data");
}

#[tokio::test]
async fn a_backup_that_needs_more_space_than_there_is_is_refused_by_the_plan() {
    let repository = repository(&Faulty::new()).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let error = restore::plan(&repository, id, ByteCount::kib(64)).await.unwrap_err();
    assert!(matches!(error, RestoreError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn a_backup_that_ends_after_its_reign_was_cut_is_refused() {
    let repository = repository(&Faulty::new()).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let plan = plan(&repository, id).await;
    let chain = |cut| Chain::to(term(2), &[rule(1, None, 100), rule(2, Some(1), cut)]).unwrap();
    assert_eq!(plan.check_history(&chain(600)), Ok(()));
    assert!(matches!(plan.check_history(&chain(599)), Err(HistoryError::Discarded { .. })));
    let elsewhere = Chain::to(term(2), &[rule(2, None, 100)]).unwrap();
    assert!(matches!(plan.check_history(&elsewhere), Err(HistoryError::OtherHistory { .. })));
}

#[tokio::test]
async fn progress_ends_at_the_total() {
    let repository = repository(&Faulty::new()).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (meter, progress) = Meter::new();
    restore::run(&plan(&repository, id).await, io(directory.path()), &member(), &meter).await.unwrap();
    let last = progress.borrow().clone();
    assert_eq!((last.done, last.phase.as_str()), (last.total, "restoring files"));
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_the_restore_goes_on_once_there_is_space() {
    let repository = repository(&Faulty::new()).await;
    let id = back_up(&repository, &tree(), 500).await.unwrap();
    let plan = plan(&repository, id).await;
    let directory = tempfile::tempdir().unwrap();
    let io = Arc::new(FullDisk { io: io(directory.path()), left: (CHUNK as u64).into() });
    let error = restore::run(&plan, io, &member(), &Meter::unwatched()).await.unwrap_err();
    assert!(matches!(error, RestoreError::Disk(_)), "{error:?}");
    run(&plan, directory.path()).await.unwrap();
    assert_eq!(read_back(directory.path()), expected(&tree()));
}

/// A disk with room for so many bytes.
struct FullDisk {
    io: Arc<dyn BulkIo>,
    left: std::sync::atomic::AtomicU64,
}

impl BulkIo for FullDisk {
    fn root(&self) -> &Root {
        self.io.root()
    }
    fn open_read(&self, path: &Path) -> Result<BulkFile, IoError> {
        self.io.open_read(path)
    }
    fn create(&self, path: &Path, size: u64, mode: u32) -> Result<BulkFile, IoError> {
        let room = |left: u64| left.checked_sub(size);
        let order = std::sync::atomic::Ordering::SeqCst;
        if self.left.fetch_update(order, order, room).is_err() {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(IoError::at("allocate", path)(full));
        }
        self.io.create(path, size, mode)
    }
    fn read_at(&self, file: &BulkFile, offset: u64, buf: &mut [u8]) -> Result<usize, IoError> {
        self.io.read_at(file, offset, buf)
    }
    fn write_at(&self, file: &BulkFile, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.io.write_at(file, offset, bytes)
    }
    fn sync_file(&self, file: &BulkFile) -> Result<(), IoError> {
        self.io.sync_file(file)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_tree_survives_two_backups_and_a_restore(
        sizes in prop::collection::btree_map("[a-c]{1,2}", 0usize..2000, 1..12),
        small in 0usize..60,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let repository = finely_cut().await;
            let mut tree = Tree::new().directory("many");
            for (name, size) in &sizes {
                tree = tree.file(name, vec![3; size * FINE + size % 7]);
            }
            for number in 0..small {
                tree = tree.file(&format!("many/{number}"), vec![4; number % 3]);
            }
            back_up(&repository, &tree, 500).await.unwrap();
            let names: Vec<String> = sizes.keys().cloned().collect();
            for (name, at) in changes {
                tree.change(&names[name.index(names.len())], |content| if !content.is_empty() {
                    let at = at.index(content.len());
                    content[at] ^= 9;
                });
            }
            let id = back_up(&repository, &tree, 700).await.unwrap();
            let directory = tempfile::tempdir().unwrap();
            run(&plan(&repository, id).await, directory.path()).await.unwrap();
            prop_assert!(read_back(directory.path()) == expected(&tree));
            Ok(())
        })?;
    }
}
