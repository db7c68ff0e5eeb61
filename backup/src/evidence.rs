//! What a decision left behind for people: `evidence/<term>-<what>`, created once and read only to be shown to them.
//!
//! Evidence never arbitrates: a node that cannot write it goes on.

use bytes::Bytes;
use holdfast_model::record::{self, RecordError};
use holdfast_model::{Lsn, Member, Term};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::key;
use crate::kind;
use crate::repository::Repository;
use crate::store::StoreError;

/// Larger evidence than can be shown.
const EVIDENCE_BYTES_MAX: u64 = 1 << 20;

/// Why evidence could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// Object storage fails.
    #[error("look for evidence")]
    Store(#[from] StoreError),
    /// It is damaged, or of another version.
    #[error("read evidence {key}")]
    Record {
        /// Which.
        key: String,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
}

impl Repository {
    /// The newest evidence, by term, whose name begins with `what`, and that term.
    ///
    /// # Errors
    /// [`EvidenceError`].
    pub async fn newest_evidence<T: DeserializeOwned>(
        &self,
        what: &str,
    ) -> Result<Option<(Term, T)>, EvidenceError> {
        let names = self.store().list(key::EVIDENCE).await?;
        let newest = names.iter().rev().find_map(|name| {
            let (term, rest) = name.split_once('-')?;
            Some((key::parse_term(term)?, name)).filter(|_| rest.starts_with(what))
        });
        let Some((term, name)) = newest else { return Ok(None) };
        let key = format!("{}/{name}", key::EVIDENCE);
        let bytes = self.store().get(&key, EVIDENCE_BYTES_MAX).await?;
        let evidence =
            record::decode(kind::EVIDENCE, &bytes).map_err(|source| EvidenceError::Record { key, source })?;
        Ok(Some((term, evidence)))
    }

    /// Keeps evidence of something that happened as `term` began. What is there of that name stays.
    ///
    /// # Errors
    /// Object storage fails.
    pub async fn keep_evidence<T: Serialize>(
        &self,
        term: Term,
        what: &str,
        evidence: &T,
    ) -> Result<(), StoreError> {
        let bytes = Bytes::from(record::encode(kind::EVIDENCE, evidence));
        self.store().create(&key::evidence_key(term, what), bytes).await.map(drop)
    }

    /// Keeps a part of a log that the cluster discarded: what `member` had of `term` from `start` on. What is there stays:
    /// the same member had the same bytes there.
    ///
    /// # Errors
    /// Object storage fails.
    pub async fn keep_tail(
        &self,
        term: Term,
        member: &Member,
        start: Lsn,
        bytes: Vec<u8>,
    ) -> Result<(), StoreError> {
        let what = format!("tail-{member}-{:016x}", start.offset());
        self.store().create(&key::evidence_key(term, &what), Bytes::from(bytes)).await.map(drop)
    }
}
