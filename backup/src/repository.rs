//! A cluster's place in object storage: found, created, opened.
//!
//! ```text
//! Location::connect -> find(name) -> None                    -> create -> Repository
//!                                 -> One(id)                 -> open   -> Repository
//!                                 -> Several(ids)            : refused, a person must choose
//! ```
//! `repo.json` is written before `cluster.json`, and a cluster exists once the latter does; both are create-only, so a
//! creation that was cut short is finished by the next try with the same id.
//!
//! Invariants, tests in `tests/repository.rs`:
//! * `a_cluster_is_created_once_and_found_by_name`.
//! * `a_second_cluster_of_the_same_name_is_refused`.
//! * `a_creation_cut_short_at_any_request_can_be_repeated`.
//!
//! Not here: what lies in a repository (`rules`, `log`, `backup`, `restore`).

use std::sync::Arc;

use bytes::Bytes;
use holdfast_model::record::{self, RecordError};
use holdfast_model::{ByteCount, ClusterId, ClusterName};
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};

use crate::chunk::{self, ChunkError, ChunkRef, NameKey};
use crate::manifest::Encryption;
use crate::store::{ConnectError, Created, RepositoryConfig, Store, StoreError};
use crate::{key, kind};

/// Settled by measurement: docs/decisions/0002-chunk-size.md.
pub const CHUNK_SIZE: ByteCount = ByteCount::kib(256);
const CHUNK_SIZE_MIN: u32 = 4 << 10;
const CHUNK_SIZE_MAX: u32 = 16 << 20;
/// Postgres' default WAL segment size (`initdb --wal-segsize`).
pub const LOG_SEGMENT_SIZE: ByteCount = ByteCount::mib(16);
const RECORD_BYTES_MAX: u64 = 1 << 20;
const FETCH_TRIES: usize = 3;

