//! Members on a primary: one login role and one slot each, so that taking a member's acks away is taking its login away.
//!
//! Each walsender decides with its own copy of the ack list, and reads a new list when it comes to it. So a list that was
//! reloaded is not in force: a removed member's walsender may go on acking by the old one, and one that has not read that
//! `k` was raised lets a commit go with too few acks (design review 1b, 1f). Hence:
//! * narrowing is complete only when the member's walsender is gone and cannot return: [`Session::remove_member`];
//! * a raised `k` counts only when every walsender is younger than the reload: [`Session::renew_walsenders`].
//!
//! Postgres counts acks by `application_name`, which a client chooses; only the login is proven. A member that acks under
//! another's name is ended on sight ([`Session::end_impostors`]), and never counted by [`Session::flushed`].
//!
//! Invariants, each a test in `tests/replication/members.rs`:
//! * `a_removed_member_is_gone_and_cannot_return`, and is not removed while it still counts or is let in.
//! * `after_a_renewal_every_walsender_is_younger_than_the_reload`.
//! * `nobody_acks_under_another_members_name`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_model::step::{self, expel};
use holdfast_model::{Lsn, Member, NodeName};
use holdfast_replication::catch_up::Attachment;
use tokio::time::{self, Instant};
use tokio_postgres::types::PgLsn;
use tracing::debug;

use super::layout::MEMBERS_ROLE;
use super::links::slot_name;
use super::session::status::{ConfLoaded, lsn_of};
use super::session::{Session, SessionError};

/// How often it is looked whether walsenders are gone.
const POLL: Duration = Duration::from_millis(10);

/// The functions by which `pg_rewind` reads a source (its manual, section Notes).
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// Why a member is not known to be gone.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The list that is in force names it: narrow the list first.
    #[error("{member} is still in the ack list {list:?}: narrow the list first")]
    StillCounted {
        /// Who.
        member: Member,
        /// The list in force.
        list: String,
    },
    /// The hba file lets it in: take its line out first.
    #[error("pg_hba.conf still lets {0} in: take its line out first")]
    StillLetIn(Member),
    /// Its walsender did not end in time. It may still ack.
    #[error("{left} connections of {member} did not end within {} ms: it may still ack", waited.as_millis())]
    StillThere {
        /// Who.
        member: Member,
        /// How many are left.
        left: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The server was not reached or refused.
    #[error("remove {member}")]
    Session {
        /// Who.
        member: Member,
        /// Why.
        #[source]
        source: SessionError,
    },
}

