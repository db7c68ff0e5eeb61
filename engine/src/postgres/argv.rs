//! The exact command lines of Postgres' programs. Nothing is started here; see [`crate::launch`].

use std::path::PathBuf;

use super::Layout;
use super::config::{self, ConfigError, Settings};
use super::layout::SUPERUSER;
use crate::launch::Launch;

/// Size of a log segment that [`initdb`] asks for, in bytes; Postgres' own default.
pub const SEGMENT_BYTES: u32 = 16 << 20;

/// Makes a new data directory: superuser `holdfast`, checksums on, UTF-8, C.UTF-8 (no collation that a newer libc
/// could change under an index). initdb fsyncs everything before it ends.
///
/// The hba file that it writes is never used: [`postgres`] names the agent's own.
#[must_use]
pub fn initdb(layout: &Layout) -> Launch {
    Launch::new(layout.program("initdb"))
        .arg("-D")
        .arg(&layout.data_dir)
        .arg(format!("--username={SUPERUSER}"))
        .arg("--data-checksums")
        .arg("--auth-local=peer")
        .arg("--auth-host=reject")
        .arg("--encoding=UTF8")
        .arg("--locale=C.UTF-8")
        .arg(format!("--wal-segsize={}", SEGMENT_BYTES >> 20))
        .arg("--no-instructions")
}

/// Runs the server in the foreground. Pinned settings are on the command line, where no `ALTER SYSTEM` reaches.
///
/// # Errors
/// [`ConfigError::Path`].
pub fn postgres(settings: &Settings<'_>) -> Result<Launch, ConfigError> {
    let pinned = config::pinned(settings)?;
    let launch = with_config(settings.layout, "postgres");
    let launch = pinned.iter().fold(launch, |launch, (name, value)| launch.setting(name, value));
    Ok(config::NO_RESTORE.iter().fold(launch, |launch, (name, value)| launch.setting(name, value)))
}

/// Makes the server read its configuration and print one setting: an error on stderr names what it does not like.
#[must_use]
pub fn print_setting(layout: &Layout, name: &str) -> Launch {
    with_config(layout, "postgres").arg("-C").arg(name)
}

/// `postgres --version`, for [`super::Version::parse`].
#[must_use]
pub fn version(bin_dir: PathBuf) -> Launch {
    Launch::new(bin_dir.join("postgres")).arg("--version")
}

fn with_config(layout: &Layout, program: &str) -> Launch {
    let mut config = std::ffi::OsString::from("config_file=");
    config.push(layout.config_file());
    Launch::new(layout.program(program)).arg("-D").arg(&layout.data_dir).arg("-c").arg(config)
}
