//! Lists and shows the backups of a repository, and gives one up.

use bytes::Bytes;
use holdfast_model::record::{self, RecordError};

use crate::key::{self, BackupId};
use crate::kind;
use crate::manifest::{Manifest, ManifestRecord, ROOT_BYTES_MAX};
use crate::repository::Repository;
use crate::store::{Created, StoreError};

/// Why a backup cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Object storage failed.
    #[error("read backups of the repository")]
    Store(#[from] StoreError),
    /// There is no such backup.
    #[error("backup {id} does not exist, or was never finished")]
    Missing {
        /// Which.
        id: BackupId,
    },
    /// The manifest is damaged or newer than this release.
    #[error("read manifest of backup {id}")]
    Record {
        /// Which.
        id: BackupId,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// The manifest is that of another backup.
    #[error("the manifest of backup {id} is that of backup {found}")]
    Misplaced {
        /// Where it is.
        id: BackupId,
        /// Whose it is.
        found: BackupId,
    },
    /// It was given up.
    #[error("backup {id} was aborted: {why}")]
    Aborted {
        /// Which.
        id: BackupId,
        /// Who and why.
        why: String,
    },
}

impl CatalogError {
    /// Whether asking again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.fault.is_transient(),
            Self::Missing { .. } | Self::Record { .. } | Self::Misplaced { .. } | Self::Aborted { .. } => {
                false
            }
        }
    }
}

/// One line of the list of backups.
#[derive(Debug)]
pub enum Backup {
    /// Whole.
    Complete(Box<Manifest>),
    /// Its manifest cannot be used; the others can.
    Unreadable {
        /// Which.
        id: BackupId,
        /// Why.
        why: CatalogError,
    },
}

impl Repository {
    pub(crate) async fn manifest_record(&self, id: BackupId) -> Result<ManifestRecord, CatalogError> {
        let bytes = self.store().find(&id.manifest_key(), ROOT_BYTES_MAX).await?;
        let bytes = bytes.ok_or(CatalogError::Missing { id })?;
        let record: ManifestRecord =
            record::decode(kind::MANIFEST, &bytes).map_err(|source| CatalogError::Record { id, source })?;
        match record {
            ManifestRecord::Complete(manifest) if manifest.id != id => {
                Err(CatalogError::Misplaced { id, found: manifest.id })
            }
            ManifestRecord::Complete(_) | ManifestRecord::Aborted { .. } => Ok(record),
        }
    }

    /// The manifest of one backup.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub async fn backup(&self, id: BackupId) -> Result<Manifest, CatalogError> {
        match self.manifest_record(id).await? {
            ManifestRecord::Complete(manifest) => Ok(*manifest),
            ManifestRecord::Aborted { why } => Err(CatalogError::Aborted { id, why }),
        }
    }

    /// Every backup, oldest first; those that were given up are left out.
    ///
    /// # Errors
    /// Object storage fails. A single manifest that cannot be used is listed as such.
    pub async fn backups(&self) -> Result<Vec<Backup>, StoreError> {
        let mut backups = Vec::new();
        for name in self.store().list(key::MANIFEST).await? {
            let Ok(id) = name.parse::<BackupId>() else { continue };
            match self.manifest_record(id).await {
                Ok(ManifestRecord::Complete(manifest)) => backups.push(Backup::Complete(manifest)),
                Ok(ManifestRecord::Aborted { .. }) => {}
                Err(CatalogError::Store(error)) => return Err(error),
                Err(why) => backups.push(Backup::Unreadable { id, why }),
            }
        }
        Ok(backups)
    }

    /// Gives a backup up that is being made, perhaps by somebody who is gone: it can no longer be published.
    ///
    /// # Errors
    /// Object storage fails. Returns `false` if the backup was published before.
    pub async fn abort_backup(&self, id: BackupId, why: &str) -> Result<bool, CatalogError> {
        let tombstone = ManifestRecord::Aborted { why: why.to_owned() };
        let bytes = Bytes::from(record::encode(kind::MANIFEST, &tombstone));
        match self.store().create(&id.manifest_key(), bytes).await? {
            Created::Ours => Ok(true),
            Created::Theirs(there) => {
                let there: ManifestRecord = record::decode(kind::MANIFEST, &there)
                    .map_err(|source| CatalogError::Record { id, source })?;
                Ok(matches!(there, ManifestRecord::Aborted { .. }))
            }
        }
    }
}
