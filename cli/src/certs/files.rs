//! Files of certificates: created, never opened for writing when they are there.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{CertFiles, CertsError};

const KEY_MODE: u32 = 0o600;
const CERT_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o700;

pub(super) fn ensure_dir(dir: &Path) -> Result<(), CertsError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(dir)
        .map_err(|source| CertsError::Write { file: dir.to_owned(), source })
}

pub(super) fn read(file: &Path) -> Result<String, CertsError> {
    std::fs::read_to_string(file).map_err(|source| CertsError::Read { file: file.to_owned(), source })
}

/// Writes the key first: a certificate without its key would look finished and is not.
pub(super) fn write_pair(files: &CertFiles, cert: &str, key: &str) -> Result<CertFiles, CertsError> {
    if files.cert.exists() {
        return Err(CertsError::Exists { file: files.cert.clone() });
    }
    create(&files.key, key, KEY_MODE)?;
    create(&files.cert, cert, CERT_MODE)?;
    Ok(files.clone())
}

fn create(file: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .and_then(|mut opened| opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all()));
    written.map_err(|source| match source.kind() == io::ErrorKind::AlreadyExists {
        true => CertsError::Exists { file: file.to_owned() },
        false => CertsError::Write { file: file.to_owned(), source },
    })
}
