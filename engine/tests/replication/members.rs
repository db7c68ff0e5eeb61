//! Members on a real primary: whose acks count, and how they stop counting (P6, design review 1b and 1f).

use std::process::{Child, Stdio};

use holdfast_engine::Ackers;
use holdfast_engine::Launch;
use holdfast_engine::links::Tls;
use holdfast_engine::postgres::links::slot_name;
use holdfast_engine::postgres::members::RemoveError;
use holdfast_model::{Lsn, Member, Rule};
use test_case::test_case;

use crate::cluster::{Cluster, WAIT, client_program};
use crate::support::{bin_dir, command, engine_folder, eventually};

/// How somebody with the certificate `tls` asks node 0 for replication as `login`, acking as `name`.
fn conninfo(cluster: &Cluster, login: &Member, name: &Member, tls: Option<&Tls>) -> String {
    let port = cluster.nodes[0].server.setup.layout.port;
    let certificate = tls.map_or_else(String::new, |tls| {
        let [cert, key, ca] = [&tls.cert, &tls.key, &tls.ca].map(|path| path.display().to_string());
        format!("sslcert={cert} sslkey={key} sslrootcert={ca}")
    });
    format!("host=n1 hostaddr=127.0.0.1 port={port} user={login} application_name={name} {certificate}")
}

fn identify(conninfo: &str) -> Result<String, String> {
    client_program("psql", &["-XAt", "-d", &format!("{conninfo} replication=true"), "-c", "IDENTIFY_SYSTEM"])
}

/// A program that acks, ended with the test.
struct Acker(Child);

impl Drop for Acker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Pids of walsenders.
async fn walsenders(cluster: &Cluster) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_replication ORDER BY 1";
    cluster.sql(0).await.sql.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn nobody_acks_under_another_members_name(major: u32) {
    let mut cluster = Cluster::start(major, 2).await;
    let (n2, n3) = (cluster.nodes[1].member.clone(), cluster.nodes[2].member.clone());
    let tls = |at: usize| cluster.nodes[at].server.setup.tls.clone().unwrap();
    let (tls2, tls3) = (tls(1), tls(2));
    identify(&conninfo(&cluster, &n2, &n2, Some(&tls2))).unwrap();
    for (login, tls) in [(&n2, Some(&tls3)), (&n3, Some(&tls2)), (&n2, None)] {
        let err = identify(&conninfo(&cluster, login, &n2, tls)).unwrap_err();
        assert!(err.contains("certificate"), "{err}");
    }
    let database = format!("{} dbname=postgres", conninfo(&cluster, &n2, &n2, Some(&tls2)));
    let err = client_program("psql", &["-XAt", "-d", &database, "-c", "SELECT 1"]).unwrap_err();
    assert!(err.contains("pg_hba.conf rejects"), "{err}");

    // The trap (P6): the login is n3's, the name is n2's, and Postgres goes by the name.
    cluster.node(1).quit().await;
    cluster.node(2).quit().await;
    let spool = cluster.nodes[2].server.dir.path().join("spool");
    engine_folder(&spool);
    let launch = Launch::new(bin_dir(major).join("pg_receivewal"))
        .arg("-D")
        .arg(&spool)
        .arg("--synchronous")
        .arg("--no-loop")
        .arg("-d")
        .arg(conninfo(&cluster, &n3, &n2, Some(&tls3)));
    let mut impostor = command(&launch);
    let _impostor = Acker(impostor.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("the impostor receives", async || walsenders(&cluster).await.len() == 1).await;
    cluster.sql(0).await.sql.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();

    // Ours does not count it, and ends it.
    let session = cluster.node(0).session().await;
    assert_eq!(session.flushed().await.unwrap().standbys.len(), 0);
    assert_eq!(walsenders(&cluster).await.len(), 1);
    assert_eq!(session.end_impostors().await.unwrap(), 1);
    eventually("the impostor is gone", async || walsenders(&cluster).await.is_empty()).await;
}

#[test_case(15)]
#[test_case(17)]
#[tokio::test]
async fn a_removed_member_is_gone_and_cannot_return(major: u32) {
    let mut cluster = Cluster::start(major, 2).await;
    let gone = cluster.nodes[2].member.clone();
    let mut session = cluster.node(0).session().await;
    let err = session.remove_member(&gone, WAIT).await.unwrap_err();
    assert!(matches!(err, RemoveError::StillCounted { .. }), "{err:?}");

    let whole = cluster.rule(1, 2, 0, &Lsn::ZERO.into());
    let voters = whole.voters.iter().filter(|voter| voter.member != gone).cloned().collect();
    let narrow = Ackers::of(&Rule { voters, ..whole });
    cluster.node(0).reload(&narrow).await;
    let err = session.remove_member(&gone, WAIT).await.unwrap_err();
    assert!(matches!(err, RemoveError::StillLetIn(_)), "{err:?}");
    cluster.node(0).server.links.peers.retain(|peer| peer.member != gone);
    cluster.node(0).reload(&narrow).await;
    // The trap (1b): the list is narrow and loaded, and the old walsender is still there.
    assert!(session.flushed().await.unwrap().standbys.contains_key(&gone));

    session.remove_member(&gone, WAIT).await.unwrap();
    session.remove_member(&gone, WAIT).await.unwrap();
    assert!(!session.flushed().await.unwrap().standbys.contains_key(&gone));
    let slots = cluster.sql(0).await.sql.query("SELECT slot_name::text FROM pg_replication_slots", &[]).await;
    let slots: Vec<String> = slots.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(slots, [slot_name(&cluster.nodes[1].member)]);
    let refused =
        async || cluster.nodes[2].server.log().contains("pg_hba.conf rejects replication connection");
    eventually("it asks again and is refused", refused).await;
    assert_eq!(walsenders(&cluster).await.len(), 1);

    // Also with its line back, until it is a member again.
    let tls = cluster.nodes[2].server.setup.tls.clone().unwrap();
    let peer = holdfast_engine::links::Peer { member: gone.clone(), address: None, rewinds: false };
    cluster.node(0).server.links.peers.push(peer);
    cluster.node(0).reload(&narrow).await;
    let err = identify(&conninfo(&cluster, &gone, &gone, Some(&tls))).unwrap_err();
    assert!(err.contains("is not permitted to log in"), "{err}");
    session.ensure_member(&gone).await.unwrap();
    let back = async || session.flushed().await.unwrap().standbys.contains_key(&gone);
    eventually("a member again, it streams", back).await;
}

#[tokio::test]
async fn after_a_renewal_every_walsender_is_younger_than_the_reload() {
    let mut cluster = Cluster::start(15, 2).await;
    let rule = cluster.rule(1, 2, 0, &Lsn::ZERO.into());
    let before = walsenders(&cluster).await;
    assert_eq!(before.len(), 2);
    let reload = cluster.node(0).reload(&Ackers::of(&Rule { k: 2, ..rule })).await;
    assert_eq!(walsenders(&cluster).await, before, "a reload renews no walsender");
    let session = cluster.node(0).session().await;
    session.renew_walsenders(reload, WAIT).await.unwrap();
    let back = async || session.flushed().await.unwrap().standbys.len() == 2;
    eventually("both are back", back).await;
    assert!(walsenders(&cluster).await.iter().all(|pid| !before.contains(pid)));
    session.renew_walsenders(reload, WAIT).await.unwrap();
    cluster.sql(0).await.sql.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();
}
