//! Which settings are the agent's, with the reason that an operator is told.

/// A setting with one value for every server.
pub(super) struct Fixed {
    pub(super) name: &'static str,
    pub(super) value: &'static str,
    reason: &'static str,
}

const fn fixed(name: &'static str, value: &'static str, reason: &'static str) -> Fixed {
    Fixed { name, value, reason }
}

const DURABLE: &str = "without it an acknowledged commit can be lost";
const BASE: &str = "backup and restore depend on it";
const LOG: &str = "the agent keeps and reads the engine's log";
const PLACE: &str = "the agent decides where it is";
const GATE: &str = "it is part of the gate";
const RESTORE: &str = "restores are the agent's";
const DAMAGE: &str = "it hides damaged data";
const DIRECTIVE: &str = "the agent renders one file, and includes are not read";

pub(super) const FIXED: &[Fixed] = &[
    fixed("fsync", "on", DURABLE),
    fixed("full_page_writes", "on", DURABLE),
    fixed("synchronous_commit", "on", DURABLE),
    fixed("data_sync_retry", "off", "a failed fsync loses pages: retrying it lies (P11)"),
    fixed("restart_after_crash", "off", "a server that restarts itself skips the gate (T5)"),
    fixed("wal_level", "replica", BASE),
    fixed("wal_log_hints", "on", BASE),
    fixed("hot_standby", "on", BASE),
    fixed("recovery_min_apply_delay", "0", "a member that is recruited applies all that it received"),
    fixed("wal_receiver_status_interval", "1s", "acks must not wait for the next flush"),
    fixed("wal_sender_timeout", "10s", "a server that ends waits so long for a member whose link died"),
    fixed("wal_receiver_timeout", "10s", "a member waits so long before it looks for its primary again"),
    fixed(
        "wal_retrieve_retry_interval",
        "1s",
        "a member that is recruited is seen to have nothing left to apply by it",
    ),
    fixed("archive_mode", "off", "the agent ships the log itself"),
    fixed("authentication_timeout", "10s", "it bounds how long a login from before a closing gate can take"),
    fixed(
        "superuser_reserved_connections",
        "5",
        "the agent must get in when waiting commits hold every connection",
    ),
    fixed("log_destination", "stderr", LOG),
    fixed("logging_collector", "off", LOG),
    fixed("log_min_messages", "warning", "cancelled waits for acks are counted from the log (P1)"),
    fixed("log_line_prefix", "%m [%p] %q%u@%d ", LOG),
    fixed("lc_messages", "C", LOG),
];

/// Set per server, or never set at all.
const OTHERS: &[(&str, &str)] = &[
    ("synchronous_standby_names", DURABLE),
    ("default_transaction_read_only", GATE),
    ("wal_keep_size", "members keep log that was not shipped yet by it"),
    ("max_slot_wal_keep_size", "a lost peer must not fill the disk"),
    ("hba_file", GATE),
    ("ident_file", GATE),
    ("unix_socket_directories", PLACE),
    ("listen_addresses", "set [engine] listen"),
    ("port", "set [engine] port"),
    ("cluster_name", "it is the cluster's name"),
    ("allow_alter_system", "settings are changed in [engine] settings"),
    ("data_directory", PLACE),
    ("config_file", PLACE),
    ("external_pid_file", PLACE),
    ("stats_temp_directory", PLACE),
    ("archive_command", "the agent ships the log itself"),
    ("archive_library", "the agent ships the log itself"),
    ("archive_cleanup_command", RESTORE),
    ("restore_command", RESTORE),
    ("recovery_end_command", RESTORE),
    ("recovery_target", RESTORE),
    ("recovery_target_action", RESTORE),
    ("recovery_target_inclusive", RESTORE),
    ("recovery_target_lsn", RESTORE),
    ("recovery_target_name", RESTORE),
    ("recovery_target_time", RESTORE),
    ("recovery_target_timeline", RESTORE),
    ("recovery_target_xid", RESTORE),
    ("promote_trigger_file", RESTORE),
    ("primary_conninfo", "the agent decides whom to follow"),
    ("primary_slot_name", "the agent decides whom to follow"),
    ("zero_damaged_pages", DAMAGE),
    ("ignore_checksum_failure", DAMAGE),
    ("ignore_invalid_pages", DAMAGE),
    ("ignore_system_indexes", DAMAGE),
    ("allow_in_place_tablespaces", BASE),
    ("include", DIRECTIVE),
    ("include_dir", DIRECTIVE),
    ("include_if_exists", DIRECTIVE),
];

/// The server's certificates, once the agent has some: a member's identity is its certificate (P6).
const TLS: [&str; 4] = ["ssl", "ssl_cert_file", "ssl_key_file", "ssl_ca_file"];

/// Why `name` is not the operator's to set while the agent has certificates.
pub(super) fn tls_reason(name: &str) -> Option<&'static str> {
    TLS.contains(&name).then_some("members are told apart by the certificates of [tls]")
}

/// Why `name` (in lower case) is not the operator's to set; `None` when it is.
#[must_use]
pub fn owned_reason(name: &str) -> Option<&'static str> {
    let fixed = FIXED.iter().find(|fixed| fixed.name == name).map(|fixed| fixed.reason);
    fixed.or_else(|| OTHERS.iter().find(|(other, _)| *other == name).map(|(_, reason)| *reason))
}
