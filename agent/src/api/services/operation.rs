//! `OperationService`: long work as the view shows it.

use futures::StreamExt as _;
use holdfast_model::status::{NodeView, Operation, OperationState};
use holdfast_proto::convert::Wire as _;
use holdfast_proto::refusal::{Reason, Refusal};
use holdfast_proto::v1;
use holdfast_proto::v1::operation_service_server::OperationService;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::{Replies, Services};
use crate::api::control::Control;

fn find<'a>(view: &'a NodeView, id: &str) -> Result<&'a Operation, Refusal> {
    view.operations.iter().find(|operation| operation.id == id).ok_or_else(|| {
        Refusal::new(
            Reason::NotFound,
            format!("no operation {id:?} is under way or lately ended"),
            "look at holdfast operation list; what ended long ago is told by the log alone",
        )
    })
}

const fn has_ended(operation: &Operation) -> bool {
    match operation.state {
        OperationState::Running { .. } => false,
        OperationState::Done { .. } | OperationState::Failed { .. } | OperationState::Refused { .. } => true,
    }
}

#[tonic::async_trait]
impl<C: Control> OperationService for Services<C> {
    type WatchOperationStream = Replies<v1::WatchOperationResponse>;

    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::GetOperationResponse>, Status> {
        let view = self.view();
        let operation = find(&view, &request.into_inner().id)?;
        Ok(Response::new(v1::GetOperationResponse { operation: Some(operation.to_wire()) }))
    }

    /// Tells each change once, and ends after the state that is an end. An operation that leaves the view ends the
    /// stream with `NOT_FOUND`: how it ended is then not known.
    async fn watch_operation(
        &self,
        request: Request<v1::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = request.into_inner().id;
        find(&self.view(), &id)?;
        let mut told: Option<Operation> = None;
        let mut over = false;
        let replies = WatchStream::new(self.control.view())
            .map(move |view| find(&view, &id).cloned())
            .take_while(move |found| {
                let go_on = !over;
                over = found.as_ref().map_or(true, has_ended);
                std::future::ready(go_on)
            })
            .filter_map(move |found| {
                let changed = found.as_ref().map_or(true, |operation| told.as_ref() != Some(operation));
                told = found.as_ref().ok().cloned();
                let reply = found
                    .map(|operation| v1::WatchOperationResponse { operation: Some(operation.to_wire()) })
                    .map_err(Status::from);
                std::future::ready(changed.then_some(reply))
            })
            .take_until(self.cancel.clone().cancelled_owned());
        Ok(Response::new(Box::pin(replies)))
    }

    async fn list_operations(
        &self,
        _request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let view = self.view();
        let mut operations: Vec<&Operation> = view.operations.iter().collect();
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.since));
        let operations = operations.into_iter().map(|operation| operation.to_wire()).collect();
        Ok(Response::new(v1::ListOperationsResponse { operations }))
    }
}
