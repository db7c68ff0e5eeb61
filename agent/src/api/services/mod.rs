//! `holdfast.v1` over [`Control`]: each method reads its request, checks what it is meant for, asks, and answers.
//!
//! Not here: rights ([`super::authorise`]), validation (`holdfast_proto::convert`), any decision.

mod backup;
mod cluster;
mod lifecycle;
mod member;
mod node;
mod operation;
mod volume;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use holdfast_model::status::{NodeView, Operation};
use holdfast_proto::convert::Wire;
use holdfast_proto::refusal::{self, DOMAIN, Reason, Refusal};
use holdfast_proto::request::Target;
use holdfast_proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::control::{CallError, Control};
use super::target;

/// What every service needs.
pub(super) struct Services<C> {
    /// The daemon.
    pub(super) control: Arc<C>,
    /// Whether volumes may be formatted and wiped by RPC.
    pub(super) remote_format: bool,
    /// Ends streams, so that a stopping daemon need not wait for watchers.
    pub(super) cancel: CancellationToken,
}

impl<C> Clone for Services<C> {
    fn clone(&self) -> Self {
        Self {
            control: Arc::clone(&self.control),
            remote_format: self.remote_format,
            cancel: self.cancel.clone(),
        }
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<C: Control> Services<C> {
    fn view(&self) -> Arc<NodeView> {
        Arc::clone(&self.control.view().borrow())
    }

    /// Reads a request that changes something, and checks that it is meant for this node as it is now.
    fn admit<R: Wire>(&self, message: R::Message, target: impl FnOnce(&R) -> &Target) -> Result<R, Status> {
        let request = R::from_wire(message)?;
        target::check(target(&request), &self.view())?;
        Ok(request)
    }

    /// As [`Self::admit`], for calls whose own term the member judges.
    fn admit_member<R: Wire>(
        &self,
        message: R::Message,
        target: impl FnOnce(&R) -> &Target,
    ) -> Result<R, Status> {
        let request = R::from_wire(message)?;
        target::check_member(target(&request), &self.view())?;
        Ok(request)
    }

    /// Reads a bare target, as [`Self::admit`] does.
    fn admit_target(&self, message: Option<v1::Target>) -> Result<Target, Status> {
        let target = holdfast_proto::convert::required_from_wire("target", message)?;
        target::check(&target, &self.view())?;
        Ok(target)
    }

    fn ensure_remote_format(&self) -> Result<(), Status> {
        if self.remote_format {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::SwitchedOff,
            "formatting and wiping by RPC is switched off on this node",
            "set api.remote_format = true in its configuration and restart the daemon",
        )
        .into())
    }
}

fn begun(operation: &Operation) -> Option<v1::Operation> {
    Some(operation.to_wire())
}

impl From<CallError> for Status {
    fn from(err: CallError) -> Self {
        let message = err.to_string();
        let (code, reason) = match err {
            CallError::Refused(refusal) => return refusal.into(),
            CallError::Declined(refused) => return refusal::decline(&refused),
            CallError::Unavailable { .. } => (Code::Unavailable, "UNAVAILABLE"),
            CallError::Failed { .. } => (Code::Internal, "FAILED"),
        };
        let details = ErrorDetails::with_error_info(reason, DOMAIN, [] as [(String, String); 0]);
        Self::with_error_details(code, message, details)
    }
}