/// Why walsenders are not known to have read the configuration.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Some did not end in time.
    #[error("{left} walsenders from before the reload did not end within {} ms", waited.as_millis())]
    StillThere {
        /// How many are left.
        left: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The server was not reached or refused.
    #[error("end walsenders from before the reload")]
    Session(#[source] SessionError),
}

impl Session {
    /// Makes the member's login role and slot, or gives a removed member its login back. Idempotent. The slot holds log
    /// from now on, up to `max_slot_wal_keep_size`.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn ensure_member(&mut self, member: &Member) -> Result<(), SessionError> {
        // Names of members hold no quote (model::ids). A role of the group logs in by certificate and does nothing else.
        let sql = format!(
            "DO $$ BEGIN \
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{MEMBERS_ROLE}') THEN \
               CREATE ROLE {MEMBERS_ROLE} NOLOGIN; END IF; \
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{member}') THEN \
               CREATE ROLE \"{member}\" LOGIN REPLICATION IN ROLE {MEMBERS_ROLE}; \
             ELSIF NOT (SELECT rolcanlogin AND rolreplication FROM pg_roles WHERE rolname = '{member}') THEN \
               ALTER ROLE \"{member}\" LOGIN REPLICATION; END IF; END $$"
        );
        self.transact("make a member's login role", &sql).await?;
        self.ensure_slot(member).await
    }

    /// Makes the member's slot. Slots are not replicated before Postgres 17, so a standby that may be promoted keeps
    /// them too.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn ensure_slot(&self, member: &Member) -> Result<(), SessionError> {
        let sql = "SELECT pg_create_physical_replication_slot($1::name, true) \
            WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::name)";
        self.rows("make a member's slot", sql, &[&slot_name(member)]).await.map(drop)
    }

    /// Lets the member read this server's files over SQL, for a rewind; its hba line must say so too.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn allow_rewind(&mut self, member: &Member) -> Result<(), SessionError> {
        let functions = REWIND_FUNCTIONS.join(", ");
        let sql = format!("GRANT EXECUTE ON FUNCTION {functions} TO \"{member}\"");
        self.transact("let a member rewind", &sql).await
    }

    /// Takes the member's login away, ends its connections, sees them gone, and drops its slot. Refused while the list
    /// in force names it or an hba line lets it in. The narrowing is complete when this returns, and not before.
    ///
    /// A walsender that is being started meanwhile was forked after the reload, so it has the list without the member.
    ///
    /// # Errors
    /// [`RemoveError`]; it may be called again.
    pub async fn remove_member(&mut self, member: &Member, deadline: Duration) -> Result<(), RemoveError> {
        let session = |source| RemoveError::Session { member: member.clone(), source };
        let list = self.setting("synchronous_standby_names").await.map_err(session)?;
        if list.contains(&format!("\"{member}\"")) {
            return Err(RemoveError::StillCounted { member: member.clone(), list });
        }
        if self.is_let_in(member).await.map_err(session)? {
            return Err(RemoveError::StillLetIn(member.clone()));
        }
        let sql = format!(
            "DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{member}' AND rolcanlogin) THEN \
             ALTER ROLE \"{member}\" NOLOGIN; END IF; END $$"
        );
        self.transact("take a member's login away", &sql).await.map_err(session)?;
        debug!(target: step::TARGET, step = expel::LOCKED_OUT.name());
        let until = Instant::now() + deadline;
        loop {
            let left = self.end_connections(member).await.map_err(session)?;
            if left == 0 {
                break;
            }
            if Instant::now() >= until {
                return Err(RemoveError::StillThere { member: member.clone(), left, waited: deadline });
            }
            time::sleep(POLL).await;
        }
        debug!(target: step::TARGET, step = expel::GONE.name());
        self.drop_slot(member).await.map_err(session)?;
        debug!(target: step::TARGET, step = expel::FORGOTTEN.name());
        Ok(())
    }

    /// Ends every walsender that started before `reload`, which the caller has seen, and sees them gone. Standbys come
    /// back by themselves. Only then may a raised `k` be counted on.
    ///
    /// # Errors
    /// [`RenewError`]; it may be called again.
    pub async fn renew_walsenders(&self, reload: ConfLoaded, deadline: Duration) -> Result<(), RenewError> {
        let until = Instant::now() + deadline;
        // Both moments are by one clock, that of the server's machine; an equal one is taken for older.
        let sql = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid) IS NOT NULL) FROM pg_stat_activity \
            WHERE backend_type = 'walsender' AND (extract(epoch FROM backend_start) * 1000000)::bigint <= $1";
        loop {
            let ended =
                self.row("end older walsenders", sql, &[&reload.0]).await.map_err(RenewError::Session)?;
            let left = count(ended.get(0));
            if left == 0 {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(RenewError::StillThere { left, waited: deadline });
            }
            time::sleep(POLL).await;
        }
    }

    /// Ends walsenders that ack under a name that is not their login's; returns how many there were. Postgres itself
    /// counts such acks, so each is a breach of the promise if the name is in the list.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn end_impostors(&self) -> Result<u64, SessionError> {
        let sql = "SELECT count(*) FILTER (WHERE pg_terminate_backend(r.pid) IS NOT NULL) \
            FROM pg_stat_replication r JOIN pg_roles m ON m.oid = r.usesysid \
            WHERE r.application_name IS DISTINCT FROM r.usename \
            AND r.application_name IN (SELECT rolname FROM pg_roles WHERE pg_has_role(oid, $1::name, 'MEMBER'))";
        Ok(count(self.row("end impostors", sql, &[&MEMBERS_ROLE]).await?.get(0)))
    }

    /// Nodes that an operator holds out. What is no node's name is passed over.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn held_out(&self) -> Result<BTreeSet<NodeName>, SessionError> {
        let rows = self.rows("read who is held out", "SELECT node FROM holdfast.held_out", &[]).await?;
        Ok(rows.iter().filter_map(|row| row.get::<_, &str>(0).parse().ok()).collect())
    }

    /// Holds a node out, or not any more.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn hold_out(&mut self, node: &NodeName, out: bool) -> Result<(), SessionError> {
        // Names of nodes hold no quote (model::ids).
        let sql = if out {
            format!("INSERT INTO holdfast.held_out VALUES ('{node}') ON CONFLICT DO NOTHING")
        } else {
            format!("DELETE FROM holdfast.held_out WHERE node = '{node}'")
        };
        self.transact("hold a node out", &sql).await
    }

    /// The stream of each member that is attached under its own name, and how far it has flushed there. A member that
    /// was not heard yet has none. Another process of the server is another stream.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn streams(&self) -> Result<BTreeMap<Member, Attachment<Lsn>>, SessionError> {
        let sql = "SELECT usename::text, pid, (extract(epoch FROM backend_start) * 1000000)::bigint, flush_lsn \
            FROM pg_stat_replication WHERE usename = application_name AND flush_lsn IS NOT NULL";
        let rows = self.rows("look at streams", sql, &[]).await?;
        let stream = |row: &tokio_postgres::Row| {
            let member = row.get::<_, &str>(0).parse().ok()?;
            let (pid, started) = (row.get::<_, i32>(1), row.get::<_, i64>(2));
            // A pid alone may come back.
            let stream = started.cast_unsigned().rotate_left(22) ^ u64::from(pid.cast_unsigned());
            Some((member, Attachment { stream, flushed: lsn_of(row.get::<_, PgLsn>(3)) }))
        };
        Ok(rows.iter().filter_map(stream).collect())
    }

    async fn is_let_in(&self, member: &Member) -> Result<bool, SessionError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_hba_file_rules WHERE $1 = ANY (user_name))";
        Ok(self.row("read who is let in", sql, &[&member.to_string()]).await?.get(0))
    }

    /// Ends what is left of a member's connections; returns how many there were. None of them is a client's, so none
    /// waits for acks.
    async fn end_connections(&self, member: &Member) -> Result<u64, SessionError> {
        let sql = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid) IS NOT NULL) \
            FROM pg_stat_activity WHERE usename = $1::name";
        Ok(count(self.row("end a member's connections", sql, &[&member.to_string()]).await?.get(0)))
    }

    async fn drop_slot(&self, member: &Member) -> Result<(), SessionError> {
        let sql =
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1::name";
        self.rows("drop a member's slot", sql, &[&slot_name(member)]).await.map(drop)
    }
}

fn count(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or(0)
}
