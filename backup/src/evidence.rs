//! What a decision left behind for people: `evidence/<term>-<what>`, created once and read by nobody but them.
//!
//! Evidence never arbitrates: a node that cannot write it goes on.

use bytes::Bytes;
use holdfast_model::record;
use holdfast_model::{Lsn, Member, Term};
use serde::Serialize;

use crate::key;
use crate::kind;
use crate::repository::Repository;
use crate::store::StoreError;

impl Repository {
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
