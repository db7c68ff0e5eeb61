//! One SQL session of the agent: the unix socket, the role `holdfast`, one query at a time, a deadline on each.
//!
//! The agent opens it as soon as the server answers and keeps it, so that it is already inside when waiting commits
//! hold every connection. The task that drives the connection is owned by the session and ends with it.
//!
//! A query that misses its deadline leaves the connection busy: the session is then [`Session::is_spoilt`] and its
//! owner drops it and connects again. What a late *write* did is unknown until it is read back.
//!
//! * [`status`]: what the server is doing.
//! * [`rules`]: the table of rules.
//! * [`clients`]: whom it serves, and ending that.
//! * `slots`: keeping log on disk until it was shipped.

pub mod clients;
pub mod rules;
mod slots;
pub mod status;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

use super::Layout;
use super::layout::{DATABASE, SUPERUSER};
use crate::engine::Retry;

/// What each session sets for itself, whatever a role or database asks for: nothing the operator configures may
/// redirect, cancel or time out the agent.
const OPTIONS: &str = "-c search_path=pg_catalog -c statement_timeout=0 -c lock_timeout=0 -c jit=off \
     -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c client_min_messages=error \
     -c datestyle=ISO";

/// Why the server was not reached, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nobody listens, or the connection broke.
    #[error("reach the server: {doing}")]
    Unreachable {
        /// What was being done.
        doing: &'static str,
        /// The connection's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// It starts, stops or recovers, and admits nobody yet.
    #[error("the server is starting, recovering or stopping")]
    NotReady(#[source] tokio_postgres::Error),
    /// It admits others, but not this login.
    #[error("the server refused the login of {role}")]
    Login {
        /// The role.
        role: &'static str,
        /// What it said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// No answer in time.
    #[error("{doing}: no answer within {} ms", deadline.as_millis())]
    Late {
        /// What was being done.
        doing: &'static str,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// It answered with an error.
    #[error("{doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// It answered something that no supported server says.
    #[error("{doing}: unexpected answer {found}")]
    Answer {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        found: String,
    },
}

impl SessionError {
    /// Whether trying again can help.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } | Self::NotReady(_) | Self::Late { .. } => Retry::Backoff,
            Self::Login { .. } | Self::Query { .. } | Self::Answer { .. } => Retry::Never,
        }
    }

    fn of(doing: &'static str, source: tokio_postgres::Error) -> Self {
        let not_ready = [SqlState::CANNOT_CONNECT_NOW, SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
        match source.code() {
            Some(code) if not_ready.contains(code) => Self::NotReady(source),
            Some(_) => Self::Query { doing, source },
            None => Self::Unreachable { doing, source },
        }
    }
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    client: Client,
    /// Drives the connection; aborted when the session is dropped, which closes the socket.
    connection: JoinSet<()>,
    deadline: Duration,
    spoilt: AtomicBool,
}

impl Session {
    /// Logs in as the agent. Each later query has `deadline` too, unless it says otherwise.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn connect(layout: &Layout, deadline: Duration) -> Result<Self, SessionError> {
        Self::connect_as(layout, SUPERUSER, deadline).await
    }

    /// Logs in as `role`; the gate's probe is the only other one.
    pub(crate) async fn connect_as(
        layout: &Layout,
        role: &'static str,
        deadline: Duration,
    ) -> Result<Self, SessionError> {
        let doing = "log in over the unix socket";
        let mut config = Config::new();
        config
            .host_path(&layout.socket_dir)
            .port(layout.port)
            .user(role)
            .dbname(DATABASE)
            .application_name("holdfast")
            .options(OPTIONS)
            .connect_timeout(deadline);
        let connected = timeout(deadline, config.connect(NoTls))
            .await
            .map_err(|_| SessionError::Late { doing, deadline })?;
        let (client, connection) = connected.map_err(|source| match source.code() {
            Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => SessionError::Login { role, source },
            _ => SessionError::of(doing, source),
        })?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // The error reaches whoever waits for an answer; here it only ends the task.
            if let Err(err) = connection.await {
                tracing::debug!(error = %err, "sql connection ended");
            }
        });
        Ok(Self { client, connection: tasks, deadline, spoilt: AtomicBool::new(false) })
    }

    /// Whether the session can no longer be used: the connection ended, or an answer is overdue.
    #[must_use]
    pub fn is_spoilt(&self) -> bool {
        self.client.is_closed() || self.connection.is_empty() || self.spoilt.load(Ordering::Relaxed)
    }

    /// Asks for an answer, nothing else.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn ping(&self) -> Result<(), SessionError> {
        self.within("ping", self.client.batch_execute("")).await
    }

    /// Asks for exactly one row, with the session's own deadline.
    pub(crate) async fn row(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, SessionError> {
        self.within(doing, self.client.query_one(sql, parameters)).await
    }

    /// Asks for any number of rows, with the session's own deadline.
    pub(crate) async fn rows(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, SessionError> {
        self.within(doing, self.client.query(sql, parameters)).await
    }

    /// Runs one exchange with the session's own deadline.
    pub(crate) async fn within<T>(
        &self,
        doing: &'static str,
        exchange: impl Future<Output = Result<T, tokio_postgres::Error>> + Send,
    ) -> Result<T, SessionError> {
        self.within_deadline(doing, self.deadline, exchange).await
    }

    /// Runs one exchange with another deadline.
    pub(crate) async fn within_deadline<T>(
        &self,
        doing: &'static str,
        deadline: Duration,
        exchange: impl Future<Output = Result<T, tokio_postgres::Error>> + Send,
    ) -> Result<T, SessionError> {
        match timeout(deadline, exchange).await {
            Ok(answer) => answer.map_err(|source| SessionError::of(doing, source)),
            Err(_) => Err(self.late(doing, deadline)),
        }
    }

    /// Runs statements that write, in one transaction that waits for nobody's ack and is rolled back whole on an error.
    pub(crate) async fn transact(&mut self, doing: &'static str, sql: &str) -> Result<(), SessionError> {
        let deadline = self.deadline;
        let made = timeout(deadline, async {
            // An explicit transaction object, so that an error rolls back instead of leaving the session aborted.
            let transaction = self.client.build_transaction().read_only(false).start().await?;
            transaction.batch_execute("SET LOCAL synchronous_commit = local").await?;
            transaction.batch_execute(sql).await?;
            transaction.commit().await
        });
        match made.await {
            Ok(made) => made.map_err(|source| SessionError::of(doing, source)),
            Err(_) => Err(self.late(doing, deadline)),
        }
    }

    /// Spoils the session, since an answer is still to come, and says why.
    fn late(&self, doing: &'static str, deadline: Duration) -> SessionError {
        self.spoilt.store(true, Ordering::Relaxed);
        SessionError::Late { doing, deadline }
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn deadline(&self) -> Duration {
        self.deadline
    }
}
