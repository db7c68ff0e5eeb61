//! The physical replication slot that keeps log on disk until it was shipped: without it the server recycles segments
//! at each checkpoint, and an object store that is away for a while would leave a gap for ever.
//!
//! How much it may hold back is capped by `max_slot_wal_keep_size`; beyond that the server drops what the slot needs,
//! and the shipper finds a gap.
//!
//! Invariant: `the_slot_for_shipping_holds_log_until_it_was_shipped` in `tests/slots.rs`.

use holdfast_model::Lsn;
use tokio_postgres::types::PgLsn;

use super::{Session, SessionError};

/// The slot's name. Slots are not part of a backup: a restored server has none until it is made again.
const SLOT: &str = "holdfast_ship";

impl Session {
    /// Makes the slot if it is not there; it holds log from now on.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn ensure_ship_slot(&self) -> Result<(), SessionError> {
        let sql = "SELECT pg_create_physical_replication_slot($1::name, true) \
            WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::name)";
        let made = self.within("make the slot for shipping", self.client().query(sql, &[&SLOT])).await?;
        drop(made);
        Ok(())
    }

    /// Lets go of log before `shipped`. Going back, or to where it is, changes nothing.
    ///
    /// # Errors
    /// [`SessionError`], also when the slot was lost by its cap.
    pub async fn advance_ship_slot(&self, shipped: Lsn) -> Result<(), SessionError> {
        let sql = "SELECT pg_replication_slot_advance(slot_name, $2) FROM pg_replication_slots \
            WHERE slot_name = $1::name AND restart_lsn < $2";
        let shipped = PgLsn::from(shipped.offset());
        let moved = self
            .within("advance the slot for shipping", self.client().query(sql, &[&SLOT, &shipped]))
            .await?;
        drop(moved);
        Ok(())
    }
}
