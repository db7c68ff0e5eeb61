//! How recovery gets its log: `holdfastd fetch-log`, Postgres' `restore_command`, asks the log worker over a unix socket.
//!
//! Exit codes (experiment S21: Postgres takes 1 to 125 as "no such file", ends recovery there and opens, with rows
//! missing; above 125, or killed by a signal, it stops instead):
//! * 0: the file was delivered whole.
//! * 1: the log is *proven* to end before this file.
//! * 255: everything else. The agent starts recovery again.
//!
//! Invariants, each a test below:
//! * `only_a_proven_end_looks_like_the_end`.
//! * `a_cut_answer_is_no_answer`.
//!
//! Wire: the file name and a newline; back a status byte, a little-endian u64 length, and so many bytes.
//! Not here: which bytes a segment has. See `jobs::log`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

mod serve;
pub use serve::{LogFile, LogSource, serve};

/// How long one file may take; Postgres waits for its restore_command without any deadline of its own.
const DEADLINE: Duration = Duration::from_secs(120);
/// Longer than any file of the log directory: a segment is at most 1 GiB.
const LENGTH_MAX: u64 = 1 << 30;

const DELIVERED: u8 = 0;
const PAST_END: u8 = 1;
const FAILED: u8 = 2;

/// What came of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// The file stands at its target.
    Delivered,
    /// The log is proven to end before it.
    PastEnd,
}

impl Fetched {
    /// The exit code that Postgres understands.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Delivered => 0,
            Self::PastEnd => 1,
        }
    }
}

/// The exit code of every failure.
pub const EXIT_FAILED: u8 = 255;

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The log worker does not answer, or the target cannot be written.
    #[error("fetch {name}")]
    Io {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log worker could not get it.
    #[error("fetch {name}: the log worker failed: {why}")]
    Failed {
        /// The file.
        name: String,
        /// What it said.
        why: String,
    },
}

/// Asks the worker at `socket` for the file `name` and writes it to `target`.
///
/// # Errors
/// [`FetchError`]; `target` may then be half written, which Postgres ignores because of the exit code.
pub fn fetch(socket: &Path, name: &str, target: &Path) -> Result<Fetched, FetchError> {
    let wrap = |source| FetchError::Io { name: name.to_owned(), source };
    let (status, body) = ask(socket, name).map_err(wrap)?;
    match status {
        DELIVERED => {
            let mut file = File::create(target).map_err(wrap)?;
            file.write_all(&body).map_err(wrap)?;
            Ok(Fetched::Delivered)
        }
        PAST_END => Ok(Fetched::PastEnd),
        _ => Err(FetchError::Failed {
            name: name.to_owned(),
            why: String::from_utf8_lossy(&body).into_owned(),
        }),
    }
}

fn ask(socket: &Path, name: &str) -> io::Result<(u8, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all(format!("{name}\n").as_bytes())?;
    let mut head = [0_u8; 9];
    stream.read_exact(&mut head)?;
    let [status, length @ ..] = head;
    let length = u64::from_le_bytes(length);
    if length > LENGTH_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "answer is longer than any file of the log"));
    }
    let mut body = Vec::new();
    if stream.take(length).read_to_end(&mut body)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Answers one request with fixed bytes, then is gone.
    fn answer(bytes: &'static [u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0_u8; 64];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(bytes).unwrap();
        });
        (dir, path)
    }

    fn outcome(bytes: &'static [u8]) -> Result<Fetched, FetchError> {
        let (dir, socket) = answer(bytes);
        fetch(&socket, "000000010000000000000001", &dir.path().join("out"))
    }

    #[test]
    fn only_a_proven_end_looks_like_the_end() {
        assert_eq!(outcome(b"\x01\0\0\0\0\0\0\0\0").unwrap(), Fetched::PastEnd);
        assert_eq!(outcome(b"\x00\x02\0\0\0\0\0\0\0hi").unwrap(), Fetched::Delivered);
        assert!(outcome(b"\x02\x02\0\0\0\0\0\0\0no").is_err());
        assert!(outcome(b"\x07\0\0\0\0\0\0\0\0").is_err());
        let nobody = Path::new("/nonexistent/socket");
        assert!(fetch(nobody, "x", Path::new("/nonexistent/out")).is_err());
    }

    #[test]
    fn a_cut_answer_is_no_answer() {
        assert!(outcome(b"").is_err());
        assert!(outcome(b"\x01\0\0").is_err());
        assert!(outcome(b"\x00\x03\0\0\0\0\0\0\0hi").is_err());
        assert!(outcome(b"\x00\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
