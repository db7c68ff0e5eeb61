//! Says what went wrong with object storage in the words an operator can act on.
//!
//! S3 answers errors as XML whose `<Code>` is the protocol's own machine-readable word (S3 API reference, "Error
//! responses"); `object_store` keeps that body in its error text. The code decides first, the HTTP status after it.
//!
//! Invariants, each a test below:
//! * `s3_error_codes_tell_bucket_credentials_and_clock_apart`.
//! * `a_connection_that_is_refused_is_unreachable`.
//!
//! Not here: retrying. `object_store` retries single requests; callers decide about whole operations by [`StoreFault`].

use std::error::Error;
use std::fmt;
use std::io;

use object_store::client::HttpError;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// The bucket of the URL does not exist.
    BucketMissing,
    /// The access key is unknown or the secret does not fit it.
    Credentials,
    /// This machine's clock is more than 15 minutes off, so S3 refuses every signature.
    ClockSkewed,
    /// The credentials are good and not allowed to do this.
    Denied,
    /// The object does not exist.
    Missing,
    /// The object is larger than anything we write under that key, or shorter than asked for.
    Size,
    /// Nothing answered, or the answer broke off.
    Unreachable,
    /// The service answered that it cannot serve now (S3 `SlowDown`, `InternalError`, other 5xx).
    Busy,
    /// No space left in a `file://` repository.
    Full,
    /// Anything else; the source says what.
    Other,
}

impl StoreFault {
    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        match self {
            Self::Unreachable | Self::Busy => true,
            Self::BucketMissing
            | Self::Credentials
            | Self::ClockSkewed
            | Self::Denied
            | Self::Missing
            | Self::Size
            | Self::Full
            | Self::Other => false,
        }
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BucketMissing => "the bucket does not exist: create it or correct repository.url",
            Self::Credentials => "the credentials were refused: check repository.credentials_file",
            Self::ClockSkewed => "the clock of this machine is off: object storage refuses its signatures",
            Self::Denied => "access denied: the credentials lack the permission",
            Self::Missing => "no such object",
            Self::Size => "the object does not have the expected size",
            Self::Unreachable => "object storage does not answer",
            Self::Busy => "object storage is overloaded or failing",
            Self::Full => "no space left in the repository",
            Self::Other => "object storage failed",
        })
    }
}

/// A request to object storage failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {key}: {fault}")]
pub struct StoreError {
    /// A verb, e.g. `read`.
    pub doing: &'static str,
    /// The object or prefix, as it is named in the repository.
    pub key: String,
    /// What kind of failure.
    pub fault: StoreFault,
    /// What the client library said.
    #[source]
    pub source: Option<Box<object_store::Error>>,
}

impl StoreError {
    pub(crate) fn new(doing: &'static str, key: &str, source: object_store::Error) -> Self {
        Self { doing, key: key.to_owned(), fault: classify(&source), source: Some(Box::new(source)) }
    }

    pub(crate) fn size(doing: &'static str, key: &str) -> Self {
        Self { doing, key: key.to_owned(), fault: StoreFault::Size, source: None }
    }

    /// Whether it says that the object does not exist (and not that the bucket does not).
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.fault == StoreFault::Missing
    }
}

fn classify(error: &object_store::Error) -> StoreFault {
    let code = chain(error).find_map(|cause| s3_code(&cause.to_string()));
    if let Some(fault) = code.as_deref().and_then(fault_of_code) {
        return fault;
    }
    let by_client = [
        (matches!(error, object_store::Error::NotFound { .. }), StoreFault::Missing),
        (matches!(error, object_store::Error::PermissionDenied { .. }), StoreFault::Denied),
        (matches!(error, object_store::Error::Unauthenticated { .. }), StoreFault::Credentials),
        (chain(error).any(|cause| cause.is::<HttpError>()), StoreFault::Unreachable),
        (code.is_some() || mentions_server_error(error), StoreFault::Busy),
    ];
    if let Some((_, fault)) = by_client.into_iter().find(|(applies, _)| *applies) {
        return fault;
    }
    let io_kind = chain(error).find_map(|cause| cause.downcast_ref::<io::Error>().map(io::Error::kind));
    match io_kind {
        Some(io::ErrorKind::PermissionDenied) => StoreFault::Denied,
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => StoreFault::Full,
        Some(io::ErrorKind::NotFound) => StoreFault::Missing,
        Some(_) | None => StoreFault::Other,
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| {
        let cause: &'a (dyn Error + 'static) = *cause;
        cause.source()
    })
}

/// The client library keeps the status of an exhausted retry private and prints it as `status code: 503 ...`.
fn mentions_server_error(error: &object_store::Error) -> bool {
    chain(error).any(|cause| cause.to_string().contains("status code: 5"))
}

fn s3_code(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code.trim().to_owned())
}

fn fault_of_code(code: &str) -> Option<StoreFault> {
    Some(match code {
        "NoSuchBucket" => StoreFault::BucketMissing,
        "NoSuchKey" => StoreFault::Missing,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "ExpiredToken"
        | "InvalidSecurity"
        | "AuthorizationHeaderMalformed" => StoreFault::Credentials,
        "RequestTimeTooSkewed" | "RequestExpired" => StoreFault::ClockSkewed,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => StoreFault::Denied,
        "SlowDown" | "ServiceUnavailable" | "InternalError" => StoreFault::Busy,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::client::HttpErrorKind;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn s3_error_codes_tell_bucket_credentials_and_clock_apart() {
        let rows = [
            ("NoSuchBucket", StoreFault::BucketMissing),
            ("InvalidAccessKeyId", StoreFault::Credentials),
            ("SignatureDoesNotMatch", StoreFault::Credentials),
            ("RequestTimeTooSkewed", StoreFault::ClockSkewed),
            ("AccessDenied", StoreFault::Denied),
            ("SlowDown", StoreFault::Busy),
        ];
        for (code, fault) in rows {
            let body =
                format!("status code: 403: <?xml?><Error><Code>{code}</Code><Message>m</Message></Error>");
            assert_eq!(classify(&generic(&body)), fault, "{code}");
        }
        let missing_bucket = object_store::Error::NotFound {
            path: "p".to_owned(),
            source: "404: <Error><Code>NoSuchBucket</Code></Error>".into(),
        };
        assert_eq!(classify(&missing_bucket), StoreFault::BucketMissing);
    }

    #[test]
    fn a_connection_that_is_refused_is_unreachable() {
        let refused =
            HttpError::new(HttpErrorKind::Connect, io::Error::from(io::ErrorKind::ConnectionRefused));
        let error = object_store::Error::Generic { store: "S3", source: Box::new(refused) };
        assert_eq!(classify(&error), StoreFault::Unreachable);
        assert!(StoreFault::Unreachable.is_transient());
        assert!(!StoreFault::Credentials.is_transient());
    }

    #[test]
    fn a_plain_server_error_is_busy() {
        assert_eq!(
            classify(&generic("Server returned non-2xx status code: 502 Bad Gateway: ")),
            StoreFault::Busy
        );
    }
}
