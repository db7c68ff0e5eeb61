//! `BackupService`: backups and shipped log.

use holdfast_proto::convert::Wire as _;
use holdfast_proto::v1;
use holdfast_proto::v1::backup_service_server::BackupService;
use tonic::{Request, Response, Status};

use super::{Services, begun};
use crate::api::control::Control;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1000;

const fn bounded(limit: u32) -> u32 {
    match limit {
        0 => LIMIT_DEFAULT,
        1..=LIMIT_MAX => limit,
        _ => LIMIT_MAX,
    }
}

#[tonic::async_trait]
impl<C: Control> BackupService for Services<C> {
    async fn create_backup(
        &self,
        request: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<v1::CreateBackupResponse>, Status> {
        let target = self.admit_target(request.into_inner().target)?;
        let operation = self.control.create_backup(target).await?;
        Ok(Response::new(v1::CreateBackupResponse { operation: begun(&operation) }))
    }

    async fn list_backups(
        &self,
        request: Request<v1::ListBackupsRequest>,
    ) -> Result<Response<v1::ListBackupsResponse>, Status> {
        let backups = self.control.list_backups(bounded(request.into_inner().limit)).await?;
        let backups = backups.iter().map(|backup| backup.to_wire()).collect();
        Ok(Response::new(v1::ListBackupsResponse { backups }))
    }

    async fn show_backup(
        &self,
        request: Request<v1::ShowBackupRequest>,
    ) -> Result<Response<v1::ShowBackupResponse>, Status> {
        let detail = self.control.show_backup(&request.into_inner().id).await?;
        Ok(Response::new(detail.to_wire()))
    }

    async fn get_log(
        &self,
        _request: Request<v1::GetLogRequest>,
    ) -> Result<Response<v1::GetLogResponse>, Status> {
        Ok(Response::new(self.control.log_status().await?.to_wire()))
    }
}
