//! The server takes what we render.

use holdfast_engine::mysql::argv::{self, Start};
use holdfast_engine::mysql::config::owned;
use holdfast_engine::mysql::{Version, identity};

use crate::server::{Server, run};

#[tokio::test]
async fn every_owned_setting_is_in_force() {
    let mut server = Server::init("n1", 1);
    run(&argv::validate(&server.layout));
    let mut session = server.start(Start::Standby).await;
    for own in owned().iter().filter(|own| own.name != "plugin_load_add") {
        let variable = match own.name {
            // Nobody can ask for these.
            "skip_replica_start" | "mysqlx" => continue,
            "log_bin" => "log_bin_basename",
            name => name,
        };
        let sql = format!("SELECT CAST(@@global.{variable} AS CHAR)");
        let found: Option<String> = session.row("read a setting", &sql).await.unwrap();
        let found = found.unwrap_or_else(|| "NULL".to_owned());
        let wanted = match own.value {
            "ON" if found == "1" => "1",
            "OFF" if found == "0" => "0",
            value => value,
        };
        assert!(found == wanted || found.ends_with(&format!("/{wanted}")), "{} is {found}", own.name);
    }
    let status = session.status().await.unwrap();
    assert_eq!(status.source, identity::source_of(&server.member));
    assert_eq!(Version::parse(&run(&argv::version(server.layout.program.clone()))), Ok(status.version));
    assert!(status.read_only && status.held().is_empty(), "{status:?}");
}

#[tokio::test]
async fn what_an_operator_sets_wrongly_is_named_before_the_start() {
    let mut server = Server::init("n1", 1);
    server.settings.insert("no_such_thing".to_owned(), "1".to_owned());
    server.install();
    let output = crate::server::command(&argv::validate(&server.layout)).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no_such_thing"), "{said}");
}
