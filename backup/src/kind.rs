//! Kinds and versions of every object that this crate writes; see `holdfast_model::record` for their frame.

use holdfast_model::record::RecordKind;

pub(crate) const CLUSTER: RecordKind = RecordKind { tag: *b"clus", version: 1, name: "cluster record" };
pub(crate) const REPO: RecordKind = RecordKind { tag: *b"repo", version: 1, name: "repository record" };
pub(crate) const RULE: RecordKind = RecordKind { tag: *b"rule", version: 1, name: "rule" };
pub(crate) const BEGIN: RecordKind = RecordKind { tag: *b"begn", version: 1, name: "backup begin record" };
pub(crate) const PIN: RecordKind = RecordKind { tag: *b"pin ", version: 1, name: "restore pin" };
pub(crate) const CONDEMNED: RecordKind = RecordKind { tag: *b"cond", version: 1, name: "condemned record" };
pub(crate) const PACK: RecordKind = RecordKind { tag: *b"pack", version: 1, name: "pack" };
pub(crate) const PAGE: RecordKind = RecordKind { tag: *b"page", version: 1, name: "manifest page" };
pub(crate) const MANIFEST: RecordKind = RecordKind { tag: *b"mani", version: 1, name: "manifest" };
pub(crate) const EVIDENCE: RecordKind = RecordKind { tag: *b"evid", version: 1, name: "evidence" };
pub(crate) const LOG: RecordKind = RecordKind { tag: *b"log ", version: 1, name: "log object" };
pub(crate) const RESTORE: RecordKind = RecordKind { tag: *b"rest", version: 1, name: "restore record" };
