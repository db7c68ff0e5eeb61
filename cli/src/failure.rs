//! What can go wrong, and the exit code that says so.
//!
//! Invariants, each a test below: `every_code_of_grpc_has_an_exit_code`, `a_refusal_says_what_would_resolve_it`.

use std::error::Error;
use std::io;

use holdfast_proto::convert::Invalid;
use holdfast_proto::refusal::Refusal;
use tonic::{Code, Status};

use crate::certs::CertsError;
use crate::client::CredentialsError;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An option is missing, or the agent finds the request not valid.
    #[error("{0}")]
    Usage(String),
    /// Certificates of one's own that cannot be used.
    #[error("use the certificate")]
    Credentials(#[from] CredentialsError),
    /// `holdfast certs` failed.
    #[error("make certificates")]
    Certs(#[from] CertsError),
    /// Nobody answered.
    #[error("no agent could be reached: {0}")]
    Unreachable(String),
    /// The agent does not accept the certificate.
    #[error("the agent does not accept the certificate: {0}")]
    NotAccepted(String),
    /// The agent does not obey, and says why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The agent tried and failed.
    #[error("the agent answered: {0}")]
    Answered(String),
    /// Long work ended badly.
    #[error("operation {id} failed: {why}")]
    Operation {
        /// Which.
        id: String,
        /// The whole chain of causes.
        why: String,
    },
    /// Long work was not done, because it must not be as things are.
    #[error("operation {id} was refused: {why}")]
    OperationRefused {
        /// Which.
        id: String,
        /// What is missing.
        why: String,
    },
    /// The answer makes no sense; agent and command line may be of different versions.
    #[error("read the agent's answer")]
    Answer(#[from] Invalid),
    /// The terminal or pipe went away.
    #[error("write the answer")]
    Print(#[source] io::Error),
}

impl Failure {
    /// The exit code, as documented in `--help`.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Certs(_)
            | Self::Answered(_)
            | Self::Operation { .. }
            | Self::Answer(_)
            | Self::Print(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(refusal) => match of_code(refusal.reason.code()) {
                Kind::NotAccepted => 5,
                Kind::Answered | Kind::Usage | Kind::Refused | Kind::Unreachable => 3,
            },
            Self::OperationRefused { .. } => 3,
            Self::Unreachable(_) => 4,
            Self::Credentials(_) | Self::NotAccepted(_) => 5,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Answered,
    Usage,
    Refused,
    Unreachable,
    NotAccepted,
}

const fn of_code(code: Code) -> Kind {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Kind::Usage,
        Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Kind::Refused,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => Kind::Unreachable,
        Code::PermissionDenied | Code::Unauthenticated => Kind::NotAccepted,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => Kind::Answered,
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if let Some(refusal) = Refusal::from_status(&status) {
            return Self::Refused(refusal);
        }
        if let Some(alert) = tls_error(&status) {
            return Self::NotAccepted(alert.to_string());
        }
        let mut told = status.message().to_owned();
        let mut cause = status.source();
        while let Some(err) = cause {
            told = format!("{told}: {err}");
            cause = err.source();
        }
        match of_code(status.code()) {
            Kind::Usage => Self::Usage(told),
            Kind::Unreachable => Self::Unreachable(told),
            Kind::NotAccepted => Self::NotAccepted(told),
            // A refusal without our details comes from something else that answered.
            Kind::Refused | Kind::Answered => Self::Answered(told),
        }
    }
}

/// The TLS error below `err`, if there is one. An `io::Error` hides its content from `source()`.
#[must_use]
pub fn tls_error<'a>(err: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(err);
    while let Some(err) = cause {
        if let Some(found) = err.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let within = err.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = within.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        cause = err.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::refusal::Reason;

    #[test]
    fn every_code_of_grpc_has_an_exit_code() {
        for (code, exit) in [
            (Code::Internal, 1),
            (Code::InvalidArgument, 2),
            (Code::Unavailable, 4),
            (Code::DeadlineExceeded, 4),
            (Code::PermissionDenied, 5),
            (Code::Unauthenticated, 5),
        ] {
            assert_eq!(Failure::from(Status::new(code, "told")).exit_code(), exit, "{code:?}");
        }
        for reason in Reason::ALL {
            let exit = Failure::from(Status::from(Refusal::new(reason, "a", "b"))).exit_code();
            let denied = matches!(reason.code(), Code::PermissionDenied | Code::Unauthenticated);
            assert_eq!(exit, if denied { 5 } else { 3 }, "{reason}");
        }
    }

    #[test]
    fn a_refusal_says_what_would_resolve_it() {
        let refusal = Refusal::new(Reason::NoVolume, "no volume is mounted", "attach a disk");
        let failure = Failure::from(Status::from(refusal));
        assert_eq!(failure.to_string(), "no volume is mounted; to resolve: attach a disk");
    }

    #[test]
    fn a_tls_error_is_found_inside_an_io_error() {
        let inner = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let status = Status::from_error(Box::new(io::Error::other(inner)));
        assert_eq!(Failure::from(status).exit_code(), 5);
    }
}
