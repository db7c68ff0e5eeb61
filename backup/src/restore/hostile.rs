//! Manifests as an enemy would write them: each is refused by the plan, and nothing is written.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_model::ByteCount;
use holdfast_model::record;
use holdfast_storage_io::bulk::BlockingIo;
use holdfast_storage_io::root::Root;
use proptest::prelude::*;

use super::{RestoreError, plan, run};
use crate::chunk::{ChunkRef, deflate};
use crate::key::PackId;
use crate::kind;
use crate::manifest::page::{self, Entry, Fragment, PageError};
use crate::manifest::walk::WalkError;
use crate::manifest::{LateEntry, Manifest, ManifestRecord};
use crate::meter::Meter;
use crate::pack::PackBuilder;
use crate::path::RelPath;
use crate::repository::Repository;
use crate::testing;

const PLENTY: ByteCount = ByteCount::gib(1);

/// A repository with one pack that holds a chunk of content and the given page, raw.
struct Forge {
    repository: Repository,
    pack: PackBuilder,
    manifest: Manifest,
}

impl Forge {
    async fn new() -> Self {
        let repository = testing::repository().await;
        let mut manifest = testing::manifest();
        manifest.chunk_size = repository.chunk_size();
        let pack = PackBuilder::new(PackId::from_parts(manifest.id, 1));
        Self { repository, pack, manifest }
    }

    fn chunk(&mut self, plain: &[u8]) -> ChunkRef {
        let name = self.repository.name_key().name(plain);
        self.pack.add(name, u32::try_from(plain.len()).unwrap(), &deflate(plain))
    }

    fn page(&mut self, entries: &[Entry]) {
        self.raw_page(&page::encode(entries));
    }

    fn raw_page(&mut self, bytes: &[u8]) {
        let page = self.chunk(bytes);
        self.manifest.pages.push(page);
    }

    async fn plan(self) -> Result<super::RestorePlan, RestoreError> {
        let Self { repository, pack, manifest } = self;
        let id = manifest.id;
        if let Some((key, object)) = pack.finish() {
            repository.store().put(&key, Bytes::from(object)).await.unwrap();
        }
        let manifest = ManifestRecord::Complete(Box::new(manifest));
        let bytes = Bytes::from(record::encode(kind::MANIFEST, &manifest));
        repository.store().create(&id.manifest_key(), bytes).await.unwrap();
        plan(&repository, id, PLENTY).await
    }
}

fn file(path: &str, chunks: Vec<ChunkRef>) -> Entry {
    let length = chunks.iter().map(|chunk| u64::from(chunk.plain)).sum();
    Entry::File(Fragment { path: RelPath::new(path).unwrap(), mode: 0o600, offset: 0, length, chunks })
}

fn directory(path: &str) -> Entry {
    Entry::Directory { path: RelPath::new(path).unwrap(), mode: 0o700 }
}

/// The bytes of a page that holds one file of that name, which no [`RelPath`] would hold.
fn page_naming(path: &str) -> Vec<u8> {
    let stand_in = "x".repeat(path.len());
    let framed = page::encode(&[file(&stand_in, Vec::new())]);
    let payload = record::unframe(kind::PAGE, &framed).unwrap();
    let at = payload.windows(path.len()).position(|window| window == stand_in.as_bytes()).unwrap();
    let mut payload = payload.to_vec();
    payload[at..at + path.len()].copy_from_slice(path.as_bytes());
    record::frame(kind::PAGE, &payload)
}

#[tokio::test]
async fn a_hostile_manifest_is_refused_before_anything_is_written() {
    for path in ["/etc/passwd", "../escape", "a/../../escape", "..", "a//b", "./a", "a\0b"] {
        let mut forge = Forge::new().await;
        forge.raw_page(&page_naming(path));
        let error = forge.plan().await.unwrap_err();
        let refused =
            matches!(error, RestoreError::Refused(WalkError::Page { source: PageError::Path(_), .. }));
        assert!(refused, "{path:?}: {error:?}");
    }
}

#[tokio::test]
async fn paths_that_come_twice_or_lie_below_a_file_are_refused() {
    let lists: [&[Entry]; 5] = [
        &[file("a", vec![]), file("a", vec![])],
        &[file("b", vec![]), file("a", vec![])],
        &[file("a", vec![]), file("a/b", vec![])],
        &[directory("a"), file("a", vec![])],
        &[file(super::RECORD, vec![])],
    ];
    for entries in lists {
        let mut forge = Forge::new().await;
        forge.page(entries);
        let error = forge.plan().await.unwrap_err();
        let refused = matches!(error, RestoreError::Refused(WalkError::Path(_) | WalkError::Pieces { .. }));
        assert!(refused, "{entries:?}: {error:?}");
    }
}

