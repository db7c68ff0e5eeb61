//! `ClusterService`: failover, switchover and members, coordinated by this node.

use holdfast_proto::request::{ChangeMember, Failover, Switchover};
use holdfast_proto::v1;
use holdfast_proto::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use super::{Services, begun};
use crate::api::control::Control;
use crate::tls::Peer;

/// Whose call it is, to be written down. A call whose caller is not known does not get here.
fn caller<T>(request: &Request<T>) -> String {
    let identity = request.extensions().get::<Peer>().and_then(|peer| peer.identity.as_ref().ok());
    identity.map_or_else(|| "somebody".to_owned(), ToString::to_string)
}

#[tonic::async_trait]
impl<C: Control> ClusterService for Services<C> {
    async fn failover(
        &self,
        request: Request<v1::FailoverRequest>,
    ) -> Result<Response<v1::FailoverResponse>, Status> {
        let by = caller(&request);
        let request = self.admit(request.into_inner(), |failover: &Failover| &failover.target)?;
        let operation = self.control.failover(request, &by).await?;
        Ok(Response::new(v1::FailoverResponse { operation: begun(&operation) }))
    }

    async fn switchover(
        &self,
        request: Request<v1::SwitchoverRequest>,
    ) -> Result<Response<v1::SwitchoverResponse>, Status> {
        let request = self.admit(request.into_inner(), |switchover: &Switchover| &switchover.target)?;
        let operation = self.control.switchover(request).await?;
        Ok(Response::new(v1::SwitchoverResponse { operation: begun(&operation) }))
    }

    async fn change_member(
        &self,
        request: Request<v1::ChangeMemberRequest>,
    ) -> Result<Response<v1::ChangeMemberResponse>, Status> {
        let request =
            self.admit(request.into_inner(), |change_member: &ChangeMember| &change_member.target)?;
        let operation = self.control.change_member(request).await?;
        Ok(Response::new(v1::ChangeMemberResponse { operation: begun(&operation) }))
    }
}
