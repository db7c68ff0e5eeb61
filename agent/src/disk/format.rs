//! Makes a device this node's next volume, whether the reconcile loop or a caller wants it.
//!
//! The incarnation is remembered before the device is written, so that a crash in between is never taken for an older
//! volume of this node. The root helper looks at the device again, and refuses one that is not what was seen.
//!
//! Not here: whether to format (`decide`, and what callers may do).

use std::time::Duration;

use holdfast_model::Incarnation;
use holdfast_model::status::OperationKind;
use holdfast_storage::ops::{Consent, FormatOrder, Response, Seen, Verb};

use crate::clock;
use crate::helper::{CallError, HelperClient};
use crate::ledger::{CurrentVolume, Ledger, LedgerError};
use crate::operations::{Operations, Ticket};

/// mkfs on a large disk, and the mount after it.
const FORMAT_DEADLINE: Duration = Duration::from_secs(300);

/// A new incarnation that is remembered, and nowhere on a disk yet.
#[derive(Debug)]
pub struct Formatting(FormatOrder);

impl Formatting {
    /// Draws an incarnation for what was seen, and remembers it.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing may be formatted then.
    pub fn begin(ledger: &Ledger, seen: Seen, consent: Consent) -> Result<Self, LedgerError> {
        let incarnation = Incarnation::from_random(clock::random_bits());
        CurrentVolume::begin(ledger, incarnation)?;
        Ok(Self(FormatOrder { seen, incarnation, created: clock::wall_clock(), consent }))
    }

    /// The operation as which it is observed.
    #[must_use]
    pub fn ticket(&self, operations: &Operations) -> Ticket {
        operations.begin(OperationKind::Format, "making a file system")
    }

    /// Formats the device and mounts it; how it ends is told through the ticket too.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn run(self, helper: &HelperClient, ticket: Ticket) -> Result<Response, CallError> {
        let incarnation = self.0.incarnation;
        let verb = Verb::Format(self.0);
        let failure = match helper.volume(verb, FORMAT_DEADLINE).await {
            Ok(Response::Mounted { device, identity }) => {
                ticket.end(Ok(format!("{} is incarnation {incarnation}", device.path.display())));
                return Ok(Response::Mounted { device, identity });
            }
            Ok(_) => CallError::Answer { verb: "format" },
            Err(err) => err,
        };
        ticket.end(Err(&failure));
        Err(failure)
    }
}
