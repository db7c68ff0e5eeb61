//! What the unit tests of this crate share: a repository in memory and plain values.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_model::{ClusterId, Incarnation, Lsn, Member, Rule, RuleId, Term};
use object_store::memory::InMemory;

use crate::key::BackupId;
use crate::manifest::{Encryption, EngineFacts, Manifest, Totals};
use crate::repository::{ClusterRecord, Location, Repository};

pub(crate) async fn repository() -> Repository {
    let cluster = ClusterId::new("orders".parse().unwrap(), 7);
    let record = ClusterRecord { cluster, engine: "postgres".to_owned(), created: String::new() };
    Location::over(Arc::new(InMemory::new()), "").create(&record).await.unwrap()
}

pub(crate) fn member() -> Member {
    Member { node: "n1".parse().unwrap(), incarnation: Incarnation::from_random(1) }
}

pub(crate) fn rule(term: u32, previous: Option<u32>, start: u64) -> Rule {
    let id = |term| RuleId { term: Term::new(term).unwrap(), version: 1 };
    Rule {
        id: id(term),
        primary: member(),
        voters: Vec::new(),
        k: 0,
        previous: previous.map(id),
        start: Lsn::from_offset(start).into(),
    }
}

pub(crate) fn manifest() -> Manifest {
    Manifest {
        id: BackupId::from_parts(Term::FIRST, Lsn::ZERO, 1),
        member: member(),
        stop: Lsn::from_offset(1),
        created: String::new(),
        finished: String::new(),
        engine: engine(),
        chunk_size: 4096,
        pages: Vec::new(),
        late: Vec::new(),
        totals: Totals::default(),
        packs_of: Vec::new(),
        parent: None,
        encryption: Encryption::None,
    }
}

pub(crate) fn engine() -> EngineFacts {
    EngineFacts {
        engine: "postgres".to_owned(),
        version: "15.18".to_owned(),
        major: 15,
        page_size: 8192,
        checksums: true,
        system_identifier: "1".to_owned(),
        locale_providers: BTreeMap::new(),
    }
}
