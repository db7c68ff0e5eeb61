//! One SQL session of the agent: the unix socket, the account `holdfast`, one query at a time, a deadline on each.
//!
//! The account is let in by who the process is (`auth_socket`), and has every right, so neither a closed gate nor a read-only
//! server keeps it out. It is opened as soon as the server answers and kept.
//!
//! A query that misses its deadline leaves the connection busy: the session is then [`Session::is_spoilt`] and its owner drops
//! it and connects again. The server goes on with the statement until it looks at the connection again: what a late *write*
//! did is unknown until it is read back.

use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Opts, OptsBuilder, Params};
use tokio::time::timeout;

use super::Layout;
use super::layout::AGENT;
use crate::engine::Retry;

/// What each session sets for itself. Reading what waits for acks is what [`super::rules`] needs; nothing else reads rows that
/// others write.
const SETUP: [&str; 2] = [
    "SET SESSION transaction_isolation = 'READ-UNCOMMITTED', time_zone = '+00:00', sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES'",
    "SET SESSION lock_wait_timeout = 2, innodb_lock_wait_timeout = 2, wait_timeout = 31536000",
];

/// Server errors that pass by themselves: too many connections, starting or stopping, a lock that was not had in time.
const PASSING: [u16; 4] = [1040, 1053, 1205, 3032];
/// The login is not let in: by the account, by its host, or by `init_connect` (which ends the connection).
const KEPT_OUT: [u16; 4] = [1045, 1130, 1184, 3118];

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
        source: mysql_async::Error,
    },
    /// It admits others, but not this login.
    #[error("the server refused the login of {account}")]
    Login {
        /// The account.
        account: &'static str,
        /// What it said.
        #[source]
        source: mysql_async::Error,
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
        source: mysql_async::Error,
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
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } => Retry::Backoff,
            Self::Query { source, .. } if code_of(source).is_some_and(|code| PASSING.contains(&code)) => {
                Retry::Backoff
            }
            Self::Login { .. } | Self::Query { .. } | Self::Answer { .. } => Retry::Never,
        }
    }

    pub(super) fn of(doing: &'static str, source: mysql_async::Error) -> Self {
        match &source {
            mysql_async::Error::Server(_) => Self::Query { doing, source },
            mysql_async::Error::Driver(_)
            | mysql_async::Error::Io(_)
            | mysql_async::Error::Other(_)
            | mysql_async::Error::Url(_) => Self::Unreachable { doing, source },
        }
    }

    /// The server's error number, where it answered with one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Query { source, .. } | Self::Login { source, .. } | Self::Unreachable { source, .. } => {
                code_of(source)
            }
            Self::Late { .. } | Self::Answer { .. } => None,
        }
    }
}

fn code_of(err: &mysql_async::Error) -> Option<u16> {
    match err {
        mysql_async::Error::Server(err) => Some(err.code),
        mysql_async::Error::Driver(_)
        | mysql_async::Error::Io(_)
        | mysql_async::Error::Other(_)
        | mysql_async::Error::Url(_) => None,
    }
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    deadline: Duration,
    spoilt: bool,
}

impl Session {
    /// Logs in as the agent. Each later query has `deadline` too, unless it says otherwise.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn connect(layout: &Layout, deadline: Duration) -> Result<Self, SessionError> {
        let mut session = Self::connect_as(layout, AGENT, deadline).await?;
        for sql in SETUP {
            session.run("set the session up", sql).await?;
        }
        Ok(session)
    }

    /// Logs in as `account`; the gate's probe is the only other one.
    pub(super) async fn connect_as(
        layout: &Layout,
        account: &'static str,
        deadline: Duration,
    ) -> Result<Self, SessionError> {
        let doing = "log in over the unix socket";
        let opts: Opts = OptsBuilder::default()
            .socket(Some(layout.socket().to_string_lossy().into_owned()))
            .user(Some(account))
            .stmt_cache_size(0)
            .into();
        match timeout(deadline, Conn::new(opts)).await {
            Err(_) => Err(SessionError::Late { doing, deadline }),
            Ok(Ok(conn)) => Ok(Self { conn, deadline, spoilt: false }),
            Ok(Err(source)) if code_of(&source).is_some_and(|code| KEPT_OUT.contains(&code)) => {
                Err(SessionError::Login { account, source })
            }
            Ok(Err(source)) => Err(SessionError::of(doing, source)),
        }
    }

    /// Whether the session can no longer be used: the connection broke, or an answer is overdue.
    #[must_use]
    pub const fn is_spoilt(&self) -> bool {
        self.spoilt
    }

    /// The server's number of this session.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.conn.id()
    }

    /// Runs one statement for its effect.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn run(&mut self, doing: &'static str, sql: &str) -> Result<(), SessionError> {
        let deadline = self.deadline;
        self.run_within(doing, deadline, sql).await
    }

    /// Runs one statement for its effect, with another deadline.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn run_within(
        &mut self,
        doing: &'static str,
        deadline: Duration,
        sql: &str,
    ) -> Result<(), SessionError> {
        let done = timeout(deadline, self.conn.query_drop(sql)).await;
        self.judge(doing, deadline, done)
    }

    /// Runs one statement with parameters for its effect.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn execute(
        &mut self,
        doing: &'static str,
        sql: &str,
        parameters: impl Into<Params> + Send,
    ) -> Result<(), SessionError> {
        let deadline = self.deadline;
        let done = timeout(deadline, self.conn.exec_drop(sql, parameters)).await;
        self.judge(doing, deadline, done)
    }

    /// Asks for any number of rows.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn rows<T: FromRow + Send + 'static>(
        &mut self,
        doing: &'static str,
        sql: &str,
    ) -> Result<Vec<T>, SessionError> {
        let deadline = self.deadline;
        let rows = timeout(deadline, self.conn.query(sql)).await;
        self.judge(doing, deadline, rows)
    }

    /// Asks for exactly one row.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn row<T: FromRow + Send + 'static>(
        &mut self,
        doing: &'static str,
        sql: &str,
    ) -> Result<T, SessionError> {
        let mut rows = self.rows(doing, sql).await?;
        let count = rows.len();
        let row = rows.pop().filter(|_| count == 1);
        row.ok_or_else(|| SessionError::Answer { doing, found: format!("{count} rows") })
    }

    fn judge<T>(
        &mut self,
        doing: &'static str,
        deadline: Duration,
        done: Result<Result<T, mysql_async::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, SessionError> {
        let Ok(answer) = done else {
            self.spoilt = true;
            return Err(SessionError::Late { doing, deadline });
        };
        let answer = answer.map_err(|source| SessionError::of(doing, source));
        self.spoilt |= matches!(&answer, Err(SessionError::Unreachable { .. }));
        answer
    }
}

/// A string of SQL.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}