/// Why a cluster's place could not be found, created or opened.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// No connection could be made.
    #[error("connect to repository")]
    Connect(#[from] ConnectError),
    /// Object storage failed.
    #[error("use repository")]
    Store(#[from] StoreError),
    /// A record is damaged or newer than this release.
    #[error("read {key}")]
    Record {
        /// The record.
        key: String,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// There are clusters of that name.
    #[error("cluster {name} exists in this repository as {}: choose another name or prefix", join(.ids))]
    NameTaken {
        /// The name.
        name: ClusterName,
        /// Every cluster of that name.
        ids: Vec<ClusterId>,
    },
    /// There is no such cluster.
    #[error("cluster {id} does not exist in this repository")]
    NoCluster {
        /// The cluster.
        id: ClusterId,
    },
    /// The place of one cluster holds the record of another.
    #[error("the place of cluster {expected} holds the record of cluster {found}")]
    OtherCluster {
        /// Whose place it is.
        expected: ClusterId,
        /// Who is in it.
        found: ClusterId,
    },
    /// The format record says something that this release cannot work with.
    #[error("repo.json of cluster {id} declares {what}, which this release cannot use")]
    Format {
        /// The cluster.
        id: ClusterId,
        /// What.
        what: String,
    },
}

fn join(ids: &[ClusterId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What was found under a cluster's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No cluster of that name. The repository answered; it is not merely unreachable.
    None,
    /// Exactly one.
    One(ClusterId),
    /// More than one; a person must choose.
    Several(Vec<ClusterId>),
}

/// `cluster.json`: that a cluster exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Which cluster.
    pub cluster: ClusterId,
    /// `postgres` or `mysql`.
    pub engine: String,
    /// When it was bootstrapped, RFC 3339, for people only.
    pub created: String,
}

/// `repo.json`: how this place is written, for ever.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) cluster: ClusterId,
    pub(crate) chunk_size: u32,
    pub(crate) log_segment_size: u64,
    pub(crate) name_key: NameKey,
    pub(crate) encryption: Encryption,
}

impl Format {
    /// Whether this release can work with it.
    fn check(&self) -> Result<(), RepositoryError> {
        let refuse = |what: String| Err(RepositoryError::Format { id: self.cluster.clone(), what });
        let range = CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX;
        if !self.chunk_size.is_power_of_two() || !range.contains(&self.chunk_size) {
            return refuse(format!("chunk size {}", self.chunk_size));
        }
        if self.log_segment_size != LOG_SEGMENT_SIZE.bytes() {
            return refuse(format!("log segment size {}", self.log_segment_size));
        }
        Ok(())
    }
}

/// A place that may hold clusters: a bucket and prefix, or a directory.
#[derive(Debug, Clone)]
pub struct Location {
    store: Store,
}

impl Location {
    /// Makes a client; the first request opens the connection.
    ///
    /// # Errors
    /// A configuration that is not valid, or credentials that cannot be read.
    pub fn connect(config: &RepositoryConfig) -> Result<Self, ConnectError> {
        Ok(Self { store: config.connect()? })
    }

    /// Uses a client that exists, below `prefix`.
    #[must_use]
    pub fn over(client: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { store: Store::new(client, prefix) }
    }

    /// Looks for clusters of a name. One listing and one read per candidate.
    ///
    /// # Errors
    /// Object storage fails, or a `cluster.json` cannot be read.
    pub async fn find(&self, name: &ClusterName) -> Result<Found, RepositoryError> {
        let mut ids = Vec::new();
        for folder in self.store.folders().await? {
            let Ok(id) = folder.parse::<ClusterId>() else { continue };
            if id.name() == name && self.cluster_record(&id).await?.is_some() {
                ids.push(id);
            }
        }
        Ok(match <[ClusterId; 1]>::try_from(ids) {
            Ok([id]) => Found::One(id),
            Err(ids) if ids.is_empty() => Found::None,
            Err(ids) => Found::Several(ids),
        })
    }

    async fn cluster_record(&self, id: &ClusterId) -> Result<Option<ClusterRecord>, RepositoryError> {
        let Some(bytes) = self.store.below(&id.to_string()).find(key::CLUSTER, RECORD_BYTES_MAX).await?
        else {
            return Ok(None);
        };
        let found: ClusterRecord = decode(kind::CLUSTER, key::CLUSTER, &bytes)?;
        if found.cluster == *id {
            Ok(Some(found))
        } else {
            Err(RepositoryError::OtherCluster { expected: id.clone(), found: found.cluster })
        }
    }

    /// Makes a place for a new cluster. Repeating it for the same record is fine.
    ///
    /// # Errors
    /// [`RepositoryError::NameTaken`] if there is another cluster of that name, also if that one came into being at
    /// the same moment: then both are refused and a person must choose.
    pub async fn create(&self, record: &ClusterRecord) -> Result<Repository, RepositoryError> {
        self.create_cut(record, CHUNK_SIZE).await
    }

    /// Like [`Self::create`], with another chunk size: for measurements and tests.
    ///
    /// # Errors
    /// Those of [`Self::create`]; [`RepositoryError::Format`] for a size that is no power of two or out of range.
    pub async fn create_cut(
        &self,
        record: &ClusterRecord,
        chunk_size: ByteCount,
    ) -> Result<Repository, RepositoryError> {
        let id = &record.cluster;
        let format = Format {
            cluster: id.clone(),
            chunk_size: u32::try_from(chunk_size.bytes()).unwrap_or(u32::MAX),
            log_segment_size: LOG_SEGMENT_SIZE.bytes(),
            name_key: NameKey::random(),
            encryption: Encryption::None,
        };
        format.check()?;
        self.refuse_namesakes(id).await?;
        let place = self.store.below(&id.to_string());
        // An earlier try may have been cut short after this: its key is the one that counts.
        place.create(key::REPO, Bytes::from(record::encode(kind::REPO, &format))).await?;
        let created = place.create(key::CLUSTER, Bytes::from(record::encode(kind::CLUSTER, record))).await?;
        if let Created::Theirs(bytes) = created {
            let there: ClusterRecord = decode(kind::CLUSTER, key::CLUSTER, &bytes)?;
            if there.cluster != *id {
                return Err(RepositoryError::OtherCluster { expected: id.clone(), found: there.cluster });
            }
        }
        self.refuse_namesakes(id).await?;
        self.open(id).await
    }

    async fn refuse_namesakes(&self, id: &ClusterId) -> Result<(), RepositoryError> {
        let ids = match self.find(id.name()).await? {
            Found::None => Vec::new(),
            Found::One(there) if there == *id => Vec::new(),
            Found::One(there) => vec![there],
            Found::Several(ids) => ids,
        };
        if ids.is_empty() { Ok(()) } else { Err(RepositoryError::NameTaken { name: id.name().clone(), ids }) }
    }

    /// Opens the place of a cluster that exists.
    ///
    /// # Errors
    /// [`RepositoryError::NoCluster`] if there is none, [`RepositoryError::Format`] if a newer release made it.
    pub async fn open(&self, id: &ClusterId) -> Result<Repository, RepositoryError> {
        let Some(cluster) = self.cluster_record(id).await? else {
            return Err(RepositoryError::NoCluster { id: id.clone() });
        };
        let store = self.store.below(&id.to_string());
        let bytes = store.get(key::REPO, RECORD_BYTES_MAX).await?;
        let format: Format = decode(kind::REPO, key::REPO, &bytes)?;
        if format.cluster != *id {
            return Err(RepositoryError::OtherCluster { expected: id.clone(), found: format.cluster });
        }
        format.check()?;
        Ok(Repository { store, cluster: Arc::new(cluster), format: Arc::new(format) })
    }
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(
    kind: record::RecordKind,
    key: &str,
    bytes: &[u8],
) -> Result<T, RepositoryError> {
    record::decode(kind, bytes).map_err(|source| RepositoryError::Record { key: key.to_owned(), source })
}

/// Why a chunk cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Object storage failed; a pack that is missing says so.
    #[error("fetch chunk {name}")]
    Store {
        /// Which chunk.
        name: chunk::ChunkName,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// What is stored is not the chunk, each time it was asked for.
    #[error("chunk {name} in pack {pack} at byte {offset} is damaged")]
    Damaged {
        /// Which chunk.
        name: chunk::ChunkName,
        /// Where.
        pack: key::PackId,
        /// Where in it.
        offset: u32,
        /// How that showed.
        #[source]
        source: ChunkError,
    },
}

impl FetchError {
    /// Whether asking again later may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Store { source, .. } => source.fault.is_transient(),
            Self::Damaged { .. } => false,
        }
    }
}

