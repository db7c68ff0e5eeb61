//! Reads the pages of a manifest as a stream, with memory for one page, and judges every entry before it is used.
//!
//! Manifests are hostile input: whoever can write to the bucket can write one. [`Checker`] refuses every path that
//! comes twice, out of order, below something that is no directory, or at a place that is ours.
//!
//! Invariants, each a test below:
//! * `a_file_may_go_on_in_the_next_fragment_and_nowhere_else`.
//! * `late_files_and_records_may_not_be_shadowed`.

use std::collections::BTreeSet;

use super::page::{self, Entry, Fragment, PageError};
use super::{Manifest, PAGE_BYTES_MAX};
use crate::chunk::ChunkRef;
use crate::path::{PathError, RelPath, WalkOrder};
use crate::repository::{FetchError, Repository};

/// Why the entries of a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A page cannot be had.
    #[error("fetch page {index} of the manifest")]
    Fetch {
        /// Which page, from 0.
        index: usize,
        /// Why.
        #[source]
        source: Box<FetchError>,
    },
    /// A page says something that no backup says.
    #[error("page {index} of the manifest is not valid")]
    Page {
        /// Which page, from 0.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: PageError,
    },
    /// A path is not acceptable where it stands.
    #[error("refuse an entry of the manifest")]
    Path(#[from] PathError),
    /// A file is in pieces that do not fit together.
    #[error("file {path} of the manifest is in pieces that do not fit together")]
    Pieces {
        /// The file.
        path: RelPath,
    },
    /// A page declares more than a page may hold.
    #[error("page {index} of the manifest declares {plain} bytes")]
    PageSize {
        /// Which page, from 0.
        index: usize,
        /// Bytes declared.
        plain: u32,
    },
}

/// Fetches, verifies and decodes one page.
pub(crate) async fn read_page(
    repository: &Repository,
    manifest: &Manifest,
    index: usize,
) -> Result<Vec<Entry>, WalkError> {
    let chunk: ChunkRef = manifest.pages[index];
    if !chunk.is_plausible(PAGE_BYTES_MAX) {
        return Err(WalkError::PageSize { index, plain: chunk.plain });
    }
    let content = repository
        .fetch_chunk(&chunk)
        .await
        .map_err(|source| WalkError::Fetch { index, source: Box::new(source) })?;
    page::decode(&content, manifest.chunk_size).map_err(|source| WalkError::Page { index, source })
}

/// Judges entries in the order in which they come.
#[derive(Debug)]
pub(crate) struct Checker {
    order: WalkOrder,
    taken: BTreeSet<String>,
    /// Directories that late files need and that were not seen yet.
    wanted: BTreeSet<String>,
    open: Option<(RelPath, u64)>,
    chunk_size: u64,
}

impl Checker {
    /// For the entries of `manifest`; `reserved` are places below the root that are ours.
    pub(crate) fn new(manifest: &Manifest, reserved: &[&str]) -> Result<Self, WalkError> {
        let mut taken: BTreeSet<String> = reserved.iter().map(|&name| name.to_owned()).collect();
        let wanted = manifest.late.iter().filter_map(|late| late.path.parent()).map(str::to_owned).collect();
        for late in &manifest.late {
            let plausible = late.chunks.iter().all(|chunk| chunk.is_plausible(manifest.chunk_size));
            if !plausible {
                return Err(WalkError::Pieces { path: late.path.clone() });
            }
            if !taken.insert(late.path.to_string()) {
                return Err(twice(&late.path).into());
            }
        }
        let chunk_size = u64::from(manifest.chunk_size);
        Ok(Self { order: WalkOrder::default(), taken, wanted, open: None, chunk_size })
    }

    pub(crate) fn check(&mut self, entry: &Entry) -> Result<(), WalkError> {
        if self.taken.contains(entry.path().as_str()) {
            return Err(twice(entry.path()).into());
        }
        match entry {
            Entry::Directory { path, .. } => {
                self.open = None;
                self.order.directory(path)?;
                self.wanted.remove(path.as_str());
            }
            Entry::File(fragment) => self.check_file(fragment)?,
        }
        Ok(())
    }

    /// To be called after the last entry.
    pub(crate) fn finish(self) -> Result<(), WalkError> {
        let rule = "it is not below a directory of the backup";
        match self.wanted.into_iter().next() {
            None => Ok(()),
            Some(given) => Err(PathError { given, rule }.into()),
        }
    }

    fn check_file(&mut self, fragment: &Fragment) -> Result<(), WalkError> {
        let fits = match &self.open {
            Some((path, end)) if *path == fragment.path => {
                *end > 0 && end.is_multiple_of(self.chunk_size) && fragment.offset == *end
            }
            Some(_) | None => {
                self.order.file(&fragment.path)?;
                fragment.offset == 0
            }
        };
        if !fits {
            return Err(WalkError::Pieces { path: fragment.path.clone() });
        }
        self.open = Some((fragment.path.clone(), fragment.end()));
        Ok(())
    }
}

fn twice(path: &RelPath) -> PathError {
    PathError { given: path.to_string(), rule: "the place is taken" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn file(path: &str, offset: u64, length: u64) -> Entry {
        let path = RelPath::new(path).unwrap();
        Entry::File(Fragment { path, mode: 0o600, offset, length, chunks: Vec::new() })
    }

    #[test]
    fn a_file_may_go_on_in_the_next_fragment_and_nowhere_else() {
        let manifest = testing::manifest();
        let size = u64::from(manifest.chunk_size);
        let checker = || Checker::new(&manifest, &[]).unwrap();

        let mut good = checker();
        good.check(&file("a", 0, 2 * size)).unwrap();
        good.check(&file("a", 2 * size, 5)).unwrap();
        good.check(&file("b", 0, 0)).unwrap();

        let mut gap = checker();
        gap.check(&file("a", 0, size)).unwrap();
        assert!(matches!(gap.check(&file("a", 2 * size, 5)), Err(WalkError::Pieces { .. })));

        let mut partial = checker();
        partial.check(&file("a", 0, size + 1)).unwrap();
        assert!(partial.check(&file("a", size, 5)).is_err());

        assert!(checker().check(&file("a", size, 5)).is_err(), "begins in the middle");

        let mut empty = checker();
        empty.check(&file("a", 0, 0)).unwrap();
        assert!(empty.check(&file("a", 0, 5)).is_err(), "an empty file does not go on");
    }

    #[test]
    fn late_files_and_records_may_not_be_shadowed() {
        let mut manifest = testing::manifest();
        let late = |path: &str| super::super::LateEntry {
            path: RelPath::new(path).unwrap(),
            mode: 0o600,
            chunks: Vec::new(),
        };
        manifest.late.push(late("backup_label"));
        let mut checker = Checker::new(&manifest, &[".ours"]).unwrap();
        assert!(checker.check(&file("backup_label", 0, 0)).is_err());
        assert!(checker.check(&file(".ours", 0, 0)).is_err());
        manifest.late.push(late("backup_label"));
        assert!(Checker::new(&manifest, &[]).is_err());
        manifest.late = vec![late("global/control")];
        assert!(Checker::new(&manifest, &[]).unwrap().finish().is_err(), "no such directory");
        manifest.late = vec![late(".ours")];
        assert!(Checker::new(&manifest, &[".ours"]).is_err());
    }
}
