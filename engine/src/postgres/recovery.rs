//! Settings and files that make a restored data directory replay shipped log to its end and begin a new term.
//!
//! Postgres takes the first timeline number that has no history file, so empty history files between the restored
//! term and the new one force the new timeline's number to be the new term (T9). They are kept afterwards: a standby
//! reads them when it follows across the gap.
//!
//! There is never a recovery target: "to the end" is what Postgres does without one, and a target beyond the end is
//! fatal (S20). Whether the end was the right one is checked afterwards, with [`super::wal::scan`]. The fetch program
//! answers 1 only for "proven past the end" and 255 for everything else, since Postgres takes every code up to 125
//! for the end of the log (S21).
//!
//! The fetch program is asked for segments, and for history files of terms above the replayed one; for those it
//! answers 1, and Postgres then looks into `pg_wal`, where the placeholders are.
//!
//! Not here: writing the files (on the data volume, so a worker does) and fetching.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdfast_model::{Lsn, Term};
use serde::{Deserialize, Serialize};

use super::layout::path_text;
use super::wal::history::{self, History, HistoryError};

/// What to recover.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// The term whose log is replayed to its end.
    pub from: Term,
    /// Ancestors of that term's timeline.
    pub history: History,
    /// The term that begins afterwards.
    pub to: Term,
    /// The agent's own program, which fetches segments.
    pub fetch_program: PathBuf,
    /// The socket on which the restore worker serves them.
    pub fetch_socket: PathBuf,
}

/// A file to write below the data directory before the start, and to fsync with its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryFile {
    /// Path relative to the data directory.
    pub path: String,
    /// Content.
    pub content: String,
}

/// Why a recovery was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Terms only rise.
    #[error("term {to} is not above term {from}, whose log is to be replayed")]
    Terms {
        /// The term whose log is replayed.
        from: Term,
        /// The term asked for.
        to: Term,
    },
    /// A term far above would need a file per number between.
    #[error("term {to} is more than {PLACEHOLDERS_MAX} above term {from}")]
    Gap {
        /// The term whose log is replayed.
        from: Term,
        /// The term asked for.
        to: Term,
    },
    /// A path that cannot be written into a configuration file.
    #[error("path {0:?} is not UTF-8")]
    Path(PathBuf),
}

/// Terms that may lie between two reigns; each costs an empty file.
const PLACEHOLDERS_MAX: u32 = 10_000;

impl Recovery {
    /// Settings to append to the server's command line for this one start.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub fn settings(&self) -> Result<BTreeMap<&'static str, String>, RecoveryError> {
        self.check()?;
        let mut settings = BTreeMap::new();
        settings.insert("restore_command", self.restore_command()?);
        settings.insert("recovery_target_timeline", self.from.to_string());
        Ok(settings)
    }

    /// Files to write before the start: the signal, the history of the replayed timeline, and a placeholder for each
    /// skipped term.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub fn files(&self) -> Result<Vec<RecoveryFile>, RecoveryError> {
        self.check()?;
        let in_wal =
            |term, content| RecoveryFile { path: format!("pg_wal/{}", history::file_name(term)), content };
        let mut files = Vec::new();
        if self.from > Term::FIRST {
            files.push(in_wal(self.from, self.history.render()));
        }
        files.extend(skipped(self.from, self.to).map(|term| in_wal(term, String::new())));
        // Last, so that a directory in which the writing was cut short does not look ready to recover.
        files.push(RecoveryFile { path: "recovery.signal".to_owned(), content: String::new() });
        Ok(files)
    }

    fn check(&self) -> Result<(), RecoveryError> {
        let (from, to) = (self.from, self.to);
        if to <= from {
            return Err(RecoveryError::Terms { from, to });
        }
        if to.number() - from.number() > PLACEHOLDERS_MAX {
            return Err(RecoveryError::Gap { from, to });
        }
        Ok(())
    }

    /// `exec` lets the program's own end reach Postgres: without it a killed program is a shell that exits.
    fn restore_command(&self) -> Result<String, RecoveryError> {
        let program = shell_word(&self.fetch_program)?;
        let socket = shell_word(&self.fetch_socket)?;
        Ok(format!("exec {program} fetch-log --socket {socket} \"%f\" \"%p\""))
    }
}

