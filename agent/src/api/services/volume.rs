//! `VolumeService`: the dry run, and the verbs that write to a device.

use holdfast_proto::convert::Wire as _;
use holdfast_proto::request::{AllowWipe, FormatVolume, WipeVolume};
use holdfast_proto::v1;
use holdfast_proto::v1::volume_service_server::VolumeService;
use tonic::{Request, Response, Status};

use super::{Services, begun};
use crate::api::control::Control;

#[tonic::async_trait]
impl<C: Control> VolumeService for Services<C> {
    async fn plan_volume(
        &self,
        _request: Request<v1::PlanVolumeRequest>,
    ) -> Result<Response<v1::PlanVolumeResponse>, Status> {
        let planned = self.control.plan_volume().await?;
        let devices = planned.iter().map(|device| device.to_wire()).collect();
        Ok(Response::new(v1::PlanVolumeResponse { devices }))
    }

    async fn format_volume(
        &self,
        request: Request<v1::FormatVolumeRequest>,
    ) -> Result<Response<v1::FormatVolumeResponse>, Status> {
        self.ensure_remote_format()?;
        let request = self.admit(request.into_inner(), |format: &FormatVolume| &format.target)?;
        let operation = self.control.format_volume(request).await?;
        Ok(Response::new(v1::FormatVolumeResponse { operation: begun(&operation) }))
    }

    async fn allow_wipe(
        &self,
        request: Request<v1::AllowWipeRequest>,
    ) -> Result<Response<v1::AllowWipeResponse>, Status> {
        self.ensure_remote_format()?;
        let request = self.admit(request.into_inner(), |allow: &AllowWipe| &allow.target)?;
        Ok(Response::new(self.control.allow_wipe(request).await?.to_wire()))
    }

    async fn wipe_volume(
        &self,
        request: Request<v1::WipeVolumeRequest>,
    ) -> Result<Response<v1::WipeVolumeResponse>, Status> {
        self.ensure_remote_format()?;
        let request = self.admit(request.into_inner(), |wipe: &WipeVolume| &wipe.target)?;
        let operation = self.control.wipe_volume(request).await?;
        Ok(Response::new(v1::WipeVolumeResponse { operation: begun(&operation) }))
    }
}
