//! Members that replicate from a server that writes: their logins, their streams, and whether those ack.
//!
//! A login is made on the server that it is for and is not in its log (`sql_log_bin = OFF`): making one must not wait for acks, since
//! it may be the only way to get any. So every primary makes its own, and `init_connect` says which are let in ([`super::gate`]).
//!
//! The server counts an ack of whoever declares that it acks (M9), and does not say who did. It can be seen all the same: a
//! receiver declares it by a user variable of its session, which `performance_schema` shows.
//!
//! Invariants, each a test in `tests/mysql/members.rs`:
//! * `a_member_needs_its_nodes_certificate`.
//! * `who_acks_without_being_asked_is_cut_off` (M9).
//! * `an_expelled_member_cannot_come_back`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_model::{ClusterName, Incarnation, Member};

use super::Layout;
use super::identity::login_of;
use super::session::{Session, SessionError, quote};

/// One member's stream from this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// The server's number of its session: another one after a reconnect.
    pub session: u64,
    /// Whether it declared that it acks.
    pub acks: bool,
}

/// How a receiver declares that it acks; the second is the name of it before 8.4's plugin.
const DECLARES: &str = "'rpl_semi_sync_replica', 'rpl_semi_sync_slave'";

impl Session {
    /// Each stream, by the incarnation whose login it used.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn streams(&mut self) -> Result<BTreeMap<Incarnation, Stream>, SessionError> {
        let sql = format!(
            "SELECT t.processlist_user, t.processlist_id, EXISTS (SELECT 1 FROM performance_schema.user_variables_by_thread v \
               WHERE v.thread_id = t.thread_id AND v.variable_name IN ({DECLARES}) AND v.variable_value = '1') \
             FROM performance_schema.threads t WHERE t.processlist_command = 'Binlog Dump GTID' AND t.processlist_user IS NOT NULL"
        );
        let rows: Vec<(String, u64, bool)> = self.rows("look at streams", &sql).await?;
        let stream = |(user, session, acks): (String, u64, bool)| {
            user.parse().ok().map(|incarnation| (incarnation, Stream { session, acks }))
        };
        Ok(rows.into_iter().filter_map(stream).collect())
    }

    /// Ends every stream that acks and is of none of `ackers`; returns whose there were.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn end_impostors(
        &mut self,
        ackers: &BTreeSet<Member>,
    ) -> Result<BTreeSet<Incarnation>, SessionError> {
        let named: BTreeSet<Incarnation> = ackers.iter().map(|member| member.incarnation).collect();
        let streams = self.streams().await?;
        let impostors = streams.into_iter().filter(|(who, stream)| stream.acks && !named.contains(who));
        let mut ended = BTreeSet::new();
        for (who, stream) in impostors {
            self.end(stream.session).await?;
            ended.insert(who);
        }
        Ok(ended)
    }

    async fn end(&mut self, session: u64) -> Result<(), SessionError> {
        match self.run("end a stream", &format!("KILL CONNECTION {session}")).await {
            // It went by itself.
            Err(err) if err.code() == Some(1094) => Ok(()),
            done => done,
        }
    }
}

/// A session whose statements are not written into the log. Its own one, so that nothing that has to be in the log is ever
/// written by it, wherever it is dropped.
struct Unlogged(Session);

impl Unlogged {
    async fn connect(layout: &Layout, deadline: Duration) -> Result<Self, SessionError> {
        let mut session = Session::connect(layout, deadline).await?;
        session.run("leave the log out", "SET SESSION sql_log_bin = OFF").await?;
        Ok(Self(session))
    }
}

/// Makes the logins of `members` where they are not there, for whoever holds a certificate with the subject that comes with
/// each.
///
/// # Errors
/// [`SessionError`].
pub async fn ensure_logins(
    layout: &Layout,
    members: &BTreeMap<Member, String>,
    deadline: Duration,
) -> Result<(), SessionError> {
    let Unlogged(mut session) = Unlogged::connect(layout, deadline).await?;
    for (member, subject) in members {
        let (login, subject) = (quote(&login_of(member)), quote(subject));
        let create = format!(
            "CREATE USER IF NOT EXISTS {login}@'%' IDENTIFIED WITH caching_sha2_password BY '' REQUIRE SUBJECT {subject}"
        );
        session.run("make a member's login", &create).await?;
        let grant = format!("GRANT REPLICATION SLAVE ON *.* TO {login}@'%'");
        session.run("let a member replicate", &grant).await?;
    }
    Ok(())
}

/// Takes a member's login away and ends its stream; returns whether both are gone.
///
/// # Errors
/// [`SessionError`].
pub async fn drop_login(layout: &Layout, member: &Member, deadline: Duration) -> Result<bool, SessionError> {
    let Unlogged(mut session) = Unlogged::connect(layout, deadline).await?;
    let sql = format!("DROP USER IF EXISTS {}@'%'", quote(&login_of(member)));
    session.run("take a member's login away", &sql).await?;
    match session.streams().await?.get(&member.incarnation).copied() {
        Some(stream) => session.end(stream.session).await.map(|()| false),
        None => Ok(true),
    }
}

/// The subject of a node's certificate as the server writes it, where `holdfast certs` made it.
#[must_use]
pub fn subject_of(cluster: &ClusterName, member: &Member) -> String {
    format!("/O={cluster}/CN={}", member.node)
}
