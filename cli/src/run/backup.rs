//! `holdfast backup ..` and `log`.

use holdfast_proto::convert::{Wire as _, list_from_wire};
use holdfast_proto::reply::{Backup, BackupDetail, LogStatus};
use holdfast_proto::v1;

use super::{aim, follow};
use crate::args::BackupCommand;
use crate::client::Agent;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

pub(super) async fn run(agent: &Agent, command: BackupCommand, output: &mut Output) -> Result<(), Failure> {
    match command {
        BackupCommand::Create { wait } => {
            let request = v1::CreateBackupRequest { target: Some(aim(agent).await?.to_wire()) };
            let begun = agent.backup().create_backup(request).await?.into_inner();
            follow::begun(agent, begun.operation, wait, output).await
        }
        BackupCommand::List { limit } => {
            let answer = agent.backup().list_backups(v1::ListBackupsRequest { limit }).await?.into_inner();
            let backups: Vec<Backup> = list_from_wire("backups", answer.backups)?;
            output.answer(backups.as_slice(), render::backups)
        }
        BackupCommand::Show { id } => {
            let answer = agent.backup().show_backup(v1::ShowBackupRequest { id }).await?.into_inner();
            output.answer(&BackupDetail::from_wire(answer)?, render::backup_detail)
        }
    }
}

pub(super) async fn log(agent: &Agent, output: &mut Output) -> Result<(), Failure> {
    let answer = agent.backup().get_log(v1::GetLogRequest {}).await?.into_inner();
    output.answer(&LogStatus::from_wire(answer)?, render::log_status)
}
