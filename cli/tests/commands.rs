//! Commands against a served agent: answers, refusals, exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use fake::Served;
use holdfast_cli::failure::Failure;
use holdfast_proto::identity::Role;
use holdfast_proto::refusal::Reason;

const SEEN: [&str; 6] = ["--serial", "64768:13", "--diskseq", "9", "--verdict", "foreign"];

#[tokio::test]
async fn status_is_shown_as_a_table_and_as_json() {
    let served = Served::start(false).await;
    let ops = served.authority.user("ops", [Role::Observe]);
    let table = served.holdfast(&ops, &["status"]).await.unwrap();
    assert!(table.contains("open in term 3"), "{table}");
    let json = served.holdfast(&ops, &["--json", "status"]).await.unwrap();
    let view: holdfast_model::status::NodeView = serde_json::from_str(&json).unwrap();
    assert_eq!(view, fake::view::serving());
    served.stop().await;
}

#[tokio::test]
async fn long_work_is_followed_to_its_end() {
    let served = Served::start(false).await;
    let ops = served.authority.user("ops", [Role::Observe, Role::Operate]);
    let answer = served.holdfast(&ops, &["backup", "create"]).await.unwrap();
    assert_eq!(answer, "backup op-backup done backup done\n");
    let begun = served.holdfast(&ops, &["backup", "create", "--no-wait"]).await.unwrap();
    assert!(begun.starts_with("backup op-backup"), "{begun}");
    let missing = served.holdfast(&ops, &["operation", "watch", "op-9"]).await.unwrap_err();
    assert_eq!(missing.exit_code(), 3, "{missing}");
    served.stop().await;
}

#[tokio::test]
async fn a_refusal_says_what_would_resolve_it_and_exits_with_3() {
    let served = Served::start(false).await;
    let ops = served.authority.user("ops", [Role::Observe, Role::Restore]);
    let failure = served.holdfast(&ops, &["restore"]).await.unwrap_err();
    assert_eq!(failure.to_string(), "there is data on the volume; to resolve: remove it first");
    assert_eq!(failure.exit_code(), 3);
    served.stop().await;
}

#[tokio::test]
async fn failures_have_the_documented_exit_codes() {
    let served = Served::start(false).await;
    let ops = served.authority.user("ops", [Role::Observe]);
    let unavailable = served.holdfast(&ops, &["log"]).await.unwrap_err();
    assert_eq!(unavailable.exit_code(), 4, "{unavailable}");
    let denied = served.holdfast(&ops, &["engine", "stop"]).await.unwrap_err();
    assert_eq!(denied.exit_code(), 5, "{denied}");
    let nowhere = served.holdfast_at("https://127.0.0.1:1", &ops, &["status"]).await.unwrap_err();
    assert_eq!(nowhere.exit_code(), 4, "{nowhere}");
    served.stop().await;
}

#[tokio::test]
async fn the_first_endpoint_that_answers_is_asked() {
    let served = Served::start(false).await;
    let ops = served.authority.user("ops", [Role::Observe]);
    let both = format!("https://127.0.0.1:1,{}", served.grpc);
    served.holdfast_at(&both, &ops, &["explain"]).await.unwrap();
    served.stop().await;
}

#[tokio::test]
async fn volume_verbs_are_off_unless_switched_on() {
    let served = Served::start(false).await;
    let root = served.authority.user("root", Role::ALL);
    let format =
        ["volume", "format", "--node", "n1", "--serial", "x", "--diskseq", "9", "--verdict", "blank"];
    let wipe: Vec<&str> = ["volume", "wipe", "--node", "n1"].into_iter().chain(SEEN).collect();
    for args in [format.as_slice(), wipe.as_slice()] {
        let failure = served.holdfast(&root, args).await.unwrap_err();
        assert!(matches!(&failure, Failure::Refused(r) if r.reason == Reason::SwitchedOff), "{failure}");
    }
    assert_eq!(served.asked(), [""; 0]);
    served.stop().await;
}

#[tokio::test]
async fn a_wipe_takes_two_steps_and_names_the_node() {
    let served = Served::start(true).await;
    let root = served.authority.user("root", Role::ALL);
    let wipe = |node: &'static str| ["volume", "wipe", "--node", node].into_iter().chain(SEEN);
    let elsewhere: Vec<&str> = wipe("n2").collect();
    assert_eq!(served.holdfast(&root, &elsewhere).await.unwrap_err().exit_code(), 3);
    assert_eq!(served.asked(), [""; 0], "another node is not even asked");

    let first: Vec<&str> = wipe("n1").collect();
    let consent = served.holdfast(&root, &first).await.unwrap();
    assert!(consent.contains("--token t-0123"), "{consent}");
    let second: Vec<&str> = wipe("n1").chain(["--token", "t-0123"]).collect();
    served.holdfast(&root, &second).await.unwrap();
    assert_eq!(served.asked(), ["allow wipe", "wipe"]);
    served.stop().await;
}

#[tokio::test]
async fn only_what_was_seen_blank_may_be_formatted() {
    let served = Served::start(true).await;
    let root = served.authority.user("root", Role::ALL);
    let args: Vec<&str> = ["volume", "format", "--node", "n1"].into_iter().chain(SEEN).collect();
    let failure = served.holdfast(&root, &args).await.unwrap_err();
    assert_eq!(failure.exit_code(), 2, "{failure}");
    assert!(failure.to_string().contains("device.verdict: must be blank"), "{failure}");
    assert_eq!(served.asked(), [""; 0]);
    served.stop().await;
}

#[tokio::test]
async fn bootstrap_wants_the_name_of_the_cluster_as_consent() {
    let served = Served::start(false).await;
    let root = served.authority.user("root", Role::ALL);
    let wrong = served.holdfast(&root, &["bootstrap", "--token", "billing"]).await.unwrap_err();
    assert!(matches!(&wrong, Failure::Refused(r) if r.reason == Reason::BadToken), "{wrong}");
    served.holdfast(&root, &["bootstrap", "--token", "orders"]).await.unwrap();
    assert_eq!(served.asked(), ["bootstrap"]);
    served.stop().await;
}

#[tokio::test]
async fn a_stopping_agent_ends_watchers() {
    let served = Served::start(false).await;
    let ops = served.authority.user("ops", [Role::Observe]);
    let credentials = served.authority.credentials(&ops).load().unwrap();
    let agent = holdfast_cli::client::connect(std::slice::from_ref(&served.grpc), credentials).await.unwrap();
    let request = holdfast_proto::v1::WatchStatusRequest {};
    let mut views = agent.node().watch_status(request).await.unwrap().into_inner();
    assert!(views.message().await.unwrap().is_some());
    served.stop().await;
    assert!(matches!(views.message().await, Ok(None) | Err(_)));
}