/// The open place of one cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Store,
    cluster: Arc<ClusterRecord>,
    format: Arc<Format>,
}

impl Repository {
    /// Whose place it is.
    #[must_use]
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster.cluster
    }

    /// What its `cluster.json` says.
    #[must_use]
    pub fn record(&self) -> &ClusterRecord {
        &self.cluster
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn name_key(&self) -> &NameKey {
        &self.format.name_key
    }

    pub(crate) fn chunk_size(&self) -> u32 {
        self.format.chunk_size
    }

    /// Bytes of one segment of log, as `repo.json` fixed it.
    #[must_use]
    pub fn log_segment_size(&self) -> u64 {
        self.format.log_segment_size
    }

    /// Fetches and verifies one chunk. What arrives damaged is asked for again: it may have been damaged on the way.
    pub(crate) async fn fetch_chunk(&self, chunk: &ChunkRef) -> Result<Vec<u8>, FetchError> {
        let range = u64::from(chunk.offset)..chunk.end();
        let mut tries = 0;
        loop {
            tries += 1;
            let stored = self
                .store
                .get_range(&chunk.pack.key(), range.clone())
                .await
                .map_err(|source| FetchError::Store { name: chunk.name, source })?;
            match chunk::open(self.name_key(), chunk, &stored) {
                Ok(content) => return Ok(content),
                Err(source) if tries == FETCH_TRIES => return Err(damaged(chunk, source)),
                Err(_perhaps_on_the_way) => {}
            }
        }
    }
}

pub(crate) const fn damaged(chunk: &ChunkRef, source: ChunkError) -> FetchError {
    FetchError::Damaged { name: chunk.name, pack: chunk.pack, offset: chunk.offset, source }
}
