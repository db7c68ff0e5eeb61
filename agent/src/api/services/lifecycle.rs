//! `LifecycleService`: bootstrap, start, stop, restore.

use holdfast_proto::refusal::{Reason, Refusal};
use holdfast_proto::request::{Bootstrap, Restore};
use holdfast_proto::v1;
use holdfast_proto::v1::lifecycle_service_server::LifecycleService;
use tonic::{Request, Response, Status};

use super::{Services, begun};
use crate::api::control::Control;

/// The token is the cluster's name repeated: it proves intent, not rights.
fn check_token(request: &Bootstrap) -> Result<(), Refusal> {
    if request.token == request.target.cluster.as_str() {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::BadToken,
        format!("the token is not the name of cluster {}", request.target.cluster),
        "repeat the cluster's name as token, if it is a new cluster that is wanted",
    ))
}

#[tonic::async_trait]
impl<C: Control> LifecycleService for Services<C> {
    async fn bootstrap(
        &self,
        request: Request<v1::BootstrapRequest>,
    ) -> Result<Response<v1::BootstrapResponse>, Status> {
        let request = self.admit(request.into_inner(), |bootstrap: &Bootstrap| &bootstrap.target)?;
        check_token(&request)?;
        let operation = self.control.bootstrap(request).await?;
        Ok(Response::new(v1::BootstrapResponse { operation: begun(&operation) }))
    }

    async fn start_engine(
        &self,
        request: Request<v1::StartEngineRequest>,
    ) -> Result<Response<v1::StartEngineResponse>, Status> {
        let target = self.admit_target(request.into_inner().target)?;
        self.control.start_engine(target).await?;
        Ok(Response::new(v1::StartEngineResponse {}))
    }

    async fn stop_engine(
        &self,
        request: Request<v1::StopEngineRequest>,
    ) -> Result<Response<v1::StopEngineResponse>, Status> {
        let target = self.admit_target(request.into_inner().target)?;
        self.control.stop_engine(target).await?;
        Ok(Response::new(v1::StopEngineResponse {}))
    }

    async fn restore(
        &self,
        request: Request<v1::RestoreRequest>,
    ) -> Result<Response<v1::RestoreResponse>, Status> {
        let request = self.admit(request.into_inner(), |restore: &Restore| &restore.target)?;
        let operation = self.control.restore(request).await?;
        Ok(Response::new(v1::RestoreResponse { operation: begun(&operation) }))
    }
}