/// Terms strictly between two.
fn skipped(from: Term, to: Term) -> impl Iterator<Item = Term> {
    (from.number().saturating_add(1)..to.number()).filter_map(Term::new)
}

/// Quotes a path for the shell, and `%` for Postgres, which replaces `%f` and the like before the shell sees it.
fn shell_word(path: &Path) -> Result<String, RecoveryError> {
    let text = path_text(path).map_err(RecoveryError::Path)?;
    Ok(format!("'{}'", text.replace('\'', r"'\''").replace('%', "%%")))
}

/// Why a promotion's history file was refused.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Not a history file.
    #[error("read the history of the new term {0}")]
    History(Term, #[source] HistoryError),
    /// It branches off another timeline.
    #[error("term {to} branches off {found:?}, expected term {from}")]
    Parent {
        /// The term whose log was replayed.
        from: Term,
        /// The new term.
        to: Term,
        /// What the file says.
        found: Option<Term>,
    },
}

/// Where term `to` branched off term `from`, by the history file that Postgres wrote when it promoted. The end of the
/// replayed log, and the first position of the new term.
///
/// # Errors
/// [`SwitchError`], when the new term does not follow `from` directly.
pub fn switch_point(from: Term, to: Term, history_file: &str) -> Result<Lsn, SwitchError> {
    let history = History::parse(to, history_file).map_err(|source| SwitchError::History(to, source))?;
    match history.branch() {
        Some((parent, switch)) if parent == from => Ok(switch),
        other => Err(SwitchError::Parent { from, to, found: other.map(|(parent, _)| parent) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recovery(from: u32, to: u32) -> Recovery {
        Recovery {
            from: Term::new(from).unwrap(),
            history: History::default(),
            to: Term::new(to).unwrap(),
            fetch_program: "/usr/lib/it's/holdfastd".into(),
            fetch_socket: "/run/100%/fetch".into(),
        }
    }

    #[test]
    fn the_new_timeline_is_the_new_term() {
        let files = recovery(3, 8).files().unwrap();
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "pg_wal/00000003.history",
                "pg_wal/00000004.history",
                "pg_wal/00000005.history",
                "pg_wal/00000006.history",
                "pg_wal/00000007.history",
                "recovery.signal"
            ]
        );
    }

    #[test]
    fn there_is_a_timeline_and_no_target() {
        let settings = recovery(3, 4).settings().unwrap();
        assert_eq!(
            settings.keys().copied().collect::<Vec<_>>(),
            ["recovery_target_timeline", "restore_command"]
        );
        assert_eq!(settings["recovery_target_timeline"], "3");
    }

    #[test]
    fn paths_survive_postgres_and_the_shell() {
        let command = recovery(1, 2).restore_command().unwrap();
        assert_eq!(
            command,
            r#"exec '/usr/lib/it'\''s/holdfastd' fetch-log --socket '/run/100%%/fetch' "%f" "%p""#
        );
    }

    #[test]
    fn terms_only_rise_and_not_by_millions() {
        assert!(matches!(recovery(3, 3).files(), Err(RecoveryError::Terms { .. })));
        assert!(matches!(recovery(1, 20_000_000).files(), Err(RecoveryError::Gap { .. })));
    }

    #[test]
    fn the_switch_point_is_only_that_of_the_replayed_term() {
        let (three, eight) = (Term::new(3).unwrap(), Term::new(8).unwrap());
        let file = "1\t0/3000000\tx\n3\t0/5A3F2B0\tno recovery target specified\n";
        assert_eq!(switch_point(three, eight, file).unwrap().to_string(), "0/5A3F2B0");
        assert!(switch_point(Term::FIRST, eight, file).is_err());
        assert!(switch_point(three, eight, "").is_err());
    }
}
