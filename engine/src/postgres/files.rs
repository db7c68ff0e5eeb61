//! Which files of a data directory belong into a base backup, and how each is to be read.
//!
//! Pure, over paths relative to the data directory. The list is that of Postgres' own base backup, plus the agent's
//! knowledge that configuration lies elsewhere. Left-out *directories* are still made by a restore where the server
//! needs them ([`NEEDED_DIRS`]).
//!
//! Not here: unlogged tables, whose main forks are left out by the caller with [`unlogged_main_forks`], since that
//! takes the whole listing.

use std::collections::BTreeSet;

use super::page::FILE_PAGES;

/// Directories that a data directory must have even when a backup found nothing in them worth keeping.
pub const NEEDED_DIRS: [&str; 14] = [
    "pg_wal",
    "pg_wal/archive_status",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
];

/// Directories whose content belongs to a running server alone, or is restored from elsewhere.
const CONTENT_LEFT_OUT: [&str; 8] = [
    "pg_wal",
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
];

/// Files at the top that are about one running server, or made anew by a restore.
const TOP_LEFT_OUT: [&str; 12] = [
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "current_logfiles",
    "backup_label",
    "backup_label.old",
    "tablespace_map",
    "tablespace_map.old",
    "backup_manifest",
    "standby.signal",
    "recovery.signal",
];

/// What to do with one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileClass {
    /// Not part of a base.
    LeaveOut,
    /// Pages with checksums.
    Pages(PageFile),
    /// `pg_control`: read last, again until its checksum matches.
    Control,
    /// Everything else: copied as it is.
    Plain,
}

/// A file of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageFile {
    /// Number of the file within its fork: 3 for `16384.3`.
    pub file: u32,
}

impl PageFile {
    /// Number of the file's first block within the fork.
    #[must_use]
    pub const fn first_block(self) -> u32 {
        self.file.wrapping_mul(FILE_PAGES)
    }
}

/// Why a data directory cannot be backed up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// A tablespace made by `CREATE TABLESPACE .. LOCATION`.
    #[error("tablespace {oid} lies outside the data volume: move its tables back and drop it")]
    Tablespace {
        /// The name of its link in `pg_tblspc`.
        oid: String,
    },
    /// A path that is not one below the data directory.
    #[error("path {0:?} is not a plain path below the data directory")]
    Path(String),
}

/// Classifies one file by its path relative to the data directory, with `/` between names.
///
/// # Errors
/// [`FilesError`]: every entry of `pg_tblspc` is a tablespace outside, since in-place ones are not allowed.
pub fn classify(path: &str) -> Result<FileClass, FilesError> {
    let names: Vec<&str> = path.split('/').collect();
    if names.iter().any(|name| name.is_empty() || *name == "." || *name == "..") {
        return Err(FilesError::Path(path.to_owned()));
    }
    let (top, last) = (names[0], names[names.len() - 1]);
    if top == "pg_tblspc" && names.len() > 1 {
        return Err(FilesError::Tablespace { oid: names[1].to_owned() });
    }
    if left_out(&names, top, last) {
        return Ok(FileClass::LeaveOut);
    }
    if path == super::control::PATH {
        return Ok(FileClass::Control);
    }
    let of_tables = (top == "base" && names.len() == 3) || (top == "global" && names.len() == 2);
    Ok(match relation_file(last) {
        Some(file) if of_tables => FileClass::Pages(PageFile { file: file.number }),
        Some(_) | None => FileClass::Plain,
    })
}

fn left_out(names: &[&str], top: &str, last: &str) -> bool {
    let inside = names.len() > 1;
    (inside && CONTENT_LEFT_OUT.contains(&top))
        || (!inside && TOP_LEFT_OUT.contains(&last))
        || names.iter().any(|name| name.starts_with("pgsql_tmp"))
        || last.starts_with("pg_internal.init")
        || (top == "base" && names.len() == 3 && is_temporary(last))
        || (inside && top == "pg_logical" && last.ends_with(".tmp"))
}

/// `t<backend>_<relation>[_fork][.n]`: a temporary table of a session.
fn is_temporary(name: &str) -> bool {
    let Some((backend, rest)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    is_number(backend) && relation_file(rest).is_some()
}

/// Which fork of a table a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fork {
    Main,
    FreeSpace,
    Visibility,
    Init,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RelationFile<'a> {
    relation: &'a str,
    fork: Fork,
    number: u32,
}

