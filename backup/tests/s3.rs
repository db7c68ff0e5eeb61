//! The same against a real S3 server (SeaweedFS on loopback, signed requests), and its refusals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use holdfast_backup::log::{LogReader, Segment, Shipper};
use holdfast_backup::repository::RepositoryError;
use holdfast_backup::rules::{Chain, RuleError};
use holdfast_backup::store::StoreFault;
use holdfast_backup::{Found, Location, Meter, Repository, RepositoryConfig, restore};
use holdfast_integration::scratch::Scratch;
use holdfast_integration::weed::{BUCKET, REGION, Weed};
use holdfast_model::ByteCount;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn config(bucket: &str, endpoint: &str, credentials: &Path) -> RepositoryConfig {
    RepositoryConfig {
        url: format!("s3://{bucket}/sites/a"),
        endpoint: Some(endpoint.to_owned()),
        region: Some(REGION.to_owned()),
        credentials_file: Some(credentials.to_owned()),
    }
}

async fn fault(config: &RepositoryConfig) -> StoreFault {
    let location = Location::connect(config).unwrap();
    let error = location.find(record().cluster.name()).await.unwrap_err();
    let RepositoryError::Store(error) = error else { panic!("{error:?}") };
    error.fault
}

#[tokio::test]
async fn everything_works_on_a_real_s3_server() {
    let scratch = Scratch::new().unwrap();
    let weed = Weed::start(&scratch).await.unwrap();
    let config = config(BUCKET, weed.endpoint(), weed.credentials());
    let location = Location::connect(&config).unwrap();
    assert_eq!(location.find(record().cluster.name()).await.unwrap(), Found::None);
    let repository = location.create(&record()).await.unwrap();
    assert_eq!(location.find(record().cluster.name()).await.unwrap(), Found::One(record().cluster));

    one_rule_wins(&repository).await;
    log_is_one_line(&repository).await;
    backups_come_back(&repository).await;
    refusals_are_told_apart(&weed, &scratch).await;
}

async fn one_rule_wins(repository: &Repository) {
    let offers = (0..8).map(|start| {
        let repository = repository.clone();
        async move { repository.put_rule(&rule(1, None, start)).await }
    });
    let results = futures::future::join_all(offers).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let taken = results.iter().filter(|result| matches!(result, Err(RuleError::Taken { .. }))).count();
    assert_eq!(taken, 7);
    assert_eq!(repository.rules().await.unwrap().len(), 1);
}

async fn log_is_one_line(repository: &Repository) {
    let mut shipper = Shipper::resume(repository, term(1), &member()).await.unwrap();
    let mut late = Shipper::resume(repository, term(1), &member()).await.unwrap();
    shipper.ship(lsn(0), &log(0, 700)).await.unwrap();
    shipper.ship(lsn(700), &log(700, SEGMENT + 100)).await.unwrap();
    assert_eq!(late.ship(lsn(0), &log(0, 300)).await.unwrap(), lsn(700));
    assert_eq!(shipper.compact().await.unwrap(), 1);
    let chain = Chain::to(term(1), &[rule(1, None, 0)]).unwrap();
    let mut reader = LogReader::open(repository, &chain, term(1), lsn(0)).await.unwrap();
    assert_eq!(reader.end(), lsn(SEGMENT + 100));
    let Segment::Bytes(bytes) = reader.segment(term(1), 0).await.unwrap() else { panic!("past the end") };
    assert!(bytes == log(0, SEGMENT));
    assert_eq!(reader.segment(term(1), 2).await.unwrap(), Segment::PastEnd);
    assert_eq!(repository.log_terms().await.unwrap(), [term(1)]);
}

async fn backups_come_back(repository: &Repository) {
    // More than one pack, so that uploads overlap.
    let tree = tree().file("large", noise(3, 40 << 20));
    back_up(repository, &tree, 500).await.unwrap();
    tree.change("large", |content| content[1000] ^= 1);
    let id = back_up(repository, &tree, 700).await.unwrap();
    assert!(repository.backup(id).await.unwrap().totals.new_bytes < ByteCount::mib(1));
    assert_eq!(repository.backups().await.unwrap().len(), 2);
    let directory = tempfile::tempdir().unwrap();
    let plan = restore::plan(repository, id, ByteCount::gib(1)).await.unwrap();
    restore::run(&plan, io(directory.path()), &member(), &Meter::unwatched()).await.unwrap();
    assert!(read_back(directory.path()) == expected(&tree));
}

async fn refusals_are_told_apart(weed: &Weed, scratch: &Scratch) {
    let no_bucket = config("no-such-bucket", weed.endpoint(), weed.credentials());
    assert_eq!(fault(&no_bucket).await, StoreFault::BucketMissing);
    for (name, key, secret) in [("secret.toml", "harness", "wrong"), ("key.toml", "nobody", "wrong")] {
        let path = scratch.path().join(name);
        let text = format!("access_key_id = \"{key}\"\nsecret_access_key = \"{secret}\"\n");
        std::fs::write(&path, text).unwrap();
        assert_eq!(fault(&config(BUCKET, weed.endpoint(), &path)).await, StoreFault::Credentials, "{name}");
    }
}

/// Answers every request like S3 does when the clock of the client is off (S3 API reference, "Error responses").
async fn skewed_s3(listener: TcpListener) {
    let body = "<?xml version=\"1.0\"?><Error><Code>RequestTimeTooSkewed</Code><Message>The difference between \
                the request time and the current time is too large.</Message></Error>";
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let length = client.read(&mut request).await.unwrap();
        assert!(length > 0, "a request");
        let answer = format!(
            "HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        client.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn credentials(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("s3.toml");
    std::fs::write(&path, "access_key_id = \"a\"\nsecret_access_key = \"b\"\n").unwrap();
    path
}

#[tokio::test]
async fn a_skewed_clock_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let config = config(BUCKET, &endpoint, &credentials(directory.path()));
    let found = tokio::select! {
        found = fault(&config) => found,
        () = skewed_s3(listener) => unreachable!("it serves for ever"),
    };
    assert_eq!(found, StoreFault::ClockSkewed);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = config(BUCKET, &endpoint, &credentials(directory.path()));
    assert_eq!(fault(&config).await, StoreFault::Unreachable);
    let location = Location::connect(&config).unwrap();
    assert!(matches!(location.open(&record().cluster).await, Err(RepositoryError::Store(_))));
}
