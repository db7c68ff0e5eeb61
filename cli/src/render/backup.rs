//! Backups and shipped log.

use holdfast_proto::reply::{Backup, BackupDetail, LogStatus};

use super::status::log;
use super::{key_value, or_dash, with_header};

/// One line for each.
#[must_use]
pub fn backups(backups: &[Backup]) -> String {
    if backups.is_empty() {
        return "no complete backup".to_owned();
    }
    let rows = backups.iter().map(|backup| {
        vec![
            backup.id.clone(),
            backup.finished.clone(),
            backup.term.to_string(),
            backup.stop.to_string(),
            backup.data.to_string(),
            backup.added.to_string(),
            backup.engine_version.clone(),
        ]
    });
    with_header(&["BACKUP", "FINISHED", "TERM", "UP TO", "DATA", "ADDED", "ENGINE"], rows)
}

/// Everything about one.
#[must_use]
pub fn backup_detail(detail: &BackupDetail) -> String {
    let (backup, content) = (&detail.backup, &detail.content);
    let shares = if content.shares_with.is_empty() { "-".to_owned() } else { content.shares_with.join(", ") };
    key_value([
        ("backup", backup.id.clone()),
        ("taken by", backup.member.to_string()),
        ("started", backup.started.clone()),
        ("finished", backup.finished.clone()),
        ("term", backup.term.to_string()),
        ("needs log", format!("{} to {}", backup.start, backup.stop)),
        ("engine", backup.engine_version.clone()),
        ("data", format!("{} in {} files", backup.data, content.files)),
        ("added", format!("{} in {} packs", backup.added, content.packs)),
        ("chunks", content.chunks.to_string()),
        ("parent", or_dash(backup.parent.as_ref())),
        ("reads packs of", shares),
    ])
}

/// How far the log is shipped, and what is kept.
#[must_use]
pub fn log_status(status: &LogStatus) -> String {
    let now = log(&status.log);
    if status.ranges.is_empty() {
        return format!("{now}\n\nthe repository holds no log");
    }
    let rows = status
        .ranges
        .iter()
        .map(|range| vec![range.term.to_string(), range.start.to_string(), range.end.to_string()]);
    format!("{now}\n\n{}", with_header(&["TERM", "FROM", "TO"], rows))
}