/// Takes `16384`, `16384_vm` or `16384_fsm.2` apart; `None` for every other name.
fn relation_file(name: &str) -> Option<RelationFile<'_>> {
    let (stem, number) = match name.split_once('.') {
        Some((stem, number)) if is_number(number) => (stem, number.parse().ok()?),
        Some(_) => return None,
        None => (name, 0),
    };
    let (relation, fork) = match stem.split_once('_') {
        None => (stem, Fork::Main),
        Some((relation, "fsm")) => (relation, Fork::FreeSpace),
        Some((relation, "vm")) => (relation, Fork::Visibility),
        Some((relation, "init")) => (relation, Fork::Init),
        Some(_) => return None,
    };
    is_number(relation).then_some(RelationFile { relation, fork, number })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Of the paths of one listing, those that hold content of unlogged tables: every fork but `_init` of a relation that
/// has an `_init` fork. Recovery makes them anew from `_init`, so they are left out.
#[must_use]
pub fn unlogged_main_forks<'a>(paths: &[&'a str]) -> BTreeSet<&'a str> {
    let parts = |path: &'a str| {
        let (dir, name) = path.rsplit_once('/')?;
        dir.starts_with("base/").then_some((dir, relation_file(name)?))
    };
    let unlogged: BTreeSet<(&str, &str)> = paths
        .iter()
        .filter_map(|path| parts(path))
        .filter(|(_, file)| file.fork == Fork::Init)
        .map(|(dir, file)| (dir, file.relation))
        .collect();
    let is_content = |path: &&'a str| {
        parts(path)
            .is_some_and(|(dir, file)| file.fork != Fork::Init && unlogged.contains(&(dir, file.relation)))
    };
    paths.iter().copied().filter(is_content).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("pg_wal/000000010000000000000001", FileClass::LeaveOut; "log")]
    #[test_case("pg_replslot/s/state", FileClass::LeaveOut; "slots")]
    #[test_case("postmaster.pid", FileClass::LeaveOut; "pid file")]
    #[test_case("standby.signal", FileClass::LeaveOut; "signal file")]
    #[test_case("base/5/t3_16384", FileClass::LeaveOut; "temporary table")]
    #[test_case("base/pgsql_tmp/pgsql_tmp123.0", FileClass::LeaveOut; "sort file")]
    #[test_case("base/5/pg_internal.init", FileClass::LeaveOut; "relation cache")]
    #[test_case("base/5/16384", FileClass::Pages(PageFile { file: 0 }); "table")]
    #[test_case("base/5/16384.3", FileClass::Pages(PageFile { file: 3 }); "later file")]
    #[test_case("base/5/16384_vm", FileClass::Pages(PageFile { file: 0 }); "fork")]
    #[test_case("global/1262", FileClass::Pages(PageFile { file: 0 }); "shared table")]
    #[test_case("global/pg_control", FileClass::Control; "control")]
    #[test_case("global/pg_filenode.map", FileClass::Plain; "filenode map")]
    #[test_case("base/5/PG_VERSION", FileClass::Plain; "version")]
    #[test_case("pg_xact/0000", FileClass::Plain; "commit log, which has no page checksums")]
    #[test_case("postgresql.auto.conf", FileClass::Plain; "altered settings")]
    fn files_are_classified_by_path(path: &str, class: FileClass) {
        assert_eq!(classify(path), Ok(class));
    }

    #[test]
    fn tablespaces_outside_are_refused_at_backup_not_at_restore() {
        assert_eq!(classify("pg_tblspc/16500"), Err(FilesError::Tablespace { oid: "16500".into() }));
        assert_eq!(classify("pg_tblspc"), Ok(FileClass::Plain));
    }

    #[test]
    fn paths_that_leave_the_directory_are_refused() {
        for bad in ["", "/etc/passwd", "../x", "base/../../x", "base//1", "./a"] {
            assert!(classify(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn unlogged_tables_keep_their_init_fork_alone() {
        let paths = ["base/5/1", "base/5/1_init", "base/5/1.1", "base/5/1_vm", "base/5/2", "base/6/1"];
        let gone: Vec<_> = unlogged_main_forks(&paths).into_iter().collect();
        assert_eq!(gone, ["base/5/1", "base/5/1.1", "base/5/1_vm"]);
    }
}
