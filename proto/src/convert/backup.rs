//! Backups and shipped log.

use holdfast_model::ByteCount;

use super::{Reader, Wire, position_to_wire};
use crate::reply::{Backup, BackupContent, BackupDetail, LogRange, LogStatus};
use crate::v1;

impl Wire for Backup {
    type Message = v1::Backup;

    fn to_wire(&self) -> v1::Backup {
        v1::Backup {
            id: self.id.clone(),
            member: self.member.to_string(),
            term: self.term.number(),
            start: position_to_wire(&self.start),
            stop: position_to_wire(&self.stop),
            started: self.started.clone(),
            finished: self.finished.clone(),
            engine_version: self.engine_version.clone(),
            data_bytes: self.data.bytes(),
            added_bytes: self.added.bytes(),
            parent: self.parent.clone(),
        }
    }

    fn read(reader: &mut Reader, message: v1::Backup) -> Option<Self> {
        let id = reader.filled("id", message.id);
        let member = reader.parse("member", &message.member);
        let term = reader.term("term", message.term);
        let start = reader.position("start", &message.start);
        let stop = reader.position("stop", &message.stop);
        Some(Self {
            id: id?,
            member: member?,
            term: term?,
            start: start?,
            stop: stop?,
            started: message.started,
            finished: message.finished,
            engine_version: message.engine_version,
            data: ByteCount::new(message.data_bytes),
            added: ByteCount::new(message.added_bytes),
            parent: message.parent,
        })
    }
}

impl Wire for BackupContent {
    type Message = v1::BackupContent;

    fn to_wire(&self) -> v1::BackupContent {
        v1::BackupContent {
            files: self.files,
            chunks: self.chunks,
            packs: self.packs,
            shares_with: self.shares_with.clone(),
        }
    }

    fn read(_reader: &mut Reader, message: v1::BackupContent) -> Option<Self> {
        Some(Self {
            files: message.files,
            chunks: message.chunks,
            packs: message.packs,
            shares_with: message.shares_with,
        })
    }
}

impl Wire for BackupDetail {
    type Message = v1::ShowBackupResponse;

    fn to_wire(&self) -> v1::ShowBackupResponse {
        v1::ShowBackupResponse { backup: Some(self.backup.to_wire()), content: Some(self.content.to_wire()) }
    }

    fn read(reader: &mut Reader, message: v1::ShowBackupResponse) -> Option<Self> {
        let backup = reader.required("backup", message.backup);
        let content = reader.required("content", message.content);
        Some(Self { backup: backup?, content: content? })
    }
}

impl Wire for LogRange {
    type Message = v1::LogRange;

    fn to_wire(&self) -> v1::LogRange {
        v1::LogRange {
            term: self.term.number(),
            start: position_to_wire(&self.start),
            end: position_to_wire(&self.end),
        }
    }

    fn read(reader: &mut Reader, message: v1::LogRange) -> Option<Self> {
        let term = reader.term("term", message.term);
        let start = reader.position("start", &message.start);
        let end = reader.position("end", &message.end);
        Some(Self { term: term?, start: start?, end: end? })
    }
}

impl Wire for LogStatus {
    type Message = v1::GetLogResponse;

    fn to_wire(&self) -> v1::GetLogResponse {
        v1::GetLogResponse {
            log: Some(self.log.to_wire()),
            ranges: self.ranges.iter().map(Wire::to_wire).collect(),
        }
    }

    fn read(reader: &mut Reader, message: v1::GetLogResponse) -> Option<Self> {
        let log = reader.required("log", message.log);
        let ranges = reader.list("ranges", message.ranges);
        Some(Self { log: log?, ranges: ranges? })
    }
}
