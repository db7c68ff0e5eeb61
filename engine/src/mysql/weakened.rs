//! Settings and accounts by which a commit could be answered before it is held as its rule asks.
//!
//! Whoever may set global variables can switch semi-sync off (`SYSTEM_VARIABLES_ADMIN`), and whom neither a closed gate nor
//! `read_only` keeps out has `CONNECTION_ADMIN`. Such accounts are the operator's to have, and are named.

use std::collections::BTreeSet;

use holdfast_model::status::Weakened;

use super::layout::AGENT;
use super::session::{Session, SessionError};

/// What must be in force on a server that writes, besides what [`super::gate`] sets and checks itself.
const WANTED: [(&str, &str); 7] = [
    ("sync_binlog", "1"),
    ("innodb_flush_log_at_trx_commit", "1"),
    ("sync_relay_log", "1"),
    ("rpl_semi_sync_source_wait_point", "AFTER_SYNC"),
    ("rpl_semi_sync_source_wait_no_replica", "1"),
    ("rpl_semi_sync_source_timeout", "1000000000000000000"),
    ("replica_preserve_commit_order", "1"),
];

/// Everything of the kind that is in force now.
///
/// # Errors
/// [`SessionError`].
pub async fn look(session: &mut Session) -> Result<BTreeSet<Weakened>, SessionError> {
    let doing = "look for what weakens commits";
    let mut found = BTreeSet::new();
    for (name, wanted) in WANTED {
        let value: Option<String> =
            session.row(doing, &format!("SELECT CAST(@@global.{name} AS CHAR)")).await?;
        let value = value.unwrap_or_default();
        if value != wanted {
            found.insert(Weakened { setting: name.to_owned(), value, role: None, database: None });
        }
    }
    let sql = format!(
        "SELECT DISTINCT grantee, privilege_type FROM information_schema.user_privileges \
         WHERE privilege_type IN ('SUPER', 'SYSTEM_VARIABLES_ADMIN', 'CONNECTION_ADMIN') \
         AND grantee NOT LIKE '''mysql.%' AND grantee NOT IN ('''{AGENT}''@''localhost''', '''root''@''localhost''')"
    );
    let accounts: Vec<(String, String)> = session.rows(doing, &sql).await?;
    found.extend(accounts.into_iter().map(|(account, privilege)| Weakened {
        setting: "privilege".to_owned(),
        value: privilege,
        role: Some(account),
        database: None,
    }));
    Ok(found)
}
