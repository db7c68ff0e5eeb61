//! The worker's side of the socket: answers one file at a time, from a [`LogSource`].
//!
//! Invariant: `a_request_that_was_cut_off_is_not_answered`, a test below.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{DELIVERED, FAILED, PAST_END};
use crate::chain::Chain;

/// What there is under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFile {
    /// The whole file.
    Bytes(Bytes),
    /// Proven: the log ends before it.
    PastEnd,
}

/// Where segments and history files come from.
#[async_trait]
pub trait LogSource: Send + Sync + 'static {
    /// Why a file could not be got.
    type Error: std::error::Error + Send + Sync;
    /// The file of that name. Anything short of proof that it lies past the end is an error.
    async fn file(&self, name: &str) -> Result<LogFile, Self::Error>;
}

/// Longest request: a name of the log directory has at most 24 characters and a suffix.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Answers requests until cancelled.
pub async fn serve<S: LogSource>(listener: UnixListener, source: Arc<S>, cancel: CancellationToken) {
    let mut answers = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = cancel.cancelled() => return, // cancel-safe
            Some(_) = answers.join_next() => continue, // cancel-safe
            accepted = listener.accept() => accepted, // cancel-safe
        };
        match stream {
            Ok((stream, _)) => {
                let source = Arc::clone(&source);
                answers.spawn(async move {
                    if let Err(err) = answer(stream, &*source).await {
                        debug!(error = %Chain(&err), "log request cut");
                    }
                });
            }
            Err(err) => warn!(error = %Chain(&err), "log request not accepted"),
        }
    }
}

async fn answer<S: LogSource>(stream: UnixStream, source: &S) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut name = String::new();
    tokio::time::timeout(REQUEST_DEADLINE, stream.read_line(&mut name)).await??;
    if !name.ends_with('\n') {
        // Whoever asked was ended before it had said what for.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (status, body) = match source.file(name.trim_end()).await {
        Ok(LogFile::Bytes(body)) => (DELIVERED, body),
        Ok(LogFile::PastEnd) => (PAST_END, Bytes::new()),
        Err(err) => {
            warn!(name = name.trim_end(), error = %Chain(&err), "log file not delivered");
            (FAILED, Bytes::from(Chain(&err).to_string()))
        }
    };
    stream.write_all(&[status]).await?;
    stream.write_all(&(body.len() as u64).to_le_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// Has every file.
    struct Everything;

    #[async_trait]
    impl LogSource for Everything {
        type Error = Infallible;

        async fn file(&self, name: &str) -> Result<LogFile, Infallible> {
            Ok(LogFile::Bytes(Bytes::from(name.to_owned())))
        }
    }

    #[tokio::test]
    async fn a_request_that_was_cut_off_is_not_answered() {
        let asked = async |request: &'static [u8]| {
            let (mut asks, answers) = UnixStream::pair().unwrap();
            let answering = async { answer(answers, &Everything).await.is_ok() };
            let asking = async {
                asks.write_all(request).await.unwrap();
                asks.shutdown().await.unwrap();
                let mut told = Vec::new();
                asks.read_to_end(&mut told).await.unwrap();
                told.is_empty()
            };
            tokio::join!(answering, asking)
        };
        assert_eq!(asked(b"00000002.history\n").await, (true, false));
        for cut in [&b""[..], b"00000002.hist"] {
            assert_eq!(asked(cut).await, (false, true));
        }
    }
}
