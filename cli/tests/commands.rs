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
async fn an_endpoint_that_hangs_is_passed_over() {
    let served = Served::start(false).await;
    let ops = served.authority.user("ops", [Role::Observe]);
    // Takes connections and never says a word, as the kernel of a frozen agent does.
    let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let both = format!("https://{},{}", frozen.local_addr().unwrap(), served.grpc);
    served.holdfast_at(&both, &ops, &["member", "list"]).await.unwrap();
    served.stop().await;
}

#[tokio::test]
async fn members_are_listed_as_a_table_and_as_json() {
    let served = Served::start(false).await;
    served.control.view.send_replace(std::sync::Arc::new(fake::view::three_zones()));
    let ops = served.authority.user("ops", [Role::Observe]);
    let table = served.holdfast(&ops, &["member", "list"]).await.unwrap();
    assert!(table.contains("VOTES") && table.contains("its disk may be lost"), "{table}");
    let json = served.holdfast(&ops, &["--json", "member", "list"]).await.unwrap();
    let lines: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let nodes: Vec<_> = lines.iter().map(|line| (&line["node"], &line["votes"], &line["heard"])).collect();
    let told = serde_json::to_string(&nodes).unwrap();
    let expected =
        r#"[["n1","primary","here"],["n2","full","ago"],["n3","full","unclaimed"],["n3","no","ago"]]"#;
    assert_eq!(told, expected);
    served.stop().await;
}

#[tokio::test]
async fn a_failover_is_followed_to_its_end() {
    let served = Served::start(false).await;
    let ops = served.authority.user("ops", [Role::Observe, Role::Promote]);
    let answer =
        served.holdfast(&ops, &["failover", "--prefer-zone", "b", "--prefer-zone", "c"]).await.unwrap();
    assert_eq!(answer, "failover op-failover done failover done\n");
    let vouched = ["--json", "failover", "--without-votes", "--why", "it burnt", "--no-wait"];
    let begun = served.holdfast(&ops, &vouched).await.unwrap();
    let begun: holdfast_model::status::Operation = serde_json::from_str(&begun).unwrap();
    assert_eq!(begun.kind, holdfast_model::status::OperationKind::Failover);
    let asked = served.control.asked_of_cluster.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            "[Named(\"b\"), Named(\"c\")] ",
            "[] it burnt, says holdfast://orders/user/ops?roles=observe,promote"
        ]
    );
    served.stop().await;
}

#[tokio::test]
async fn a_switchover_that_ends_badly_exits_with_1_and_says_why() {
    let served = Served::start(false).await;
    let ops = served.authority.user("ops", [Role::Observe, Role::Promote]);
    let failure = served.holdfast(&ops, &["switchover", "--to", "n2"]).await.unwrap_err();
    assert_eq!(failure.to_string(), "operation op-switchover failed: n2 is too far behind");
    assert_eq!(failure.exit_code(), 1);
    served.stop().await;
}

#[tokio::test]
async fn members_are_removed_and_admitted_by_their_node() {
    let served = Served::start(false).await;
    let ops = served.authority.user("ops", [Role::Observe, Role::Promote]);
    let answer = served.holdfast(&ops, &["member", "remove", "n3"]).await.unwrap();
    assert_eq!(answer, "change-member op-change done change done\n");
    served.holdfast(&ops, &["member", "admit", "n3", "--no-wait"]).await.unwrap();
    let asked = served.control.asked_of_cluster.lock().unwrap().clone();
    assert_eq!(asked, ["Remove n3", "Admit n3"]);
    let watcher = served.authority.user("watcher", [Role::Observe, Role::Operate]);
    for args in [["member", "remove", "n3"].as_slice(), &["failover"], &["switchover", "--to", "n2"]] {
        let failure = served.holdfast(&watcher, args).await.unwrap_err();
        assert_eq!(failure.exit_code(), 5, "{failure}");
    }
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