#[tokio::test]
async fn the_same_path_on_two_pages_or_late_is_refused() {
    let mut forge = Forge::new().await;
    forge.page(&[file("a", vec![])]);
    forge.page(&[file("a", vec![])]);
    assert!(matches!(forge.plan().await, Err(RestoreError::Refused(_))));

    let mut forge = Forge::new().await;
    forge.page(&[file("a", vec![])]);
    forge.manifest.late.push(LateEntry { path: RelPath::new("a").unwrap(), mode: 0o600, chunks: vec![] });
    assert!(matches!(forge.plan().await, Err(RestoreError::Refused(_))));
}

#[tokio::test]
async fn a_size_bomb_is_refused_by_the_plan() {
    let mut forge = Forge::new().await;
    let size = forge.repository.chunk_size() as usize;
    let one = forge.chunk(&vec![0; size]);
    // 2 GiB of files out of one small chunk.
    let many: Vec<_> = (0..8).map(|n| file(&format!("f{n}"), vec![one; 1024])).collect();
    forge.page(&many);
    assert!(matches!(forge.plan().await, Err(RestoreError::TooLarge { .. })));

    let mut forge = Forge::new().await;
    let mut page = forge.chunk(b"page");
    page.plain = u32::MAX;
    forge.manifest.pages.push(page);
    assert!(matches!(forge.plan().await, Err(RestoreError::Refused(WalkError::PageSize { .. }))));

    let mut forge = Forge::new().await;
    let mut chunk = forge.chunk(b"late");
    chunk.stored = u32::MAX;
    let path = RelPath::new("late").unwrap();
    forge.manifest.late.push(LateEntry { path, mode: 0o600, chunks: vec![chunk] });
    assert!(matches!(forge.plan().await, Err(RestoreError::Refused(WalkError::Pieces { .. }))));
}

#[tokio::test]
async fn a_chunk_that_inflates_to_more_than_it_declares_is_refused() {
    let mut forge = Forge::new().await;
    let mut page = forge.chunk(&vec![0; 1 << 20]);
    page.plain = 4096;
    forge.manifest.pages.push(page);
    let error = forge.plan().await.unwrap_err();
    assert!(matches!(error, RestoreError::Refused(WalkError::Fetch { .. })), "{error:?}");
}

#[tokio::test]
async fn a_manifest_cut_otherwise_or_in_anothers_place_is_refused() {
    let mut forge = Forge::new().await;
    forge.manifest.chunk_size = 12345;
    assert!(matches!(forge.plan().await, Err(RestoreError::ChunkSize { .. })));

    let forge = Forge::new().await;
    let other = crate::key::BackupId::random(forge.manifest.id.term(), forge.manifest.id.start());
    let manifest = ManifestRecord::Complete(Box::new(forge.manifest.clone()));
    let bytes = Bytes::from(record::encode(kind::MANIFEST, &manifest));
    forge.repository.store().create(&other.manifest_key(), bytes).await.unwrap();
    let error = plan(&forge.repository, other, PLENTY).await.unwrap_err();
    assert!(matches!(error, RestoreError::Manifest(crate::backup::CatalogError::Misplaced { .. })));
}

#[tokio::test]
async fn a_symbolic_link_in_the_way_is_not_followed() {
    let mut forge = Forge::new().await;
    let chunk = forge.chunk(b"content");
    forge.page(&[directory("d"), file("d/f", vec![chunk])]);
    let plan = forge.plan().await.unwrap();
    let [root, outside] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // Planted between the look at the empty directory and the first write.
    let io = Arc::new(BlockingIo::new(Root::open(root.path()).unwrap()));
    let restorer = super::page::PageRestorer { repository: plan.repository.clone(), io: io.clone() };
    std::os::unix::fs::symlink(outside.path(), root.path().join("d")).unwrap();
    let entries = vec![directory("d"), file("d/f", vec![chunk])];
    let error = restorer.restore(entries, false, &|_| {}).await.unwrap_err();
    assert!(matches!(error, RestoreError::Disk(_)), "{error:?}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let error = run(&plan, io, &testing::member(), &Meter::unwatched()).await.unwrap_err();
    assert!(matches!(error, RestoreError::NotEmpty { .. }), "{error:?}");
}

proptest! {
    #[test]
    fn reading_anything_as_a_manifest_never_panics(json in "\\PC{0,200}", garbage: Vec<u8>) {
        let framed = record::frame(kind::MANIFEST, json.as_bytes());
        prop_assert!(record::decode::<ManifestRecord>(kind::MANIFEST, &framed).is_err());
        prop_assert!(record::decode::<ManifestRecord>(kind::MANIFEST, &garbage).is_err());
    }

    #[test]
    fn a_manifest_with_anything_changed_is_refused_or_still_a_manifest(
        at: prop::sample::Index,
        byte: u8,
    ) {
        let whole = ManifestRecord::Complete(Box::new(testing::manifest()));
        let mut json = serde_json::to_vec(&whole).unwrap();
        let at = at.index(json.len());
        json[at] = byte;
        let read = record::decode::<ManifestRecord>(kind::MANIFEST, &record::frame(kind::MANIFEST, &json));
        let aborted = matches!(read, Ok(ManifestRecord::Aborted { .. }));
        prop_assert!(!aborted, "a whole manifest never reads as a tombstone");
    }
}
