//! Which process is the engine: written down before that process becomes it, read by the next agent.

use std::path::PathBuf;

use holdfast_model::record::RecordKind;
use serde::{Deserialize, Serialize};

use crate::child::lock::LockFile;
use crate::child::process::ProcessId;
use crate::helper::protocol::{EngineProgram, Prepared};
use crate::ledger::Record;

/// The engine that this node started last. It may never have run: the record is stored before the exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRecord {
    /// The process; exec keeps both numbers.
    pub process: ProcessId,
    /// The boot in which they mean something.
    pub boot_id: String,
    /// Server or initialisation.
    pub kind: EngineProgram,
    /// The program's file.
    pub program: PathBuf,
    /// The lock that it and all its children hold.
    pub lock: LockFile,
    /// Its cgroup as `/proc/PID/cgroup` shows it; none where there is no writable v2 hierarchy.
    pub cgroup: Option<String>,
}

impl Record for EngineRecord {
    const FILE: &'static str = "engine-process";
    const KIND: RecordKind = RecordKind { tag: *b"epro", version: 1, name: "engine-process" };
}

impl EngineRecord {
    /// Of a prepared stage.
    #[must_use]
    pub fn new(kind: EngineProgram, prepared: Prepared, boot_id: String) -> Self {
        let Prepared { process, lock, program, cgroup } = prepared;
        Self { process, boot_id, kind, program, lock, cgroup }
    }
}
