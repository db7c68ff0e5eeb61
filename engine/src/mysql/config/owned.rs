//! Which settings are the agent's, with the reason that an operator is told. The table in the documentation is made of this.

/// A setting with one value for every server.
#[derive(Debug, Clone, Copy)]
pub struct Owned {
    /// As `SHOW VARIABLES` spells it.
    pub name: &'static str,
    /// What it is at every start; empty where it differs between servers.
    pub value: &'static str,
    /// Why an operator may not set it.
    pub reason: &'static str,
}

const fn fixed(name: &'static str, value: &'static str, reason: &'static str) -> Owned {
    Owned { name, value, reason }
}

const DURABLE: &str = "without it an acknowledged commit can be lost";
const GTID: &str = "members are compared by their GTID sets";
const LOG: &str = "the agent keeps and reads the engine's log";
const PLACE: &str = "the agent decides where it is";
const GATE: &str = "it is part of the gate";
const SEMI_SYNC: &str = "whose acks count is what the rule says";
const FOLLOW: &str = "the agent decides whom to follow";
const WHOLE: &str = "a member holds everything, or it is no copy";
const DAMAGE: &str = "it hides damaged data";
const FILES: &str = "the agent keeps the engine's certificates";

pub(super) const FIXED: &[Owned] = &[
    fixed("gtid_mode", "ON", GTID),
    fixed("enforce_gtid_consistency", "ON", GTID),
    fixed("log_bin", "binlog", GTID),
    fixed("log_replica_updates", "ON", "whoever is promoted serves the log of every term"),
    fixed("binlog_row_image", "FULL", WHOLE),
    fixed("binlog_checksum", "CRC32", DAMAGE),
    fixed("binlog_expire_logs_auto_purge", "OFF", "log is kept until it is shipped"),
    fixed("sync_binlog", "1", DURABLE),
    fixed("innodb_flush_log_at_trx_commit", "1", DURABLE),
    fixed("innodb_doublewrite", "ON", DURABLE),
    fixed("sync_relay_log", "1", "an ack says that the log is on the disk (M5)"),
    fixed("relay_log", "relay", PLACE),
    fixed("relay_log_recovery", "OFF", "it throws away received log that may be the only copy (M6)"),
    fixed("relay_log_purge", "ON", "what was applied is in the binlog"),
    fixed("replica_preserve_commit_order", "ON", "without it a replica's GTID set has gaps (M10)"),
    fixed("replica_sql_verify_checksum", "ON", DAMAGE),
    fixed("replica_net_timeout", "8", "a replica waits so long before it looks for its primary again"),
    fixed("skip_replica_start", "ON", FOLLOW),
    fixed("read_only", "ON", GATE),
    fixed("super_read_only", "ON", GATE),
    fixed("offline_mode", "OFF", GATE),
    fixed("init_connect", super::super::gate::NOBODY, GATE),
    fixed(
        "plugin_load_add",
        "rpl_semi_sync_source=semisync_source.so;rpl_semi_sync_replica=semisync_replica.so;clone=mysql_clone.so",
        SEMI_SYNC,
    ),
    fixed("rpl_semi_sync_source_enabled", "OFF", SEMI_SYNC),
    fixed("rpl_semi_sync_replica_enabled", "OFF", SEMI_SYNC),
    fixed(
        "rpl_semi_sync_source_timeout",
        "1000000000000000000",
        "a timeout releases every waiter as if it were acked (M1)",
    ),
    fixed("rpl_semi_sync_source_wait_no_replica", "ON", SEMI_SYNC),
    fixed(
        "rpl_semi_sync_source_wait_point",
        "AFTER_SYNC",
        "clients would see commits that are not acked (M3)",
    ),
    fixed("rpl_semi_sync_source_wait_for_replica_count", "1", SEMI_SYNC),
    fixed("auto_generate_certs", "OFF", FILES),
    fixed("caching_sha2_password_auto_generate_rsa_keys", "OFF", FILES),
    fixed("log_error_verbosity", "2", LOG),
    fixed("log_timestamps", "UTC", LOG),
    fixed("lc_messages", "en_US", LOG),
    fixed("mysqlx", "OFF", "the gate covers one port"),
    fixed("secure_file_priv", "NULL", "files of the volume are read by workers alone"),
];

