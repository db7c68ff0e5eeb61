//! `NodeService`: the view, its changes, and what it means.

use futures::StreamExt as _;
use holdfast_proto::convert::Wire as _;
use holdfast_proto::v1;
use holdfast_proto::v1::node_service_server::NodeService;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::{Replies, Services};
use crate::api::control::Control;
use crate::api::explain::explain;

#[tonic::async_trait]
impl<C: Control> NodeService for Services<C> {
    type WatchStatusStream = Replies<v1::WatchStatusResponse>;

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(v1::GetStatusResponse { view: Some(self.view().to_wire()) }))
    }

    /// A slow watcher skips views: the channel holds one.
    async fn watch_status(
        &self,
        _request: Request<v1::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let replies = WatchStream::new(self.control.view())
            .map(|view| Ok(v1::WatchStatusResponse { view: Some(view.to_wire()) }))
            .take_until(self.cancel.clone().cancelled_owned());
        Ok(Response::new(Box::pin(replies)))
    }

    async fn explain(
        &self,
        _request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let mut told = explain(&self.view());
        told.vouch = self.control.vouch().await?;
        told.certificate = self.control.certificate().await?;
        Ok(Response::new(told.to_wire()))
    }
}
