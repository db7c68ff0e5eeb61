//! Finding, creating and opening the place of a cluster, also when requests fail in the middle.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use holdfast_backup::evidence::EvidenceError;
use holdfast_backup::repository::RepositoryError;
use holdfast_backup::rules::RuleError;
use holdfast_backup::store::StoreFault;
use holdfast_backup::{ClusterRecord, Found, Location, RepositoryConfig};
use holdfast_model::{ClusterId, Rule, Term};
use support::faulty::{Fault, Faulty};
use support::{member_of, record, repository, rule};

fn location(store: &Faulty) -> Location {
    Location::over(Arc::new(store.clone()), "site/a")
}

fn other() -> ClusterRecord {
    ClusterRecord { cluster: ClusterId::new("orders".parse().unwrap(), 8), ..record() }
}

#[tokio::test]
async fn a_cluster_is_created_once_and_found_by_name() {
    let store = Faulty::new();
    let location = location(&store);
    let name = record().cluster.name().clone();
    assert_eq!(location.find(&name).await.unwrap(), Found::None);
    location.create(&record()).await.unwrap();
    location.create(&record()).await.unwrap();
    assert_eq!(location.find(&name).await.unwrap(), Found::One(record().cluster));
    assert_eq!(location.find(&"orders-2".parse().unwrap()).await.unwrap(), Found::None);
    assert_eq!(location.open(&record().cluster).await.unwrap().record(), &record());
    assert!(matches!(location.open(&other().cluster).await, Err(RepositoryError::NoCluster { .. })));
}

#[tokio::test]
async fn a_second_cluster_of_the_same_name_is_refused() {
    let location = location(&Faulty::new());
    location.create(&record()).await.unwrap();
    let refused = location.create(&other()).await.unwrap_err();
    let RepositoryError::NameTaken { ids, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(ids, [record().cluster]);
}

#[tokio::test]
async fn two_clusters_of_one_name_are_listed_and_neither_is_chosen() {
    let store = Faulty::new();
    location(&store).create(&record()).await.unwrap();
    // As a race between two bootstraps would leave it: the second was made where the first could not be seen.
    let elsewhere = Location::over(Arc::new(store.clone()), "other");
    elsewhere.create(&other()).await.unwrap();
    for file in ["cluster.json", "repo.json"] {
        let from = format!("other/{}/{file}", other().cluster).into();
        let to = format!("site/a/{}/{file}", other().cluster).into();
        object_store::ObjectStoreExt::copy(store.inner(), &from, &to).await.unwrap();
    }
    let found = location(&store).find(record().cluster.name()).await.unwrap();
    assert_eq!(found, Found::Several(vec![record().cluster, other().cluster]));
}

#[tokio::test]
async fn a_creation_cut_short_at_any_request_can_be_repeated() {
    for lost_answer in [false, true] {
        for n in 0.. {
            let store = Faulty::new();
            store.set(if lost_answer { Fault::AnswerLostFrom(n) } else { Fault::DownFrom(n) });
            let first = location(&store).create(&record()).await;
            store.set(Fault::None);
            let name = record().cluster.name().clone();
            let found = location(&store).find(&name).await.unwrap();
            assert!(matches!(found, Found::None | Found::One(_)), "request {n}: {found:?}");
            location(&store).create(&record()).await.unwrap();
            assert_eq!(location(&store).find(&name).await.unwrap(), Found::One(record().cluster));
            if first.is_ok() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_unreachable_store_is_never_an_empty_one() {
    let store = Faulty::new();
    store.set(Fault::DownFrom(0));
    let error = location(&store).find(record().cluster.name()).await.unwrap_err();
    let RepositoryError::Store(error) = error else { panic!("{error:?}") };
    assert_eq!(error.fault, StoreFault::Busy);
    assert!(error.fault.is_transient());
}

#[tokio::test]
async fn a_damaged_or_foreign_record_is_refused() {
    let store = Faulty::new();
    location(&store).create(&record()).await.unwrap();
    store.set(Fault::Flip("repo.json".to_owned(), u64::MAX));
    let refused = location(&store).open(&record().cluster).await.unwrap_err();
    assert!(matches!(refused, RepositoryError::Record { .. }), "{refused:?}");

    store.set(Fault::None);
    let from = format!("site/a/{}/cluster.json", record().cluster).into();
    let to = format!("site/a/{}/cluster.json", other().cluster).into();
    object_store::ObjectStoreExt::copy(store.inner(), &from, &to).await.unwrap();
    let refused = location(&store).open(&other().cluster).await.unwrap_err();
    assert!(matches!(refused, RepositoryError::OtherCluster { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_directory_serves_as_a_repository() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}/made/by/us", directory.path().display());
    let config = RepositoryConfig { url, ..RepositoryConfig::default() };
    Location::connect(&config).unwrap().create(&record()).await.unwrap();
    let found = Location::connect(&config).unwrap().find(record().cluster.name()).await.unwrap();
    assert_eq!(found, Found::One(record().cluster));
    let refused = Location::connect(&config).unwrap().create(&other()).await.unwrap_err();
    assert!(matches!(refused, RepositoryError::NameTaken { .. }), "{refused:?}");
}

#[tokio::test]
async fn only_one_refound_gets_a_term() {
    let store = Faulty::new();
    let repository = repository(&store).await;
    repository.put_rule(&rule(1, None, 0)).await.unwrap();
    let contenders: Vec<Rule> =
        (1..=4).map(|bits| Rule { primary: member_of(bits), ..rule(2, Some(1), 1000) }).collect();
    let results = futures::future::join_all(contenders.iter().map(|rule| repository.put_rule(rule))).await;
    let winners: Vec<&Rule> =
        contenders.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(rule, _)| rule).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert_eq!(repository.rules().await.unwrap().last(), Some(winners[0]));
    for (contender, result) in contenders.iter().zip(results) {
        match result {
            Ok(()) => repository.put_rule(contender).await.unwrap(), // its answer may have been lost
            Err(RuleError::Taken { there }) => assert_eq!(&*there, winners[0]),
            Err(err) => panic!("{err}"),
        }
    }
}

#[tokio::test]
async fn the_newest_evidence_of_a_kind_is_found_and_the_first_of_a_name_stays() {
    let repository = repository(&Faulty::new()).await;
    let newest = async || repository.newest_evidence::<String>("certificate").await.unwrap();
    assert_eq!(newest().await, None);
    let term = |number| Term::new(number).unwrap();
    for (number, what, said) in [
        (16, "certificate-a", "sixteen"),
        (9, "certificate-b", "nine"),
        (16, "certificate-a", "again"),
        (17, "vouch-c", "a word"),
    ] {
        repository.keep_evidence(term(number), what, &said).await.unwrap();
    }
    assert_eq!(newest().await, Some((term(16), "sixteen".to_owned())));
    let refused = repository.newest_evidence::<u32>("certificate").await.unwrap_err();
    assert!(matches!(refused, EvidenceError::Record { .. }), "{refused:?}");
}