/// Set per server, or never set at all.
pub(super) const OTHERS: &[(&str, &str)] = &[
    ("datadir", PLACE),
    ("basedir", PLACE),
    ("socket", PLACE),
    ("pid_file", PLACE),
    ("log_error", PLACE),
    ("log_bin_index", PLACE),
    ("relay_log_index", PLACE),
    ("relay_log_info_file", PLACE),
    ("innodb_data_home_dir", PLACE),
    ("innodb_log_group_home_dir", PLACE),
    ("innodb_undo_directory", PLACE),
    ("innodb_doublewrite_dir", PLACE),
    ("innodb_directories", "files outside the volume would be lost with it, or without it"),
    ("port", "set [engine] port"),
    ("bind_address", "set [engine] listen"),
    ("networking", "set [engine] listen"),
    ("admin_address", "the gate covers one port"),
    ("server_id", "it is made of the incarnation"),
    ("report_host", "it is the node's name"),
    ("init_file", GATE),
    ("grant_tables", GATE),
    ("persisted_globals_load", "settings are changed in [engine] settings"),
    ("plugin_load", "use plugin_load_add"),
    ("user", PLACE),
    ("chroot", PLACE),
    ("daemonize", "the agent supervises the server"),
    ("log_bin_trust_function_creators", GTID),
    // Its only value that counts is the default, and naming it earns a warning at every start (deprecated since 8.0.34).
    ("binlog_format", GTID),
    ("binlog_do_db", WHOLE),
    ("binlog_ignore_db", WHOLE),
    ("innodb_force_recovery", DAMAGE),
    ("innodb_read_only", DAMAGE),
    ("innodb_checksum_algorithm", DAMAGE),
    ("innodb_log_checksums", DAMAGE),
    ("tc_heuristic_recover", DURABLE),
    ("defaults_file", PLACE),
    ("initialize", PLACE),
    ("initialize_insecure", PLACE),
];

/// The server's certificates, once the agent has some: a member's identity is its certificate (P6).
const TLS: [&str; 6] = ["ssl", "ssl_cert", "ssl_key", "ssl_ca", "ssl_capath", "tls_version"];

/// Names before 8.4, which the server may still take.
const OLD_NAMES: [(&str, &str); 4] = [
    ("rpl_semi_sync_master_", "rpl_semi_sync_source_"),
    ("rpl_semi_sync_slave_", "rpl_semi_sync_replica_"),
    ("slave_", "replica_"),
    ("log_slave_updates", "log_replica_updates"),
];

/// Prefixes with which the server takes any boolean, or ignores what it does not know (MySQL 9.7 reference manual, 6.2.2.4).
const PREFIXES: [&str; 5] = ["loose_", "skip_", "disable_", "enable_", "maximum_"];

/// One spelling of a name for all that mean the same to the server.
pub(super) fn canonical(name: &str) -> String {
    let mut name = name.to_ascii_lowercase().replace('-', "_");
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        if FIXED.iter().any(|own| own.name == name) {
            break;
        }
        name = rest.to_owned();
    }
    for (old, new) in OLD_NAMES {
        if let Some(rest) = name.strip_prefix(old) {
            return format!("{new}{rest}");
        }
    }
    name
}

/// Every setting with one value for every server.
#[must_use]
pub const fn owned() -> &'static [Owned] {
    FIXED
}

/// Why `name`, in its one spelling, is not the operator's to set; `None` when it is.
pub(super) fn reason(name: &str, tls: bool) -> Option<&'static str> {
    if name.starts_with("replicate_") {
        return Some(WHOLE);
    }
    if tls && TLS.contains(&name) {
        return Some("members are told apart by the certificates of [tls]");
    }
    let fixed = FIXED.iter().filter(|own| own.name != "plugin_load_add").find(|own| own.name == name);
    let other = || OTHERS.iter().find(|(other, _)| *other == name).map(|(_, reason)| *reason);
    fixed.map(|own| own.reason).or_else(other)
}
